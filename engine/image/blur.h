/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_BLUR_H
#define KAMEN_IMAGE_BLUR_H

#include <stddef.h>
#include <stdint.h>

#define BLUR_MAX_TAPS 9u
/* Reflection at the edges needs more pixels than the kernel's half. */
#define BLUR_MIN_PX 5u

/** Floats of scratch that blur_planes() needs. */
static inline size_t blur_scratch_floats(uint32_t px)
{
	return (size_t)px * px + px + BLUR_MAX_TAPS;
}

/**
 * Gaussian blur of three planes in place, separable, edges reflected (edge pixel not repeated).
 *
 * @param planes  (3, px, px)
 * @param n_taps  5 or 9
 */
void blur_planes(float *planes, uint32_t px, unsigned n_taps, float sigma, float *scratch);

#endif
