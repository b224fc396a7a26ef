/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "fixture/learn_bench.h"
#include "learn/hardness_file.h"
#include "learn/hpm_step.h"
#include "learn/patch_mask.h"
#include "learn/round_state.h"

enum { TEACHER, STUDENT };
/* Of tiny_vit: 16 patches, of which 4 are kept. A batch is a part of eight and one that is not full. */
enum { BATCH = 11, L = 16, KEPT = 4, HIDDEN = L - KEPT, WIDTH = 48, P = 3 * 8 * 8 };

static int set_up(void **state)
{
	static struct bench bench;

	if (bench_new(&bench) < 0)
		return -1;
	bench.recipe.steps = 12;
	recipe_set_objective(&bench.recipe, RECIPE_HPM);
	bench.recipe.batch = BATCH;
	bench.recipe.precision = PRECISION_F32;
	bench.recipe.hpm_width = 64;
	*state = &bench;
	return 0;
}

static const struct hpm *hpm_of(const struct round *round)
{
	return (const struct hpm *)round->objective;
}

/* ---- a textured square on a smooth ground */

enum { SIDE = 32, SQUARE = 16, N_SQUARES = 40 };

struct squares {
	struct image *images[N_SQUARES];
	uint32_t x[N_SQUARES], y[N_SQUARES];
};

static void squares_new(struct squares *squares)
{
	for (uint32_t i = 0; i < N_SQUARES; i++) {
		struct rng rng = rng_stream(5, i, 0, 0);
		uint8_t *p;

		assert_int_equal(image_new(&squares->images[i], SIDE, SIDE, 1), 0);
		squares->x[i] = 8 * rng_below(&rng, 3);
		squares->y[i] = 8 * rng_below(&rng, 3);
		p = squares->images[i]->pixels;
		for (uint32_t y = 0; y < SIDE; y++)
			for (uint32_t x = 0; x < SIDE; x++) {
				bool inside =
					x - squares->x[i] < SQUARE && y - squares->y[i] < SQUARE;

				*p++ = (uint8_t)(inside ? rng_below(&rng, 256) : 100 + x + y);
			}
	}
}

static void squares_done(struct squares *squares)
{
	for (uint32_t i = 0; i < N_SQUARES; i++)
		image_free(squares->images[i]);
}

static int squares_get(void *owner, uint32_t i, struct image_view *ret_view)
{
	*ret_view = image_view(((struct squares *)owner)->images[i]);
	return 0;
}

/* Of the quarter of the patches that is thought hardest, the share that lies in the square, which is a
 * quarter of the image. */
static double precision_of(struct hardness *hardness, struct vit *vit, const struct mask *mask,
	const struct prep *prep, const struct squares *squares)
{
	const struct vit_tape_options options = {
		.batch = 1, .px = SIDE, .all_out = true, .forward_only = true
	};
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	float tokens[(1 + L) * WIDTH], map[L];
	unsigned n_inside = 0;

	assert_int_equal(resize_scratch_new(&scratch), 0);
	assert_int_equal(vit_tape_open(&tape, vit, &options), 0);
	assert_int_equal(vit_slot_new(&slot, vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, mask), 0);
	for (uint32_t i = 0; i < N_SQUARES; i++) {
		const struct image_view view = image_view(squares->images[i]);

		assert_int_equal(prep_apply(prep, &view, vit_tape_input(tape), scratch), 0);
		assert_int_equal(vit_tape_forward(tape, slot, tokens), 0);
		assert_int_equal(hardness_map(hardness, tokens, 1, 4, map), 0);
		for (uint32_t j = 0; j < L; j++) {
			const uint32_t x = j % 4 * 8, y = j / 4 * 8;
			unsigned n_harder = 0;

			for (uint32_t k = 0; k < L; k++)
				n_harder += map[k] > map[j];
			n_inside += n_harder < L / 4 && x - squares->x[i] < SQUARE &&
				    y - squares->y[i] < SQUARE;
		}
	}
	return (double)n_inside / (N_SQUARES * L / 4);
}

