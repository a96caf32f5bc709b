// Trilinear interpolation of a volume on another grid (resample.py).
#include <math.h>
#include <stdint.h>

#include "native.h"

// The value between four voxels of a plane: `u` and `v` lead to the next one along a row and along a column.
static inline float between(const float *p, int64_t u, int64_t v, float x, float y)
{
    const float first = p[0] + x * (p[u] - p[0]), second = p[v] + x * (p[v + u] - p[v]);
    return first + y * (second - first);
}

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

// source: (K, J, I); size: I, J, K; m: 3x4, index ijk of the source from that of the target; target: its size I, J, K.
// More than half a voxel outside the source, the result is `outside`; up to there, it is the outermost voxel's value.
EXPORTED void brainfusion_resample(const float *restrict source, const int64_t *restrict size, const double *restrict m,
                          const int64_t *restrict target, float outside, float *restrict result)
{
    const int32_t ni = (int32_t)size[0], nj = (int32_t)size[1], nk = (int32_t)size[2];
    const double ei = ni - 0.5 + 1e-9, ej = nj - 0.5 + 1e-9, ek = nk - 0.5 + 1e-9, e0 = -0.5 - 1e-9;
    // At the last voxel, interpolate from the one before it.
    const int32_t la = ni > 1 ? ni - 2 : 0, lb = nj > 1 ? nj - 2 : 0, lc = nk > 1 ? nk - 2 : 0;
    const int64_t row = ni, plane = (int64_t)ni * nj, u = ni > 1, v = nj > 1 ? row : 0, w = nk > 1 ? plane : 0;
    for (int64_t k = 0; k < target[2]; k++) {
        for (int64_t j = 0; j < target[1]; j++, result += target[0]) {
            const double x0 = m[1] * j + m[2] * k + m[3], y0 = m[5] * j + m[6] * k + m[7];
            const double z0 = m[9] * j + m[10] * k + m[11];
            int64_t first = 0, last = target[0] - 1;
            narrow(x0, m[0], la, &first, &last);
            narrow(y0, m[4], lb, &first, &last);
            narrow(z0, m[8], lc, &first, &last);
            for (int64_t i = 0; i < target[0]; i++) {
                const double dx = x0 + m[0] * i, dy = y0 + m[4] * i, dz = z0 + m[8] * i;
                double x = dx, y = dy, z = dz;
                int32_t a, b, c;
                if (i >= first && i <= last) {
                    a = (int32_t)x, b = (int32_t)y, c = (int32_t)z;
                } else {
                    if (!(dx >= e0 && dx <= ei && dy >= e0 && dy <= ej && dz >= e0 && dz <= ek)) {
                        result[i] = outside;
                        continue;
                    }
                    x = dx < 0 ? 0 : dx > ni - 1 ? ni - 1 : dx;
                    y = dy < 0 ? 0 : dy > nj - 1 ? nj - 1 : dy;
                    z = dz < 0 ? 0 : dz > nk - 1 ? nk - 1 : dz;
                    a = x < la ? (int32_t)x : la, b = y < lb ? (int32_t)y : lb, c = z < lc ? (int32_t)z : lc;
                }
                const float fx = (float)(x - a), fy = (float)(y - b), fz = (float)(z - c);
                const float *p = source + c * plane + b * row + a;
                const float front = between(p, u, v, fx, fy), back = between(p + w, u, v, fx, fy);
                result[i] = front + fz * (back - front);
            }
        }
    }
}

// points: (n, 3); m: 3x4, index ijk of the source from a point. Outside the outermost voxels' centres, NaN.
EXPORTED void brainfusion_sample(const float *restrict source, const int64_t *restrict size, const double *restrict m,
                        const double *restrict points, int64_t n, float *restrict values)
{
    const int64_t row = size[0], plane = size[0] * size[1];
    for (int64_t at = 0; at < n; at++) {
        const double *p = points + 3 * at;
        double part[3];
        int64_t low[3], step[3] = {1, row, plane};
        int inside = 1;
        for (int axis = 0; axis < 3; axis++) {
            const double *r = m + 4 * axis, x = r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3];
            inside &= x >= 0 && x <= size[axis] - 1;
            low[axis] = inside ? (int64_t)x : 0;
            if (size[axis] == 1)
                step[axis] = 0;
            else if (low[axis] > size[axis] - 2)
                low[axis] = size[axis] - 2;
            part[axis] = x - low[axis];
        }
        if (!inside) {
            values[at] = NAN;
            continue;
        }
        const float *s = source + low[2] * plane + low[1] * row + low[0];
        const float x = (float)part[0], y = (float)part[1], z = (float)part[2];
        const float front = between(s, step[0], step[1], x, y), back = between(s + step[2], step[0], step[1], x, y);
        values[at] = front + z * (back - front);
    }
}
