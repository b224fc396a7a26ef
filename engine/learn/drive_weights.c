/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "learn/adamw.h"
#include "learn/optimiser.h"
#include "learn/round_state.h"
#include "model/vit_params.h"

#define EPS 1e-8

static size_t n_values(const struct round *round)
{
	return vit_params(round->vit)->n_values;
}

static size_t weights_n_state(const struct round *round)
{
	return (3 + (round->has_teacher ? 1 : 0)) * n_values(round);
}

static float *weights_map(struct round *round, float *state)
{
	const size_t n = n_values(round);

	round->weights = state;
	round->first = round->weights + n;
	round->second = round->first + n;
	state = round->second + n;
	if (round->has_teacher) {
		round->teacher = state;
		state += n;
	}
	return state;
}

/* What is before the first of the blocks that move, or behind the last, stays; nor does it decay. */
static bool lies_outside(const struct param *param, const struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	unsigned block;

	if (sscanf(param->name, "blocks.%u.", &block) == 1)
		return block < recipe->first_block || block > recipe->last_block;
	if (strncmp(param->name, "norm.", 5) == 0)
		return recipe->last_block + 1 < vit_shape(round->vit)->depth;
	return recipe->first_block > 0;
}

static bool has_fixed_positions(const struct vit *vit)
{
	const struct param *positions = params_find(vit_params(vit), "pos_embed");

	return positions && positions->is_fixed;
}

static int make_params(struct round *round)
{
	int r = vit_params_new(
		&round->params, vit_shape(round->vit), has_fixed_positions(round->vit));

	for (unsigned t = 0; r == 0 && t < round->params->n_tensors; t++) {
		struct param *param = &round->params->tensors[t];

		param->is_fixed |= lies_outside(param, round);
	}
	return r;
}

/* A model of its own: norms, positions and patches move as well. */
static int make_teacher(struct round *round)
{
	struct diag diag = { "" };
	int r;

	memcpy(round->teacher, round->weights, n_values(round) * sizeof(*round->teacher));
	r = vit_over(&round->teacher_vit, vit_shape(round->vit), has_fixed_positions(round->vit),
		round->teacher, &diag);
	return r < 0 ? r
		     : vit_slot_new(&round->teacher_slot, round->teacher_vit,
			       slot_use_in(SLOT_INFER, round->recipe.precision));
}

static int weights_make(struct round *round)
{
	int r = make_params(round);

	if (r < 0)
		return r;
	memcpy(round->weights, vit_values(round->vit), n_values(round) * sizeof(*round->weights));
	r = mask_new(&round->mask, vit_layout(round->vit));
	if (r == 0)
		r = vit_slot_new(
			&round->slot, round->vit, slot_use_in(SLOT_LEARN, round->recipe.precision));
	return r == 0 && round->has_teacher ? make_teacher(round) : r;
}

static void weights_free(struct round *round)
{
	slot_free(round->slot);
	slot_free(round->teacher_slot);
	vit_free(round->teacher_vit);
	params_free(round->params);
	mask_free(round->mask);
}

static int load(struct vit *vit, struct slot *slot, const float *values)
{
	int r = vit_load(vit, values);

	return r < 0 ? r : slot_reload(slot, NULL);
}

static int weights_apply(struct round *round)
{
	int r = load(round->vit, round->slot, round->weights);

	return r == 0 && round->has_teacher
		       ? load(round->teacher_vit, round->teacher_slot, round->teacher)
		       : r;
}

static void weights_update(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	const struct adamw adamw = {
		.beta1 = .9,
		.beta2 = recipe->weight_beta2,
		.eps = EPS,
		.lr = schedule_warm_to(recipe->weight_lr, recipe->weight_lr_end, round->step,
			recipe->steps, recipe_warm_steps(recipe)),
		.decay = schedule_between(
			recipe->weight_decay, recipe->weight_decay_end, round->step, recipe->steps),
		.step = round->step + 1,
	};

	if (recipe->weight_clip > 0)
		(void)adamw_clip(round->params, round->grad, recipe->weight_clip);
	adamw_step(&adamw, round->params, round->weights, round->first, round->second, round->grad);
}

static void weights_teach(struct round *round, float decay)
{
	ema_move(round->teacher, round->weights, n_values(round), decay);
}

/* The next step applies whatever the state says. */
static void weights_resumed(struct round *round)
{
	(void)round;
}

const struct drive drive_weights = {
	.n_state = weights_n_state,
	.map = weights_map,
	.make = weights_make,
	.free = weights_free,
	.apply = weights_apply,
	.update = weights_update,
	.teach = weights_teach,
	.resumed = weights_resumed,
};
