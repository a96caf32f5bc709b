// Sums over voxels for every shift of one of two images (matching.py).
#include <stdint.h>
#include <string.h>

#include "native.h"

#define LANES 4 // sums of one shift, in turn; as in matching.py
#define SIDE 8 // shifts that are tried side by side; as in matching.py

// gains (blocks, shifts): the sum over a block's voxels x of f(x + d) * (a(x) + b(x) * f(x + d)).
// size: of a and b; wide: of f, which is padded so that first + shift is never negative, and by SIDE - 1 more at the end
// of its rows. run (runs + 1): index of the first of up to SIDE shifts that follow each other along a row, and at last
// the number of shifts; step (runs): how far that first one leads in f. sums: memory for runs * LANES * SIDE floats.
// All shifts of a voxel are tried before the next voxel: a sum waits for the one before it, its neighbours do not.
EXPORTED void VARIANT(brainfusion_match)(const float *restrict a, const float *restrict b, const int64_t *size,
                                         const float *restrict f, const int64_t *wide, const int64_t *first,
                                         int64_t blocks, const int64_t *edge, const int64_t *run, const int64_t *step,
                                         int64_t runs, float *restrict sums, float *restrict gains)
{
    const int64_t whole = edge[2] / LANES * LANES;
    for (int64_t c = 0; c < blocks; c++, gains += run[runs]) {
        const int64_t *at = first + 3 * c;
        memset(sums, 0, sizeof(float) * (size_t)(runs * LANES * SIDE));
        for (int64_t k = at[0]; k < at[0] + edge[0]; k++)
            for (int64_t j = at[1]; j < at[1] + edge[1]; j++)
                for (int64_t i = 0; i < edge[2]; i++) {
                    const int64_t here = (k * size[1] + j) * size[2] + at[2] + i;
                    const float *line = f + (k * wide[1] + j) * wide[2] + at[2] + i, x = a[here], y = b[here];
                    float *sum = sums + (i < whole ? i % LANES : 0) * SIDE;
                    for (int64_t r = 0; r < runs; r++, sum += LANES * SIDE)
                        for (int t = 0; t < SIDE; t++)
                            sum[t] += line[step[r] + t] * (x + y * line[step[r] + t]);
                }
        for (int64_t r = 0; r < runs; r++) {
            const float *p = sums + r * LANES * SIDE;
            for (int64_t s = run[r]; s < run[r + 1]; s++, p++)
                gains[s] = (p[0] + p[SIDE]) + (p[2 * SIDE] + p[3 * SIDE]);
        }
    }
}

// sums (shifts, blocks): the sum over a block's voxels x of table[a(x + d) * columns + b(x)].
// size: of b; wide: of a, which is padded so that first + shift is never negative.
EXPORTED void VARIANT(brainfusion_look_up_shifted)(const uint8_t *restrict a, const int64_t *wide,
                                                   const uint8_t *restrict b, const int64_t *size,
                                                   const float *restrict table, int64_t columns, const int64_t *first,
                                                   int64_t blocks, const int64_t *edge, const int64_t *shift,
                                                   int64_t shifts, float *restrict sums)
{
    for (int64_t c = 0; c < blocks; c++) {
        const int64_t *at = first + 3 * c;
        for (int64_t s = 0; s < shifts; s++) {
            const int64_t *d = shift + 3 * s;
            float sum = 0;
            for (int64_t k = at[0]; k < at[0] + edge[0]; k++) {
                for (int64_t j = at[1]; j < at[1] + edge[1]; j++) {
                    const uint8_t *pa = a + ((k + d[0]) * wide[1] + j + d[1]) * wide[2] + at[2] + d[2];
                    const uint8_t *pb = b + (k * size[1] + j) * size[2] + at[2];
                    for (int64_t i = 0; i < edge[2]; i++)
                        sum += table[pa[i] * columns + pb[i]];
                }
            }
            sums[s * blocks + c] = sum;
        }
    }
}

// sums (reach): the sum of image(x + d) over the places x, for every d in a box; first: index of x + (0, 0, 0).
EXPORTED void VARIANT(brainfusion_sum_around)(const float *restrict image, const int64_t *wide, const int64_t *first,
                                              int64_t places, const int64_t *box, double *restrict sums)
{
    for (int64_t n = 0; n < places; n++) {
        double *sum = sums;
        for (int64_t k = 0; k < box[0]; k++)
            for (int64_t j = 0; j < box[1]; j++, sum += box[2]) {
                const float *line = image + first[n] + (k * wide[1] + j) * wide[2];
                for (int64_t i = 0; i < box[2]; i++)
                    sum[i] += line[i];
            }
    }
}
