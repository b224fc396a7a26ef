/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_MASKSUB_H
#define KAMEN_LEARN_MASKSUB_H

#include "learn/objective.h"
#include "learn/score_head.h"

/**
 * MaskSub (algorithms.md 3) on a masked random head (score_head.h): half of the loss asks the whole
 * image for its class, the other half asks the same pixels, of which only some patches enter, for what
 * the whole just answered; no gradient goes through that answer. Labelled images alone. Values or
 * paths dropped in that second pass are DropSub and PathSub. The other forms (enum recipe_masksub) are
 * what it is compared with.
 */
struct masksub {
	struct objective base;
	struct score_head head;
	struct arena *arena;
	const uint32_t *labels;  /* of the source */
	uint32_t batch, n_views; /* n_views: of all branches */
	enum recipe_masksub form;
	uint32_t *order; /* (patches) of one view */

	/* Scratch of one step; R = n_views * batch rows. */
	float *o, *d_o;       /* (R, n_classes) */
	uint32_t *row_labels; /* (batch) */
};

/**
 * Mean over rows of the cross-entropy of o with the softmax of `targets`, which gets no gradient.
 *
 * @param o, targets  (n, k)
 * @param d_o         like o, overwritten
 */
double masksub_loss(const float *o, const float *targets, uint32_t n, uint32_t k, float *d_o);

#endif
