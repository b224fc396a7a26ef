/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/embed.h"
#include "learn/judge.h"
#include "learn/optimiser.h"
#include "learn/round_state.h"
#include "learn/selection.h"
#include "learn/sinkhorn.h"
#include "learn/warm.h"
#include "mask/scores.h"

#define MIN_LOSSES 5u

static uint32_t n_views(const struct recipe *recipe)
{
	return SWAV_TARGETS + recipe->n_small;
}

/** Where an array goes and how many floats it has. */
struct plot {
	float **at;
	size_t n;
};

static int lay_out(struct arena **ret_arena, const struct plot *plots, size_t n_plots)
{
	size_t bytes = 0;
	int r;

	for (size_t i = 0; i < n_plots; i++)
		bytes += arena_round(plots[i].n * sizeof(float));
	r = arena_new(ret_arena, bytes);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_plots; i++) {
		*plots[i].at = arena_take(*ret_arena, plots[i].n * sizeof(float));
		if (!*plots[i].at)
			return -ENOMEM;
	}
	return 0;
}

/* state is one run of floats, so that a checkpoint is one write. */
static void map_state(struct round *round, size_t n_elements, size_t n_queue)
{
	const struct recipe *recipe = &round->recipe;
	float *p = round->state;

	round->scores = p;
	round->first = round->scores + n_elements;
	p = round->first + n_elements;
	if (recipe->optimiser == RECIPE_ADAM) {
		round->second = p;
		p += n_elements;
	}
	round->head_values = p;
	round->head_velocities = p + round->n_head;
	p += 2 * round->n_head;
	for (uint32_t v = 0; v < SWAV_TARGETS; v++) {
		round->queues[v] = (struct queue){
			.rows = p,
			.n_max = recipe->queue,
			.dim = recipe->head_dim,
		};
		p += n_queue;
	}
	round->losses = p;
	round->head = head_map(round->head_values, vit_shape(round->vit)->width, recipe->head_dim,
		recipe->n_prototypes);
}

static int allocate(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	size_t width = vit_shape(round->vit)->width;
	size_t n_elements = vit_layout(round->vit)->n_elements;
	size_t rows = (size_t)n_views(recipe) * recipe->batch;
	size_t n_queue = (size_t)recipe->queue * recipe->head_dim;
	size_t n_moments = recipe->optimiser == RECIPE_ADAM ? 2 : 1;
	int r;

	round->n_head = head_size((uint32_t)width, recipe->head_dim, recipe->n_prototypes);
	round->n_losses = recipe->steps / 10 > MIN_LOSSES ? recipe->steps / 10 : MIN_LOSSES;
	round->n_state = (1 + n_moments) * n_elements + 2 * round->n_head + SWAV_TARGETS * n_queue +
			 round->n_losses;
	r = lay_out(&round->arena,
		(const struct plot[]){
			{ &round->state, round->n_state },
			{ &round->grad, n_elements },
			{ &round->head_gradients, round->n_head },
			{ &round->f, rows * width },
			{ &round->d_f, rows * width },
			{ &round->z, rows * recipe->head_dim },
			{ &round->d_z, rows * recipe->head_dim },
			{ &round->lengths, rows },
			{ &round->o, rows * recipe->n_prototypes },
			{ &round->d_o, rows * recipe->n_prototypes },
			{ &round->q, (size_t)SWAV_TARGETS * recipe->batch * recipe->n_prototypes },
			{ &round->queued,
				((size_t)recipe->queue + recipe->batch) * recipe->n_prototypes },
		},
		12);
	if (r < 0)
		return r;
	map_state(round, n_elements, n_queue);
	return 0;
}

void round_take_scores(struct round *round)
{
	const struct recipe *recipe = &round->recipe;

	if (recipe->mask == RECIPE_TOPK)
		scores_keep_top(round->mask, round->scores, recipe->keep, round->selection);
	else
		mask_from_scores(round->mask, round->scores, recipe->score_threshold);
}

static int start_mask(struct round *round)
{
	int r;

	r = mask_new(&round->mask, vit_layout(round->vit));
	if (r < 0)
		return r;
	r = selection_new(&round->selection, round->vit, &round->recipe);
	if (r < 0)
		return r;
	selection_start(round->scores, round->vit, &round->recipe);
	round_take_scores(round);
	return 0;
}

