/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_RESIZE_H
#define KAMEN_IMAGE_RESIZE_H

#include "image/image.h"

enum resize_filter {
	RESIZE_BILINEAR,
	RESIZE_BICUBIC, /* a = -0.5 */
};

/** A source rectangle in pixels; fractions are allowed (random crops, centre crops). */
struct resize_box {
	float x, y, width, height;
};

struct resize_scratch;
int resize_scratch_new(struct resize_scratch **ret_scratch);
void resize_scratch_free(struct resize_scratch *scratch);
DEFINE_CLEANUP(struct resize_scratch *, resize_scratch_free)
/** Room for n_bytes of result, valid until the next call; NULL: no memory. */
uint8_t *resize_scratch_pixels(struct resize_scratch *scratch, size_t n_bytes);

/**
 * Resamples box to (height, width) with support scaled by the reduction (antialiased, the
 * convention of PIL: separable, horizontal first, result rounded to 8 bit), so that the same
 * numbers come out as in the Python tools that the models were trained with (max 1 level apart).
 *
 * @param box      inside of src; pixels beside it within the filter's reach count too
 * @param scratch  grown as needed, reused between calls: nothing is allocated in steady state
 * @return 0, -ENOMEM, or -EINVAL: box outside of src, or nothing to fill
 */
int resize_u8(uint8_t *dst, uint32_t dst_width, uint32_t dst_height, const struct image_view *src,
	const struct resize_box *box, enum resize_filter filter, struct resize_scratch *scratch);

/** level * scale - shift */
struct resize_level {
	float scale, shift;
};

/**
 * resize_u8() to (3, side, side) of levels, with what becomes of them a channel; grey fills all
 * three. In the caller's OpenMP threads, so not for who has forked or is confined.
 * @return as resize_u8()
 */
int resize_levels(float *dst, uint32_t side, const struct image_view *src,
	const struct resize_box *box, enum resize_filter filter, const struct resize_level level[3],
	struct resize_scratch *scratch);

/** A new image with the shorter side reduced to `shorter` (bicubic), or a copy if it is not larger. */
int image_shrink(struct image **ret_image, const struct image_view *src, uint32_t shorter);

#endif
