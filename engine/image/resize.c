/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "image/resize.h"

/* Weights are fixed-point; 8 bits of pixel, 22 of weight and 2 to spare, because the weights of the
 * bicubic kernel swing below 0 and above 1. */
#define WEIGHT_BITS 22

/* The source pixels of one destination pixel. */
struct span {
	uint32_t begin, n;
};

struct axis {
	struct span *spans; /* (n_dst) */
	int32_t *weights;   /* (n_dst, n_taps) */
	uint32_t n_dst, n_taps;
	size_t spans_bytes, weights_bytes;
};

struct resize_scratch {
	struct axis x, y;
	uint8_t *rows; /* (source rows needed, dst_width, n_channels): between the two passes */
	int32_t *sums; /* (dst_width, n_channels) */
	uint8_t *pixels;
	double *taps; /* (n_taps): one pixel's weights before they are rounded */
	size_t rows_bytes, sums_bytes, pixels_bytes, taps_bytes;
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
	free(scratch->rows);
	free(scratch->sums);
	free(scratch->pixels);
	free(scratch->taps);
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
static struct span weigh(int32_t *weights, double *taps, uint32_t n_src, double centre,
	double scale, enum resize_filter filter)
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
		weights[i] = (int32_t)round(taps[i] / sum * (1 << WEIGHT_BITS));
	return span;
}

static int axis_prepare(struct axis *axis, struct resize_scratch *scratch, uint32_t n_src,
	double begin, double length, uint32_t n_dst, enum resize_filter filter)
{
	double step = length / n_dst;
	double scale = step > 1 ? step : 1; /* only a reduction widens the kernel */

	axis->n_dst = n_dst;
	axis->n_taps = 2 * (uint32_t)ceil(filter_support(filter) * scale) + 1;
	axis->spans = grow(axis->spans, &axis->spans_bytes, n_dst * sizeof(*axis->spans));
	axis->weights = grow(axis->weights, &axis->weights_bytes,
		(size_t)n_dst * axis->n_taps * sizeof(*axis->weights));
	scratch->taps = grow(scratch->taps, &scratch->taps_bytes, axis->n_taps * sizeof(double));
	if (!axis->spans || !axis->weights || !scratch->taps)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_dst; i++)
		axis->spans[i] = weigh(axis->weights + (size_t)i * axis->n_taps, scratch->taps,
			n_src, begin + (i + 0.5) * step, scale, filter);
	return 0;
}

static inline uint8_t round_clip(int32_t sum)
{
	int32_t value = (sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS;

	return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void resize_row_grey(uint8_t *dst, const uint8_t *src, const struct axis *axis)
{
	for (uint32_t x = 0; x < axis->n_dst; x++) {
		const int32_t *weights = axis->weights + (size_t)x * axis->n_taps;
		const uint8_t *p = src + axis->spans[x].begin;
		int32_t sum = 0;

		for (uint32_t i = 0; i < axis->spans[x].n; i++)
			sum += p[i] * weights[i];
		dst[x] = round_clip(sum);
	}
}

static void resize_row_rgb(uint8_t *dst, const uint8_t *src, const struct axis *axis)
{
	for (uint32_t x = 0; x < axis->n_dst; x++) {
		const int32_t *weights = axis->weights + (size_t)x * axis->n_taps;
		const uint8_t *p = src + 3 * (size_t)axis->spans[x].begin;
		int32_t r = 0, g = 0, b = 0;

		for (uint32_t i = 0; i < axis->spans[x].n; i++) {
			r += p[3 * i] * weights[i];
			g += p[3 * i + 1] * weights[i];
			b += p[3 * i + 2] * weights[i];
		}
		dst[3 * x] = round_clip(r);
		dst[3 * x + 1] = round_clip(g);
		dst[3 * x + 2] = round_clip(b);
	}
}

/* One destination row from the rows of its span; rows are dense, n bytes each. */
static void resize_column(uint8_t *dst, const uint8_t *rows, const int32_t *weights,
	uint32_t n_rows, size_t n, int32_t *sums)
{
	memset(sums, 0, n * sizeof(*sums));
	for (uint32_t i = 0; i < n_rows; i++) {
		const uint8_t *row = rows + i * n;
		int32_t weight = weights[i];

		for (size_t x = 0; x < n; x++)
			sums[x] += row[x] * weight;
	}
	for (size_t x = 0; x < n; x++)
		dst[x] = round_clip(sums[x]);
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
	size_t n_row = (size_t)dst_width * src->n_channels;
	const struct span *spans;
	uint32_t first, end;
	int r;

	if (check_box(box, src) < 0 || dst_width == 0 || dst_height == 0)
		return -EINVAL;
	r = axis_prepare(&scratch->x, scratch, src->width, box->x, box->width, dst_width, filter);
	if (r == 0)
		r = axis_prepare(
			&scratch->y, scratch, src->height, box->y, box->height, dst_height, filter);
	if (r < 0)
		return r;
	spans = scratch->y.spans;
	first = spans[0].begin;
	end = spans[dst_height - 1].begin + spans[dst_height - 1].n;
	scratch->rows = grow(scratch->rows, &scratch->rows_bytes, (end - first) * n_row);
	scratch->sums = grow(scratch->sums, &scratch->sums_bytes, n_row * sizeof(int32_t));
	if (!scratch->rows || !scratch->sums)
		return -ENOMEM;
	for (uint32_t y = first; y < end; y++)
		(src->n_channels == 1 ? resize_row_grey : resize_row_rgb)(
			scratch->rows + (y - first) * n_row, src->pixels + y * src->stride,
			&scratch->x);
	for (uint32_t y = 0; y < dst_height; y++)
		resize_column(dst + y * n_row, scratch->rows + (spans[y].begin - first) * n_row,
			scratch->y.weights + (size_t)y * scratch->y.n_taps, spans[y].n, n_row,
			scratch->sums);
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