static int build(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	int r;

	r = vit_slot_new(&round->slot, round->vit, SLOT_LEARN);
	if (r < 0)
		return r;
	r = vit_tape_new(&round->large, round->vit, SWAV_TARGETS * recipe->batch, recipe->large_px);
	if (r < 0)
		return r;
	if (recipe->n_small > 0) {
		r = vit_tape_new(&round->small, round->vit, recipe->n_small * recipe->batch,
			recipe->small_px);
		if (r < 0)
			return r;
	}
	return views_new(&round->views, recipe, &round->prep, &round->source);
}

int round_new(struct round **ret_round, struct vit *vit, const struct recipe *recipe,
	const struct prep *prep, const struct image_source *source, struct diag *diag)
{
	_cleanup_(round_freep) struct round *round = NULL;
	int r;

	r = recipe_check(recipe, vit, source->n, diag);
	if (r < 0)
		return r;
	round = calloc(1, sizeof(*round));
	if (!round)
		return -ENOMEM;
	round->vit = vit;
	round->recipe = *recipe;
	round->source = *source;
	round->prep = *prep;
	round->prep.input_px = recipe->large_px;
	r = prep_check(&round->prep, vit_shape(vit)->patch, diag);
	if (r < 0)
		return r;
	r = allocate(round);
	if (r == 0)
		r = start_mask(round);
	if (r < 0)
		return diag_set(diag, -r, "round: no memory for its state");
	r = build(round);
	if (r < 0)
		return diag_set(diag, -r, "round: cannot build the network: %s", strerror(-r));
	*ret_round = TAKE_PTR(round);
	return 0;
}

void round_free(struct round *round)
{
	if (!round)
		return;
	views_free(round->views);
	vit_tape_free(round->small);
	vit_tape_free(round->large);
	slot_free(round->slot);
	mask_free(round->selection);
	mask_free(round->mask);
	arena_free(round->arena);
	free(round);
}

const struct mask *round_mask(const struct round *round)
{
	return round->mask;
}

/* Here and not in round_new(): a round that resumes needs none of it. */
static int warm_up(struct round *round)
{
	struct embed_subset subset;
	struct image_source images = embed_subset_source(&subset, &round->source, WARM_MAX_IMAGES);
	_cleanup_(freep) float *features =
		malloc((size_t)images.n * round->head.width * sizeof(*features));
	int r;

	if (!features)
		return -ENOMEM;
	r = slot_apply(round->slot, NULL);
	if (r < 0)
		return r;
	r = judge_embed(features, round->vit, round->slot, &round->prep, &images);
	if (r < 0)
		return r;
	r = warm_start(&round->head, features, images.n, round->recipe.seed);
	if (r < 0)
		return r;
	head_renormalise(&round->head);
	round->is_warm = true;
	return 0;
}

/* All views through network and head: f, z, o. */
static int forward(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	uint32_t rows = n_views(recipe) * recipe->batch;
	size_t n_large = (size_t)SWAV_TARGETS * recipe->batch * round->head.width;
	int r;

	r = slot_apply(round->slot, round->mask);
	if (r < 0)
		return r;
	r = vit_tape_forward(round->large, round->slot, round->f);
	if (r < 0)
		return r;
	if (round->small) {
		r = vit_tape_forward(round->small, round->slot, round->f + n_large);
		if (r < 0)
			return r;
	}
	head_project(&round->head, round->f, rows, round->z, round->lengths);
	head_score(&round->head, round->z, rows, round->o);
	return 0;
}

/* q of both large views; the queue's past embeddings meet today's prototypes. */
static void assign(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	size_t n = (size_t)recipe->batch * recipe->n_prototypes;

	for (uint32_t v = 0; v < SWAV_TARGETS; v++) {
		struct queue *queue = &round->queues[v];
		uint32_t n_past = queue_is_full(queue) ? queue->n : 0;
		float *own = round->queued + (size_t)n_past * recipe->n_prototypes;

		head_score(&round->head, queue->rows, n_past, round->queued);
		memcpy(own, round->o + v * n, n * sizeof(*own));
		sinkhorn(round->queued, n_past + recipe->batch, recipe->n_prototypes,
			recipe->sinkhorn_eps, recipe->sinkhorn_iterations);
		memcpy(round->q + v * n, own, n * sizeof(*own));
	}
}

