// Connected pieces of a mask, and distances to it (pieces.py).
#include <stdint.h>

#include "native.h"

static uint32_t root_of(uint32_t *labels, uint32_t at)
{
    while (labels[at] != at + 1) {
        labels[at] = labels[labels[at] - 1]; // shortens the way for the next one
        at = labels[at] - 1;
    }
    return at;
}

// Number the connected pieces of a mask from 1, by their first voxels; the number of pieces is returned. `corners`: not
// only voxels that share a face are connected, but all of the 26 around one. size: K, J, I, less than 2^32 - 1 voxels.
// labels (K, J, I): 0 outside the mask; on the way, 1 more than the index of an earlier voxel of the same piece.
EXPORTED int64_t VARIANT(brainfusion_pieces)(const uint8_t *mask, const int64_t *size, int64_t corners,
                                             uint32_t *labels)
{
    const int64_t nk = size[0], nj = size[1], ni = size[2];
    // The neighbours that come before a voxel, as steps along k, j, i; the first three share a face.
    static const int8_t step[13][3] = {
        {0, 0, -1}, {0, -1, 0}, {-1, 0, 0}, {0, -1, -1}, {0, -1, 1}, {-1, -1, -1}, {-1, -1, 0}, {-1, -1, 1},
        {-1, 0, -1}, {-1, 0, 1}, {-1, 1, -1}, {-1, 1, 0}, {-1, 1, 1},
    };
    uint32_t at = 0;
    for (int64_t k = 0; k < nk; k++)
        for (int64_t j = 0; j < nj; j++)
            for (int64_t i = 0; i < ni; i++, at++) {
                labels[at] = mask[at] ? at + 1 : 0;
                if (!mask[at]) continue;
                for (int n = 0; n < (corners ? 13 : 3); n++) {
                    const int64_t a = k + step[n][0], b = j + step[n][1], c = i + step[n][2];
                    if (a < 0 || b < 0 || c < 0 || b >= nj || c >= ni) continue;
                    const uint32_t other = (uint32_t)((a * nj + b) * ni + c);
                    if (!mask[other]) continue;
                    const uint32_t one = root_of(labels, at), two = root_of(labels, other);
                    if (one < two)
                        labels[two] = one + 1;
                    else
                        labels[one] = two + 1;
                }
            }
    uint32_t pieces = 0;
    // An earlier voxel has its piece's number already.
    for (uint32_t v = 0; v < at; v++)
        if (labels[v]) labels[v] = labels[v] == v + 1 ? ++pieces : labels[labels[v] - 1];
    return pieces;
}

// The squared distance of each voxel from the nearest one of a mask that is not empty, one axis after the other.
// size: K, J, I; spacing: along them; line: as many numbers as the longest axis has voxels; squared (K, J, I).
EXPORTED void VARIANT(brainfusion_distances)(const uint8_t *mask, const int64_t *size, const double *spacing,
                                             double *line, double *squared)
{
    const int64_t stride[3] = {size[1] * size[2], size[2], 1}, count = size[0] * stride[0];
    for (int64_t v = 0; v < count; v++) squared[v] = mask[v] ? 0 : 1e30;
    for (int axis = 0; axis < 3; axis++) {
        const int64_t n = size[axis], along = stride[axis];
        for (int64_t v = 0; v < count; v++) {
            if (v / along % n) continue; // each line begins once
            double *first = squared + v;
            for (int64_t i = 0; i < n; i++) line[i] = 1e30;
            for (int64_t other = 0; other < n; other++) {
                const double there = first[other * along];
                if (there >= 1e30) continue;
                for (int64_t i = 0; i < n; i++) {
                    const double apart = spacing[axis] * (double)(i - other), total = there + apart * apart;
                    line[i] = total < line[i] ? total : line[i];
                }
            }
            for (int64_t i = 0; i < n; i++) first[i * along] = line[i];
        }
    }
}
