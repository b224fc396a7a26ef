/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>

#include "image/prep.h"

#define MAX_INPUT_PX 1024u
#define MIN_CROP 0.1f
#define MIN_STD 0.01f
#define MAX_STD 10.f

#define ENCODED_BYTES (4 * (3 + 3 + 3 + 4 + 2))

static uint8_t *put_u32(uint8_t *p, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		*p++ = (uint8_t)(value >> 8 * i);
	return p;
}

static uint8_t *put_f32(uint8_t *p, float value)
{
	union {
		float f;
		uint32_t u;
	} bits = { .f = value + 0.f }; /* -0 is 0 */

	return put_u32(p, bits.u);
}

struct digest prep_digest(const struct prep *prep)
{
	uint8_t encoded[ENCODED_BYTES], *p = encoded;

	p = put_u32(p, prep->input_px);
	p = put_u32(p, (uint32_t)prep->resize);
	p = put_f32(p, prep->crop);
	for (unsigned c = 0; c < 3; c++)
		p = put_f32(p, prep->mean[c]);
	for (unsigned c = 0; c < 3; c++)
		p = put_f32(p, prep->std[c]);
	for (unsigned i = 0; i < 4; i++)
		p = put_u32(p, prep->roi[i]);
	for (unsigned i = 0; i < 2; i++)
		p = put_u32(p, prep->tiles[i]);
	return digest_of(encoded, (size_t)(p - encoded));
}

int prep_check(const struct prep *prep, uint32_t patch, struct diag *diag)
{
	if (prep->input_px == 0 || prep->input_px % patch != 0 || prep->input_px > MAX_INPUT_PX)
		return diag_set(diag, EINVAL, "input_px=%u: a multiple of the patch %u, at most %u",
			prep->input_px, patch, MAX_INPUT_PX);
	if (prep->resize != PREP_CROP && prep->resize != PREP_SQUASH)
		return diag_set(diag, EINVAL, "resize=%d: crop or squash", (int)prep->resize);
	if (!(prep->crop >= MIN_CROP && prep->crop <= 1))
		return diag_set(
			diag, EINVAL, "crop=%g: %g to 1", (double)prep->crop, (double)MIN_CROP);
	for (unsigned c = 0; c < 3; c++) {
		if (!(prep->mean[c] >= 0 && prep->mean[c] <= 1))
			return diag_set(diag, EINVAL, "mean=%g: 0 to 1", (double)prep->mean[c]);
		if (!(prep->std[c] >= MIN_STD && prep->std[c] <= MAX_STD))
			return diag_set(diag, EINVAL, "std=%g: %g to %g", (double)prep->std[c],
				(double)MIN_STD, (double)MAX_STD);
	}
	for (unsigned i = 0; i < 4; i++)
		if (prep->roi[i] != 0)
			return diag_set(diag, EINVAL, "roi: not supported yet, must be 0");
	if (prep->tiles[0] != 0 || prep->tiles[1] != 0)
		return diag_set(diag, EINVAL, "tiles: not supported yet, must be 0");
	return 0;
}

/* The part of n source pixels that a centre crop of `crop` pixels sees when all n become n_resized.
 * Halves round to even, as Python rounds them. */
static void centre(
	float *ret_begin, float *ret_length, uint32_t n, uint64_t n_resized, uint32_t crop)
{
	double step = (double)n / (double)n_resized;

	*ret_begin = (float)(nearbyint(((double)n_resized - crop) / 2) * step);
	*ret_length = (float)(crop * step);
}

struct resize_box prep_source_box(const struct prep *prep, const struct image_view *src)
{
	uint32_t shorter = (uint32_t)lroundf((float)prep->input_px / prep->crop);
	uint32_t side = src->width < src->height ? src->width : src->height;
	struct resize_box box = { 0, 0, (float)src->width, (float)src->height };

	if (prep->resize == PREP_SQUASH)
		return box;
	centre(&box.x, &box.width, src->width, (uint64_t)src->width * shorter / side,
		prep->input_px);
	centre(&box.y, &box.height, src->height, (uint64_t)src->height * shorter / side,
		prep->input_px);
	return box;
}

int prep_apply(const struct prep *prep, const struct image_view *src, float *dst,
	struct resize_scratch *scratch)
{
	const struct resize_box box = prep_source_box(prep, src);
	struct resize_level level[3];

	for (unsigned c = 0; c < 3; c++)
		level[c] = (struct resize_level){ 1 / (255 * prep->std[c]),
			prep->mean[c] / prep->std[c] };
	return resize_levels(dst, prep->input_px, src, &box, RESIZE_BICUBIC, level, scratch);
}
