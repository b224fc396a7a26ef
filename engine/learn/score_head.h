/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_SCORE_HEAD_H
#define KAMEN_LEARN_SCORE_HEAD_H

#include "learn/head.h"
#include "learn/plot.h"
#include "learn/recipe.h"
#include "mask/bits.h"

/**
 * A random linear head over classes that is frozen and itself masked, by scores of its own, a
 * threshold and the same scale (algorithms.md 1.5 and 1.7); no bias. What learns from labels asks it.
 */
struct score_head {
	struct recipe recipe;
	uint32_t n_classes, width;
	struct arena *arena;
	struct mask_layout *layout; /* of the one tensor */
	struct mask *mask;
	float *weights; /* (n_classes, width), frozen */

	/* State. */
	float *scores;         /* (n_classes, width) */
	float *first, *second; /* moments of it; second: NULL with SGD */

	/* Scratch of one step. */
	float *effective; /* (n_classes, width) what the mask makes of the weights */
	float *gradients; /* (n_classes, width) */
};

/** Fills one that is all 0; 0 or -ENOMEM. */
int score_head_init(
	struct score_head *head, const struct recipe *recipe, uint32_t n_classes, uint32_t width);
void score_head_done(struct score_head *head);
/** Floats of its state. */
size_t score_head_state(const struct score_head *head);
void score_head_map(struct score_head *head, float *state);
void score_head_start(struct score_head *head);
/** What its scores make of it now; a checkpoint need not hold it. Borrowed until the next. */
struct head score_head_masked(struct score_head *head);
/** A step of the scores along gradients, which are of the effective weights. step: from 0. */
void score_head_update(struct score_head *head, uint32_t step);

#endif
