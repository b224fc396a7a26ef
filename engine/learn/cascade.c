/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "learn/cascade_state.h"

struct cascade_options cascade_options_default(void)
{
	return (struct cascade_options){ .n_experts = 3, .n_route = 20 };
}

static int copy_mask(struct mask **ret_mask, const struct mask *mask)
{
	int r = mask_new(ret_mask, mask->layout);

	if (r == 0)
		mask_copy(*ret_mask, mask);
	return r;
}

/* The mask that was kept need not be that of the last scores: where it says otherwise, they are put
 * as far beyond the threshold as they were before it, so that experts begin at the mask. */
static void agree(float *scores, const struct mask *mask, float threshold)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &mask->layout->tensors[t];

		for (size_t i = 0; i < tensor->n; i++) {
			float *score = &scores[tensor->offset + i];

			if (mask_get(mask, t, i) != (*score > threshold))
				*score = 2 * threshold - *score;
		}
	}
}

static int take_dispatcher(struct cascade *cascade, const struct mask *mask, const float *scores)
{
	size_t n_bytes = vit_layout(cascade->vit)->n_elements * sizeof(*scores);
	int r;

	cascade->scores = malloc(n_bytes);
	if (!cascade->scores)
		return -ENOMEM;
	memcpy(cascade->scores, scores, n_bytes);
	if (cascade->recipe.mask == RECIPE_THRESHOLD)
		agree(cascade->scores, mask, cascade->recipe.score_threshold);
	r = copy_mask(&cascade->masks[0], mask);
	return r < 0 ? r : vit_slot_new(&cascade->slot, cascade->vit, SLOT_INFER);
}

int cascade_new(struct cascade **ret_cascade, struct vit *vit,
	const struct cascade_options *options, const struct recipe *recipe, const struct prep *prep,
	const struct image_source *source, const struct mask *mask, const float *scores,
	struct diag *diag)
{
	_cleanup_(cascade_freep) struct cascade *cascade = NULL;
	int r;

	if (options->n_experts == 0 || options->n_experts > CASCADE_MAX_EXPERTS ||
		options->n_route == 0 || options->n_route > vit_shape(vit)->width)
		return diag_set(diag, EINVAL, "cascade: %u experts, %u dimensions",
			options->n_experts, options->n_route);
	if (source->n < options->n_experts + 2)
		return diag_set(diag, EINVAL, "cascade: %u images for %u experts", source->n,
			options->n_experts);
	/* What they go on from is its. */
	if (recipe->objective != RECIPE_SWAV)
		return diag_set(diag, EINVAL, "cascade: experts are learnt by swav, not otherwise");
	cascade = calloc(1, sizeof(*cascade));
	if (!cascade)
		return -ENOMEM;
	cascade->vit = vit;
	cascade->options = *options;
	cascade->recipe = *recipe;
	cascade->prep = *prep;
	cascade->learnt.source = *source;
	if (options->held)
		cascade->held.source = *options->held;
	r = take_dispatcher(cascade, mask, scores);
	if (r == 0)
		r = cascade_divide(cascade, diag);
	if (r < 0)
		return r;
	*ret_cascade = TAKE_PTR(cascade);
	return 0;
}

void cascade_free(struct cascade *cascade)
{
	if (!cascade)
		return;
	round_free(cascade->round);
	early_stop_free(cascade->stop);
	for (unsigned i = 0; i <= CASCADE_MAX_EXPERTS; i++)
		mask_free(cascade->masks[i]);
	for (unsigned i = 0; i < CASCADE_N_MODES; i++)
		whiten_free(cascade->fusions[i]);
	whiten_free(cascade->route);
	gmm_free(cascade->mixture);
	slot_free(cascade->slot);
	free(cascade->scores);
	free(cascade->learnt.order);
	free(cascade->held.order);
	free(cascade);
}

uint32_t cascade_n_experts(const struct cascade *cascade)
{
	return cascade->options.n_experts;
}

uint32_t cascade_n_images(const struct cascade *cascade, uint32_t expert)
{
	return cascade->learnt.first[expert + 1] - cascade->learnt.first[expert];
}

const struct mask *cascade_expert(const struct cascade *cascade, uint32_t expert)
{
	return cascade->masks[1 + expert];
}

int cascade_give(struct cascade *cascade, uint32_t expert, const struct mask *mask)
{
	if (cascade->round || cascade->masks[1 + expert])
		return -EBUSY;
	return copy_mask(&cascade->masks[1 + expert], mask);
}

