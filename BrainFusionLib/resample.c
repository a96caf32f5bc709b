// Trilinear interpolation of a volume on another grid (resample.py).
#include <stdint.h>

// source: (K, J, I); size: I, J, K; m: 3x4, index ijk of the source from that of the target; target: its size I, J, K.
// More than half a voxel outside the source, the result is `outside`; up to there, it is the outermost voxel's value.
void brainfusion_resample(const float *restrict source, const int64_t *restrict size, const double *restrict m,
                          const int64_t *restrict target, float outside, float *restrict result)
{
    const int32_t ni = (int32_t)size[0], nj = (int32_t)size[1], nk = (int32_t)size[2];
    const double ei = ni - 0.5 + 1e-9, ej = nj - 0.5 + 1e-9, ek = nk - 0.5 + 1e-9, e0 = -0.5 - 1e-9;
    const int64_t row = ni, plane = (int64_t)ni * nj;
    for (int64_t k = 0; k < target[2]; k++) {
        for (int64_t j = 0; j < target[1]; j++) {
            const double x0 = m[1] * j + m[2] * k + m[3], y0 = m[5] * j + m[6] * k + m[7];
            const double z0 = m[9] * j + m[10] * k + m[11];
            for (int64_t i = 0; i < target[0]; i++, result++) {
                const double dx = x0 + m[0] * i, dy = y0 + m[4] * i, dz = z0 + m[8] * i;
                if (!(dx >= e0 && dx <= ei && dy >= e0 && dy <= ej && dz >= e0 && dz <= ek)) {
                    *result = outside;
                    continue;
                }
                const double x = dx < 0 ? 0 : dx > ni - 1 ? ni - 1 : dx;
                const double y = dy < 0 ? 0 : dy > nj - 1 ? nj - 1 : dy;
                const double z = dz < 0 ? 0 : dz > nk - 1 ? nk - 1 : dz;
                const int32_t a = (int32_t)x, b = (int32_t)y, c = (int32_t)z;
                const float fx = (float)(x - a), fy = (float)(y - b), fz = (float)(z - c);
                const float *p = source + c * plane + b * row + a;
                // At the last voxel, the weight of the next one is 0.
                const int64_t u = a < ni - 1, v = b < nj - 1 ? row : 0, w = c < nk - 1 ? plane : 0;
                const float front = (p[0] + fx * (p[u] - p[0])) * (1 - fy) + (p[v] + fx * (p[v + u] - p[v])) * fy;
                p += w;
                const float back = (p[0] + fx * (p[u] - p[0])) * (1 - fy) + (p[v] + fx * (p[v + u] - p[v])) * fy;
                *result = front + fz * (back - front);
            }
        }
    }
}
