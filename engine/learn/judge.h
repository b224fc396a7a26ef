/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_JUDGE_H
#define KAMEN_LEARN_JUDGE_H

#include "learn/round.h"

/** Unlabelled figures of one mask on held-out images (design.md section 5, the gate). */
struct judgement {
	uint32_t n;      /* images */
	float retrieval; /* share of views whose nearest neighbour is their twin, both ways */
	float margin; /* twin's cosine minus the mean over others, in their standard deviations */
	float effective_rank; /* exp of the entropy of the normalised spectrum */
};

/**
 * Two random views (the recipe's large crops at the size of prep, seeded) of at most max_images.
 * slot has the mask applied.
 */
int judge_views(struct judgement *ret_judgement, struct vit *vit, const struct slot *slot,
	const struct recipe *recipe, const struct prep *prep, const struct image_source *source,
	uint32_t max_images);

/** The figures of embedded views: rows (2, n, width), all first views, then all second ones;
 * normalised in place. n at least 3. */
int judge_rows(struct judgement *ret_judgement, float *rows, uint32_t n, uint32_t width);

/** Embeds every image of the source by the site's preprocessing: (n, width), not normalised. */
int judge_embed(float *embeddings, struct vit *vit, const struct slot *slot,
	const struct prep *prep, const struct image_source *source);

#endif
