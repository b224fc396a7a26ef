/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "image/resize.h"
#include "image/resize_row.h"

#define MAX_WEIGHT 32767
#define MAX_FRACTION_BITS 22u
/* Of destination pixels: enough to be worth another thread. */
#define MANY (1u << 12)

/* What an axis was prepared for: a camera's images are all of one size. */
struct axis_key {
	double begin, length;
	uint32_t n_src, n_dst;
	int filter; /* -1: nothing yet */
};

struct resize_scratch {
	struct resize_axis x, y;
	struct axis_key x_key, y_key;
	double *taps; /* (n_dst, n_blocks * RESIZE_BLOCK): an axis' weights before they are rounded */
	int16_t *planes; /* (n_workers, n_channels, n_plane): one source row, and zeros behind it */
	uint8_t *rows;   /* (source rows needed, n_channels, dst_width): between the two passes */
	uint8_t *line;   /* (n_workers, n_channels, dst_width): a destination row */
	uint8_t *pixels;
	size_t taps_bytes, planes_bytes, rows_bytes, line_bytes, pixels_bytes;
	/* Of the resize that is under way. */
	uint32_t first, end; /* source rows */
	size_t n_plane;
};

int resize_scratch_new(struct resize_scratch **ret_scratch)
{
	struct resize_scratch *scratch = calloc(1, sizeof(*scratch));

	if (!scratch)
		return -ENOMEM;
	scratch->x_key.filter = -1;
	scratch->y_key.filter = -1;
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
	free(scratch->line);
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
static struct resize_span weigh(
	double *taps, uint32_t n_src, double centre, double scale, enum resize_filter filter)
{
	double support = filter_support(filter) * scale, sum = 0;
	int64_t begin = (int64_t)(centre - support + 0.5);
	int64_t end = (int64_t)(centre + support + 0.5);
	struct resize_span span;

	if (begin < 0)
		begin = 0;
	if (end > n_src)
		end = n_src;
	span = (struct resize_span){ (uint32_t)begin, (uint32_t)(end - begin) };
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
static void quantise(
	int16_t *weights, const double *taps, struct resize_span span, unsigned fraction_bits)
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

static int axis_prepare(struct resize_axis *axis, struct resize_scratch *scratch, uint32_t n_src,
	double begin, double length, uint32_t n_dst, enum resize_filter filter)
{
	const double step = length / n_dst;
	const double scale = step > 1 ? step : 1; /* only a reduction widens the kernel */
	const uint32_t n_most = 2 * (uint32_t)ceil(filter_support(filter) * scale) + 1;
	const uint32_t n_blocks = (n_most + RESIZE_BLOCK - 1) / RESIZE_BLOCK;
	const size_t n_taps = (size_t)n_blocks * RESIZE_BLOCK, n_all = n_taps * n_dst;
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

static int check_box(const struct resize_box *box, const struct image_view *src)
{
	/* Written so that a NaN fails; a box computed in float may end a hair beyond the edge. */
	if (box->x >= 0 && box->y >= 0 && box->width > 0 && box->height > 0 &&
		box->x + box->width <= (float)src->width + 0.25f &&
		box->y + box->height <= (float)src->height + 0.25f)
		return 0;
	return -EINVAL;
}

static int axis_want(struct resize_axis *axis, struct axis_key *key, struct resize_scratch *scratch,
	struct axis_key want)
{
	int r;

	if (key->begin == want.begin && key->length == want.length && key->n_src == want.n_src &&
		key->n_dst == want.n_dst && key->filter == want.filter)
		return 0;
	key->filter = -1;
	r = axis_prepare(axis, scratch, want.n_src, want.begin, want.length, want.n_dst,
		(enum resize_filter)want.filter);
	if (r == 0)
		*key = want;
	return r;
}

/* Axes, and buffers with zeros where no source row writes. */
static int prepare(struct resize_scratch *scratch, uint32_t dst_width, uint32_t dst_height,
	const struct image_view *src, const struct resize_box *box, enum resize_filter filter,
	int n_workers)
{
	const size_t n_row = (size_t)dst_width * src->n_channels;
	const struct resize_axis *y = &scratch->y;
	size_t n_planes;
	int r;

	if (check_box(box, src) < 0 || dst_width == 0 || dst_height == 0)
		return -EINVAL;
	r = axis_want(&scratch->x, &scratch->x_key, scratch,
		(struct axis_key){ box->x, box->width, src->width, dst_width, (int)filter });
	if (r == 0)
		r = axis_want(&scratch->y, &scratch->y_key, scratch,
			(struct axis_key){
				box->y, box->height, src->height, dst_height, (int)filter });
	if (r < 0)
		return r;
	scratch->first = y->spans[0].begin;
	scratch->end = y->spans[dst_height - 1].begin + y->spans[dst_height - 1].n;
	scratch->n_plane = src->width + (size_t)scratch->x.n_blocks * RESIZE_BLOCK;
	n_planes = (size_t)n_workers * src->n_channels * scratch->n_plane;
	scratch->rows =
		grow(scratch->rows, &scratch->rows_bytes, (scratch->end - scratch->first) * n_row);
	scratch->line = grow(scratch->line, &scratch->line_bytes, (size_t)n_workers * n_row);
	scratch->planes = grow(scratch->planes, &scratch->planes_bytes, n_planes * sizeof(int16_t));
	if (!scratch->rows || !scratch->line || !scratch->planes)
		return -ENOMEM;
	memset(scratch->planes, 0, n_planes * sizeof(int16_t));
	return 0;
}

/* Source row i to (n_channels, dst_width). */
static void resize_across(const struct kern_resize_impl *kern, struct resize_scratch *scratch,
	const struct image_view *src, uint32_t i, int worker)
{
	const struct resize_axis *x = &scratch->x;
	const struct resize_span *last = &x->spans[x->n_dst - 1];
	const uint32_t first = x->spans[0].begin, n = last->begin + last->n - first;
	int16_t *planes = scratch->planes + (size_t)worker * src->n_channels * scratch->n_plane;
	uint8_t *dst = scratch->rows + (size_t)(i - scratch->first) * src->n_channels * x->n_dst;

	kern->split(planes, scratch->n_plane,
		src->pixels + i * src->stride + (size_t)first * src->n_channels, n,
		src->n_channels);
	for (unsigned c = 0; c < src->n_channels; c++)
		kern->across(dst + (size_t)(src->is_bgr ? 2 - c : c) * x->n_dst,
			planes + c * scratch->n_plane, first, x);
}

/* Destination row i, (n_channels, dst_width). */
static const uint8_t *resize_down(const struct kern_resize_impl *kern,
	struct resize_scratch *scratch, unsigned n_channels, uint32_t i, int worker)
{
	const struct resize_axis *y = &scratch->y;
	const size_t n = (size_t)n_channels * scratch->x.n_dst;
	uint8_t *line = scratch->line + (size_t)worker * n;

	kern->down(line, scratch->rows + (y->spans[i].begin - scratch->first) * n, n,
		y->weights + (size_t)i * y->n_blocks * RESIZE_BLOCK, y->spans[i].n,
		y->fraction_bits);
	return line;
}

static void interleave(uint8_t *restrict dst, const uint8_t *restrict line, uint32_t n)
{
	const uint8_t *restrict r = line, *restrict g = line + n, *restrict b = g + n;

	for (uint32_t x = 0; x < n; x++) {
		dst[3 * (size_t)x] = r[x];
		dst[3 * (size_t)x + 1] = g[x];
		dst[3 * (size_t)x + 2] = b[x];
	}
}

int resize_u8(uint8_t *dst, uint32_t dst_width, uint32_t dst_height, const struct image_view *src,
	const struct resize_box *box, enum resize_filter filter, struct resize_scratch *scratch)
{
	const struct kern_resize_impl *kern = kern_resize_fastest();
	const size_t n_row = (size_t)dst_width * src->n_channels;
	int r = prepare(scratch, dst_width, dst_height, src, box, filter, 1);

	if (r < 0)
		return r;
	for (uint32_t i = scratch->first; i < scratch->end; i++)
		resize_across(kern, scratch, src, i, 0);
	for (uint32_t i = 0; i < dst_height; i++) {
		const uint8_t *line = resize_down(kern, scratch, src->n_channels, i, 0);

		if (src->n_channels == 3)
			interleave(dst + i * n_row, line, dst_width);
		else
			memcpy(dst + i * n_row, line, n_row);
	}
	return 0;
}

int resize_levels(float *dst, uint32_t side, const struct image_view *src,
	const struct resize_box *box, enum resize_filter filter, const struct resize_level level[3],
	struct resize_scratch *scratch)
{
	const struct kern_resize_impl *kern = kern_resize_fastest();
	const unsigned n_channels = src->n_channels;
	int r = prepare(scratch, side, side, src, box, filter, omp_get_max_threads());

	if (r < 0)
		return r;
#pragma omp parallel if (side * side > MANY)
	{
		const int worker = omp_get_thread_num();

#pragma omp for schedule(static)
		for (uint32_t i = scratch->first; i < scratch->end; i++)
			resize_across(kern, scratch, src, i, worker);
#pragma omp for schedule(static)
		for (uint32_t i = 0; i < side; i++) {
			const uint8_t *line = resize_down(kern, scratch, n_channels, i, worker);

			for (unsigned c = 0; c < 3; c++)
				kern->level(dst + ((size_t)c * side + i) * side,
					line + (size_t)(n_channels == 3 ? c : 0) * side, side,
					level[c].scale, level[c].shift);
		}
	}
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
