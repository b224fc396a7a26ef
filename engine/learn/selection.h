/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_SELECTION_H
#define KAMEN_LEARN_SELECTION_H

#include "learn/recipe.h"

/** What a recipe says about scores before the first step: where they start, and which bits they may
 * move. Both are drawn by (seed, tensor). */

/**
 * Selective masking: blocks, layers and share of the recipe.
 *
 * @param ret_mask  a bit is on where it may flip; NULL: every one may
 */
int selection_new(struct mask **ret_mask, const struct vit *vit, const struct recipe *recipe);

/** scores (n_elements) of the first step: every one above the threshold, but for topk. */
void selection_start(float *scores, const struct vit *vit, const struct recipe *recipe);

#endif
