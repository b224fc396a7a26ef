/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_VIEWS_H
#define KAMEN_LEARN_VIEWS_H

#include "base/rng.h"
#include "learn/round.h"

#define VIEWS_MAX 10u

/** Draws the images of a step and the random views of each: a pure function of (seed, step). A view
 * shows nothing of an image that prep crops away. */
struct views;

int views_new(struct views **ret_views, const struct recipe *recipe, const struct prep *prep,
	const struct image_source *source);
void views_free(struct views *views);
DEFINE_CLEANUP(struct views *, views_free)

/**
 * @param large  (2, batch, 3, large_px, large_px)
 * @param small  (n_small, batch, 3, small_px, small_px)
 * @return 0, or what the source said
 */
int views_fill(struct views *views, uint32_t step, float *large, float *small);

/** One view of one image from a random stream of the caller's: the judge's. */
int views_apply(struct views *views, const struct image_view *image, struct rng rng, uint32_t view,
	float *dst);

#endif
