/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_PATCH_MASK_H
#define KAMEN_LEARN_PATCH_MASK_H

#include "base/rng.h"

/* Which patches of an image are hidden (algorithms.md 2.3). */

/** How many stay visible: floor(n_patches (1 - ratio)), 1 at the least. */
uint32_t patch_mask_n_kept(uint32_t n_patches, float ratio);
/** Share of the hidden ones that is chosen by hardness: linear from `first` up to `last`, which the
 * last step has. The authors' epochs are steps here: a round has few epochs. */
double patch_mask_share(float first, float last, uint32_t step, uint32_t steps);
/** floor(n_hidden share), n_hidden at the most. */
uint32_t patch_mask_n_hard(uint32_t n_hidden, double share);

struct patch_mask {
	uint32_t n_patches, n_kept, n_hard; /* n_kept + n_hard <= n_patches */
};

/**
 * The n_hard hardest patches are hidden, of equal ones the first; what else is hidden is drawn
 * uniformly from the others. What is not a number is the easiest.
 *
 * @param hardness  (n_patches), or NULL with n_hard 0
 * @param order     (n_patches): ret, the n_kept visible ones, then the hidden ones, each ascending
 */
void patch_mask_choose(
	const struct patch_mask *mask, const float *hardness, struct rng *rng, uint32_t *order);

#endif
