/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/embed.h"
#include "learn/judge.h"
#include "learn/optimiser.h"
#include "learn/round_state.h"
#include "learn/selection.h"
#include "learn/update.h"
#include "learn/warm.h"
#include "mask/scores.h"

#define MIN_LOSSES 5u

static uint32_t n_large(const struct round *round)
{
	return round->objective->kind->n_large * round->recipe.batch;
}

static uint32_t n_small(const struct round *round)
{
	return round->recipe.n_small * round->recipe.batch;
}

/* state is one run of floats, so that a checkpoint is one write. */
static void map_state(struct round *round, size_t n_elements)
{
	float *p = round->state;

	round->scores = p;
	round->first = round->scores + n_elements;
	p = round->first + n_elements;
	if (round->recipe.optimiser == RECIPE_ADAM) {
		round->second = p;
		p += n_elements;
	}
	round->objective->kind->map(round->objective, p);
	round->losses = p + round->objective->n_state;
}

static int allocate(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	size_t n_features =
		(size_t)(n_large(round) + n_small(round)) * vit_shape(round->vit)->width;
	size_t n_elements = vit_layout(round->vit)->n_elements;
	size_t n_moments = recipe->optimiser == RECIPE_ADAM ? 2 : 1;
	int r;

	round->n_losses = recipe->steps / 10 > MIN_LOSSES ? recipe->steps / 10 : MIN_LOSSES;
	round->n_state = (1 + n_moments) * n_elements + round->objective->n_state + round->n_losses;
	round->images = calloc(recipe->batch, sizeof(*round->images));
	if (!round->images)
		return -ENOMEM;
	r = plot_lay_out(&round->arena,
		(const struct plot[]){
			{ &round->state, round->n_state },
			{ &round->grad, n_elements },
			{ &round->f, n_features },
			{ &round->d_f, n_features },
		},
		4);
	if (r < 0)
		return r;
	map_state(round, n_elements);
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
	struct pass_options options = {
		.px = recipe->large_px,
		.first_block = recipe->first_block,
		.precision = recipe->precision,
	};
	int r;

	r = vit_slot_new(&round->slot, round->vit, slot_use_in(SLOT_LEARN, recipe->precision));
	if (r < 0)
		return r;
	r = pass_new(&round->large, round->vit, n_large(round),
		round->objective->kind->n_large * recipe->at_once, &options);
	options.px = recipe->small_px;
	if (r == 0 && recipe->n_small > 0)
		r = pass_new(&round->small, round->vit, n_small(round),
			recipe->n_small * recipe->at_once, &options);
	if (r < 0)
		return r;
	return views_new(&round->views, recipe, round->objective->kind->n_large, &round->prep,
		&round->source);
}

/* Where labels count, a round over others is another round. */
static void add_labels(struct image_source *source)
{
	struct digest_state state;

	digest_init(&state);
	digest_update(&state, source->manifest.bytes, sizeof(source->manifest.bytes));
	for (uint32_t i = 0; i < source->n; i++) {
		uint32_t label = htole32(source->labels[i]);

		digest_update(&state, &label, sizeof(label));
	}
	source->manifest = digest_final(&state);
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
	r = objective_new(&round->objective,
		&(struct objective_setup){ recipe, source, vit_shape(vit)->width }, diag);
	if (r < 0)
		return r;
	if (round->objective->kind->wants_labels)
		add_labels(&round->source);
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
	pass_free(round->small);
	pass_free(round->large);
	slot_free(round->slot);
	objective_free(round->objective);
	mask_free(round->selection);
	mask_free(round->mask);
	arena_free(round->arena);
	free(round->images);
	free(round);
}

const struct mask *round_mask(const struct round *round)
{
	return round->mask;
}

const struct head *round_head(const struct round *round)
{
	const struct objective_kind *kind = round->objective->kind;

	return kind->head ? kind->head(round->objective) : NULL;
}

const float *round_scores(const struct round *round)
{
	return round->scores;
}

void round_start_at(struct round *round, const float *scores)
{
	memcpy(round->scores, scores, vit_layout(round->vit)->n_elements * sizeof(*scores));
	round_take_scores(round);
	round->goes_on = true;
}

