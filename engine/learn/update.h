/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_UPDATE_H
#define KAMEN_LEARN_UPDATE_H

#include "mask/bits.h"

/** All that a step of the scores reads and writes; arrays (n_elements) of the mask's layout. */
struct update {
	float *scores, *first, *second; /* second: NULL with SGD */
	const float *grad;              /* dL/dW' */
	const float *const *weights;    /* (n_tensors) the frozen values */
	struct mask *mask;              /* of which grad is the gradient; bits: overwritten */
	const struct mask *selection;   /* on where a bit may flip; NULL: everywhere */
	float lr;
	uint32_t step; /* from 1 */
	bool alpha_term;
	bool bits; /* take the mask anew: above the threshold */
	float threshold;
};

/**
 * Straight-through gradient, selection, optimiser and bits, a tensor and of that a piece at a time:
 * memory is passed over once. The same bits as scores_backward(), scores_confine(), optimiser_adam()
 * or optimiser_sgd(), and mask_from_scores() one after the other.
 */
void update_scores(const struct update *update);

#endif