static double learn_squares(const struct bench *bench)
{
	struct squares squares;
	const struct image_source source = {
		.owner = &squares, .n = N_SQUARES, .get = squares_get
	};
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	_cleanup_(hardness_freep) struct hardness *hardness = NULL;
	_cleanup_(freep) void *data = NULL;
	struct round_progress early, late;
	struct diag diag = { "" };
	struct digest mask;
	double precision;
	size_t n_bytes;

	squares_new(&squares);
	recipe.steps = 150;
	recipe.score_lr = 0;
	recipe.min_area = .8f;
	recipe.hpm_ema = .9f;
	if (round_new(&round, bench->tiny.vit, &recipe, &bench->prep, &source, &diag) < 0)
		fail_msg("%s", diag.text);
	early = run(round, 5);
	late = run(round, 145);
	for (uint32_t i = 0; i < late.n_figures; i++)
		print_message("%s %.4f -> %.4f\n", late.figures[i].name, early.figures[i].value,
			late.figures[i].value);
	assert_string_equal(late.figures[0].name, "reconstruction");
	assert_true(late.figures[0].value < .8f * early.figures[0].value);
	assert_true(late.figures[1].value < early.figures[1].value);
	assert_true(late.figures[2].value > .7f);
	assert_true(late.loss_ratio < 1);
	mask = mask_digest(round_mask(round));
	assert_int_equal(round_hardness(round, &mask, &data, &n_bytes), 0);
	assert_int_equal(hardness_load(&hardness, bench->tiny.vit, data, n_bytes, &diag), 0);
	precision =
		precision_of(hardness, bench->tiny.vit, round_mask(round), &bench->prep, &squares);
	print_message("loss ratio %.3f -> %.3f, precision %.3f\n", early.loss_ratio,
		late.loss_ratio, precision);
	squares_done(&squares);
	return precision;
}

static void what_is_hard_to_say_is_found(void **state)
{
	assert_true(learn_squares(*state) > .6);
}

/* Every target, both rankings, both things to ask. */
static void every_variant_has_a_finite_loss(void **state)
{
	const struct bench *bench = *state;

	for (unsigned i = 0; i < 12; i++) {
		struct recipe recipe = bench->recipe;
		_cleanup_(round_freep) struct round *round = NULL;
		struct round_progress progress;

		recipe.hpm_target = (enum recipe_hpm_target)(i % 3);
		recipe.hpm_ranks = (enum recipe_hpm_ranks)(i / 3 % 2);
		recipe.hpm_asked = (enum recipe_hpm_asked)(i / 6);
		round = start(bench, &recipe);
		progress = run(round, 12);
		assert_true(isfinite(progress.loss_ratio));
		for (uint32_t f = 0; f < progress.n_figures; f++)
			assert_true(isfinite(progress.figures[f].value));
	}
}

/* Decoders that say one thing of all patches: what they are on the whole, and that none is harder. */
static void be_ignorant(struct hpm *hpm, bool of_features)
{
	const uint32_t n_out = hpm->shape.n_out, n = hpm->n_part * hpm->n_hidden;
	float *bias = hpm->values + params_find(hpm->params, "exit0.bias")->offset;

	memset(hpm->values, 0, hpm->params->n_values * sizeof(*hpm->values));
	for (uint32_t i = 0; i < n; i++) {
		const float *row = hpm->wanted + (size_t)i * n_out;
		double length = 0;

		for (uint32_t d = 0; d < n_out; d++)
			length += (double)row[d] * row[d];
		for (uint32_t d = 0; d < n_out; d++)
			bias[d] += row[d] / (of_features ? (float)sqrt(length) : (float)n);
	}
}

/* The batch is one part, of which what was wanted is still there after a step. */
static void who_knows_nothing_has_a_loss_ratio_of_1(void **state)
{
	const struct bench *bench = *state;

	for (unsigned i = 0; i < 6; i++) {
		struct recipe recipe = bench->recipe;
		_cleanup_(round_freep) struct round *round = NULL;
		struct hpm *hpm;
		double loss;

		recipe.batch = HPM_PART;
		recipe.hpm_target = (enum recipe_hpm_target)(i % 3);
		recipe.hpm_ranks = (enum recipe_hpm_ranks)(i / 3);
		round = start(bench, &recipe);
		(void)run(round, 1);
		hpm = (struct hpm *)round->objective;
		be_ignorant(hpm, recipe.hpm_target == RECIPE_HPM_FEATURES);
		assert_int_equal(hpm->base.kind->loss(&hpm->base, &round->passed, &loss), 0);
		assert_close(loss / hpm->base.scale, 1, 1e-3);
	}
}

/* By far the most of it for a small encoder, and no part of it may be left out of what is counted. */
static void the_decoders_count_in_what_a_step_takes(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	size_t shallow, deep, bare;

	recipe.hpm_asked = RECIPE_HPM_KEPT;
	shallow = recipe_tape_bytes(&recipe, bench->tiny.vit);
	recipe.hpm_depth++;
	deep = recipe_tape_bytes(&recipe, bench->tiny.vit);
	/* Two trunks: a block more of each holds its products' inputs at the least. */
	assert_true(deep > shallow + 2 * HPM_PART * (1 + L) * 12 * 64 * sizeof(float));
	recipe.hpm_asked = RECIPE_HPM_WHOLE;
	/* One trunk each, of two decoders. */
	assert_true(recipe_tape_bytes(&recipe, bench->tiny.vit) < deep + shallow / 2);
	recipe.at_once = 1;
	bare = recipe_tape_bytes(&recipe, bench->tiny.vit);
	recipe.hpm_width *= 2;
	assert_true(recipe_tape_bytes(&recipe, bench->tiny.vit) > bare);
}

