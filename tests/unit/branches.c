/* SPDX-License-Identifier: Apache-2.0 */

/* What a round does for an objective with every kind of branch, whose loss is a weighted sum of all
 * that comes out. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/learn_bench.h"
#include "learn/round_state.h"
#include "learn/streams.h"

enum { TEACHER, KEPT, REPLACED, OTHER, SMALL, N_BRANCHES };
enum { WIDTH = 48, N_KEPT = 5, STEPS = 6, BATCH = 6 };
#define DECAY .75f

static const char *const figure_names[] = { "sum", "step", NULL };

/* An objective that notes what it saw. */
struct probe {
	struct objective base;
	uint64_t seed;
	float *vector;      /* state: (WIDTH) the replacement, moved by its gradient */
	float moved[WIDTH]; /* by how much the last update moved it */
	uint32_t n_chosen;
	bool teacher_was_first; /* its outputs were there when choose() was called */
	double classes;         /* sum of the class tokens that the last loss() saw */
};

static struct probe *probe_of(struct objective *objective)
{
	return (struct probe *)objective;
}

static uint32_t probe_branches(
	const struct recipe *recipe, const struct vit_shape *shape, struct branch *branches)
{
	(void)shape;
	branches[TEACHER] =
		(struct branch){ .network = BRANCH_TEACHER, .n_views = 1, .all_out = true };
	branches[KEPT] = (struct branch){ .n_views = 2, .tokens = BRANCH_KEPT, .n_kept = N_KEPT };
	branches[REPLACED] = (struct branch){
		.n_views = 1, .tokens = BRANCH_REPLACED, .all_out = true, .wants_entry = true
	};
	branches[OTHER] = (struct branch){ .first_view = 1, .n_views = 1, .drop = .2f };
	branches[SMALL] = (struct branch){ .is_small = true, .n_views = recipe->n_small };
	return N_BRANCHES;
}

static int probe_make(struct objective **ret_objective, const struct objective_setup *setup)
{
	struct probe *probe = calloc(1, sizeof(*probe));

	if (!probe)
		return -ENOMEM;
	probe->base.n_state = WIDTH;
	probe->base.scale = 1;
	probe->seed = setup->recipe->seed;
	*ret_objective = &probe->base;
	return 0;
}

static void probe_free(struct objective *objective)
{
	free(objective);
}

static void probe_map(struct objective *objective, float *state)
{
	probe_of(objective)->vector = state;
}

static int probe_start(struct objective *objective, const float *features, uint32_t n)
{
	struct rng rng = rng_stream(3, 0, 0, 0);

	assert_null(features);
	assert_int_equal(n, 0);
	for (int d = 0; d < WIDTH; d++)
		probe_of(objective)->vector[d] = .1f * rng_normal(&rng);
	return 0;
}

static int probe_choose(struct objective *objective, struct objective_batch *batch)
{
	struct probe *probe = probe_of(objective);
	struct objective_rows *kept = &batch->branches[KEPT],
			      *replaced = &batch->branches[REPLACED];

	probe->n_chosen++;
	probe->teacher_was_first = batch->branches[TEACHER].out[0] != 0;
	for (uint32_t row = 0; row < kept->n_rows; row++) {
		struct rng rng = rng_stream(probe->seed, batch->step, batch->images[row % BATCH],
			STREAM_KEEP + row / BATCH);
		uint32_t order[64];

		rng_permutation(&rng, order, kept->n_patches);
		memcpy(kept->kept + (size_t)row * N_KEPT, order, N_KEPT * sizeof(*order));
	}
	for (size_t i = 0; i < (size_t)replaced->n_rows * replaced->n_patches; i++)
		replaced->replaced[i] = (i + batch->step) % 3 == 0;
	replaced->replacement = probe->vector;
	return 0;
}

static size_t n_values(
	const struct objective *objective, const struct objective_batch *batch, uint32_t b)
{
	const struct objective_rows *rows = &batch->branches[b];

	return (size_t)rows->n_rows * (objective->branches[b].all_out ? rows->n_tokens : 1) * WIDTH;
}

static int probe_loss(
	struct objective *objective, const struct objective_batch *batch, double *ret_loss)
{
	double loss = 0;

	probe_of(objective)->classes = 0;
	for (uint32_t b = 0; b < objective->n_branches; b++) {
		struct rng rng = rng_stream(7, b, 0, 0);
		const struct objective_rows *rows = &batch->branches[b];
		const size_t n = n_values(objective, batch, b);

		if (b == TEACHER) {
			assert_null(rows->d_out);
			continue;
		}
		for (size_t i = 0; i < n; i++) {
			rows->d_out[i] = rng_normal(&rng) / BATCH;
			loss += (double)rows->d_out[i] * rows->out[i];
			probe_of(objective)->classes += b != REPLACED ? rows->out[i] : 0;
		}
	}
	batch->figures[0] = (float)loss;
	batch->figures[1] = (float)batch->step;
	*ret_loss = loss;
	return 0;
}

