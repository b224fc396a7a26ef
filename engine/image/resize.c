/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "image/resize.h"

/*
 * Weights are 16-bit fixed-point with as many bits of fraction as the largest of an axis allows (14
 * or more): products of 16 bits are what every vector unit multiplies and adds fastest. They sum to
 * exactly 1, so that a flat image stays flat; against PIL's 22 bits a level may round otherwise.
 */
#define MAX_WEIGHT 32767
#define MAX_FRACTION_BITS 22u
/* Taps are padded with zeros to whole vectors. */
#define BLOCK 8u

/* The source pixels of one destination pixel. */
struct span {
	uint32_t begin, n;
};

struct axis {
	struct span *spans; /* (n_dst) */
	int16_t *weights;   /* (n_dst, n_blocks * BLOCK) */
	uint32_t n_dst, n_blocks;
	unsigned fraction_bits;
	size_t spans_bytes, weights_bytes;
};

struct resize_scratch {
	struct axis x, y;
	double *taps;    /* (n_dst, n_blocks * BLOCK): an axis' weights before they are rounded */
	int16_t *planes; /* (n_channels, n_plane): one source row, and zeros behind it */
	uint8_t *rows;   /* (source rows needed, dst_width, n_channels): between the two passes */
	int32_t *sums;   /* (dst_width, n_channels) */
	uint8_t *pixels;
	size_t taps_bytes, planes_bytes, rows_bytes, sums_bytes, pixels_bytes;
};

int resize_scratch_new(struct resize_scratch **ret_scratch)
{
	struct resize_scratch *scratch = calloc(1, sizeof(*scratch));

	if (!scratch)
		return -ENOMEM;
	*ret_scratch = scratch;
	return 0;
}

void resize_scratch_free(struct resize_scratch *scratch)
{
	if (!scratch)
		return;
	free(scratch->x.spans);
	free(scratch->x.weights);
	free(scratch->y.spans);
	free(scratch->y.weights);
	free(scratch->taps);
	free(scratch->planes);
	free(scratch->rows);
	free(scratch->sums);
	free(scratch->pixels);
	free(scratch);
}

/* At least n_bytes; what was in there is gone. */
static void *grow(void *buffer, size_t *buffer_bytes, size_t n_bytes)
{
	if (n_bytes <= *buffer_bytes)
		return buffer;
	free(buffer);
	buffer = malloc(n_bytes);
	*buffer_bytes = buffer ? n_bytes : 0;
	return buffer;
}

uint8_t *resize_scratch_pixels(struct resize_scratch *scratch, size_t n_bytes)
{
	scratch->pixels = grow(scratch->pixels, &scratch->pixels_bytes, n_bytes);
	return scratch->pixels;
}

static double filter_support(enum resize_filter filter)
{
	return filter == RESIZE_BICUBIC ? 2.0 : 1.0;
}

static double filter_value(enum resize_filter filter, double x)
{
	const double a = -0.5;

	x = fabs(x);
	if (filter == RESIZE_BILINEAR)
		return x < 1 ? 1 - x : 0;
	if (x < 1)
		return ((a + 2) * x - (a + 3)) * x * x + 1;
	if (x < 2)
		return (((x - 5) * x + 8) * x - 4) * a;
	return 0;
}

/* One destination pixel: weights of the source pixels around centre, normalised to sum 1. */
static struct span weigh(
	double *taps, uint32_t n_src, double centre, double scale, enum resize_filter filter)
{
	double support = filter_support(filter) * scale, sum = 0;
	int64_t begin = (int64_t)(centre - support + 0.5);
	int64_t end = (int64_t)(centre + support + 0.5);
	struct span span;

	if (begin < 0)
		begin = 0;
	if (end > n_src)
		end = n_src;
	span = (struct span){ (uint32_t)begin, (uint32_t)(end - begin) };
	for (uint32_t i = 0; i < span.n; i++) {
		taps[i] = filter_value(filter, ((double)(begin + i) - centre + 0.5) / scale);
		sum += taps[i];
	}
	for (uint32_t i = 0; i < span.n; i++)
		taps[i] /= sum;
	return span;
}

static double largest(const double *values, size_t n)
{
	double max = 0;

	for (size_t i = 0; i < n; i++)
		max = fabs(values[i]) > max ? fabs(values[i]) : max;
	return max;
}

