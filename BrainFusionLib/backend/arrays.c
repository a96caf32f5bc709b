// Loops over whole volumes (native.py).
#include <stdint.h>
#include <string.h>

#include "native.h"

// Means of blocks of voxels. source: rows of `wide` voxels, `tall` rows in a plane; factors, target: K, J, I.
// line: memory for `target[2]` floats.
EXPORTED void VARIANT(brainfusion_pool)(const float *source, int64_t wide, int64_t tall, const int64_t *factors,
                                        const int64_t *target, float *line, float *result)
{
    const int64_t fk = factors[0], fj = factors[1], fi = factors[2], ni = target[2];
    const float share = 1.0f / (float)(fk * fj * fi);
    for (int64_t k = 0; k < target[0]; k++) {
        for (int64_t j = 0; j < target[1]; j++, result += ni) {
            memset(line, 0, sizeof(float) * (size_t)ni);
            for (int64_t dk = 0; dk < fk; dk++) {
                for (int64_t dj = 0; dj < fj; dj++) {
                    const float *p = source + ((k * fk + dk) * tall + j * fj + dj) * wide;
                    if (fi == 1)
                        for (int64_t i = 0; i < ni; i++) line[i] += p[i];
                    else if (fi == 2)
                        for (int64_t i = 0; i < ni; i++) line[i] += p[2 * i] + p[2 * i + 1];
                    else
                        for (int64_t i = 0; i < ni; i++)
                            for (int64_t di = 0; di < fi; di++) line[i] += p[i * fi + di];
                }
            }
            for (int64_t i = 0; i < ni; i++) result[i] = line[i] * share;
        }
    }
}

// The entry of a table of `steps` + 1 entries from `low` to `high` that is nearest to each value.
EXPORTED void VARIANT(brainfusion_cells)(const float *values, int64_t n, const uint8_t *table, int64_t steps,
                                         float low, float high, uint8_t *result)
{
    const float scale = high > low ? (float)steps / (high - low) : 0; // not infinite, where all values are one
    for (int64_t at = 0; at < n; at++) {
        const float value = values[at] > low ? (values[at] < high ? values[at] : high) : low;
        result[at] = table[(int32_t)((value - low) * scale + 0.5f)];
    }
}

// The number of edges below each value.
EXPORTED void VARIANT(brainfusion_bins)(const float *values, int64_t n, const float *edges, int64_t count,
                                        int32_t *result)
{
    memset(result, 0, sizeof(int32_t) * (size_t)n);
    for (int64_t first = 0; first < n; first += 1024) {
        const int64_t last = first + 1024 < n ? first + 1024 : n;
        for (int64_t e = 0; e < count; e++)
            for (int64_t at = first; at < last; at++) result[at] += edges[e] < values[at];
    }
}

// The rows (channels) of the voxels nearest to points, for several affines; `outside`: the row of what is not in the image.
// points: 3 x n; affines: 3 x 4 each, of voxel indices i, j, k; result: channels x n each.
EXPORTED void VARIANT(brainfusion_nearest)(const float *rows, int64_t channels, const int64_t *size,
                                           const float *affines, int64_t count, const float *points, int64_t n,
                                           float *result)
{
    const float ni = (float)size[0], nj = (float)size[1], nk = (float)size[2];
    const int64_t outside = size[0] * size[1] * size[2];
    for (int64_t q = 0; q < count; q++, result += channels * n) {
        const float *a = affines + 12 * q;
        for (int64_t s = 0; s < n; s++) {
            const float x = points[s], y = points[n + s], z = points[2 * n + s];
            const float i = a[0] * x + a[1] * y + a[2] * z + a[3] + 0.5f;
            const float j = a[4] * x + a[5] * y + a[6] * z + a[7] + 0.5f;
            const float k = a[8] * x + a[9] * y + a[10] * z + a[11] + 0.5f;
            const int in = (i >= 0) & (j >= 0) & (k >= 0) & (i < ni) & (j < nj) & (k < nk);
            const int64_t at = in ? ((int64_t)k * size[1] + (int64_t)j) * size[0] + (int64_t)i : outside;
            for (int64_t c = 0; c < channels; c++) result[c * n + s] = rows[at * channels + c];
        }
    }
}
