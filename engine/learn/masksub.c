/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/masksub.h"
#include "learn/patch_mask.h"
#include "learn/softmax.h"
#include "learn/streams.h"
#include "learn/supervised.h"

static const char *const figure_names[] = { "main", "sub", NULL };

static struct masksub *masksub_of(struct objective *objective)
{
	return (struct masksub *)objective;
}

static uint32_t n_patches(const struct recipe *recipe, const struct vit_shape *shape)
{
	const uint32_t grid = recipe->large_px / shape->patch;

	return grid * grid;
}

static struct branch masked_branch(const struct recipe *recipe, const struct vit_shape *shape)
{
	const uint32_t n = n_patches(recipe, shape);
	const uint32_t n_kept = patch_mask_n_kept(n, recipe->masksub_ratio);

	return (struct branch){
		.n_views = 1,
		.tokens = n_kept < n ? BRANCH_KEPT : BRANCH_ALL,
		.n_kept = n_kept < n ? n_kept : 0,
		.drop = recipe->masksub_drop,
		.drop_path = recipe->masksub_path,
	};
}

static uint32_t masksub_branches(
	const struct recipe *recipe, const struct vit_shape *shape, struct branch *branches)
{
	switch (recipe->masksub_form) {
	case RECIPE_MASKSUB_MASKED:
		branches[0] = masked_branch(recipe, shape);
		return 1;
	case RECIPE_MASKSUB_TWICE:
		branches[0] = (struct branch){ .n_views = 2 };
		return 1;
	default:
		branches[0] = (struct branch){ .n_views = 1 };
		branches[1] = masked_branch(recipe, shape);
		return 2;
	}
}

static void masksub_free(struct objective *objective)
{
	struct masksub *masksub = masksub_of(objective);

	score_head_done(&masksub->head);
	arena_free(masksub->arena);
	free(masksub->order);
	free(masksub->row_labels);
	free(masksub);
}

static int allocate(struct masksub *masksub, const struct objective_setup *setup)
{
	const size_t n = (size_t)masksub->n_views * masksub->batch * setup->source->n_classes;
	const struct vit_shape *shape = vit_shape(setup->vit);
	int r;

	masksub->order = calloc(n_patches(setup->recipe, shape), sizeof(*masksub->order));
	masksub->row_labels =
		calloc((size_t)masksub->n_views * masksub->batch, sizeof(*masksub->row_labels));
	if (!masksub->order || !masksub->row_labels)
		return -ENOMEM;
	r = plot_lay_out(&masksub->arena,
		(const struct plot[]){ { &masksub->o, n }, { &masksub->d_o, n } }, 2);
	return r < 0 ? r
		     : score_head_init(&masksub->head, setup->recipe, setup->source->n_classes,
			       shape->width);
}

static int masksub_make(struct objective **ret_objective, const struct objective_setup *setup)
{
	struct masksub *masksub = calloc(1, sizeof(*masksub));
	int r;

	if (!masksub)
		return -ENOMEM;
	masksub->labels = setup->source->labels;
	masksub->batch = setup->recipe->batch;
	masksub->form = setup->recipe->masksub_form;
	masksub->n_views = masksub->form == RECIPE_MASKSUB_MASKED ? 1 : 2;
	masksub->base.scale = log(setup->source->n_classes);
	r = allocate(masksub, setup);
	if (r < 0) {
		masksub_free(&masksub->base);
		return r;
	}
	masksub->base.n_state = score_head_state(&masksub->head);
	*ret_objective = &masksub->base;
	return 0;
}

static void masksub_map(struct objective *objective, float *state)
{
	score_head_map(&masksub_of(objective)->head, state);
}

static int masksub_start(struct objective *objective, const float *features, uint32_t n)
{
	(void)features;
	(void)n;
	score_head_start(&masksub_of(objective)->head);
	return 0;
}

/* A random subset of each row's patches, drawn anew for each image and step. */
static int masksub_choose(struct objective *objective, struct objective_batch *batch)
{
	struct masksub *masksub = masksub_of(objective);

	for (uint32_t b = 0; b < objective->n_branches; b++) {
		const struct objective_rows *rows = &batch->branches[b];
		const uint32_t n_kept = rows->n_tokens - 1;
		const struct patch_mask mask = { .n_patches = rows->n_patches, .n_kept = n_kept };

		for (uint32_t row = 0; rows->kept && row < rows->n_rows; row++) {
			struct rng rng = rng_stream(masksub->head.recipe.seed, batch->step,
				batch->images[row % masksub->batch],
				STREAM_KEEP + 16 * b + row / masksub->batch);

			patch_mask_choose(&mask, NULL, &rng, masksub->order);
			memcpy(rows->kept + (size_t)row * n_kept, masksub->order,
				n_kept * sizeof(*masksub->order));
		}
	}
	return 0;
}

double masksub_loss(const float *o, const float *targets, uint32_t n, uint32_t k, float *d_o)
{
	double loss = 0;

	for (size_t i = 0; i < n; i++) {
		const float *row = o + i * k;
		float *d_row = d_o + i * k;
		const double log_sum = softmax_row(d_row, row, k, 1);

		(void)softmax_row(d_row, targets + i * k, k, 1);
		for (uint32_t j = 0; j < k; j++) {
			const double surprise = log_sum - (double)row[j];

			loss += (double)d_row[j] * surprise;
			d_row[j] = (float)(exp(-surprise) - (double)d_row[j]) / (float)n;
		}
	}
	return loss / n;
}

static int masksub_step_loss(
	struct objective *objective, const struct objective_batch *batch, double *ret_loss)
{
	struct masksub *masksub = masksub_of(objective);
	const float *f = batch->branches[0].out; /* (n_views, batch, width): all branches' */
	const uint32_t n = masksub->batch, n_rows = masksub->n_views * n;
	struct head head = score_head_masked(&masksub->head);
	const uint32_t k = head.n_prototypes;
	float *gradients = masksub->head.gradients, *o = masksub->o, *d_o = masksub->d_o;
	double main, sub = 0;

	for (uint32_t i = 0; i < n_rows; i++)
		masksub->row_labels[i] = masksub->labels[batch->images[i % n]];
	head_score(&head, f, n_rows, o);
	if (masksub->form == RECIPE_MASKSUB_SUB) {
		main = supervised_loss(o, masksub->row_labels, n, k, d_o);
		sub = masksub_loss(o + (size_t)n * k, o, n, k, d_o + (size_t)n * k);
		for (size_t i = 0; i < (size_t)n_rows * k; i++)
			d_o[i] *= .5f;
		*ret_loss = (main + sub) / 2;
	} else {
		*ret_loss = main = supervised_loss(o, masksub->row_labels, n_rows, k, d_o);
	}
	batch->figures[0] = (float)main;
	batch->figures[1] = (float)sub;
	memset(gradients, 0, (size_t)k * head.width * sizeof(*gradients));
	head_score_backward(gradients, batch->branches[0].d_out, &head, f, d_o, n_rows);
	return 0;
}

static void masksub_update(struct objective *objective, const struct objective_batch *batch)
{
	score_head_update(&masksub_of(objective)->head, batch->step);
}

const struct objective_kind objective_masksub = {
	.name = "masksub",
	.wants_labels = true,
	.figures = figure_names,
	.branches = masksub_branches,
	.make = masksub_make,
	.free = masksub_free,
	.map = masksub_map,
	.start = masksub_start,
	.choose = masksub_choose,
	.loss = masksub_step_loss,
	.update = masksub_update,
};
