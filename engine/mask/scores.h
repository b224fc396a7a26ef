/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_SCORES_H
#define KAMEN_MASK_SCORES_H

#include "mask/bits.h"

/**
 * The other rule (algorithms.md 1.2, topk): per tensor the lowest scores are dropped, of equal ones
 * the first: of n as many as (1 - keep) * n has whole ones in double, as its authors count. That is
 * one fewer than .1 * 10 where 1 - .9 is a little below .1. Overwrites mask.
 *
 * @param may_drop  the bits among which it chooses, the others stay on; NULL: all
 */
void scores_keep_top(
	struct mask *mask, const float *scores, float keep, const struct mask *may_drop);

/** Makes 0 what belongs to a bit that is off: values (n_elements). */
void scores_confine(float *values, const struct mask *mask);

/**
 * Straight-through gradient of the scores (algorithms.md 1.3), per tensor with density m:
 *
 *   dS_j = G_j W_j m^(-1/2) - 1/(2N) m^(-3/2) sum_i G_i W_i M_i
 *
 * The main term is there for dropped weights too: that is how one comes back.
 *
 * @param dscores     (n_elements), overwritten; may be grad
 * @param grad        (n_elements) G = dL/dW' of every maskable tensor
 * @param weights     (n_tensors) pointers to the frozen values, each (n)
 * @param alpha_term  false leaves the second term out (for comparison)
 */
void scores_backward(float *dscores, const float *grad, const float *const *weights,
	const struct mask *mask, bool alpha_term);

#endif
