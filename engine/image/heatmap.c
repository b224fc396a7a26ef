/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image/heatmap.h"

#define N_COLOURS 5
#define OPACITY .45f

static const float colours[N_COLOURS][3] = {
	{ 0, 0, 4 },
	{ 87, 16, 110 },
	{ 188, 55, 84 },
	{ 249, 142, 9 },
	{ 252, 255, 164 },
};

static int by_number(const void *a, const void *b)
{
	const float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* (n) of the map as shares of the way between its percentiles, from 0 to 1. */
static int scale(float *share, const float *map, size_t n)
{
	_cleanup_(freep) float *sorted = malloc(n * sizeof(*sorted));
	float lo, hi;
	size_t m = 0;

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (isfinite(map[i]))
			sorted[m++] = map[i];
	qsort(sorted, m, sizeof(*sorted), by_number);
	lo = m > 0 ? sorted[(size_t)(.02 * (double)(m - 1))] : 0;
	hi = m > 0 ? sorted[(size_t)ceil(.98 * (double)(m - 1))] : 0;
	for (size_t i = 0; i < n; i++) {
		float at = isfinite(map[i]) && hi > lo ? (map[i] - lo) / (hi - lo) : 0;

		share[i] = at < 0 ? 0 : at > 1 ? 1 : at;
	}
	return 0;
}

/* Between the middles of cells; beyond the outer ones as they are. */
static float between(const float *share, uint32_t side, float x, float y)
{
	const float last = (float)(side - 1);
	uint32_t x0, y0, x1, y1;

	x = x < 0 ? 0 : x > last ? last : x;
	y = y < 0 ? 0 : y > last ? last : y;
	x0 = (uint32_t)x;
	y0 = (uint32_t)y;
	x1 = x0 + 1 < side ? x0 + 1 : x0;
	y1 = y0 + 1 < side ? y0 + 1 : y0;
	x -= (float)x0;
	y -= (float)y0;
	return (share[y0 * side + x0] * (1 - x) + share[y0 * side + x1] * x) * (1 - y) +
	       (share[y1 * side + x0] * (1 - x) + share[y1 * side + x1] * x) * y;
}

static void paint(uint8_t *pixel, float share)
{
	const float grey = .299f * pixel[0] + .587f * pixel[1] + .114f * pixel[2];
	float at = share * (N_COLOURS - 1);
	unsigned i = at >= N_COLOURS - 1 ? N_COLOURS - 2 : (unsigned)at;

	at -= (float)i;
	for (unsigned c = 0; c < 3; c++) {
		float colour = colours[i][c] * (1 - at) + colours[i + 1][c] * at;

		pixel[c] = (uint8_t)lrintf(grey * (1 - OPACITY) + colour * OPACITY);
	}
}

/* The part of the image, in colour whatever it is, in the size that is drawn. */
static int cut(struct image **ret_image, const struct image_view *src, const struct resize_box *box)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	_cleanup_(image_freep) struct image *image = NULL;
	const float longer = box->width > box->height ? box->width : box->height;
	float by = 1;
	uint32_t width, height;
	int r;

	if (!(longer >= 1))
		return -EINVAL;
	if (longer < HEATMAP_MIN_PX)
		by = HEATMAP_MIN_PX / longer;
	else if (longer > HEATMAP_MAX_PX)
		by = HEATMAP_MAX_PX / longer;
	width = (uint32_t)fmaxf(1, roundf(box->width * by));
	height = (uint32_t)fmaxf(1, roundf(box->height * by));
	r = image_new(&image, width, height, 3);
	if (r == 0)
		r = resize_scratch_new(&scratch);
	if (r == 0)
		r = resize_u8(image->pixels, width, height, src, box, RESIZE_BICUBIC, scratch);
	if (r < 0)
		return r;
	/* Grey pixels lie at the front: apart from the last on, so that none is written over. */
	for (size_t i = (size_t)width * height; src->n_channels == 1 && i-- > 0;)
		memset(image->pixels + 3 * i, image->pixels[i], 3);
	*ret_image = TAKE_PTR(image);
	return 0;
}

int heatmap_draw(struct image **ret_image, const struct image_view *src,
	const struct resize_box *box, const float *map, uint32_t side)
{
	_cleanup_(image_freep) struct image *image = NULL;
	_cleanup_(freep) float *share = NULL;
	int r;

	if (side == 0)
		return -EINVAL;
	share = malloc((size_t)side * side * sizeof(*share));
	if (!share)
		return -ENOMEM;
	r = scale(share, map, (size_t)side * side);
	if (r == 0)
		r = cut(&image, src, box);
	if (r < 0)
		return r;
	for (uint32_t y = 0; y < image->height; y++)
		for (uint32_t x = 0; x < image->width; x++)
			paint(image->pixels + 3 * ((size_t)y * image->width + x),
				between(share, side,
					((float)x + .5f) * (float)side / (float)image->width - .5f,
					((float)y + .5f) * (float)side / (float)image->height -
						.5f));
	*ret_image = TAKE_PTR(image);
	return 0;
}
