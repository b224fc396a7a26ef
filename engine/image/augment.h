/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_AUGMENT_H
#define KAMEN_IMAGE_AUGMENT_H

#include "base/rng.h"
#include "image/resize.h"

/** The random view of SwAV (algorithms.md 1.6, Multi-crop and augmentation). */
struct augment {
	uint32_t px;                  /* side of the crop */
	float min_area, max_area;     /* fraction of the image */
	float min_aspect, max_aspect; /* log-uniform */
	float flip_p;
	float jitter_p, brightness, contrast, saturation, hue;
	float grey_p;
	float blur_p, min_sigma, max_sigma;
	float solarize_p; /* 0 in SwAV's; algorithms.md 1.7 has it */
	float mean[3], std[3];
};

/** The paper's values for a crop of px pixels and the given area range. */
struct augment augment_default(
	uint32_t px, float min_area, float max_area, const float mean[3], const float std[3]);

/** Scratch for one thread. */
struct augment_scratch;
int augment_scratch_new(struct augment_scratch **ret_scratch, uint32_t max_px);
void augment_scratch_free(struct augment_scratch *scratch);
DEFINE_CLEANUP(struct augment_scratch *, augment_scratch_free)

/**
 * One random view: resized crop (bilinear), flip, jitter in random order, grey, solarize, blur,
 * normalise.
 * A pure function of (augment, src, rng): the order of draws is part of the format of a version.
 *
 * @param dst  (3, px, px)
 * @return 0, -ENOMEM (only while scratch still grows), -EINVAL: px below 5 or above the scratch's
 */
int augment_apply(const struct augment *augment, const struct image_view *src, struct rng *rng,
	float *dst, struct augment_scratch *scratch);

#endif