/* As the dispatcher learnt, but for what so few images cannot fill. */
static struct recipe expert_recipe(const struct cascade *cascade, uint32_t n_images)
{
	struct recipe recipe = cascade->recipe;
	struct recipe own = recipe_default(cascade->vit, &cascade->prep, n_images);

	recipe.experts = 0;
	if (recipe.batch > own.batch)
		recipe.batch = own.batch;
	if (recipe.n_prototypes > own.n_prototypes)
		recipe.n_prototypes = own.n_prototypes;
	if (recipe.head_dim > own.head_dim)
		recipe.head_dim = own.head_dim;
	if (recipe.queue > own.queue)
		recipe.queue = own.queue;
	return recipe;
}

uint32_t cascade_first_missing(const struct cascade *cascade)
{
	uint32_t expert = 0;

	while (expert < cascade->options.n_experts && cascade->masks[1 + expert])
		expert++;
	return expert;
}

static struct image_source take_part(struct cascade_share *share, uint32_t expert)
{
	share->part = (struct embed_part){ &share->source, share->order + share->first[expert],
		share->first[expert + 1] - share->first[expert] };
	return embed_part_source(&share->part);
}

void cascade_drop_round(struct cascade *cascade)
{
	round_free(TAKE_PTR(cascade->round));
	early_stop_free(TAKE_PTR(cascade->stop));
	cascade->step = 0;
}

int cascade_begin(struct cascade *cascade, uint32_t expert, struct diag *diag)
{
	struct recipe recipe = expert_recipe(cascade, cascade_n_images(cascade, expert));
	struct image_source source = take_part(&cascade->learnt, expert), held;
	int r = 0;

	if (cascade->held.order) {
		held = take_part(&cascade->held, expert);
		r = early_stop_new(&cascade->stop, cascade->vit, &recipe, &cascade->prep, &held,
			cascade->masks[0], &cascade->options.limits);
	}
	if (r == 0)
		r = round_new(
			&cascade->round, cascade->vit, &recipe, &cascade->prep, &source, diag);
	if (r < 0) {
		cascade_drop_round(cascade);
		return r;
	}
	round_start_at(cascade->round, cascade->scores);
	return 0;
}

/* The best mask of the round that has ended. */
static const struct mask *best_mask(const struct cascade *cascade)
{
	if (!cascade->stop)
		return round_mask(cascade->round);
	return early_stop_is_sound(cascade->stop) ? early_stop_mask(cascade->stop)
						  : cascade->masks[0];
}

static int end(struct cascade *cascade, uint32_t expert)
{
	int r = copy_mask(&cascade->masks[1 + expert], best_mask(cascade));

	if (r < 0)
		return r;
	cascade_drop_round(cascade);
	return 0;
}

static int learn(struct cascade *cascade, uint32_t expert, struct round_progress *ret_progress,
	struct diag *diag)
{
	struct diag why = { "" };
	int r = 0, stopped = 0;

	if (cascade_n_images(cascade, expert) < CASCADE_MIN_IMAGES)
		return copy_mask(&cascade->masks[1 + expert], cascade->masks[0]);
	if (!cascade->round)
		r = cascade_begin(cascade, expert, diag);
	if (r == 0)
		r = round_step(cascade->round, ret_progress);
	if (r >= 0 && cascade->stop)
		stopped = early_stop_step(
			cascade->stop, ret_progress, round_mask(cascade->round), &why);
	if (r < 0 || stopped < 0)
		return r < 0 ? r : stopped;
	return r > 0 && !stopped ? 0 : end(cascade, expert);
}

int cascade_step(struct cascade *cascade, struct cascade_progress *ret_progress, struct diag *diag)
{
	uint32_t expert = cascade_first_missing(cascade), n = cascade->options.n_experts;
	struct cascade_progress progress = { .expert = expert, .n_experts = n };
	int r = 0;

	if (expert < n)
		r = learn(cascade, expert, &progress.round, diag);
	else if (!cascade->fusions[CASCADE_UNCONDITIONAL])
		r = cascade_fuse(cascade);
	if (r < 0)
		return r;
	cascade->step = cascade->round ? progress.round.step : 0;
	*ret_progress = progress;
	return expert < n;
}

bool cascade_is_learning(const struct cascade *cascade)
{
	return cascade->step > 0;
}
