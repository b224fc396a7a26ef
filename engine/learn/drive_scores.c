/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "learn/adamw.h"
#include "learn/optimiser.h"
#include "learn/round_state.h"
#include "learn/selection.h"
#include "learn/update.h"
#include "mask/scores.h"

static size_t n_elements(const struct round *round)
{
	return vit_layout(round->vit)->n_elements;
}

static size_t scores_n_state(const struct round *round)
{
	size_t n_moments = round->recipe.optimiser == RECIPE_ADAM ? 2 : 1;

	return (1 + n_moments + (round->has_teacher ? 1 : 0)) * n_elements(round);
}

static float *scores_map(struct round *round, float *state)
{
	const size_t n = n_elements(round);

	round->scores = state;
	round->first = round->scores + n;
	state = round->first + n;
	if (round->recipe.optimiser == RECIPE_ADAM) {
		round->second = state;
		state += n;
	}
	if (round->has_teacher) {
		round->teacher = state;
		state += n;
	}
	return state;
}

static void take(const struct round *round, struct mask *mask, const float *scores)
{
	const struct recipe *recipe = &round->recipe;

	if (recipe->mask == RECIPE_TOPK)
		scores_keep_top(mask, scores, recipe->keep, round->selection);
	else
		mask_from_scores(mask, scores, recipe->score_threshold);
}

void round_take_scores(struct round *round)
{
	take(round, round->mask, round->scores);
	if (round->has_teacher)
		take(round, round->teacher_mask, round->teacher);
}

static int make_teacher(struct round *round)
{
	const enum precision precision = round->recipe.precision;
	int r;

	memcpy(round->teacher, round->scores, n_elements(round) * sizeof(*round->teacher));
	r = mask_new(&round->teacher_mask, vit_layout(round->vit));
	return r < 0 ? r
		     : vit_slot_new(&round->teacher_slot, round->vit,
			       slot_use_in(SLOT_INFER, precision));
}

static int scores_make(struct round *round)
{
	int r;

	round->teacher_vit = round->vit;
	r = mask_new(&round->mask, vit_layout(round->vit));
	if (r == 0)
		r = selection_new(&round->selection, round->vit, &round->recipe);
	if (r < 0)
		return r;
	selection_start(round->scores, round->vit, &round->recipe);
	r = vit_slot_new(
		&round->slot, round->vit, slot_use_in(SLOT_LEARN, round->recipe.precision));
	if (r == 0 && round->has_teacher)
		r = make_teacher(round);
	if (r == 0)
		round_take_scores(round);
	return r;
}

static void scores_free(struct round *round)
{
	slot_free(round->slot);
	slot_free(round->teacher_slot);
	mask_free(round->selection);
	mask_free(round->mask);
	mask_free(round->teacher_mask);
}

static int scores_apply(struct round *round)
{
	int r = slot_apply(round->slot, round->mask);

	return r == 0 && round->has_teacher ? slot_apply(round->teacher_slot, round->teacher_mask)
					    : r;
}

static void scores_update(struct round *round)
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
		take(round, round->mask, round->scores);
}

static void scores_teach(struct round *round, float decay)
{
	ema_move(round->teacher, round->scores, n_elements(round), decay);
	take(round, round->teacher_mask, round->teacher);
}

const struct drive drive_scores = {
	.n_state = scores_n_state,
	.map = scores_map,
	.make = scores_make,
	.free = scores_free,
	.apply = scores_apply,
	.update = scores_update,
	.teach = scores_teach,
	.resumed = round_take_scores,
};
