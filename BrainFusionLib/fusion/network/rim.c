/* The weight map of FusionNetAlpha, computed only where it can differ from 0 and 1: at the bone rim.
 *
 * rim.py calls this. alpha.py and edges.py compute the same with torch, for the whole slice; a test compares the two.
 * Built once for every processor and again for AVX2 and AVX-512, to the same results (5.6 ms a slice instead of 11.7).
 *
 * Images have a border of 0, and so do features (one set per cell of 2 by 2 pixels): everything outside is 0.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "native.h"

#define BORDER 2      /* pixels around an image; half as many cells */
#define LANES 16      /* channels, or pixels, processed at once */
#define FEW 8         /* pixels processed at once by the plain steps: the rim is narrow */
#define TOGETHER 6    /* cells computed for each load of a weight: as many sums as fit in registers; see convolve */
#define SEEN_CHANNELS 7
#define PLANES 15

/* The constants of weight_map.py and edges.py, in this order; after them come the rates of the plain steps. */
typedef struct {
    float tiny, corner, strength[3], direction[3], squash[2], darkening, price, plain_steps;
} Constants;

typedef struct {
    int64_t rows, columns, cell_rows, cell_columns, wide, cells_wide, blocks;
    float *plane[PLANES];
    float *conv1_out, *conv2_out;
    uint8_t *free, *spread, *head_cells, *conv2_cells, *conv1_cells, *near; /* the last four mark cells */
    int32_t *run, *list[3]; /* the cells of conv1, conv2 and head */
} Workspace;

/* Images; the first seven are the inputs of the network, in its order. */
enum { CT, MRI, BONE, FIRST, ALPHA, NEAR_SQUASHED, FAR_SQUASHED, FUSED, CT_STRENGTH, CT_TURN, MRI_STRENGTH, MRI_TURN, BY_X, BY_Y, BEND };

static int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/* Lay out the arrays for slices of this size in `memory`; with NULL, only count the bytes. */
static int64_t allocate(Workspace *space, char *memory, int64_t rows, int64_t columns, int64_t blocks)
{
    int64_t at = 0;
    space->rows = rows, space->columns = columns, space->blocks = blocks;
    space->cell_rows = rows / 2, space->cell_columns = columns / 2;
    space->wide = columns + 2 * BORDER, space->cells_wide = space->cell_columns + BORDER;
    const int64_t pixels = space->wide * (rows + 2 * BORDER), cells = space->cells_wide * (space->cell_rows + BORDER);
#define TAKE(pointer, count, type) (pointer = (type *)(memory + at), at += whole_lines((int64_t)sizeof(type) * (count)))
    for (int p = 0; p < PLANES; p++) TAKE(space->plane[p], pixels, float);
    TAKE(space->conv1_out, cells * blocks * LANES, float);
    TAKE(space->conv2_out, cells * blocks * LANES, float);
    TAKE(space->free, pixels, uint8_t);
    TAKE(space->spread, pixels, uint8_t);
    TAKE(space->head_cells, cells, uint8_t);
    TAKE(space->conv2_cells, cells, uint8_t);
    TAKE(space->conv1_cells, cells, uint8_t);
    TAKE(space->near, cells, uint8_t);
    for (int layer = 0; layer < 3; layer++) TAKE(space->list[layer], cells + TOGETHER, int32_t);
    TAKE(space->run, 2 * rows * (columns / 4 + 1), int32_t);
#undef TAKE
    return at;
}