/* choose() of the last step: half of what is hidden is what the teacher finds hardest. */
static void the_teachers_hardest_are_hidden(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	const struct hpm *hpm;

	recipe.hpm_hard_to = .5f;
	round = start(bench, &recipe);
	(void)run(round, 12);
	hpm = hpm_of(round);
	for (uint32_t i = 0; i < BATCH; i++) {
		const uint32_t *order = hpm->order + (size_t)i * L;
		const float *map = hpm->map + (size_t)i * L;
		bool hidden[L] = { false };

		for (uint32_t j = KEPT; j < L; j++)
			hidden[order[j]] = true;
		for (uint32_t j = 0; j < L; j++) {
			uint32_t n_harder = 0;

			for (uint32_t k = 0; k < L; k++)
				n_harder += map[k] > map[j];
			if (n_harder < HIDDEN / 2)
				assert_true(hidden[j]);
		}
	}
}

/* The sum that is learnt by, in double; hpm_loss() has loaded the decoders. */
static double cost_of(struct hpm *hpm, const struct objective_batch *batch)
{
	struct hpm_cost cost = { 0 };

	for (uint32_t i = 0; i < BATCH; i += hpm->n_part)
		assert_int_equal(hpm_step_part(hpm, &batch->branches[TEACHER],
					 &batch->branches[STUDENT], i, &cost),
			0);
	return cost.reconstruction + cost.ranking;
}

/* The loss's own gradient at a student's token against central differences: through both decoders. */
static void check_gradient(const struct bench *bench, enum recipe_hpm_asked asked)
{
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	const size_t n = (size_t)BATCH * (1 + KEPT) * WIDTH;
	_cleanup_(freep) float *gradient = malloc(n * sizeof(*gradient));
	const float step = 2e-2f;
	struct hpm *hpm;
	float *out, largest = 0;
	double loss;

	assert_non_null(gradient);
	recipe.hpm_asked = asked;
	round = start(bench, &recipe);
	(void)run(round, 3);
	hpm = (struct hpm *)round->objective;
	out = (float *)round->passed.branches[STUDENT].out;
	round->passed.step = round->step;
	assert_int_equal(hpm->base.kind->loss(&hpm->base, &round->passed, &loss), 0);
	memcpy(gradient, round->passed.branches[STUDENT].d_out, n * sizeof(*gradient));
	for (size_t j = 0; j < n; j++)
		largest = fmaxf(largest, fabsf(gradient[j]));
	for (unsigned i = 1; i <= 24; i++) {
		const size_t at = i * 7919 % n;
		const float was = out[at];
		double up, down;

		out[at] = was + step;
		up = cost_of(hpm, &round->passed);
		out[at] = was - step;
		down = cost_of(hpm, &round->passed);
		out[at] = was;
		assert_close((up - down) / (2 * (double)step), gradient[at], .003f * largest);
	}
}

static void the_students_gradient_is_that_of_the_loss(void **state)
{
	check_gradient(*state, RECIPE_HPM_WHOLE);
	check_gradient(*state, RECIPE_HPM_KEPT);
}

