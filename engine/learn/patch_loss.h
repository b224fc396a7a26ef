/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_PATCH_LOSS_H
#define KAMEN_LEARN_PATCH_LOSS_H

#include <stddef.h>
#include <stdint.h>

/* What is asked of hidden patches (algorithms.md 2.3 to 2.5): to be what they were, and how hard that
 * was. */

/** One image (3, px, px) cut into rows of 3 patch^2: (grid^2, patch, patch, 3). */
void patch_cut(float *dst, const float *pixels, uint32_t px, uint32_t patch);
/** The one of them at `index`: (patch, patch, 3). */
void patch_cut_one(float *dst, const float *pixels, uint32_t px, uint32_t patch, uint32_t index);
/** Every row of dim to mean 0 and (unbiased) variance 1; a flat one becomes 0. */
void patch_normalise(float *rows, uint32_t n, uint32_t dim);

struct patch_rows {
	uint32_t n, dim;
	const float *predicted, *target; /* (n, dim) */
};
/** losses (n): mean squared difference of each row; d_predicted (n, dim), overwritten: gradient of
 * their mean, which is returned. */
double patch_loss(const struct patch_rows *rows, float *losses, float *d_predicted);
/** The same of features: squared distance of the rows brought to length 1. */
double patch_feature_loss(const struct patch_rows *rows, float *losses, float *d_predicted);

/**
 * What is paid at the least by who says one and the same of every row, above 0: patch_loss() of the
 * rows' mean, and patch_feature_loss() of their mean direction. `predicted` is not read.
 *
 * @param scratch  (dim)
 */
double patch_guess(const struct patch_rows *rows);
double patch_feature_guess(const struct patch_rows *rows, float *scratch);

/** Predicted hardness against losses, of n patches each of n_images images. */
struct patch_ranks {
	uint32_t n_images, n;
	const float *predicted, *losses; /* (n_images, n) */
};
/**
 * Which of two patches of an image costs more: binary cross-entropy over all pairs of unequal losses
 * (2.4). Both orders of a pair cost the same, so that each is looked at once.
 *
 * @param d_predicted  (n_images, n), overwritten
 * @return the mean over the batch's pairs, 0 where there are none
 */
double patch_rank_loss(const struct patch_ranks *ranks, float *d_predicted);
/** The absolute variant: squared difference to the losses as z-scores of their image. */
double patch_score_loss(const struct patch_ranks *ranks, float *d_predicted);
/** What either costs who says the same of all n patches of every image. */
double patch_rank_guess(void);
double patch_score_guess(uint32_t n);

#endif