/* Rounds taps to weights; what rounding took or gave goes to the largest, where it matters least. */
static void quantise(int16_t *weights, const double *taps, struct span span, unsigned fraction_bits)
{
	int32_t rest = 1 << fraction_bits;
	uint32_t top = 0;

	for (uint32_t i = 0; i < span.n; i++) {
		weights[i] = (int16_t)lrint(taps[i] * (1 << fraction_bits));
		rest -= weights[i];
		if (weights[i] > weights[top])
			top = i;
	}
	weights[top] = (int16_t)(weights[top] + rest);
}

static int axis_prepare(struct axis *axis, struct resize_scratch *scratch, uint32_t n_src,
	double begin, double length, uint32_t n_dst, enum resize_filter filter)
{
	const double step = length / n_dst;
	const double scale = step > 1 ? step : 1; /* only a reduction widens the kernel */
	const uint32_t n_most = 2 * (uint32_t)ceil(filter_support(filter) * scale) + 1;
	const uint32_t n_blocks = (n_most + BLOCK - 1) / BLOCK;
	const size_t n_taps = (size_t)n_blocks * BLOCK, n_all = n_taps * n_dst;
	double max;

	axis->n_dst = n_dst;
	axis->n_blocks = n_blocks;
	axis->spans = grow(axis->spans, &axis->spans_bytes, n_dst * sizeof(*axis->spans));
	axis->weights = grow(axis->weights, &axis->weights_bytes, n_all * sizeof(*axis->weights));
	scratch->taps = grow(scratch->taps, &scratch->taps_bytes, n_all * sizeof(*scratch->taps));
	if (!axis->spans || !axis->weights || !scratch->taps)
		return -ENOMEM;
	memset(scratch->taps, 0, n_all * sizeof(*scratch->taps));
	memset(axis->weights, 0, n_all * sizeof(*axis->weights));
	for (uint32_t i = 0; i < n_dst; i++)
		axis->spans[i] = weigh(
			scratch->taps + i * n_taps, n_src, begin + (i + 0.5) * step, scale, filter);
	max = largest(scratch->taps, n_all);
	axis->fraction_bits = MAX_FRACTION_BITS;
	/* Half the range is left to what quantise() gives to the largest. */
	while (max * (1 << axis->fraction_bits) > MAX_WEIGHT / 2 + 1)
		axis->fraction_bits--;
	for (uint32_t i = 0; i < n_dst; i++)
		quantise(axis->weights + i * n_taps, scratch->taps + i * n_taps, axis->spans[i],
			axis->fraction_bits);
	return 0;
}

