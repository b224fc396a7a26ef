/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_SUPERVISED_H
#define KAMEN_LEARN_SUPERVISED_H

#include "learn/objective.h"
#include "learn/score_head.h"

/**
 * Cross-entropy on a masked random head (score_head.h). Every view is asked for the image's class;
 * an image without one is asked nothing.
 */
struct supervised {
	struct objective base;
	struct score_head head;
	struct arena *arena;
	const uint32_t *labels; /* of the source */
	uint32_t n_views, batch;

	/* Scratch of one step; R = n_views * batch rows. */
	float *o, *d_o; /* (R, n_classes) */
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
