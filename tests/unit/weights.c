/* SPDX-License-Identifier: Apache-2.0 */

/* Rounds that move the weights of a model that is learnt. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/learn_bench.h"
#include "learn/round_state.h"
#include "model/vit_params.h"

enum { STEPS = 12, BATCH = 8 };
#define DECAY .75f

static const struct vit_shape shape = {
	.width = 32,
	.depth = 3,
	.n_heads = 2,
	.mlp = 64,
	.patch = 8,
	.grid = 4,
};

struct weights {
	struct bench bench;
	struct vit *vit; /* learnt */
	float *values;   /* that it began with */
	size_t n;
};

static struct vit *fresh(const struct weights *w)
{
	struct diag diag = { "" };
	struct vit *vit = NULL;

	if (vit_over(&vit, &shape, false, w->values, &diag) < 0)
		fail_msg("%s", diag.text);
	return vit;
}

static int set_up(void **state)
{
	static struct weights w;
	struct params *params = NULL;

	if (bench_new(&w.bench) < 0 || vit_params_new(&params, &shape, false) < 0)
		return -1;
	w.n = params->n_values;
	w.values = calloc(w.n, sizeof(*w.values));
	vit_params_start(params, &shape, w.values, VIT_START_NORMAL, 5);
	params_free(params);
	w.vit = fresh(&w);
	w.bench.recipe = recipe_default(w.vit, &w.bench.prep, N_IMAGES);
	recipe_set_weights(&w.bench.recipe);
	w.bench.recipe.steps = STEPS;
	w.bench.recipe.batch = BATCH;
	w.bench.recipe.precision = PRECISION_F32;
	w.bench.recipe.weight_lr = 2e-3f;
	*state = &w;
	return 0;
}

static int done(void **state)
{
	struct weights *w = *state;

	vit_free(w->vit);
	free(w->values);
	bench_done(&w->bench);
	return 0;
}

static struct round *round_of(const struct weights *w, struct vit *vit,
	const struct objective_kind *kind, const struct recipe *recipe)
{
	struct round *round = NULL;
	struct diag diag = { "" };

	if (round_new_of(&round, kind, vit, recipe, &w->bench.prep, &w->bench.source, &diag) < 0)
		fail_msg("%s", diag.text);
	return round;
}

/* The embedding that a view of the student is asked for is the teacher's of another view. */
struct pull {
	struct objective base;
};

static uint32_t pull_branches(
	const struct recipe *recipe, const struct vit_shape *of, struct branch *branches)
{
	(void)recipe;
	(void)of;
	branches[0] = (struct branch){ .network = BRANCH_TEACHER, .n_views = 1 };
	branches[1] = (struct branch){ .first_view = 1, .n_views = 1 };
	return 2;
}

static int pull_make(struct objective **ret_objective, const struct objective_setup *setup)
{
	struct pull *pull = calloc(1, sizeof(*pull));

	(void)setup;
	if (!pull)
		return -ENOMEM;
	pull->base.scale = 1;
	*ret_objective = &pull->base;
	return 0;
}

static void pull_free(struct objective *objective)
{
	free(objective);
}

static void pull_map(struct objective *objective, float *state)
{
	(void)objective;
	(void)state;
}

static int pull_start(struct objective *objective, const float *features, uint32_t n)
{
	(void)objective;
	(void)features;
	(void)n;
	return 0;
}

static int pull_loss(
	struct objective *objective, const struct objective_batch *batch, double *ret_loss)
{
	const struct objective_rows *teacher = &batch->branches[0], *student = &batch->branches[1];
	double loss = 0;

	(void)objective;
	for (size_t i = 0; i < (size_t)student->n_rows * shape.width; i++) {
		student->d_out[i] = student->out[i] - teacher->out[i];
		loss += .5 * student->d_out[i] * student->d_out[i];
	}
	*ret_loss = loss;
	return 0;
}

static void pull_update(struct objective *objective, const struct objective_batch *batch)
{
	(void)objective;
	(void)batch;
}

static float pull_decay(const struct objective *objective, uint32_t step)
{
	(void)objective;
	(void)step;
	return DECAY;
}

static const struct objective_kind pull_kind = {
	.name = "pull",
	.branches = pull_branches,
	.make = pull_make,
	.free = pull_free,
	.map = pull_map,
	.start = pull_start,
	.loss = pull_loss,
	.update = pull_update,
	.teacher_decay = pull_decay,
};

static void swav_learns_from_scratch(void **state)
{
	const struct weights *w = *state;
	struct recipe recipe = w->bench.recipe;
	_cleanup_(vit_freep) struct vit *vit = fresh(w);
	_cleanup_(round_freep) struct round *round = NULL;
	struct round_progress first, last;
	size_t n_moved = 0;

	recipe.steps = 40;
	round = round_of(w, vit, NULL, &recipe);
	assert_memory_equal(round_weights(round, false), w->values, w->n * sizeof(float));
	assert_null(round_scores(round));
	first = run(round, 4);
	last = run(round, 36);
	print_message("loss ratio %.3f to %.3f\n", first.loss_ratio, last.loss_ratio);
	assert_true(last.loss_ratio < .9f * first.loss_ratio);
	assert_true(last.density == 1 && last.n_flips == 0);
	for (size_t i = 0; i < w->n; i++)
		n_moved += round_weights(round, false)[i] != w->values[i];
	/* But for rows of positions that no view's grid asks for. */
	assert_true(n_moved > w->n - 20 * shape.width);
}

