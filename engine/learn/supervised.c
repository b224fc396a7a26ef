/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/softmax.h"
#include "learn/supervised.h"

static struct supervised *supervised_of(struct objective *objective)
{
	return (struct supervised *)objective;
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

	score_head_done(&supervised->head);
	arena_free(supervised->arena);
	free(supervised);
}

static int supervised_make(struct objective **ret_objective, const struct objective_setup *setup)
{
	struct supervised *supervised = calloc(1, sizeof(*supervised));
	const uint32_t n_classes = setup->source->n_classes;
	size_t n;
	int r;

	if (!supervised)
		return -ENOMEM;
	supervised->labels = setup->source->labels;
	supervised->n_views = 1 + setup->recipe->n_small;
	supervised->batch = setup->recipe->batch;
	supervised->base.scale = log(n_classes);
	n = (size_t)supervised->n_views * supervised->batch * n_classes;
	r = plot_lay_out(&supervised->arena,
		(const struct plot[]){ { &supervised->o, n }, { &supervised->d_o, n } }, 2);
	if (r == 0)
		r = score_head_init(
			&supervised->head, setup->recipe, n_classes, vit_shape(setup->vit)->width);
	if (r < 0) {
		supervised_free(&supervised->base);
		return r;
	}
	supervised->base.n_state = score_head_state(&supervised->head);
	*ret_objective = &supervised->base;
	return 0;
}

static void supervised_map(struct objective *objective, float *state)
{
	score_head_map(&supervised_of(objective)->head, state);
}

static int supervised_start(struct objective *objective, const float *features, uint32_t n)
{
	(void)features;
	(void)n;
	score_head_start(&supervised_of(objective)->head);
	return 0;
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
	struct supervised *supervised = supervised_of(objective);
	const float *f = batch->branches[0].out; /* (n_views, batch, width): both branches' */
	uint32_t n_batch = supervised->batch, n_rows = supervised->n_views * n_batch;
	_cleanup_(freep) uint32_t *labels = malloc(n_rows * sizeof(*labels));
	struct head head = score_head_masked(&supervised->head);
	float *gradients = supervised->head.gradients;

	if (!labels)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_rows; i++)
		labels[i] = supervised->labels[batch->images[i % n_batch]];
	head_score(&head, f, n_rows, supervised->o);
	*ret_loss =
		supervised_loss(supervised->o, labels, n_rows, head.n_prototypes, supervised->d_o);
	memset(gradients, 0, (size_t)head.n_prototypes * head.width * sizeof(*gradients));
	head_score_backward(gradients, batch->branches[0].d_out, &head, f, supervised->d_o, n_rows);
	return 0;
}

static void supervised_update(struct objective *objective, const struct objective_batch *batch)
{
	score_head_update(&supervised_of(objective)->head, batch->step);
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