static inline float from_bits(int32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* 1 / (1 + exp(-x)), -80 to 80; relative error 2e-7. Coefficients: minimax fit of 2^x, -1/2 to 1/2. */
static inline float sigmoid(float x)
{
    const float y = -1.44269504f * x;
    const int32_t n = (int32_t)(y + (y < 0 ? -0.5f : 0.5f));
    const float r = y - (float)n;
    const float p = 0.693147203f +
                    r * (0.240226479f +
                         r * (0.0555033247f + r * (0.00961843737f + r * (0.00133988749f + r * 0.000153533607f))));
    return 1 / (1 + (1 + r * p) * from_bits((int32_t)((uint32_t)(n + 127) << 23)));
}

/* Angle of a line, -pi/2 to pi/2: atan2(y, x), modulo half a turn; 0 for no line; error 2e-7.
 * Coefficients: minimax fit of atan(t), 0 to tan(pi/8). */
static inline float angle_of(float y, float x)
{
    const float across = x < 0 ? -x : x, up = y < 0 ? -y : y;
    const float small = up < across ? up : across, big = up < across ? across : up;
    const int steep = up > across, middle = small > 0.414213562f * big;
    const float over = middle ? small - big : small, under = middle ? small + big : big;
    const float t = over / (under > 0 ? under : 1), z = t * t;
    float angle = t + t * z * (-0.333329552f + z * (0.199779257f + z * (-0.13879846f + z * 0.0806029706f)));
    angle += middle ? 0.785398163f : 0;
    angle = steep ? 1.57079633f - angle : angle;
    return (((x < 0) != (y < 0)) & (across > 0)) ? -angle : angle;
}

/* Sobel's differences, exactly 0 in flat areas. */
static inline float step_x(const float *p, int64_t wide)
{
    return (p[1 - wide] + 2 * p[1] + p[1 + wide]) - (p[-1 - wide] + 2 * p[-1] + p[-1 + wide]);
}

static inline float step_y(const float *p, int64_t wide)
{
    return (p[wide - 1] + 2 * p[wide] + p[wide + 1]) - (p[-wide - 1] + 2 * p[-wide] + p[-wide + 1]);
}

static void edges(const Workspace *space, int64_t runs, const float *image, float *strength, float *turn, float tiny)
{
    for (int64_t r = 0; r < runs; r++) {
        const int64_t at = space->run[r];
        const float *p = image + at;
        for (int s = 0; s < LANES; s++) {
            const float x = step_x(p + s, space->wide), y = step_y(p + s, space->wide);
            strength[at + s] = sqrtf(x * x + y * y + tiny);
            turn[at + s] = angle_of(y, x);
        }
    }
}

/* Add the derivatives of one source's preserved edges by the strength and direction of the fused slice's edges, and
 * how they bend: edges.slopes_by_steps. */
static inline void add_slopes(const Constants *c, float source, float source_turn, float strength, float turn,
                              float *by_strength, float *by_direction, float *bend)
{
    const float pi = 3.14159265f;
    const int weaker = strength < source;
    const float ratio = weaker ? strength / source : source / strength;
    float d = source_turn - turn;
    d -= d > pi / 2 ? pi : 0;
    d += d < -pi / 2 ? pi : 0;
    const float size = d < 0 ? -d : d, off = d / c->corner, sign = off < -1 ? -1 : off > 1 ? 1 : off;
    const float below = (1 - ratio) / c->corner, corner = below < 1 ? below : 1;
    const float qs = sigmoid((ratio - c->strength[2]) * -c->strength[1]);
    const float qd = sigmoid((1 - size * (2 / pi) - c->direction[2]) * -c->direction[1]);
    const float q = source * qs * qd * (c->strength[0] * c->direction[0]);
    const float by_ratio = weaker ? 1 / source : -ratio / strength;
    const float per_ratio = q * (1 - qs) * -c->strength[1], per_turn = q * (1 - qd) * -c->direction[1] * (2 / pi);
    *bend += per_turn / (strength * strength * (size + c->corner)) + per_ratio * by_ratio * by_ratio / (1 - ratio + c->corner);
    *by_strength += per_ratio * by_ratio * corner;
    *by_direction += per_turn * sign;
}

/* The most that the CT may weigh in what is not bone: weight_map.greatest_weight. */
static inline float greatest_weight(const Constants *c, float difference)
{
    return -difference > c->darkening ? c->darkening / -difference : 1;
}

/* The slope of the total edge preservation by the fused slice's steps. */
static inline void slopes_by_steps(const Workspace *space, int64_t runs, int length, const Constants *c)
{
    const int64_t wide = space->wide;
    float *const *plane = space->plane;
    for (int64_t r = 0; r < runs; r++) {
        const int64_t at = space->run[r];
        const float *p = plane[FUSED] + at;
        for (int s = 0; s < length; s++) {
            const float x = step_x(p + s, wide), y = step_y(p + s, wide);
            const float square = x * x + y * y + c->tiny, strength = sqrtf(square), turn = angle_of(y, x);
            float by_strength = 0, by_direction = 0, bend = 0;
            add_slopes(c, plane[CT_STRENGTH][at + s], plane[CT_TURN][at + s], strength, turn, &by_strength, &by_direction, &bend);
            add_slopes(c, plane[MRI_STRENGTH][at + s], plane[MRI_TURN][at + s], strength, turn, &by_strength, &by_direction, &bend);
            const float outwards = by_strength / strength, around = by_direction / square;
            plane[BY_X][at + s] = outwards * x - around * y;
            plane[BY_Y][at + s] = outwards * y + around * x;
            if (length == FEW) plane[BEND][at + s] = bend; /* only plain steps ask */
        }
    }
}

/* That slope by the weight of a pixel. */
static inline float slope_at(const Workspace *space, int64_t at)
{
    const float *x = space->plane[BY_X] + at, *y = space->plane[BY_Y] + at;
    return -(step_x(x, space->wide) + step_y(y, space->wide)) * (space->plane[CT][at] - space->plane[MRI][at]);
}

/* How much this slope bends on the way to the nearest tops: edges.slope_and_bend. */
static inline float bend_at(const Workspace *space, int64_t at)
{
    const int64_t wide = space->wide;
    const float *b = space->plane[BEND] + at, difference = space->plane[CT][at] - space->plane[MRI][at];
    const float sides = b[-1] + b[1] + b[-wide] + b[wide];
    const float corners = b[-wide - 1] + b[-wide + 1] + b[wide - 1] + b[wide + 1];
    return (4 * sides + 2 * corners) * difference * difference;
}

/* The slope by every weight, squashed in two ways. */
static void slopes(const Workspace *space, int64_t runs, const Constants *c)
{
    float *const *plane = space->plane;
    slopes_by_steps(space, runs, LANES, c);
    for (int64_t r = 0; r < runs; r++) {
        const int64_t at = space->run[r];
        for (int s = 0; s < LANES; s++) {
            const float slope = slope_at(space, at + s), size = slope < 0 ? -slope : slope;
            plane[NEAR_SQUASHED][at + s] = slope / (size + c->squash[0]);
            plane[FAR_SQUASHED][at + s] = slope / (size + c->squash[1]);
        }
    }
}

/* Sixteen channels of a convolution, of TOGETHER cells: pieces of `length` floats, at `offset` from each cell's `from`;
 * one weight vector for each of these floats, the bias first. */
static inline void convolve(const float *const *from, const int64_t *offset, int pieces, int64_t length,
                            const float *weights, float sum[TOGETHER][LANES])
{
    /* Arrays of their own: so compilers keep them in registers. */
    float s0[LANES], s1[LANES], s2[LANES], s3[LANES], s4[LANES], s5[LANES];
    for (int c = 0; c < LANES; c++) s0[c] = s1[c] = s2[c] = s3[c] = s4[c] = s5[c] = weights[c];
    for (int piece = 0; piece < pieces; piece++) {
        const int64_t at = offset[piece];
        const float *p0 = from[0] + at, *p1 = from[1] + at, *p2 = from[2] + at;
        const float *p3 = from[3] + at, *p4 = from[4] + at, *p5 = from[5] + at;
        for (int64_t f = 0; f < length; f++) {
            weights += LANES;
            const float f0 = p0[f], f1 = p1[f], f2 = p2[f], f3 = p3[f], f4 = p4[f], f5 = p5[f];
            for (int c = 0; c < LANES; c++) {
                const float w = weights[c];
                s0[c] += f0 * w;
                s1[c] += f1 * w;
                s2[c] += f2 * w;
                s3[c] += f3 * w;
                s4[c] += f4 * w;
                s5[c] += f5 * w;
            }
        }
    }
    memcpy(sum[0], s0, sizeof s0);
    memcpy(sum[1], s1, sizeof s1);
    memcpy(sum[2], s2, sizeof s2);
    memcpy(sum[3], s3, sizeof s3);
    memcpy(sum[4], s4, sizeof s4);
    memcpy(sum[5], s5, sizeof s5);
}

/* List the indices of the marked cells, the last one repeated to a multiple of TOGETHER; return how many. */
static int64_t list_of(const Workspace *space, const uint8_t *mask, int32_t *list)
{
    int64_t n = 0;
    for (int64_t i = 1; i <= space->cell_rows; i++)
        for (int64_t j = 1; j <= space->cell_columns; j++) {
            const int64_t at = i * space->cells_wide + j;
            list[n] = (int32_t)at;
            n += mask[at] != 0;
        }
    for (int k = 0; n && k < TOGETHER - 1; k++) list[n + k] = list[n - 1];
    return n;
}

static int64_t pixel_of(const Workspace *space, int64_t cell)
{
    const int64_t i = cell / space->cells_wide - 1, j = cell % space->cells_wide - 1;
    return (2 * i + BORDER) * space->wide + 2 * j + BORDER;
}

/* Dilate a mask by one element in every direction; a border of one element stays 0. */
static void spread(const uint8_t *from, uint8_t *to, int64_t rows, int64_t columns, int64_t wide)
{
    for (int64_t i = 1; i <= rows; i++)
        for (int64_t j = 1; j <= columns; j++) {
            const uint8_t *p = from + i * wide + j;
            to[i * wide + j] = p[-wide - 1] | p[-wide] | p[-wide + 1] | p[-1] | p[0] | p[1] | p[wide - 1] | p[wide] | p[wide + 1];
        }
}

/* Runs of so many pixels, none beyond a row's end, that cover the marked cells; return how many. */
static int64_t runs_of(const Workspace *space, const uint8_t *mask, int length)
{
    int64_t n = 0;
    for (int64_t i = 0; i < space->cell_rows; i++) {
        const uint8_t *row = mask + (i + 1) * space->cells_wide + 1;
        const int64_t first = n;
        for (int64_t j = 0; j < space->cell_columns;) {
            if (!row[j]) {
                j++;
                continue;
            }
            const int64_t last = space->columns - length, column = 2 * j < last ? 2 * j : last;
            space->run[n++] = (int32_t)((2 * i + BORDER) * space->wide + column + BORDER);
            j += length / 2;
        }
        const int64_t here = n - first;
        for (int64_t r = 0; r < here; r++) space->run[n++] = space->run[first + r] + (int32_t)space->wide;
    }
    return n;
}

static void load(const Workspace *space, float *plane, const float *image)
{
    for (int64_t i = 0; i < space->rows; i++)
        memcpy(plane + (i + BORDER) * space->wide + BORDER, image + i * space->columns, sizeof(float) * (size_t)space->columns);
}

/* Set FIRST and the mask of free weights; return whether there are any. */
static int begin(const Workspace *space)
{
    const int64_t wide = space->wide, rows = space->rows, columns = space->columns;
    float *bone = space->plane[BONE], *first = space->plane[FIRST], *half = space->plane[FUSED];
    for (int64_t i = BORDER; i < rows + BORDER; i++)
        for (int64_t at = i * wide + BORDER; at < i * wide + BORDER + columns; at++) {
            half[at] = bone[at] >= 0.5f ? bone[at] : 0;
            space->free[at] = bone[at] >= 0.5f;
        }
    /* alpha.REACH is 2. */
    spread(space->free + wide + 1, space->spread + wide + 1, rows, columns, wide);
    spread(space->spread + wide + 1, space->free + wide + 1, rows, columns, wide);
    int any = 0;
    for (int64_t i = BORDER; i < rows + BORDER; i++) {
        const float *p = half + i * wide, *b = bone + i * wide;
        uint8_t *f = space->free + i * wide;
        for (int64_t j = BORDER; j < columns + BORDER; j++) {
            float most = b[j];
            for (int64_t d = -1; d <= 1; d++) {
                const float left = p[j + d * wide - 1], here = p[j + d * wide], right = p[j + d * wide + 1];
                most = left > most ? left : most;
                most = here > most ? here : most;
                most = right > most ? right : most;
            }
            const uint8_t is_free = f[j] & (b[j] < 1);
            first[i * wide + j] = b[j] >= 1 ? 1 : is_free ? most : 0;
            f[j] = is_free;
            any |= is_free;
        }
    }
    return any;
}

static void conv1(const Workspace *space, const int32_t *list, int64_t n, const float *weights, int64_t stride)
{
    /* The 4 by 4 pixels begin one row above and one column left of the cell. */
    int64_t offset[4 * SEEN_CHANNELS];
    for (int c = 0; c < SEEN_CHANNELS; c++)
        for (int row = 0; row < 4; row++)
            offset[4 * c + row] = space->plane[c] - space->plane[0] + (row - 1) * space->wide - 1;
    for (int64_t first = 0; first < n; first += TOGETHER) {
        const float *from[TOGETHER];
        for (int k = 0; k < TOGETHER; k++) from[k] = space->plane[0] + pixel_of(space, list[first + k]);
        for (int64_t b = 0; b < space->blocks; b++) {
            float sum[TOGETHER][LANES];
            convolve(from, offset, 4 * SEEN_CHANNELS, 4, weights + b * stride, sum);
            for (int k = 0; k < TOGETHER; k++)
                for (int c = 0; c < LANES; c++)
                    space->conv1_out[(list[first + k] * space->blocks + b) * LANES + c] = sum[k][c] > 0 ? sum[k][c] : 0;
        }
    }
}

static void around(const Workspace *space, int64_t *offset)
{
    for (int i = 0; i < 9; i++) offset[i] = ((i / 3 - 1) * space->cells_wide + i % 3 - 1) * space->blocks * LANES;
}

static void conv2(const Workspace *space, const int32_t *list, int64_t n, const float *weights, int64_t stride)
{
    const int64_t width = space->blocks * LANES;
    int64_t offset[9];
    around(space, offset);
    for (int64_t first = 0; first < n; first += TOGETHER) {
        const float *from[TOGETHER];
        for (int k = 0; k < TOGETHER; k++) from[k] = space->conv1_out + list[first + k] * width;
        for (int64_t b = 0; b < space->blocks; b++) {
            float sum[TOGETHER][LANES];
            convolve(from, offset, 9, width, weights + b * stride, sum);
            for (int k = 0; k < TOGETHER; k++)
                for (int c = 0; c < LANES; c++)
                    space->conv2_out[list[first + k] * width + b * LANES + c] = sum[k][c] > 0 ? sum[k][c] : 0;
        }
    }
}

static inline void set_weight(const Workspace *space, int64_t at, float wanted, const Constants *c)
{
    const float difference = space->plane[CT][at] - space->plane[MRI][at], most = greatest_weight(c, difference);
    const float alpha = wanted < 0 ? 0 : wanted > most ? most : wanted;
    space->plane[ALPHA][at] = alpha;
    space->plane[FUSED][at] = alpha * difference + space->plane[MRI][at];
}

static void head(const Workspace *space, const int32_t *list, int64_t n, const float *weights, const Constants *c)
{
    const int64_t width = space->blocks * LANES;
    float *const *plane = space->plane;
    int64_t offset[9];
    around(space, offset);
    for (int64_t first = 0; first < n; first += TOGETHER) {
        const float *from[TOGETHER];
        float sum[TOGETHER][LANES];
        for (int k = 0; k < TOGETHER; k++) from[k] = space->conv2_out + list[first + k] * width;
        convolve(from, offset, 9, width, weights, sum);
        const int here = (int)(n - first < TOGETHER ? n - first : TOGETHER);
        for (int k = 0; k < here; k++)
            for (int pixel = 0; pixel < 4; pixel++) {
                const int64_t at = pixel_of(space, list[first + k]) + pixel / 2 * space->wide + pixel % 2;
                if (!space->free[at]) continue;
                const float step = sum[k][pixel] + sum[k][4 + pixel] * plane[NEAR_SQUASHED][at];
                set_weight(space, at, plane[ALPHA][at] + step, c);
            }
    }
}

/* Go up the slope by at most `rate`, and not far past a top, less a price where no bone is touched: the plain steps of
 * weight_map.py. */
static void climb(const Workspace *space, int64_t runs, const int32_t *list, int64_t n, const Constants *c, float rate)
{
    float *const *plane = space->plane, *uphill = plane[NEAR_SQUASHED];
    slopes_by_steps(space, runs, FEW, c);
    for (int64_t r = 0; r < runs; r++) {
        const int64_t at = space->run[r];
        for (int s = 0; s < FEW; s++) {
            const float difference = plane[CT][at + s] - plane[MRI][at + s];
            const float price = space->spread[at + s] ? 0 : c->price * (difference < 0 ? -difference : difference);
            const float slope = slope_at(space, at + s) - price, size = slope < 0 ? -slope : slope;
            uphill[at + s] = slope / (size + c->squash[0] + rate * bend_at(space, at + s));
        }
    }
    for (int64_t k = 0; k < n; k++)
        for (int pixel = 0; pixel < 4; pixel++) {
            const int64_t at = pixel_of(space, list[k]) + pixel / 2 * space->wide + pixel % 2;
            if (space->free[at]) set_weight(space, at, plane[ALPHA][at] + rate * uphill[at], c);
        }
}

/* Mark the cells that contain a pixel with a free weight, and the cells needed to compute them: the neighbours for
 * conv2, those for conv1, and the pixels around those, whose edges the slope needs. */
static void mark(const Workspace *space)
{
    for (int64_t i = 0; i < space->cell_rows; i++)
        for (int64_t j = 0; j < space->cell_columns; j++) {
            const uint8_t *f = space->free + (2 * i + BORDER) * space->wide + 2 * j + BORDER;
            space->head_cells[(i + 1) * space->cells_wide + j + 1] = f[0] | f[1] | f[space->wide] | f[space->wide + 1];
        }
    spread(space->head_cells, space->conv2_cells, space->cell_rows, space->cell_columns, space->cells_wide);
    spread(space->conv2_cells, space->conv1_cells, space->cell_rows, space->cell_columns, space->cells_wide);
    spread(space->conv1_cells, space->near, space->cell_rows, space->cell_columns, space->cells_wide);
}

/* Mark the cells with a pixel that touches a free one: what plain steps depend on. */
static void mark_touching(const Workspace *space)
{
    for (int64_t i = 0; i < space->cell_rows; i++)
        for (int64_t j = 0; j < space->cell_columns; j++) {
            const uint8_t *f = space->free + (2 * i + BORDER - 1) * space->wide + 2 * j + BORDER - 1;
            uint8_t any = 0;
            for (int row = 0; row < 4; row++)
                for (int column = 0; column < 4; column++) any |= f[row * space->wide + column];
            space->near[(i + 1) * space->cells_wide + j + 1] = any;
        }
}

EXPORTED int64_t VARIANT(brainfusion_rim_memory)(int64_t rows, int64_t columns, int64_t width)
{
    Workspace space;
    return allocate(&space, 0, rows, columns, (width + LANES - 1) / LANES);
}

/* Compute the weight of the CT, 0 to 1, of one slice.
 *
 * ct, mri, bone   rows x columns, float; both sizes even, columns at least 16.
 * weights         step by step: conv1, conv2 and head; conv1 and conv2 in blocks of 16 channels, the 8 of head in one;
 *                 a block is the bias and one vector for each input value, as packed by rim.py.
 * memory          brainfusion_rim_memory bytes, zeroed before the first use, for slices of one size only: the borders
 *                 stay 0.
 * alpha           rows x columns, float, out.
 */
EXPORTED void VARIANT(brainfusion_rim_alpha)(const float *ct, const float *mri, const float *bone, int64_t rows,
                                             int64_t columns, int64_t width, int64_t steps, const float *weights,
                                             const float *constants, void *memory, float *alpha)
{
    Workspace space;
    Constants c;
    memcpy(&c, constants, sizeof c);
    allocate(&space, memory, rows, columns, (width + LANES - 1) / LANES);
    float *const *plane = space.plane;
    load(&space, plane[BONE], bone);
    const int any = begin(&space);
    if (any) {
        const int64_t pixels = space.wide * (rows + 2 * BORDER), padded = space.blocks * LANES;
        const int64_t conv1_stride = (1 + 16 * SEEN_CHANNELS) * LANES, conv2_stride = (1 + 9 * padded) * LANES;
        load(&space, plane[CT], ct);
        load(&space, plane[MRI], mri);
        for (int64_t at = 0; at < pixels; at++) {
            const float difference = plane[CT][at] - plane[MRI][at], most = greatest_weight(&c, difference);
            const float first = plane[FIRST][at], kept = first > most ? most : first;
            plane[ALPHA][at] = plane[FIRST][at] = plane[BONE][at] >= 1 ? 1 : kept;
            plane[FUSED][at] = plane[FIRST][at] * difference + plane[MRI][at];
        }
        mark(&space);
        const int64_t conv1_count = list_of(&space, space.conv1_cells, space.list[0]);
        const int64_t conv2_count = list_of(&space, space.conv2_cells, space.list[1]);
        const int64_t head_count = list_of(&space, space.head_cells, space.list[2]), runs = runs_of(&space, space.near, LANES);
        edges(&space, runs, plane[CT], plane[CT_STRENGTH], plane[CT_TURN], c.tiny);
        edges(&space, runs, plane[MRI], plane[MRI_STRENGTH], plane[MRI_TURN], c.tiny);
        for (int64_t step = 0; step < steps; step++) {
            slopes(&space, runs, &c);
            conv1(&space, space.list[0], conv1_count, weights, conv1_stride);
            weights += space.blocks * conv1_stride;
            conv2(&space, space.list[1], conv2_count, weights, conv2_stride);
            weights += space.blocks * conv2_stride;
            head(&space, space.list[2], head_count, weights, &c);
            weights += conv2_stride;
        }
        mark_touching(&space);
        const int64_t few = runs_of(&space, space.near, FEW);
        for (int64_t step = 0; step < (int64_t)c.plain_steps; step++)
            climb(&space, few, space.list[2], head_count, &c, constants[sizeof c / sizeof(float) + (size_t)step]);
    }
    const float *out = plane[any ? ALPHA : FIRST];
    for (int64_t i = 0; i < rows; i++)
        memcpy(alpha + i * columns, out + (i + BORDER) * space.wide + BORDER, sizeof(float) * (size_t)columns);
}
