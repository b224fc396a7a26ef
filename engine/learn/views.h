/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_VIEWS_H
#define KAMEN_LEARN_VIEWS_H

#include "base/rng.h"
#include "learn/round.h"

#define VIEWS_MAX 10u

/** Draws the images of a step and the random views of each: a pure function of (seed, step). A view
 * shows nothing of an image that prep crops away. */
struct views;

/** @param n_large  large views of an image, beside the recipe's small ones */
int views_new(struct views **ret_views, const struct recipe *recipe, uint32_t n_large,
	const struct prep *prep, const struct image_source *source);
void views_free(struct views *views);
DEFINE_CLEANUP(struct views *, views_free)

/**
 * @param large  (n_large, batch, 3, large_px, large_px)
 * @param small  (n_small, batch, 3, small_px, small_px), or NULL: none are made
 * @return 0, or what the source said
 */
int views_fill(struct views *views, uint32_t step, float *large, float *small);
/** Which images of the source a step has: (batch). */
void views_images(struct views *views, uint32_t step, uint32_t *images);

/** One view of one image from a random stream of the caller's: the judge's. */
int views_apply(struct views *views, const struct image_view *image, struct rng rng, uint32_t view,
	float *dst);

#endif
