/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_AUGMENT_DRAW_H
#define KAMEN_IMAGE_AUGMENT_DRAW_H

#include <stdbool.h>

#include "image/augment.h"

enum jitter_step { JITTER_BRIGHTNESS, JITTER_CONTRAST, JITTER_SATURATION, JITTER_HUE, N_JITTER };

/** All that chance decides about one view. */
struct augment_draw {
	uint32_t x, y, width, height; /* of the crop, in the source */
	bool flip, jitter, grey, blur, solarize;
	uint32_t order[N_JITTER];
	float amount[N_JITTER]; /* factors, and the shift of the hue */
	float sigma;
};

/** Besides the crop's tries, every value is drawn whether it is used or not. */
struct augment_draw augment_draw(
	const struct augment *augment, uint32_t width, uint32_t height, struct rng *rng);

/** Taps of the blur for a crop of px pixels. */
static inline unsigned augment_blur_taps(uint32_t px)
{
	return px > 64 ? 9 : 5;
}

#endif
