/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_JUDGE_H
#define KAMEN_LEARN_JUDGE_H

#include "cascade/mask_set.h"
#include "learn/head.h"
#include "learn/round.h"

#define JUDGE_MIN_IMAGES 3u   /* a twin, and others to compare it with */
#define JUDGE_MAX_IMAGES 512u /* of more, as many, evenly spaced */
#define JUDGE_MAX_DRAWS 4u    /* pairs of views an image, where there are fewer images */

/** Unlabelled figures of one mask on held-out images (design.md section 5, the gate). */
struct judgement {
	uint32_t n;      /* images */
	float retrieval; /* share of views whose nearest neighbour is their twin, both ways */
	float margin; /* twin's cosine minus the mean over others, in their standard deviations */
	float effective_rank; /* exp of the entropy of the normalised spectrum */
	/** Standard errors of the differences from the frozen model's figures, by judge_compare(). */
	float retrieval_error, margin_error;
};

/** What one image contributes to retrieval and margin: the mean over its views. */
struct judge_image {
	double retrieval, margin;
};

/**
 * Random pairs of views (the recipe's large crops at the size of prep, seeded): the same views for
 * every mask. Few images are looked at more than once, up to JUDGE_MAX_DRAWS pairs each.
 * slot has the mask applied and says by its precision how to look. images: room for JUDGE_MAX_IMAGES.
 * -EINVAL: fewer than JUDGE_MIN_IMAGES.
 */
int judge_views(struct judgement *ret_judgement, struct judge_image *images, struct vit *vit,
	const struct slot *slot, const struct recipe *recipe, const struct prep *prep,
	const struct image_source *source);

/** The same views as a mask set sees them. slot: any for SLOT_INFER; it is left with any mask. */
int judge_views_set(struct judgement *ret_judgement, struct judge_image *images, struct vit *vit,
	struct slot *slot, const struct mask_set *set, const struct recipe *recipe,
	const struct prep *prep, const struct image_source *source);

/** How much a look may cost: images, of more as many, evenly spaced; pairs of views of each. */
struct judge_effort {
	uint32_t n_images, n_draws; /* at most JUDGE_MAX_IMAGES; at least 1 */
};
/** judge_views() with another effort. */
int judge_some(struct judgement *ret_judgement, struct judge_image *images, struct vit *vit,
	const struct slot *slot, const struct recipe *recipe, const struct prep *prep,
	const struct image_source *source, struct judge_effort effort);

/** The figures of embedded views: rows (2, n, width), all first views, then all second ones;
 * normalised in place. n at least JUDGE_MIN_IMAGES; images (n). */
int judge_rows(struct judgement *ret_judgement, struct judge_image *images, float *rows, uint32_t n,
	uint32_t width);

/**
 * Fills the errors of a judgement from its images and the frozen model's, image by image: what two
 * masks make of the same views differs by far less than images do among each other.
 */
void judge_compare(struct judgement *judgement, const struct judge_image *images,
	const struct judge_image *frozen);

/**
 * Entropy of a head's mean soft assignment over embeddings (n, width), as a share of ln K: 1 where
 * all prototypes are used alike, little where everything looks the same to the head.
 */
int judge_entropy(float *ret_share, const struct head *head, float temperature,
	const float *embeddings, uint32_t n);

#define JUDGE_NEIGHBOURS 10u
/**
 * Mean share of common nearest neighbours, JUDGE_NEIGHBOURS of each, of the same
 * images in two spaces: a (n, width_a), b (n, width_b), not normalised. By chance it is k / (n - 1).
 * -EINVAL: fewer than 2 * JUDGE_NEIGHBOURS images.
 */
int judge_neighbours(float *ret_share, const float *a, uint32_t width_a, const float *b,
	uint32_t width_b, uint32_t n);

/** Embeds every image of the source by the site's preprocessing, in the slot's precision: (n, width),
 * not normalised. */
int judge_embed(float *embeddings, struct vit *vit, const struct slot *slot,
	const struct prep *prep, const struct image_source *source);

/** Likewise what few-shot classification compares (vit_plan_features()): (n, 2 width). */
int judge_features(float *features, struct vit *vit, const struct slot *slot,
	const struct prep *prep, const struct image_source *source);

/** Embeddings by a mask set: (n, set->n_out). slot: any for SLOT_INFER; it is left with any mask. */
int judge_embed_set(float *embeddings, struct vit *vit, struct slot *slot,
	const struct mask_set *set, const struct prep *prep, const struct image_source *source);

#endif