static inline uint8_t round_clip(int32_t sum, unsigned fraction_bits)
{
	int32_t value = (sum + (1 << (fraction_bits - 1))) >> fraction_bits;

	return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* A source row of n pixels to planes of n_plane each. */
static void split_channels(int16_t *restrict planes, size_t n_plane, const uint8_t *restrict src,
	uint32_t n, unsigned n_channels)
{
	int16_t *restrict r = planes, *restrict g = planes + n_plane, *restrict b = g + n_plane;

	if (n_channels == 1)
		for (uint32_t x = 0; x < n; x++)
			r[x] = src[x];
	else
		for (uint32_t x = 0; x < n; x++) {
			r[x] = src[3 * (size_t)x];
			g[x] = src[3 * (size_t)x + 1];
			b[x] = src[3 * (size_t)x + 2];
		}
}

static void resize_channel(
	uint8_t *dst, const int16_t *plane, uint32_t first, const struct axis *axis, unsigned step)
{
	for (uint32_t x = 0; x < axis->n_dst; x++) {
		const int16_t *weights = axis->weights + (size_t)x * axis->n_blocks * BLOCK;
		const int16_t *p = plane + (axis->spans[x].begin - first);
		int32_t sum = 0;

		for (uint32_t i = 0; i < axis->n_blocks * BLOCK; i++)
			sum += p[i] * weights[i];
		dst[(size_t)x * step] = round_clip(sum, axis->fraction_bits);
	}
}

/* One source row to (dst_width, n_channels). */
static void resize_row(uint8_t *dst, const uint8_t *src, unsigned n_channels,
	const struct axis *axis, int16_t *planes, size_t n_plane)
{
	const struct span *last = &axis->spans[axis->n_dst - 1];
	uint32_t first = axis->spans[0].begin, n = last->begin + last->n - first;

	split_channels(planes, n_plane, src + (size_t)first * n_channels, n, n_channels);
	for (unsigned c = 0; c < n_channels; c++)
		resize_channel(dst + c, planes + c * n_plane, first, axis, n_channels);
}

/* One destination row from the rows of its span; rows are dense, n bytes each. */
static void resize_column(uint8_t *dst, const uint8_t *rows, const int16_t *weights,
	uint32_t n_rows, size_t n, int32_t *sums, unsigned fraction_bits)
{
	memset(sums, 0, n * sizeof(*sums));
	for (uint32_t i = 0; i < n_rows; i++) {
		const uint8_t *row = rows + i * n;
		const int16_t weight = weights[i];

		for (size_t x = 0; x < n; x++)
			sums[x] += (int16_t)row[x] * weight;
	}
	for (size_t x = 0; x < n; x++)
		dst[x] = round_clip(sums[x], fraction_bits);
}

static int check_box(const struct resize_box *box, const struct image_view *src)
{
	/* Written so that a NaN fails; a box computed in float may end a hair beyond the edge. */
	if (box->x >= 0 && box->y >= 0 && box->width > 0 && box->height > 0 &&
		box->x + box->width <= (float)src->width + 0.25f &&
		box->y + box->height <= (float)src->height + 0.25f)
		return 0;
	return -EINVAL;
}

int resize_u8(uint8_t *dst, uint32_t dst_width, uint32_t dst_height, const struct image_view *src,
	const struct resize_box *box, enum resize_filter filter, struct resize_scratch *scratch)
{
	const size_t n_row = (size_t)dst_width * src->n_channels;
	const struct axis *x = &scratch->x, *y = &scratch->y;
	uint32_t first, end;
	size_t n_plane;
	int r;

	if (check_box(box, src) < 0 || dst_width == 0 || dst_height == 0)
		return -EINVAL;
	r = axis_prepare(&scratch->x, scratch, src->width, box->x, box->width, dst_width, filter);
	if (r == 0)
		r = axis_prepare(
			&scratch->y, scratch, src->height, box->y, box->height, dst_height, filter);
	if (r < 0)
		return r;
	first = y->spans[0].begin;
	end = y->spans[dst_height - 1].begin + y->spans[dst_height - 1].n;
	n_plane = src->width + (size_t)x->n_blocks * BLOCK;
	scratch->rows = grow(scratch->rows, &scratch->rows_bytes, (end - first) * n_row);
	scratch->sums = grow(scratch->sums, &scratch->sums_bytes, n_row * sizeof(int32_t));
	scratch->planes = grow(scratch->planes, &scratch->planes_bytes,
		n_plane * src->n_channels * sizeof(int16_t));
	if (!scratch->rows || !scratch->sums || !scratch->planes)
		return -ENOMEM;
	memset(scratch->planes, 0, n_plane * src->n_channels * sizeof(int16_t));
	for (uint32_t i = first; i < end; i++)
		resize_row(scratch->rows + (i - first) * n_row, src->pixels + i * src->stride,
			src->n_channels, x, scratch->planes, n_plane);
	for (uint32_t i = 0; i < dst_height; i++)
		resize_column(dst + i * n_row, scratch->rows + (y->spans[i].begin - first) * n_row,
			y->weights + (size_t)i * y->n_blocks * BLOCK, y->spans[i].n, n_row,
			scratch->sums, y->fraction_bits);
	return 0;
}

int image_shrink(struct image **ret_image, const struct image_view *src, uint32_t shorter)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	_cleanup_(image_freep) struct image *image = NULL;
	uint32_t side = src->width < src->height ? src->width : src->height;
	const struct resize_box box = { 0, 0, (float)src->width, (float)src->height };
	uint64_t width = src->width, height = src->height;
	int r;

	if (shorter == 0)
		return -EINVAL;
	if (side > shorter) {
		width = width * shorter / side;
		height = height * shorter / side;
	}
	r = image_new(&image, (uint32_t)width, (uint32_t)height, src->n_channels);
	if (r < 0)
		return r;
	if (side <= shorter) {
		for (uint32_t y = 0; y < height; y++)
			memcpy(image->pixels + y * width * src->n_channels,
				src->pixels + y * src->stride, width * src->n_channels);
	} else {
		r = resize_scratch_new(&scratch);
		if (r == 0)
			r = resize_u8(image->pixels, image->width, image->height, src, &box,
				RESIZE_BICUBIC, scratch);
		if (r < 0)
			return r;
	}
	*ret_image = TAKE_PTR(image);
	return 0;
}
