/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "learn/optimiser.h"
#include "learn/softmax.h"
#include "learn/streams.h"
#include "learn/supervised.h"
#include "mask/scores.h"

static struct supervised *supervised_of(struct objective *objective)
{
	return (struct supervised *)objective;
}

static size_t n_weights(const struct supervised *supervised)
{
	return (size_t)supervised->n_classes * supervised->width;
}

static uint32_t supervised_branches(
	const struct recipe *recipe, const struct vit_shape *shape, struct branch *branches)
{
	(void)shape;
	branches[0] = (struct branch){ .n_views = 1 };
	branches[1] = (struct branch){ .is_small = true, .n_views = recipe->n_small };
	return recipe->n_small > 0 ? 2 : 1;
}

static void supervised_free(struct objective *objective)
{
	struct supervised *supervised = supervised_of(objective);

	mask_free(supervised->mask);
	mask_layout_free(supervised->layout);
	arena_free(supervised->arena);
	free(supervised);
}

/* As a linear layer usually begins: U(-1, 1) / sqrt(width). */
static void draw_weights(struct supervised *supervised)
{
	struct rng rng = rng_stream(supervised->recipe.seed, 0, 0, STREAM_HEAD);
	float bound = 1 / sqrtf((float)supervised->width);

	for (size_t i = 0; i < n_weights(supervised); i++)
		supervised->weights[i] = rng_range(&rng, -bound, bound);
}

static int make_mask(struct supervised *supervised)
{
	static const char *const name = "head";
	const size_t n = n_weights(supervised);
	int r;

	r = mask_layout_new(&supervised->layout, 1, &name, &n);
	return r < 0 ? r : mask_new(&supervised->mask, supervised->layout);
}

static int allocate(struct supervised *supervised)
{
	size_t n = n_weights(supervised);
	size_t n_rows = (size_t)supervised->n_views * supervised->recipe.batch;

	return plot_lay_out(&supervised->arena,
		(const struct plot[]){
			{ &supervised->weights, n },
			{ &supervised->effective, n },
			{ &supervised->gradients, n },
			{ &supervised->o, n_rows * supervised->n_classes },
			{ &supervised->d_o, n_rows * supervised->n_classes },
		},
		5);
}

static int supervised_make(struct objective **ret_objective, const struct objective_setup *setup)
{
	struct supervised *supervised = calloc(1, sizeof(*supervised));
	int r;

	if (!supervised)
		return -ENOMEM;
	supervised->recipe = *setup->recipe;
	supervised->labels = setup->source->labels;
	supervised->n_classes = setup->source->n_classes;
	supervised->width = vit_shape(setup->vit)->width;
	supervised->n_views = 1 + setup->recipe->n_small;
	supervised->base.n_state =
		(setup->recipe->optimiser == RECIPE_ADAM ? 3 : 2) * n_weights(supervised);
	supervised->base.scale = log(supervised->n_classes);
	r = allocate(supervised);
	if (r == 0)
		r = make_mask(supervised);
	if (r < 0) {
		supervised_free(&supervised->base);
		return r;
	}
	draw_weights(supervised);
	*ret_objective = &supervised->base;
	return 0;
}

static void supervised_map(struct objective *objective, float *state)
{
	struct supervised *supervised = supervised_of(objective);
	size_t n = n_weights(supervised);

	supervised->scores = state;
	supervised->first = state + n;
	supervised->second = supervised->recipe.optimiser == RECIPE_ADAM ? state + 2 * n : NULL;
}

static int supervised_start(struct objective *objective, const float *features, uint32_t n)
{
	struct supervised *supervised = supervised_of(objective);

	(void)features;
	(void)n;
	for (size_t i = 0; i < n_weights(supervised); i++)
		supervised->scores[i] = supervised->recipe.score_init;
	return 0;
}

/* The mask is a function of the scores: a checkpoint need not hold it. */
static struct head masked_head(struct supervised *supervised)
{
	size_t n = n_weights(supervised);
	float inverse;

	mask_from_scores(supervised->mask, supervised->scores, supervised->recipe.score_threshold);
	inverse = 1 / mask_alpha(supervised->mask, 0);
	kern_mask_row()(supervised->effective, supervised->weights, supervised->mask->words, n);
	for (size_t i = 0; i < n; i++)
		supervised->effective[i] *= inverse;
	return (struct head){
		.width = supervised->width,
		.dim = supervised->width,
		.n_prototypes = supervised->n_classes,
		.prototypes = supervised->effective,
	};
}

/* d_o holds the softmax p of a row and becomes (p - target) * share. @return the row's loss */
static double row_loss(
	const float *o, uint32_t label, double log_sum, uint32_t k, float share, float *d_o)
{
	d_o[label] -= 1;
	for (uint32_t j = 0; j < k; j++)
		d_o[j] *= share;
	return log_sum - (double)o[label];
}

double supervised_loss(const float *o, const uint32_t *labels, uint32_t n, uint32_t k, float *d_o)
{
	uint32_t n_known = 0;
	double loss = 0;

	for (uint32_t i = 0; i < n; i++)
		n_known += labels[i] < k;
	for (uint32_t i = 0; i < n; i++) {
		const float *row = o + (size_t)i * k;
		float *d_row = d_o + (size_t)i * k;

		if (labels[i] < k)
			loss += row_loss(row, labels[i], softmax_row(d_row, row, k, 1), k,
				1 / (float)n_known, d_row);
		else
			memset(d_row, 0, k * sizeof(*d_row));
	}
	return n_known > 0 ? loss / n_known : 0;
}

static int supervised_step_loss(
	struct objective *objective, const struct objective_batch *batch, double *ret_loss)
{
	const float *f = batch->branches[0].out; /* (n_views, batch, width): both branches' */
	struct supervised *supervised = supervised_of(objective);
	uint32_t n_batch = supervised->recipe.batch, n_rows = supervised->n_views * n_batch;
	_cleanup_(freep) uint32_t *labels = malloc(n_rows * sizeof(*labels));
	struct head head = masked_head(supervised);

	if (!labels)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_rows; i++)
		labels[i] = supervised->labels[batch->images[i % n_batch]];
	head_score(&head, f, n_rows, supervised->o);
	*ret_loss = supervised_loss(
		supervised->o, labels, n_rows, supervised->n_classes, supervised->d_o);
	memset(supervised->gradients, 0, n_weights(supervised) * sizeof(float));
	head_score_backward(
		supervised->gradients, batch->branches[0].d_out, &head, f, supervised->d_o, n_rows);
	return 0;
}

static void supervised_update(struct objective *objective, const struct objective_batch *batch)
{
	struct supervised *supervised = supervised_of(objective);
	const struct recipe *recipe = &supervised->recipe;
	const float *weights = supervised->weights;
	size_t n = n_weights(supervised);
	float lr = schedule_warm(
		recipe->score_lr, batch->step, recipe->steps, recipe_warm_steps(recipe));

	scores_backward(supervised->gradients, supervised->gradients, &weights, supervised->mask,
		recipe->alpha_term);
	if (recipe->optimiser == RECIPE_ADAM)
		optimiser_adam(supervised->scores, supervised->first, supervised->second,
			supervised->gradients, n, lr, batch->step + 1);
	else
		optimiser_sgd(supervised->scores, supervised->first, supervised->gradients, n, lr);
}

const struct objective_kind objective_supervised = {
	.name = "supervised",
	.wants_labels = true,
	.branches = supervised_branches,
	.make = supervised_make,
	.free = supervised_free,
	.map = supervised_map,
	.start = supervised_start,
	.loss = supervised_step_loss,
	.update = supervised_update,
};
