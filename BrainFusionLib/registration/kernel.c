/* The inner loops of registration; backend/native.py calls this. backend/plain.py computes the same with numpy and
 * backend/on_torch.py with torch; tests compare the three.
 *
 * Samples are processed in blocks that fit the L1 cache, by a sequence of simple loops that compilers vectorise: 12 ns
 * per sample instead of 40 for one loop that does everything.
 */

#include <stdint.h>
#include <string.h>

#include "native.h"

#define BLOCK 256
#define WHOLE 256 /* parts of a sample */
#define LANES 4 /* sums kept side by side, so that adding them up is vectorised by every compiler */

/* Find the histogram cell of every sample in the moving image, for several poses.
 *
 * points   3 x n, float: samples relative to the fixed image's centre, mm.
 * rows     n, int32: first cell of each sample's row of the joint histogram.
 * affines  poses x 3 x 4, double: moving voxel index (i, j, k) from a point.
 * volume   K x J x I, uint8: the moving image in steps of a histogram cell.
 * cells    number of cells of the joint histogram; cell number `cells` stands for outside the moving image.
 * counts   poses x (cells + 1), int32, out: WHOLE for each sample, shared between the two cells around its value. Counted
 *          in the nearest cell, the score would jump as a pose moves, and a search would end where it jumps.
 * cell     poses x n, float, out: a sample's place in the histogram, in cells.
 * slope    poses x 3 x n, float, out: derivative of the moving image by (i, j, k), in cells; NULL if not needed.
 */
EXPORTED void VARIANT(brainfusion_look_up)(const float *points, const int32_t *rows, int64_t n, const double *affines,
                                           int64_t poses, const uint8_t *volume, const int64_t *size_ijk,
                                           int64_t cells, int32_t *counts, float *cell, float *slope)
{
    const int32_t ni = (int32_t)size_ijk[0], nj = (int32_t)size_ijk[1], nk = (int32_t)size_ijk[2];
    const int64_t row = ni, plane = (int64_t)ni * nj;
    memset(counts, 0, sizeof(int32_t) * (size_t)(poses * (cells + 1)));
    for (int64_t q = 0; q < poses; q++) {
        float a[12];
        for (int m = 0; m < 12; m++) a[m] = (float)affines[12 * q + m];
        int32_t *count = counts + q * (cells + 1);
        for (int64_t first = 0; first < n; first += BLOCK) {
            const int m = (int)(n - first < BLOCK ? n - first : BLOCK);
            const float *x = points + first, *y = points + n + first, *z = points + 2 * n + first;
            const int32_t *r = rows + first;
            float *c = cell + q * n + first;
            float u[BLOCK], v[BLOCK], w[BLOCK];
            int32_t inside[BLOCK];
            int32_t i0[BLOCK], j0[BLOCK], k0[BLOCK];
            uint16_t p00[BLOCK], p01[BLOCK], p10[BLOCK], p11[BLOCK];

            for (int s = 0; s < m; s++) {
                const float i = a[0] * x[s] + a[1] * y[s] + a[2] * z[s] + a[3];
                const float j = a[4] * x[s] + a[5] * y[s] + a[6] * z[s] + a[7];
                const float k = a[8] * x[s] + a[9] * y[s] + a[10] * z[s] + a[11];
                const int in = (i >= 0) & (j >= 0) & (k >= 0) & (i <= (float)(ni - 1)) & (j <= (float)(nj - 1)) &
                               (k <= (float)(nk - 1));
                const float ii = in ? i : 0, jj = in ? j : 0, kk = in ? k : 0;
                /* At the last voxel, interpolate from the one before it. */
                int32_t i1 = (int32_t)ii, j1 = (int32_t)jj, k1 = (int32_t)kk;
                i1 = i1 > ni - 2 ? ni - 2 : i1;
                j1 = j1 > nj - 2 ? nj - 2 : j1;
                k1 = k1 > nk - 2 ? nk - 2 : k1;
                u[s] = ii - (float)i1, v[s] = jj - (float)j1, w[s] = kk - (float)k1;
                i0[s] = i1, j0[s] = j1, k0[s] = k1;
                inside[s] = in;
            }
            for (int s = 0; s < m; s++) {
                /* Two neighbours along a row in one load. */
                const uint8_t *p = volume + k0[s] * plane + j0[s] * row + i0[s];
                memcpy(p00 + s, p, 2);
                memcpy(p01 + s, p + row, 2);
                memcpy(p10 + s, p + plane, 2);
                memcpy(p11 + s, p + plane + row, 2);
            }
            float *gi = slope ? slope + 3 * q * n + first : 0;
            for (int s = 0; s < m; s++) {
                const float a0 = (float)(p00[s] & 255), a1 = (float)(p01[s] & 255);
                const float a2 = (float)(p10[s] & 255), a3 = (float)(p11[s] & 255);
                const float d0 = (float)(p00[s] >> 8) - a0, d1 = (float)(p01[s] >> 8) - a1;
                const float d2 = (float)(p10[s] >> 8) - a2, d3 = (float)(p11[s] >> 8) - a3;
                const float c0 = a0 + u[s] * d0, c1 = a1 + u[s] * d1, c2 = a2 + u[s] * d2, c3 = a3 + u[s] * d3;
                const float b0 = c0 + v[s] * (c1 - c0), b1 = c2 + v[s] * (c3 - c2);
                const float value = b0 + w[s] * (b1 - b0);
                c[s] = inside[s] ? (float)r[s] + value : (float)cells;
                if (gi) {
                    const float e0 = d0 + v[s] * (d1 - d0), e1 = d2 + v[s] * (d3 - d2);
                    gi[s] = e0 + w[s] * (e1 - e0);
                    gi[n + s] = (c1 - c0) + w[s] * ((c3 - c2) - (c1 - c0));
                    gi[2 * n + s] = b1 - b0;
                }
            }
            for (int s = 0; s < m; s++) {
                const int32_t below = (int32_t)c[s] - (c[s] >= (float)cells);
                const int32_t part = (int32_t)((c[s] - (float)below) * WHOLE + 0.5f);
                count[below] += WHOLE - part;
                count[below + 1] += part;
            }
        }
    }
}

