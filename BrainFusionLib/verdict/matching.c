// The gain of every block at every shift (matching.py).
#include <stdint.h>

// gains (blocks, shifts): the sum over a block's voxels x of f(x + d) * (a(x) + b(x) * f(x + d)).
// size: of a and b; wide: of f, which is padded so that first + shift is never negative.
void brainfusion_match(const float *restrict a, const float *restrict b, const int64_t *size,
                       const float *restrict f, const int64_t *wide, const int64_t *first, int64_t blocks,
                       const int64_t *edge, const int64_t *shift, int64_t shifts, float *restrict gains)
{
    for (int64_t c = 0; c < blocks; c++) {
        const int64_t *at = first + 3 * c;
        for (int64_t s = 0; s < shifts; s++) {
            const int64_t *d = shift + 3 * s;
            float sum = 0;
            for (int64_t k = at[0]; k < at[0] + edge[0]; k++) {
                for (int64_t j = at[1]; j < at[1] + edge[1]; j++) {
                    const float *pa = a + (k * size[1] + j) * size[2] + at[2];
                    const float *pb = b + (k * size[1] + j) * size[2] + at[2];
                    const float *pf = f + ((k + d[0]) * wide[1] + j + d[1]) * wide[2] + at[2] + d[2];
                    for (int64_t i = 0; i < edge[2]; i++)
                        sum += pf[i] * (pa[i] + pb[i] * pf[i]);
                }
            }
            gains[c * shifts + s] = sum;
        }
    }
}
