// Trilinear interpolation of a volume on another grid (resample.py).
#include <math.h>
#include <stdint.h>

#include "native.h"

#define BLOCK 256 // so many values are computed at once

// Narrow a range of indices to those from which `start + step * index` is not below 0 and is below `end`. Between two
// such indices all are: rounding keeps the order.
static void narrow(double start, double step, double end, int64_t *first, int64_t *last)
{
    if (*first > *last) return;
    if (step != 0) {
        const double one = -start / step, other = (end - start) / step;
        const double low = one < other ? one : other, high = one < other ? other : one;
        if (low > (double)*first) *first = low < (double)*last ? (int64_t)low : *last;
        if (high < (double)*last) *last = high > (double)*first ? (int64_t)high + 1 : *first;
    }
    while (*first <= *last && !(start + step * *first >= 0 && start + step * *first < end)) ++*first;
    while (*first <= *last && !(start + step * *last >= 0 && start + step * *last < end)) --*last;
}

// The values at some places, each between eight voxels: from `at` the next ones lie `u`, `v` and `w` further, and so much
// of the way to them are `x`, `y` and `z`. In loops that compilers vectorise, but for the loads.
static inline void interpolate(const float *restrict source, const int64_t *restrict at, const float *restrict x,
                               const float *restrict y, const float *restrict z, int64_t u, int64_t v, int64_t w,
                               int n, float *restrict values)
{
    float near[8][BLOCK];
    for (int s = 0; s < n; s++) {
        const float *p = source + at[s];
        near[0][s] = p[0], near[1][s] = p[u], near[2][s] = p[v], near[3][s] = p[v + u];
        p += w;
        near[4][s] = p[0], near[5][s] = p[u], near[6][s] = p[v], near[7][s] = p[v + u];
    }
    for (int s = 0; s < n; s++) {
        const float a = near[0][s] + x[s] * (near[1][s] - near[0][s]);
        const float b = near[2][s] + x[s] * (near[3][s] - near[2][s]);
        const float c = near[4][s] + x[s] * (near[5][s] - near[4][s]);
        const float d = near[6][s] + x[s] * (near[7][s] - near[6][s]);
        const float front = a + y[s] * (b - a), back = c + y[s] * (d - c);
        values[s] = front + z[s] * (back - front);
    }
}

// source: (K, J, I); size: I, J, K; m: 3x4, index ijk of the source from that of the target; target: its size I, J, K.
// More than half a voxel outside the source, the result is `outside`; up to there, it is the outermost voxel's value.
EXPORTED void VARIANT(brainfusion_resample)(const float *restrict source, const int64_t *restrict size,
                                            const double *restrict m, const int64_t *restrict target, float outside,
                                            float *restrict result)
{
    const int32_t ni = (int32_t)size[0], nj = (int32_t)size[1], nk = (int32_t)size[2];
    const double ei = ni - 0.5 + 1e-9, ej = nj - 0.5 + 1e-9, ek = nk - 0.5 + 1e-9, e0 = -0.5 - 1e-9;
    // At the last voxel, interpolate from the one before it.
    const int32_t la = ni > 1 ? ni - 2 : 0, lb = nj > 1 ? nj - 2 : 0, lc = nk > 1 ? nk - 2 : 0;
    const int64_t row = ni, plane = (int64_t)ni * nj, u = ni > 1, v = nj > 1 ? row : 0, w = nk > 1 ? plane : 0;
    int64_t at[BLOCK];
    float fx[BLOCK], fy[BLOCK], fz[BLOCK];
    for (int64_t k = 0; k < target[2]; k++) {
        for (int64_t j = 0; j < target[1]; j++, result += target[0]) {
            const double x0 = m[1] * j + m[2] * k + m[3], y0 = m[5] * j + m[6] * k + m[7];
            const double z0 = m[9] * j + m[10] * k + m[11];
            int64_t first = 0, last = target[0] - 1;
            narrow(x0, m[0], la, &first, &last);
            narrow(y0, m[4], lb, &first, &last);
            narrow(z0, m[8], lc, &first, &last);
            for (int64_t i = first; i <= last; i += BLOCK) {
                const int n = (int)(last + 1 - i < BLOCK ? last + 1 - i : BLOCK);
                for (int s = 0; s < n; s++) {
                    const double step = (double)((int32_t)i + s);
                    const double x = x0 + m[0] * step, y = y0 + m[4] * step, z = z0 + m[8] * step;
                    const int32_t a = (int32_t)x, b = (int32_t)y, c = (int32_t)z;
                    fx[s] = (float)(x - a), fy[s] = (float)(y - b), fz[s] = (float)(z - c);
                    at[s] = c * plane + b * row + a;
                }
                interpolate(source, at, fx, fy, fz, u, v, w, n, result + i);
            }
            for (int64_t i = 0; i < target[0]; i++) {
                if (i == first && i <= last) i = last + 1;
                if (i == target[0]) break;
                const double dx = x0 + m[0] * i, dy = y0 + m[4] * i, dz = z0 + m[8] * i;
                if (!(dx >= e0 && dx <= ei && dy >= e0 && dy <= ej && dz >= e0 && dz <= ek)) {
                    result[i] = outside;
                    continue;
                }
                const double x = dx < 0 ? 0 : dx > ni - 1 ? ni - 1 : dx, y = dy < 0 ? 0 : dy > nj - 1 ? nj - 1 : dy;
                const double z = dz < 0 ? 0 : dz > nk - 1 ? nk - 1 : dz;
                const int32_t a = x < la ? (int32_t)x : la, b = y < lb ? (int32_t)y : lb, c = z < lc ? (int32_t)z : lc;
                at[0] = c * plane + b * row + a;
                fx[0] = (float)(x - a), fy[0] = (float)(y - b), fz[0] = (float)(z - c);
                interpolate(source, at, fx, fy, fz, u, v, w, 1, result + i);
            }
        }
    }
}

// points: (n, 3); m: 3x4, index ijk of the source from a point. Outside the outermost voxels' centres, NaN.
EXPORTED void VARIANT(brainfusion_sample)(const float *restrict source, const int64_t *restrict size,
                                          const double *restrict m, const double *restrict points, int64_t n,
                                          float *restrict values)
{
    const int64_t row = size[0], plane = size[0] * size[1];
    const int64_t step[3] = {size[0] > 1, size[1] > 1 ? row : 0, size[2] > 1 ? plane : 0}, along[3] = {1, row, plane};
    int64_t at[BLOCK];
    float part[3][BLOCK];
    int32_t inside[BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK, points += 3 * BLOCK, values += BLOCK) {
        const int some = (int)(n - first < BLOCK ? n - first : BLOCK);
        for (int s = 0; s < some; s++) at[s] = 0, inside[s] = 1;
        for (int axis = 0; axis < 3; axis++) {
            const double *r = m + 4 * axis, last = (double)(size[axis] - 1);
            const int32_t most = size[axis] > 1 ? (int32_t)size[axis] - 2 : 0;
            float *of = part[axis];
            for (int s = 0; s < some; s++) {
                const double *p = points + 3 * s, x = r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3];
                const int in = (x >= 0) & (x <= last);
                const double there = in ? x : 0;
                const int32_t whole = (int32_t)there, low = whole < most ? whole : most;
                inside[s] &= in;
                of[s] = (float)(there - low);
                at[s] += low * along[axis];
            }
        }
        interpolate(source, at, part[0], part[1], part[2], step[0], step[1], step[2], some, values);
        for (int s = 0; s < some; s++) values[s] = inside[s] ? values[s] : NAN;
    }
}