/* Sum the score's derivatives over the samples of each pose. In double: a difference of 1e-10 in a gradient, by
 * another order of the sums, grows to .02 mm in a pose found, and other backends have another order.
 *
 * table    poses x (cells + 1), float: the score's derivative by a sample's cell; 0 in the last one.
 * out      poses x 4 x 3, double: the sum of t g, x t g, y t g and z t g, for a sample's slope g and its table entry t.
 */
EXPORTED void VARIANT(brainfusion_pull)(const float *points, int64_t n, int64_t poses, const float *cell,
                                        const float *slope, const float *table, int64_t cells, double *out)
{
    for (int64_t q = 0; q < poses; q++) {
        const float *t = table + q * (cells + 1);
        double total[12] = {0};
        for (int64_t first = 0; first < n; first += BLOCK) {
            const int m = (int)(n - first < BLOCK ? n - first : BLOCK);
            const float *p = points + first, *g = slope + 3 * q * n + first;
            const float *c = cell + q * n + first;
            float pull[BLOCK];
            double x[BLOCK], y[BLOCK], z[BLOCK];
            for (int s = 0; s < m; s++) {
                const int32_t below = (int32_t)c[s] - (c[s] >= (float)cells);
                pull[s] = t[below] + (c[s] - (float)below) * (t[below + 1] - t[below]);
                x[s] = p[s], y[s] = p[n + s], z[s] = p[2 * n + s];
            }
            const int whole = m / LANES * LANES;
            for (int axis = 0; axis < 3; axis++) {
                const float *ga = g + axis * n;
                double s0[LANES] = {0}, sx[LANES] = {0}, sy[LANES] = {0}, sz[LANES] = {0};
                for (int s = 0; s < m; s += LANES) {
                    const int some = s < whole ? LANES : m - whole;
                    for (int l = 0; l < some; l++) {
                        const double tg = pull[s + l] * ga[s + l];
                        s0[l] += tg;
                        sx[l] += x[s + l] * tg;
                        sy[l] += y[s + l] * tg;
                        sz[l] += z[s + l] * tg;
                    }
                }
                for (int l = 0; l < LANES; l++) {
                    total[axis] += s0[l];
                    total[3 + axis] += sx[l];
                    total[6 + axis] += sy[l];
                    total[9 + axis] += sz[l];
                }
            }
        }
        memcpy(out + 12 * q, total, sizeof total);
    }
}
