/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_SUPERVISED_H
#define KAMEN_LEARN_SUPERVISED_H

#include "learn/head.h"
#include "learn/objective.h"
#include "learn/plot.h"
#include "mask/bits.h"

/**
 * Cross-entropy on a random linear head that is frozen and itself masked, by scores of its own, a
 * threshold and the same scale (algorithms.md 1.5 and 1.7); no bias. Every view is asked for the image's class;
 * an image without one is asked nothing.
 */
struct supervised {
	struct objective base;
	struct recipe recipe;
	struct arena *arena;
	const uint32_t *labels; /* of the source */
	uint32_t n_classes, width, n_views;
	struct mask_layout *layout; /* of the one tensor */
	struct mask *mask;
	float *weights; /* (n_classes, width), frozen */

	/* State. */
	float *scores;         /* (n_classes, width) */
	float *first, *second; /* moments of it; second: NULL with SGD */

	/* Scratch of one step; R = n_views * batch rows. */
	float *effective; /* (n_classes, width) what the mask makes of the weights */
	float *gradients; /* (n_classes, width) */
	float *o, *d_o;   /* (R, n_classes) */
};

/**
 * Mean cross-entropy of the rows whose label is below k.
 *
 * @param o       (n, k)
 * @param labels  (n)
 * @param d_o     like o, overwritten
 */
double supervised_loss(const float *o, const uint32_t *labels, uint32_t n, uint32_t k, float *d_o);

#endif
