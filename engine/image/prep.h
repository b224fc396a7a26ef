/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_PREP_H
#define KAMEN_IMAGE_PREP_H

#include "base/digest.h"
#include "image/resize.h"

enum prep_resize {
	PREP_CROP, /* shorter side to round(input_px / crop), then centre crop: the usual ViT evaluation */
	PREP_SQUASH, /* the whole image to input_px x input_px, aspect given up: sees every edge */
};

/**
 * How an image becomes the network's input: a property of the site, by default the model's own.
 * Everything in here changes the embedding space, so all of it goes into one digest.
 */
struct prep {
	uint32_t input_px; /* side of the square input, a multiple of the patch */
	enum prep_resize resize;
	float crop; /* (0, 1]: input_px / shorter side, for PREP_CROP */
	float mean[3], std[3];
	/* Reserved for region of interest and tiling; zero today, part of the digest. */
	uint32_t roi[4];
	uint32_t tiles[2];
};

/** Over a fixed little-endian encoding, not over the struct's bytes. */
struct digest prep_digest(const struct prep *prep);

/** @return 0, or -EINVAL with the field and its range in diag */
int prep_check(const struct prep *prep, uint32_t patch, struct diag *diag);

/** The part of the image that prep_apply() reads, in source pixels. */
struct resize_box prep_source_box(const struct prep *prep, const struct image_view *src);

/**
 * One image to planar normalised floats; grey is repeated to three channels.
 *
 * @param dst  (3, input_px, input_px)
 * @return 0 or -ENOMEM (only while scratch still grows)
 */
int prep_apply(const struct prep *prep, const struct image_view *src, float *dst,
	struct resize_scratch *scratch);

#endif