static void probe_update(struct objective *objective, const struct objective_batch *batch)
{
	struct probe *probe = probe_of(objective);
	const struct objective_rows *rows = &batch->branches[REPLACED];

	memset(probe->moved, 0, sizeof(probe->moved));
	for (uint32_t row = 0; row < rows->n_rows; row++)
		for (uint32_t p = 0; p < rows->n_patches; p++) {
			const float *d =
				rows->d_entry + ((size_t)row * rows->n_tokens + 1 + p) * WIDTH;

			for (int i = 0; rows->replaced[row * rows->n_patches + p] && i < WIDTH; i++)
				probe->moved[i] += d[i];
		}
	for (int i = 0; i < WIDTH; i++)
		probe->vector[i] -= 1e-3f * probe->moved[i];
}

static float probe_decay(const struct objective *objective, uint32_t step)
{
	(void)objective;
	return step == 1 ? -1 : DECAY;
}

static const struct objective_kind kind = {
	.name = "probe",
	.figures = figure_names,
	.branches = probe_branches,
	.make = probe_make,
	.free = probe_free,
	.map = probe_map,
	.start = probe_start,
	.choose = probe_choose,
	.loss = probe_loss,
	.update = probe_update,
	.teacher_decay = probe_decay,
};

static int set_up(void **state)
{
	static struct bench bench;

	if (bench_new(&bench) < 0)
		return -1;
	bench.recipe.steps = STEPS;
	bench.recipe.batch = BATCH;
	bench.recipe.precision = PRECISION_F32;
	bench.recipe.score_lr = .3f;
	*state = &bench;
	return 0;
}

static struct round *start_probe(const struct bench *bench, const struct recipe *recipe)
{
	struct round *round = NULL;
	struct diag diag = { "" };

	if (round_new_of(&round, &kind, bench->tiny.vit, recipe, &bench->prep, &bench->source,
		    &diag) < 0)
		fail_msg("%s", diag.text);
	return round;
}

static void branches_of_one_view_read_the_same_pixels(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start_probe(bench, &bench->recipe);
	const struct objective_rows *rows = round->passed.branches;
	size_t n = (size_t)BATCH * 3 * bench->recipe.large_px * bench->recipe.large_px;

	(void)run(round, 1);
	assert_ptr_equal(rows[TEACHER].pixels, rows[KEPT].pixels);
	assert_ptr_equal(rows[REPLACED].pixels, rows[KEPT].pixels);
	assert_ptr_equal(rows[OTHER].pixels, rows[KEPT].pixels + n);
	assert_memory_not_equal(rows[OTHER].pixels, rows[KEPT].pixels, n * sizeof(float));
	assert_true(probe_of(round->objective)->teacher_was_first);
	assert_int_equal(probe_of(round->objective)->n_chosen, 1);
}

static void rows_of_class_tokens_lie_one_behind_the_other(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start_probe(bench, &bench->recipe);
	const struct objective_rows *rows = round->passed.branches;

	assert_ptr_equal(rows[OTHER].out, rows[KEPT].out + 2 * BATCH * WIDTH);
	assert_ptr_equal(rows[SMALL].out, rows[OTHER].out + BATCH * WIDTH);
	assert_ptr_equal(rows[OTHER].d_out, rows[KEPT].d_out + 2 * BATCH * WIDTH);
	assert_ptr_equal(rows[SMALL].d_out, rows[OTHER].d_out + BATCH * WIDTH);
	assert_int_equal(rows[KEPT].n_tokens, 1 + N_KEPT);
	assert_int_equal(rows[REPLACED].n_tokens, 1 + rows[REPLACED].n_patches);
	assert_null(rows[OTHER].kept);
	assert_null(rows[KEPT].replaced);
	assert_null(rows[KEPT].d_entry);
}

