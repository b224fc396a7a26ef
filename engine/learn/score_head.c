/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>

#include "base/rng.h"
#include "learn/optimiser.h"
#include "learn/score_head.h"
#include "learn/streams.h"
#include "mask/row.h"
#include "mask/scores.h"

static size_t n_weights(const struct score_head *head)
{
	return (size_t)head->n_classes * head->width;
}

/* As a linear layer usually begins: U(-1, 1) / sqrt(width). */
static void draw_weights(struct score_head *head)
{
	struct rng rng = rng_stream(head->recipe.seed, 0, 0, STREAM_HEAD);
	float bound = 1 / sqrtf((float)head->width);

	for (size_t i = 0; i < n_weights(head); i++)
		head->weights[i] = rng_range(&rng, -bound, bound);
}

static int make_mask(struct score_head *head)
{
	static const char *const name = "head";
	const size_t n = n_weights(head);
	int r;

	r = mask_layout_new(&head->layout, 1, &name, &n);
	return r < 0 ? r : mask_new(&head->mask, head->layout);
}

int score_head_init(
	struct score_head *head, const struct recipe *recipe, uint32_t n_classes, uint32_t width)
{
	const size_t n = (size_t)n_classes * width;
	int r;

	head->recipe = *recipe;
	head->n_classes = n_classes;
	head->width = width;
	r = plot_lay_out(&head->arena,
		(const struct plot[]){
			{ &head->weights, n },
			{ &head->effective, n },
			{ &head->gradients, n },
		},
		3);
	if (r == 0)
		r = make_mask(head);
	if (r == 0)
		draw_weights(head);
	return r;
}

void score_head_done(struct score_head *head)
{
	mask_free(head->mask);
	mask_layout_free(head->layout);
	arena_free(head->arena);
}

size_t score_head_state(const struct score_head *head)
{
	return (head->recipe.optimiser == RECIPE_ADAM ? 3 : 2) * n_weights(head);
}

void score_head_map(struct score_head *head, float *state)
{
	const size_t n = n_weights(head);

	head->scores = state;
	head->first = state + n;
	head->second = head->recipe.optimiser == RECIPE_ADAM ? state + 2 * n : NULL;
}

void score_head_start(struct score_head *head)
{
	for (size_t i = 0; i < n_weights(head); i++)
		head->scores[i] = head->recipe.score_init;
}

struct head score_head_masked(struct score_head *head)
{
	size_t n = n_weights(head);
	float inverse;

	mask_from_scores(head->mask, head->scores, head->recipe.score_threshold);
	inverse = 1 / mask_alpha(head->mask, 0);
	kern_mask_row()(head->effective, head->weights, head->mask->words, n);
	for (size_t i = 0; i < n; i++)
		head->effective[i] *= inverse;
	return (struct head){
		.width = head->width,
		.dim = head->width,
		.n_prototypes = head->n_classes,
		.prototypes = head->effective,
	};
}

void score_head_update(struct score_head *head, uint32_t step)
{
	const struct recipe *recipe = &head->recipe;
	const float *weights = head->weights;
	size_t n = n_weights(head);
	float lr = schedule_warm(recipe->score_lr, step, recipe->steps, recipe_warm_steps(recipe));

	scores_backward(head->gradients, head->gradients, &weights, head->mask, recipe->alpha_term);
	if (recipe->optimiser == RECIPE_ADAM)
		optimiser_adam(
			head->scores, head->first, head->second, head->gradients, n, lr, step + 1);
	else
		optimiser_sgd(head->scores, head->first, head->gradients, n, lr);
}