static void a_khard_says_what_the_teachers_predictor_says(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start(bench, &bench->recipe);
	_cleanup_(hardness_freep) struct hardness *hardness = NULL;
	_cleanup_(vit_decoder_freep) struct vit_decoder *decoder = NULL;
	_cleanup_(freep) void *data = NULL;
	_cleanup_(freep) float *out = malloc(sizeof(float) * 2 * BATCH * L * P);
	const struct vit_decoder_options options = { .batch = BATCH };
	const struct hpm *hpm = hpm_of(round);
	const struct digest none = { 0 };
	float map[BATCH * L], want[BATCH * L];
	struct digest mask;
	struct diag diag = { "" };
	size_t n_bytes;

	assert_non_null(out);
	(void)run(round, 12);
	mask = mask_digest(round_mask(round));
	assert_int_equal(round_hardness(round, &mask, &data, &n_bytes), 0);
	if (hardness_load(&hardness, bench->tiny.vit, data, n_bytes, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_true(digest_equal(&hardness_info(hardness)->mask, &mask));
	assert_false(digest_equal(&mask, &none));

	assert_int_equal(vit_decoder_new(&decoder, &hpm->shape, &options), 0);
	assert_int_equal(vit_decoder_load(decoder, hpm->teacher), 0);
	assert_int_equal(
		vit_decoder_forward(decoder, round->passed.branches[TEACHER].out, NULL, out), 0);
	for (uint32_t i = 0; i < BATCH * L; i++) {
		double sum = 0;

		for (uint32_t d = 0; d < P; d++)
			sum += out[((size_t)BATCH * L + i) * P + d];
		want[i] = (float)(sum / P);
	}
	assert_int_equal(
		hardness_map(hardness, round->passed.branches[TEACHER].out, BATCH, 4, map), 0);
	for (uint32_t i = 0; i < BATCH * L; i++)
		assert_close(map[i], want[i], 1e-4);
}

/* What a file says, for a mask; the size of it in ret_n. */
static float *hardness_for(const struct round *round, const struct digest *mask, size_t *ret_n)
{
	_cleanup_(freep) void *data = NULL;
	struct hardness_info info;
	struct diag diag = { "" };
	float *values = NULL;
	size_t n_bytes;

	assert_int_equal(round_hardness(round, mask, &data, &n_bytes), 0);
	if (hardness_decode(&info, &values, data, n_bytes, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_true(digest_equal(&info.mask, mask));
	*ret_n = hardness_n_values(&info) * sizeof(*values);
	return values;
}

/* A round may keep an early mask: what it has learnt since of hardness is said for it too. */
static void a_khard_of_an_early_mask_says_what_was_learnt_since(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	_cleanup_(freep) float *then = NULL, *now = NULL, *late = NULL;
	struct digest early_mask, late_mask;
	size_t n;

	recipe.score_lr = .25f;
	round = start(bench, &recipe);
	(void)run(round, 6);
	early_mask = mask_digest(round_mask(round));
	then = hardness_for(round, &early_mask, &n);
	(void)run(round, 6);
	late_mask = mask_digest(round_mask(round));
	assert_false(digest_equal(&early_mask, &late_mask));
	now = hardness_for(round, &early_mask, &n);
	late = hardness_for(round, &late_mask, &n);
	assert_memory_equal(now, late, n);
	assert_memory_not_equal(now, then, n);
}

static void the_teacher_moves_faster_at_first(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	const struct objective *objective;

	recipe.steps = 800;
	recipe.hpm_ema = .9999f;
	round = start(bench, &recipe);
	objective = round->objective;
	assert_close(objective->kind->teacher_decay(objective, 0), .999f, 1e-6);
	assert_close(objective->kind->teacher_decay(objective, 50), .99945f, 1e-6);
	assert_close(objective->kind->teacher_decay(objective, 100), .9999f, 1e-6);
	assert_close(objective->kind->teacher_decay(objective, 799), .9999f, 1e-6);
	/* A window that would be longer than the round is short. */
	recipe.steps = 50;
	recipe_set_objective(&recipe, RECIPE_HPM);
	assert_close(recipe.hpm_ema, .8f, 1e-6);
	/* Many steps of few images, unless told otherwise. */
	assert_true(recipe_steps(RECIPE_HPM) > recipe_steps(RECIPE_SWAV));
	recipe.batch = 64;
	recipe_set_objective(&recipe, RECIPE_HPM);
	assert_true(recipe.batch < 64);
}

static void the_same_bits_come_out_over_a_checkpoint(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *whole = start(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *before = start(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *after = start(bench, &bench->recipe);
	char dir[] = "/tmp/kamen-hpm-XXXXXX";
	_cleanup_(closep) int dir_fd = -1;
	struct diag diag = { "" };

	assert_non_null(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir_fd >= 0);
	(void)run(whole, 12);
	(void)run(before, 5);
	assert_int_equal(round_save(before, dir_fd, "checkpoint"), 0);
	assert_int_equal(round_resume(after, dir_fd, "checkpoint", &diag), 0);
	(void)run(after, 7);
	assert_int_equal(whole->n_state, after->n_state);
	assert_memory_equal(whole->state, after->state, whole->n_state * sizeof(float));
	assert_int_equal(unlinkat(dir_fd, "checkpoint", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void a_recipe_it_cannot_use_is_refused(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	struct round *round = NULL;
	struct diag diag = { "" };

	recipe.hpm_width = 100;
	assert_int_equal(
		round_new(&round, bench->tiny.vit, &recipe, &bench->prep, &bench->source, &diag),
		-EINVAL);
	assert_non_null(strstr(diag.text, "hpm_width"));
	recipe = bench->recipe;
	recipe.large_px = 8;
	assert_int_equal(
		round_new(&round, bench->tiny.vit, &recipe, &bench->prep, &bench->source, &diag),
		-EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_hard_to_say_is_found, set_up, tear_down),
		cmocka_unit_test_setup_teardown(every_variant_has_a_finite_loss, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			who_knows_nothing_has_a_loss_ratio_of_1, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			the_decoders_count_in_what_a_step_takes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_teachers_hardest_are_hidden, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			the_students_gradient_is_that_of_the_loss, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_khard_says_what_the_teachers_predictor_says, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_khard_of_an_early_mask_says_what_was_learnt_since, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			the_teacher_moves_faster_at_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			the_same_bits_come_out_over_a_checkpoint, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_recipe_it_cannot_use_is_refused, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
