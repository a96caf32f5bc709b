// Sums over voxels for every shift of one of two images (matching.py).
#include <stdint.h>

#include "native.h"

#define LANES 4 // sums kept side by side, so that adding them up is vectorised by every compiler

// gains (blocks, shifts): the sum over a block's voxels x of f(x + d) * (a(x) + b(x) * f(x + d)).
// size: of a and b; wide: of f, which is padded so that first + shift is never negative.
EXPORTED void brainfusion_match(const float *restrict a, const float *restrict b, const int64_t *size,
                       const float *restrict f, const int64_t *wide, const int64_t *first, int64_t blocks,
                       const int64_t *edge, const int64_t *shift, int64_t shifts, float *restrict gains)
{
    for (int64_t c = 0; c < blocks; c++) {
        const int64_t *at = first + 3 * c;
        for (int64_t s = 0; s < shifts; s++) {
            const int64_t *d = shift + 3 * s;
            float part[LANES] = {0};
            for (int64_t k = at[0]; k < at[0] + edge[0]; k++) {
                for (int64_t j = at[1]; j < at[1] + edge[1]; j++) {
                    const float *pa = a + (k * size[1] + j) * size[2] + at[2];
                    const float *pb = b + (k * size[1] + j) * size[2] + at[2];
                    const float *pf = f + ((k + d[0]) * wide[1] + j + d[1]) * wide[2] + at[2] + d[2];
                    int64_t i = 0;
                    for (; i <= edge[2] - LANES; i += LANES)
                        for (int l = 0; l < LANES; l++)
                            part[l] += pf[i + l] * (pa[i + l] + pb[i + l] * pf[i + l]);
                    for (; i < edge[2]; i++)
                        part[0] += pf[i] * (pa[i] + pb[i] * pf[i]);
                }
            }
            gains[c * shifts + s] = (part[0] + part[1]) + (part[2] + part[3]);
        }
    }
}

// sums (shifts, blocks): the sum over a block's voxels x of table[a(x + d) * columns + b(x)].
// size: of b; wide: of a, which is padded so that first + shift is never negative.
EXPORTED void brainfusion_look_up_shifted(const uint8_t *restrict a, const int64_t *wide, const uint8_t *restrict b,
                                 const int64_t *size, const float *restrict table, int64_t columns,
                                 const int64_t *first, int64_t blocks, const int64_t *edge, const int64_t *shift,
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
EXPORTED void brainfusion_sum_around(const float *restrict image, const int64_t *wide, const int64_t *first, int64_t places,
                            const int64_t *box, double *restrict sums)
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
