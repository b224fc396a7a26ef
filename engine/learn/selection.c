/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>

#include "base/rng.h"
#include "learn/selection.h"
#include "learn/streams.h"

/* Tensors of a block; vit.h gives their order: weights are even, biases odd. */
#define N_PER_BLOCK 8u
#define FC2_WEIGHT 6u
/* A draw of the normal beyond its start would begin switched off: it is turned back, and stays this
 * share of the way above the threshold. */
#define MIN_SPREAD .01f

static bool is_selected(const struct recipe *recipe, unsigned t)
{
	unsigned block = t / N_PER_BLOCK;

	return block >= recipe->first_block && block <= recipe->last_block &&
	       recipe->layers >> (t % N_PER_BLOCK) & 1;
}

static void draw(struct mask *mask, unsigned t, const struct recipe *recipe)
{
	struct rng rng = rng_stream(recipe->seed, t, 0, STREAM_SELECTION);

	for (size_t i = 0; i < mask->layout->tensors[t].n; i++)
		if (rng_uniform(&rng) >= recipe->share)
			mask_put(mask, t, i, false);
}

static void clear(struct mask *mask, unsigned t)
{
	for (size_t i = 0; i < mask->layout->tensors[t].n; i++)
		mask_put(mask, t, i, false);
}

int selection_new(struct mask **ret_mask, const struct vit *vit, const struct recipe *recipe)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	int r;

	r = mask_new(&mask, vit_layout(vit));
	if (r < 0)
		return r;
	for (unsigned t = 0; t < mask->layout->n_tensors; t++)
		if (!is_selected(recipe, t))
			clear(mask, t);
		else if (recipe->share < 1)
			draw(mask, t, recipe);
	*ret_mask = mask_density(mask) < 1 ? TAKE_PTR(mask) : NULL;
	return 0;
}

static void start_threshold(float *scores, size_t n, unsigned t, const struct recipe *recipe)
{
	struct rng rng = rng_stream(recipe->seed, t, 0, STREAM_START);
	float way = recipe->score_init - recipe->score_threshold;

	for (size_t i = 0; i < n; i++) {
		float share;

		if (!(recipe->score_spread > 0)) {
			scores[i] = recipe->score_init;
			continue;
		}
		share = fabsf(1 + recipe->score_spread * rng_normal(&rng));

		scores[i] = recipe->score_threshold + way * fmaxf(share, MIN_SPREAD);
	}
}

/* Kaiming-uniform with a = sqrt(5), which is 1 / sqrt(fan in); vectors are full of sqrt(5). */
static void start_topk(
	float *scores, size_t n, unsigned t, const struct vit_shape *shape, uint64_t seed)
{
	struct rng rng = rng_stream(seed, t, 0, STREAM_START);
	unsigned layer = t % N_PER_BLOCK;
	float bound = 1 / sqrtf((float)(layer == FC2_WEIGHT ? shape->mlp : shape->width));

	for (size_t i = 0; i < n; i++)
		scores[i] = layer % 2 ? sqrtf(5) : rng_range(&rng, -bound, bound);
}

void selection_start(float *scores, const struct vit *vit, const struct recipe *recipe)
{
	const struct mask_layout *layout = vit_layout(vit);

#pragma omp parallel for schedule(static, 1)
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];

		if (recipe->mask == RECIPE_TOPK)
			start_topk(scores + tensor->offset, tensor->n, t, vit_shape(vit),
				recipe->seed);
		else
			start_threshold(scores + tensor->offset, tensor->n, t, recipe);
	}
}