static void remember(struct round *round, double loss)
{
	const struct recipe *recipe = &round->recipe;

	round->losses[round->step % round->n_losses] = (float)loss;
	if (recipe->queue == 0 || round->step < recipe->steps / 5)
		return;
	for (uint32_t v = 0; v < SWAV_TARGETS; v++)
		queue_push(&round->queues[v],
			round->z + (size_t)v * recipe->batch * recipe->head_dim, recipe->batch);
}

static int backward(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	uint32_t rows = n_views(recipe) * recipe->batch;
	size_t n_large = (size_t)SWAV_TARGETS * recipe->batch * round->head.width;
	struct head gradients = head_map(
		round->head_gradients, round->head.width, recipe->head_dim, recipe->n_prototypes);
	int r;

	head_backward(&gradients, round->d_f, &round->head, round->f, round->z, round->lengths,
		round->d_o, rows, round->d_z);
	memset(round->grad, 0, vit_layout(round->vit)->n_elements * sizeof(*round->grad));
	r = vit_tape_backward(round->large, round->slot, round->d_f, round->grad);
	if (r < 0 || !round->small)
		return r;
	return vit_tape_backward(round->small, round->slot, round->d_f + n_large, round->grad);
}

static void update(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	size_t n = vit_layout(round->vit)->n_elements;
	uint32_t n_warm = (uint32_t)lroundf(recipe->warm_up * (float)recipe->steps);
	float score_lr = schedule_warm(recipe->score_lr, round->step, recipe->steps, n_warm);
	float head_lr = schedule_cosine(recipe->head_lr, round->step, recipe->steps);

	scores_backward(
		round->grad, round->grad, vit_weights(round->vit), round->mask, recipe->alpha_term);
	if (round->selection)
		scores_confine(round->grad, round->selection);
	if (recipe->optimiser == RECIPE_ADAM)
		optimiser_adam(round->scores, round->first, round->second, round->grad, n, score_lr,
			round->step + 1);
	else
		optimiser_sgd(round->scores, round->first, round->grad, n, score_lr);
	round_take_scores(round);
	optimiser_sgd(round->head_values, round->head_velocities, round->head_gradients,
		round->n_head, head_lr);
	head_renormalise(&round->head);
}

/* One step's loss is noisy, and a full queue of old embeddings moves it. */
static double late_loss(const struct round *round)
{
	uint32_t n = round->step < round->n_losses ? round->step : round->n_losses;
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += round->losses[i];
	return n > 0 ? sum / n : 0;
}

static struct round_progress progress_of(const struct round *round)
{
	const struct mask_layout *layout = round->mask->layout;
	uint64_t n_on = 0;

	for (unsigned t = 0; t < layout->n_tensors; t++)
		n_on += round->mask->n_on[t];
	return (struct round_progress){
		.step = round->step,
		.steps = round->recipe.steps,
		.loss_ratio = (float)(late_loss(round) / log(round->recipe.n_prototypes)),
		.density = mask_density(round->mask),
		.lowest_density = mask_lowest_density(round->mask),
		.n_flips = layout->n_elements - n_on,
	};
}

int round_learn(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	const struct swav_shape shape = { recipe->batch, n_views(recipe), recipe->n_prototypes,
		recipe->temperature };
	double loss;
	int r;

	r = forward(round);
	if (r < 0)
		return r;
	assign(round);
	loss = swav_loss(&shape, round->o, round->q, round->d_o);
	if (!isfinite(loss))
		return -EDOM;
	r = backward(round);
	if (r < 0)
		return r;
	/* Only from here on is anything changed that a repeated step would see. */
	remember(round, loss);
	update(round);
	round->step++;
	return 0;
}

int round_step(struct round *round, struct round_progress *ret_progress)
{
	float *small = round->small ? vit_tape_input(round->small) : NULL;
	int r;

	if (round->step < round->recipe.steps) {
		r = round->is_warm ? 0 : warm_up(round);
		if (r == 0)
			r = views_fill(
				round->views, round->step, vit_tape_input(round->large), small);
		if (r == 0)
			r = round_learn(round);
		if (r < 0)
			return r;
	}
	*ret_progress = progress_of(round);
	return round->step < round->recipe.steps;
}