static void a_round_that_resumes_ends_with_the_same_bits(void **state)
{
	const struct weights *w = *state;
	_cleanup_(vit_freep) struct vit *vit = fresh(w), *other = fresh(w);
	_cleanup_(round_freep) struct round *whole = NULL, *first = NULL, *second = NULL;
	char dir[] = "/tmp/kamen-weights-XXXXXX";
	struct diag diag = { "" };
	char path[sizeof(dir) + 16];

	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/round", dir);
	whole = round_of(w, w->vit, &pull_kind, &w->bench.recipe);
	first = round_of(w, vit, &pull_kind, &w->bench.recipe);
	second = round_of(w, other, &pull_kind, &w->bench.recipe);
	(void)run(whole, STEPS);
	(void)run(first, STEPS / 2);
	assert_int_equal(round_save(first, AT_FDCWD, path), 0);
	if (round_resume(second, AT_FDCWD, path, &diag) < 0)
		fail_msg("%s", diag.text);
	(void)run(second, STEPS - STEPS / 2);
	assert_memory_equal(whole->state, second->state, whole->n_state * sizeof(float));
	(void)unlink(path);
	(void)rmdir(dir);
}

static void the_teacher_is_the_average_of_all_weights(void **state)
{
	const struct weights *w = *state;
	_cleanup_(vit_freep) struct vit *vit = fresh(w);
	_cleanup_(round_freep) struct round *round = round_of(w, vit, &pull_kind, &w->bench.recipe);
	_cleanup_(freep) double *want = calloc(w->n, sizeof(*want));

	for (size_t i = 0; i < w->n; i++)
		want[i] = w->values[i];
	for (uint32_t step = 0; step < 5; step++) {
		(void)run(round, 1);
		for (size_t i = 0; i < w->n; i++) {
			want[i] = DECAY * want[i] + (1 - DECAY) * round_weights(round, false)[i];
			assert_true(fabs(round_weights(round, true)[i] - want[i]) < 1e-5);
		}
	}
	/* It has a model of its own. */
	assert_memory_not_equal(
		vit_values(round->teacher_vit), vit_values(vit), w->n * sizeof(float));
}

/* Of tiny_vit's three blocks those from first to last; what else moves lies beside them. */
static void blocks_move(const struct weights *w, uint32_t first, uint32_t last)
{
	struct recipe recipe = w->bench.recipe;
	_cleanup_(vit_freep) struct vit *vit = fresh(w);
	_cleanup_(round_freep) struct round *round = NULL;
	const struct params *params = vit_params(vit);

	recipe.first_block = first;
	recipe.last_block = last;
	round = round_of(w, vit, NULL, &recipe);
	(void)run(round, 3);
	for (unsigned t = 0; t < params->n_tensors; t++) {
		const struct param *param = &params->tensors[t];
		bool same = memcmp(round_weights(round, false) + param->offset,
				    w->values + param->offset, param->n * sizeof(float)) == 0;
		bool moves = strncmp(param->name, "norm.", 5) == 0 ? last == 2 : first == 0;
		unsigned block;

		if (sscanf(param->name, "blocks.%u.", &block) == 1)
			moves = block >= first && block <= last;
		if (same == moves)
			fail_msg("%s %s", param->name, same ? "stayed" : "moved");
	}
}

static void what_lies_beside_the_blocks_that_move_stays(void **state)
{
	blocks_move(*state, 1, 2);
	blocks_move(*state, 0, 1);
	blocks_move(*state, 1, 1);
}

static void a_frozen_model_is_refused(void **state)
{
	const struct weights *w = *state;
	struct recipe recipe = recipe_default(w->bench.tiny.vit, &w->bench.prep, N_IMAGES);
	struct round *round = NULL;
	struct diag diag = { "" };

	recipe_set_weights(&recipe);
	assert_int_equal(round_new(&round, w->bench.tiny.vit, &recipe, &w->bench.prep,
				 &w->bench.source, &diag),
		-EINVAL);
	assert_non_null(strstr(diag.text, "frozen"));
}

static void scores_of_a_model_that_is_learnt_leave_its_weights(void **state)
{
	const struct weights *w = *state;
	struct recipe recipe = w->bench.recipe;
	_cleanup_(vit_freep) struct vit *vit = fresh(w);
	_cleanup_(round_freep) struct round *round = NULL;

	recipe.drive = RECIPE_SCORES;
	recipe.score_lr = .3f;
	round = round_of(w, vit, NULL, &recipe);
	(void)run(round, 5);
	assert_null(round_weights(round, false));
	assert_true(round_scores(round)[0] != 1);
	assert_memory_equal(vit_values(vit), w->values, w->n * sizeof(float));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(swav_learns_from_scratch),
		cmocka_unit_test(a_round_that_resumes_ends_with_the_same_bits),
		cmocka_unit_test(the_teacher_is_the_average_of_all_weights),
		cmocka_unit_test(what_lies_beside_the_blocks_that_move_stays),
		cmocka_unit_test(a_frozen_model_is_refused),
		cmocka_unit_test(scores_of_a_model_that_is_learnt_leave_its_weights),
	};

	return cmocka_run_group_tests(tests, set_up, done);
}
