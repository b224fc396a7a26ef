/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/optimiser.h"
#include "learn/sinkhorn.h"
#include "learn/swav_objective.h"
#include "learn/warm.h"

static struct swav_objective *swav_of(struct objective *objective)
{
	return (struct swav_objective *)objective;
}

static uint32_t n_views(const struct recipe *recipe)
{
	return SWAV_TARGETS + recipe->n_small;
}

/* All large views through one pass, all small ones through another. */
static uint32_t swav_branches(
	const struct recipe *recipe, const struct vit_shape *shape, struct branch *branches)
{
	(void)shape;
	branches[0] = (struct branch){ .n_views = SWAV_TARGETS };
	branches[1] = (struct branch){ .is_small = true, .n_views = recipe->n_small };
	return recipe->n_small > 0 ? 2 : 1;
}

static void swav_free(struct objective *objective)
{
	arena_free(swav_of(objective)->arena);
	free(objective);
}

static int swav_make(struct objective **ret_objective, const struct objective_setup *setup)
{
	_cleanup_(freep) struct swav_objective *swav = calloc(1, sizeof(*swav));
	const struct recipe *recipe = setup->recipe;
	size_t rows = (size_t)n_views(recipe) * recipe->batch, k = recipe->n_prototypes;
	int r;

	if (!swav)
		return -ENOMEM;
	swav->recipe = *recipe;
	swav->head.width = vit_shape(setup->vit)->width;
	swav->n_head = head_size(swav->head.width, recipe->head_dim, recipe->n_prototypes);
	swav->base.n_state =
		2 * swav->n_head + (size_t)SWAV_TARGETS * recipe->queue * recipe->head_dim;
	swav->base.scale = log(recipe->n_prototypes);
	r = plot_lay_out(&swav->arena,
		(const struct plot[]){
			{ &swav->gradients, swav->n_head },
			{ &swav->z, rows * recipe->head_dim },
			{ &swav->d_z, rows * recipe->head_dim },
			{ &swav->lengths, rows },
			{ &swav->o, rows * k },
			{ &swav->d_o, rows * k },
			{ &swav->q, (size_t)SWAV_TARGETS * recipe->batch * k },
			{ &swav->queued, ((size_t)recipe->queue + recipe->batch) * k },
		},
		8);
	if (r < 0)
		return r;
	*ret_objective = &TAKE_PTR(swav)->base;
	return 0;
}

static void swav_map(struct objective *objective, float *state)
{
	struct swav_objective *swav = swav_of(objective);
	const struct recipe *recipe = &swav->recipe;
	float *p = state + 2 * swav->n_head;

	swav->values = state;
	swav->velocities = state + swav->n_head;
	swav->head = head_map(state, swav->head.width, recipe->head_dim, recipe->n_prototypes);
	for (uint32_t v = 0; v < SWAV_TARGETS; v++) {
		swav->queues[v] = (struct queue){
			.rows = p,
			.n_max = recipe->queue,
			.dim = recipe->head_dim,
		};
		p += (size_t)recipe->queue * recipe->head_dim;
	}
}

static int swav_start(struct objective *objective, const float *features, uint32_t n)
{
	struct swav_objective *swav = swav_of(objective);
	int r;

	r = warm_start(&swav->head, features, n, swav->recipe.seed);
	if (r < 0)
		return r;
	head_renormalise(&swav->head);
	return 0;
}

/* How full the queues are is a function of the step: a checkpoint need not say it. */
static void fill_queues(struct swav_objective *swav, uint32_t step)
{
	const struct recipe *recipe = &swav->recipe;
	uint32_t first = recipe->steps / 5;
	uint64_t n = step > first ? (uint64_t)(step - first) * recipe->batch : 0;

	for (uint32_t v = 0; v < SWAV_TARGETS; v++)
		swav->queues[v].n = n < recipe->queue ? (uint32_t)n : recipe->queue;
}

/* q of both large views; the queue's past embeddings meet today's prototypes. */
static void assign(struct swav_objective *swav)
{
	const struct recipe *recipe = &swav->recipe;
	size_t n = (size_t)recipe->batch * recipe->n_prototypes;

	for (uint32_t v = 0; v < SWAV_TARGETS; v++) {
		struct queue *queue = &swav->queues[v];
		uint32_t n_past = queue_is_full(queue) ? queue->n : 0;
		float *own = swav->queued + (size_t)n_past * recipe->n_prototypes;

		head_score(&swav->head, queue->rows, n_past, swav->queued);
		memcpy(own, swav->o + v * n, n * sizeof(*own));
		sinkhorn(swav->queued, n_past + recipe->batch, recipe->n_prototypes,
			recipe->sinkhorn_eps, recipe->sinkhorn_iterations);
		memcpy(swav->q + v * n, own, n * sizeof(*own));
	}
}

static int swav_step_loss(
	struct objective *objective, const struct objective_batch *batch, double *ret_loss)
{
	const float *f = batch->branches[0].out; /* (n_views, batch, width): both branches' */
	struct swav_objective *swav = swav_of(objective);
	const struct recipe *recipe = &swav->recipe;
	const struct swav_shape shape = { recipe->batch, n_views(recipe), recipe->n_prototypes,
		recipe->temperature };
	uint32_t rows = n_views(recipe) * recipe->batch;
	struct head gradients =
		head_map(swav->gradients, swav->head.width, recipe->head_dim, recipe->n_prototypes);

	fill_queues(swav, batch->step);
	head_project(&swav->head, f, rows, swav->z, swav->lengths);
	head_score(&swav->head, swav->z, rows, swav->o);
	assign(swav);
	*ret_loss = swav_loss(&shape, swav->o, swav->q, swav->d_o);
	head_backward(&gradients, batch->branches[0].d_out, &swav->head, f, swav->z, swav->lengths,
		swav->d_o, rows, swav->d_z);
	return 0;
}

static void swav_update(struct objective *objective, const struct objective_batch *batch)
{
	struct swav_objective *swav = swav_of(objective);
	const struct recipe *recipe = &swav->recipe;
	size_t n_view = (size_t)recipe->batch * recipe->head_dim;

	if (recipe->queue > 0 && batch->step >= recipe->steps / 5)
		for (uint32_t v = 0; v < SWAV_TARGETS; v++)
			queue_push(&swav->queues[v], swav->z + v * n_view, recipe->batch);
	optimiser_sgd(swav->values, swav->velocities, swav->gradients, swav->n_head,
		schedule_cosine(recipe->head_lr, batch->step, recipe->steps));
	head_renormalise(&swav->head);
}

static const struct head *swav_head(const struct objective *objective)
{
	return &((const struct swav_objective *)objective)->head;
}

const struct objective_kind objective_swav = {
	.name = "swav",
	.wants_features = true,
	.branches = swav_branches,
	.make = swav_make,
	.free = swav_free,
	.map = swav_map,
	.start = swav_start,
	.loss = swav_step_loss,
	.head = swav_head,
	.update = swav_update,
};