static int start_from_features(struct round *round)
{
	struct embed_subset subset;
	struct image_source images = embed_subset_source(&subset, &round->source, WARM_MAX_IMAGES);
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(freep) float *features =
		malloc((size_t)images.n * vit_shape(round->vit)->width * sizeof(*features));
	int r;

	if (!features)
		return -ENOMEM;
	/* Not the round's own: its precision may be another. */
	r = vit_slot_new(&slot, round->vit, SLOT_INFER);
	if (r == 0)
		r = slot_apply(slot, round->goes_on ? round->mask : NULL);
	if (r < 0)
		return r;
	r = judge_embed(features, round->vit, slot, &round->prep, &images);
	if (r < 0)
		return r;
	return round->objective->kind->start(round->objective, features, images.n);
}

/* Here and not in round_new(): a round that resumes needs none of it. */
int round_start(struct round *round)
{
	const struct objective_kind *kind = round->objective->kind;
	int r = kind->wants_features ? start_from_features(round)
				     : kind->start(round->objective, NULL, 0);

	if (r < 0)
		return r;
	round->is_started = true;
	return 0;
}

/* All views through the network: f. */
static int forward(struct round *round)
{
	size_t n = (size_t)n_large(round) * vit_shape(round->vit)->width;
	int r;

	r = slot_apply(round->slot, round->mask);
	if (r < 0)
		return r;
	r = pass_forward(round->large, round->slot, round->f);
	if (r < 0 || !round->small)
		return r;
	return pass_forward(round->small, round->slot, round->f + n);
}

static int backward(struct round *round)
{
	size_t n = (size_t)n_large(round) * vit_shape(round->vit)->width;
	int r;

	memset(round->grad, 0, vit_layout(round->vit)->n_elements * sizeof(*round->grad));
	r = pass_backward(round->large, round->slot, round->d_f, round->grad);
	if (r < 0 || !round->small)
		return r;
	return pass_backward(round->small, round->slot, round->d_f + n, round->grad);
}

static void update(struct round *round)
{
	const struct recipe *recipe = &round->recipe;

	update_scores(&(struct update){
		.scores = round->scores,
		.first = round->first,
		.second = round->second,
		.grad = round->grad,
		.weights = vit_weights(round->vit),
		.mask = round->mask,
		.selection = round->selection,
		.lr = schedule_warm(
			recipe->score_lr, round->step, recipe->steps, recipe_warm_steps(recipe)),
		.step = round->step + 1,
		.alpha_term = recipe->alpha_term,
		.bits = recipe->mask == RECIPE_THRESHOLD,
		.threshold = recipe->score_threshold,
	});
	if (recipe->mask != RECIPE_THRESHOLD)
		round_take_scores(round);
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
		.loss_ratio = (float)(late_loss(round) / round->objective->scale),
		.density = mask_density(round->mask),
		.lowest_density = mask_lowest_density(round->mask),
		.n_flips = layout->n_elements - n_on,
	};
}

int round_learn(struct round *round)
{
	struct objective *objective = round->objective;
	const struct objective_batch batch = { round->step, round->f, round->images };
	double loss;
	int r;

	r = forward(round);
	if (r < 0)
		return r;
	r = objective->kind->loss(objective, &batch, round->d_f, &loss);
	if (r < 0)
		return r;
	if (!isfinite(loss))
		return -EDOM;
	r = backward(round);
	if (r < 0)
		return r;
	/* Only from here on is anything changed that a repeated step would see. */
	round->losses[round->step % round->n_losses] = (float)loss;
	objective->kind->update(objective, &batch);
	update(round);
	round->step++;
	return 0;
}

int round_step(struct round *round, struct round_progress *ret_progress)
{
	float *small = round->small ? pass_input(round->small) : NULL;
	int r;

	if (round->step < round->recipe.steps) {
		r = round->is_started ? 0 : round_start(round);
		if (r == 0)
			r = views_fill(round->views, round->step, pass_input(round->large), small);
		if (r == 0) {
			views_images(round->views, round->step, round->images);
			r = round_learn(round);
		}
		if (r < 0)
			return r;
	}
	*ret_progress = progress_of(round);
	return round->step < round->recipe.steps;
}