/* At first it is the student itself: its class tokens are those of the frozen model. */
static void the_teacher_begins_as_the_student(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start_probe(bench, &bench->recipe);
	const struct vit_tape_options options = { .batch = BATCH,
		.px = bench->recipe.large_px,
		.all_out = true,
		.borrows = true,
		.forward_only = true };
	const struct objective_rows *rows = &round->passed.branches[TEACHER];
	const size_t n = n_values(round->objective, &round->passed, TEACHER);
	_cleanup_(freep) float *want = calloc(n, sizeof(*want));
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;

	(void)run(round, 1);
	assert_int_equal(vit_slot_new(&slot, bench->tiny.vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	assert_int_equal(vit_tape_open(&tape, bench->tiny.vit, &options), 0);
	vit_tape_read(tape, rows->pixels);
	assert_int_equal(vit_tape_forward(tape, slot, want), 0);
	assert_memory_equal(rows->out, want, n * sizeof(*want));
}

static void the_teacher_is_the_average_of_the_students_scores(void **state)
{
	const struct bench *bench = *state;
	const size_t n = vit_layout(bench->tiny.vit)->n_elements;
	_cleanup_(round_freep) struct round *round = start_probe(bench, &bench->recipe);
	_cleanup_(freep) double *want = calloc(n, sizeof(*want));
	size_t n_apart = 0;

	for (size_t i = 0; i < n; i++)
		want[i] = round->scores[i];
	for (uint32_t step = 0; step < STEPS; step++) {
		(void)run(round, 1);
		for (size_t i = 0; i < n; i++) {
			if (step != 1)
				want[i] = DECAY * want[i] + (1 - DECAY) * round->scores[i];
			assert_true(fabs(round->teacher[i] - want[i]) < 1e-5);
		}
	}
	for (unsigned t = 0; t < vit_layout(bench->tiny.vit)->n_tensors; t++)
		for (size_t i = 0; i < vit_layout(bench->tiny.vit)->tensors[t].n; i++) {
			size_t at = vit_layout(bench->tiny.vit)->tensors[t].offset + i;

			assert_int_equal(
				mask_get(round->teacher_mask, t, i), round->teacher[at] > 0);
			n_apart +=
				mask_get(round->teacher_mask, t, i) != mask_get(round->mask, t, i);
		}
	assert_true(n_apart > 0);
}

static double norm_of_difference(const float *got, const float *want, size_t n)
{
	double difference = 0, norm = 0;

	for (size_t i = 0; i < n; i++) {
		difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		norm += (double)want[i] * want[i];
	}
	return sqrt(difference / norm);
}

/* 6 images in parts of 4 and 2: what is kept, replaced and dropped goes with its row. */
static void a_round_in_parts_takes_the_same_step(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *whole = start_probe(bench, &recipe), *parts = NULL;
	const size_t n = vit_layout(bench->tiny.vit)->n_elements;

	recipe.at_once = 4;
	parts = start_probe(bench, &recipe);
	(void)run(whole, 1);
	(void)run(parts, 1);
	print_message("gradient %.1e, of the entry %.1e\n",
		norm_of_difference(parts->grad, whole->grad, n),
		norm_of_difference(probe_of(parts->objective)->moved,
			probe_of(whole->objective)->moved, WIDTH));
	assert_true(norm_of_difference(parts->grad, whole->grad, n) < 1e-5);
	assert_true(norm_of_difference(probe_of(parts->objective)->moved,
			    probe_of(whole->objective)->moved, WIDTH) < 1e-5);
}

/* d_entry is the gradient of the vector: along it the loss grows by its square. */
static void a_replacement_has_the_gradient_of_what_entered(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start_probe(bench, &bench->recipe);
	const float step = 2e-4f;
	struct probe *probe;
	double loss[2], square = 0;
	float vector[WIDTH];

	(void)run(round, 1);
	probe = probe_of(round->objective);
	for (int i = 0; i < WIDTH; i++)
		square += (double)probe->moved[i] * probe->moved[i];
	assert_int_equal(probe_start(round->objective, NULL, 0), 0);
	memcpy(vector, probe->vector, sizeof(vector));
	for (int side = 0; side < 2; side++) {
		_cleanup_(round_freep) struct round *moved = start_probe(bench, &bench->recipe);
		struct probe *at;

		assert_int_equal(round_start(moved), 0);
		at = probe_of(moved->objective);
		for (int i = 0; i < WIDTH; i++)
			at->vector[i] = vector[i] + (side ? -step : step) * probe->moved[i] /
							    (float)sqrt(square);
		loss[side] = run(moved, 1).loss_ratio;
	}
	print_message("along the gradient %.4f, differences say %.4f\n", sqrt(square),
		(loss[0] - loss[1]) / (2 * (double)step));
	assert_true(fabs((loss[0] - loss[1]) / (2 * (double)step) / sqrt(square) - 1) < .05);
}

static void a_resumed_round_has_the_same_teacher_and_figures(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *whole = start_probe(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *killed = start_probe(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *resumed = start_probe(bench, &bench->recipe);
	char dir[] = "/tmp/kamen-branches-XXXXXX";
	struct round_progress want, got;
	_cleanup_(closep) int fd = -1;
	struct diag diag;

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	want = run(whole, STEPS);
	(void)run(killed, 4);
	assert_int_equal(round_save(killed, fd, "round"), 0);
	assert_int_equal(round_resume(resumed, fd, "round", &diag), 0);
	got = run(resumed, STEPS - 4);
	assert_memory_equal(whole->state, resumed->state, whole->n_state * sizeof(float));
	assert_int_equal(mask_distance(whole->teacher_mask, resumed->teacher_mask), 0);
	assert_int_equal(want.n_figures, 2);
	assert_int_equal(got.n_figures, 2);
	assert_string_equal(want.figures[0].name, "sum");
	assert_true(want.figures[0].value == got.figures[0].value);
	/* The mean over the last five of six steps. */
	assert_true(want.figures[1].value == 3);
	assert_int_equal(unlinkat(fd, "round", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(branches_of_one_view_read_the_same_pixels),
		cmocka_unit_test(rows_of_class_tokens_lie_one_behind_the_other),
		cmocka_unit_test(the_teacher_begins_as_the_student),
		cmocka_unit_test(the_teacher_is_the_average_of_the_students_scores),
		cmocka_unit_test(a_round_in_parts_takes_the_same_step),
		cmocka_unit_test(a_replacement_has_the_gradient_of_what_entered),
		cmocka_unit_test(a_resumed_round_has_the_same_teacher_and_figures),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
