/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "fixture/learn_bench.h"
#include "base/rng.h"
#include "learn/optimiser.h"
#include "learn/recipe_field.h"
#include "learn/round_state.h"
#include "learn/selection.h"

#define N_PER_BLOCK 8u

static int set_up(void **state)
{
	static struct bench bench;

	if (bench_new(&bench) < 0)
		return -1;
	bench.recipe.steps = 6;
	bench.recipe.batch = 8;
	bench.recipe.queue = 0;
	bench.recipe.score_lr = .6f;
	*state = &bench;
	return 0;
}

/* ---- fields */

/* Another value of a field: of the right kind, not always of the right range. */
static void disturb(struct recipe *recipe, const struct recipe_field *field)
{
	unsigned char *at = (unsigned char *)recipe + field->offset;
	float real;

	switch (field->kind) {
	case RECIPE_REAL:
		memcpy(&real, at, sizeof(real));
		real = real * 1.0000002f + 1e-30f;
		memcpy(at, &real, sizeof(real));
		break;
	default:
		at[0] ^= 1;
	}
}

static void every_field_counts_in_the_digest(void **state)
{
	const struct bench *bench = *state;
	struct digest before = recipe_digest(&bench->recipe);
	unsigned n = 0;

	for (const struct recipe_field *field = recipe_fields; field->name; field++, n++) {
		struct recipe recipe = bench->recipe;
		struct digest after;

		disturb(&recipe, field);
		after = recipe_digest(&recipe);
		if (digest_equal(&before, &after))
			fail_msg("%s", field->name);
	}
	/* Packed end to end but for what pads a bool: no field of the struct is without a row. */
	for (size_t i = 0; i < sizeof(struct recipe); i += 4) {
		bool found = false;

		for (const struct recipe_field *field = recipe_fields; field->name; field++)
			found = found ||
				(field->offset <= i &&
					i < field->offset + (field->kind == RECIPE_SEED ? 8 : 4));
		if (!found)
			assert_true(i + 4 == sizeof(struct recipe));
	}
	assert_true(n > 20);
}

static void every_value_out_of_range_is_named(void **state)
{
	const struct bench *bench = *state;

	for (const struct recipe_field *field = recipe_fields; field->name; field++) {
		const double values[] = { field->lo - .5, field->hi * 1.001 + 1, NAN };
		struct recipe recipe = bench->recipe;
		struct diag diag = { "" };

		for (unsigned i = 0; i < 3; i++) {
			float real = (float)values[i];
			uint32_t count = UINT32_MAX;

			if (field->kind == RECIPE_SEED || field->kind == RECIPE_SWITCH)
				continue;
			if (field->kind == RECIPE_COUNT && i == 1)
				count = (uint32_t)field->hi + 1;
			memcpy((char *)&recipe + field->offset,
				field->kind == RECIPE_REAL ? (void *)&real : (void *)&count, 4);
			assert_int_equal(
				recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
			assert_non_null(strstr(diag.text, field->name));
		}
	}
}

static void a_recipe_comes_back_from_its_text(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe, again = { 0 };
	struct recipe_text text, other;
	struct digest a, b;
	struct diag diag = { "" };

	recipe.seed = UINT64_MAX;
	recipe.score_lr = 1 / 3.f;
	recipe.score_threshold = -1e-7f;
	recipe.mask = RECIPE_TOPK;
	recipe.alpha_term = false;
	text = recipe_text(&recipe);
	print_message("%s\n", text.text);
	assert_true(strlen(text.text) < sizeof(text.text) / 2);
	assert_int_equal(recipe_read(&again, text.text, &diag), 0);
	other = recipe_text(&again);
	assert_string_equal(text.text, other.text);
	assert_true(again.score_lr == recipe.score_lr && again.seed == recipe.seed);
	a = recipe_digest(&recipe);
	b = recipe_digest(&again);
	assert_true(digest_equal(&a, &b));
}

static void a_wrong_word_changes_nothing(void **state)
{
	static const char *const wrong[][2] = {
		{ "colour=1", "colour" },
		{ "steps", "NAME=VALUE" },
		{ "steps=", "steps" },
		{ "steps=1.5", "steps" },
		{ "steps=-1", "steps" },
		{ "steps=0", "steps" },
		{ "steps=7x", "steps" },
		{ "seed=-1", "seed" },
		{ "seed=99999999999999999999", "seed" },
		{ "score_lr=nan", "score_lr" },
		{ "optimiser=ad", "optimiser" },
		{ "optimiser=", "optimiser" },
		{ "alpha_term=yes", "alpha_term" },
		{ "mask=topk|", "mask" },
	};
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	struct digest before = recipe_digest(&recipe), after;
	struct diag diag;

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		char text[80];

		diag.text[0] = 0;
		(void)snprintf(text, sizeof(text), "batch=4  %s", wrong[i][0]);
		assert_int_equal(recipe_read(&recipe, text, &diag), -EINVAL);
		assert_non_null(strstr(diag.text, wrong[i][1]));
	}
	after = recipe_digest(&recipe);
	assert_true(digest_equal(&before, &after));
	assert_int_equal(recipe_read(&recipe, " mask=topk\tkeep=.25 alpha_term=off ", &diag), 0);
	assert_int_equal(recipe.mask, RECIPE_TOPK);
	assert_true(recipe.keep == .25f && !recipe.alpha_term);
}

static void fields_that_do_not_fit_each_other_are_named(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	struct diag diag = { "" };

	recipe.score_threshold = 1;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "score_init"));
	recipe = bench->recipe;
	recipe.last_block = 2;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "last_block"));
	recipe.first_block = 1;
	recipe.last_block = 0;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
}

/* ---- what the fields do */

static void a_warm_rate_rises_and_falls(void **state)
{
	double sum = 0, cold = 0;

	(void)state;
	for (uint32_t step = 0; step < 100; step++) {
		float rate = schedule_warm(2, step, 100, 20);

		assert_true(rate > 0 && rate <= 2);
		if (step < 20)
			assert_close(rate, 2. * (step + 1) / 21, 1e-6);
		else
			assert_true(rate == schedule_cosine(2, step - 20, 80));
		sum += rate;
		cold += schedule_cosine(2, step, 100);
		assert_true(schedule_warm(2, step, 100, 0) == schedule_cosine(2, step, 100));
		assert_true(isfinite(schedule_warm(2, step, 100, 100)));
	}
	/* Scores travel as far as without. */
	assert_true(fabs(sum / cold - 1) < .02);
}

/* Adam's first step moves every score by its rate. */
static void the_score_rate_is_warmed(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	struct round_progress progress;
	float most = 0;

	recipe.warm_up = .5f;
	round = start(bench, &recipe);
	assert_int_equal(round_step(round, &progress), 1);
	for (size_t i = 0; i < vit_layout(bench->tiny.vit)->n_elements; i++)
		most = fmaxf(most, fabsf(round->scores[i] - 1));
	assert_close(most, .6 / 4, 1e-4);
}

/* Steps, their rate and the objective's own wishes, whoever asks. */
static void steps_rate_and_objective_go_together(void **state)
{
	const struct bench *bench = *state;
	const struct vit *vit = bench->tiny.vit;
	const struct recipe swav = recipe_default(vit, &bench->prep, N_IMAGES);
	struct recipe recipe = recipe_for(vit, &bench->prep, N_IMAGES, RECIPE_HPM, 0);
	enum recipe_objective objective = RECIPE_HPM;
	struct diag diag = { "" };

	assert_int_equal(recipe.objective, RECIPE_HPM);
	assert_int_equal(recipe.steps, recipe_steps(RECIPE_HPM));
	assert_close(recipe.score_lr, recipe_score_lr(recipe_steps(RECIPE_HPM)), 0);
	assert_close(recipe.hpm_ema, 1 - 10. / recipe_steps(RECIPE_HPM), 1e-6);
	assert_int_equal(recipe.n_small, 0);
	recipe = recipe_for(vit, &bench->prep, N_IMAGES, RECIPE_MASKSUB, 60);
	assert_int_equal(recipe.steps, 60);
	assert_close(recipe.score_lr, recipe_score_lr(60) * 1.1 / 1.5, 1e-7);
	assert_true(recipe.score_spread > 0);
	recipe = recipe_for(vit, &bench->prep, N_IMAGES, RECIPE_SWAV, 0);
	assert_string_equal(recipe_text(&recipe).text, recipe_text(&swav).text);

	assert_int_equal(recipe_read_objective(&objective, "steps=5 batch=9", &diag), 0);
	assert_int_equal(objective, RECIPE_HPM);
	assert_int_equal(recipe_read_objective(&objective, "x=1 objective=micm", &diag), -EINVAL);
	assert_int_equal(objective, RECIPE_HPM);
	assert_int_equal(recipe_read_objective(&objective, "steps=5 objective=micm", &diag), 0);
	assert_int_equal(objective, RECIPE_MICM);
}

static void scores_start_spread_around_one(void **state)
{
	const struct bench *bench = *state;
	size_t n = vit_layout(bench->tiny.vit)->n_elements;
	struct recipe recipe = bench->recipe, moved;
	_cleanup_(freep) float *scores = malloc(n * sizeof(*scores));
	_cleanup_(freep) float *again = malloc(n * sizeof(*again));
	_cleanup_(freep) float *others = malloc(n * sizeof(*others));
	double sum = 0, sum2 = 0;
	size_t n_same = 0;

	recipe.score_spread = .3f;
	moved = recipe;
	moved.score_init = 3;
	moved.score_threshold = 1;
	selection_start(scores, bench->tiny.vit, &recipe);
	selection_start(again, bench->tiny.vit, &recipe);
	selection_start(others, bench->tiny.vit, &moved);
	assert_memory_equal(scores, again, n * sizeof(*scores));
	for (size_t i = 0; i < n; i++) {
		assert_true(scores[i] > 0 && others[i] > 1);
		assert_close(others[i], 1 + 2 * scores[i], 1e-5);
		sum += scores[i];
		sum2 += (double)scores[i] * scores[i];
	}
	assert_close(sum / (double)n, 1, .01);
	assert_close(sqrt(sum2 / (double)n - 1), .3, .02);
	recipe.seed++;
	selection_start(others, bench->tiny.vit, &recipe);
	for (size_t i = 0; i < n; i++)
		n_same += scores[i] == others[i];
	assert_true(n_same < n / 100);
	recipe.score_spread = 1;
	selection_start(scores, bench->tiny.vit, &recipe);
	for (size_t i = 0; i < n; i++)
		assert_true(scores[i] > 0);
}

static void scores_of_topk_start_as_its_authors_have_them(void **state)
{
	const struct bench *bench = *state;
	const struct mask_layout *layout = vit_layout(bench->tiny.vit);
	_cleanup_(freep) float *scores = malloc(layout->n_elements * sizeof(*scores));
	struct recipe recipe = bench->recipe;

	recipe.mask = RECIPE_TOPK;
	selection_start(scores, bench->tiny.vit, &recipe);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		double bound = 1 / sqrt(t % N_PER_BLOCK == 6 ? 96 : 48), sum2 = 0;

		for (size_t i = 0; i < layout->tensors[t].n; i++) {
			float score = scores[layout->tensors[t].offset + i];

			if (t % 2)
				assert_true(score == sqrtf(5));
			else
				assert_true(fabsf(score) <= bound);
			sum2 += (double)score * score;
		}
		if (t % 2 == 0)
			assert_close(
				sum2 / (double)layout->tensors[t].n / bound / bound, 1. / 3, .03);
	}
}

static void topk_keeps_its_share_of_every_tensor(void **state)
{
	const struct bench *bench = *state;
	const struct mask_layout *layout = vit_layout(bench->tiny.vit);
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL, *fresh = NULL;

	recipe.mask = RECIPE_TOPK;
	recipe.keep = .8f;
	recipe.score_lr = .05f;
	round = start(bench, &recipe);
	fresh = start(bench, &recipe);
	(void)run(round, recipe.steps);
	for (unsigned t = 0; t < layout->n_tensors; t++)
		assert_int_equal(round_mask(round)->n_on[t],
			layout->tensors[t].n - (size_t)(.2 * (double)layout->tensors[t].n + 1e-9));
	assert_true(mask_distance(round_mask(round), round_mask(fresh)) > 100);
}

static void weights_outside_the_selection_never_flip(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;

	recipe.first_block = 1;
	recipe.layers = 1 | 16 | 64;
	recipe.share = .25f;
	for (unsigned rule = RECIPE_THRESHOLD; rule <= RECIPE_TOPK; rule++) {
		_cleanup_(round_freep) struct round *round = NULL;
		const struct mask *mask, *selection;
		size_t n_flips = 0;

		recipe.mask = rule;
		round = start(bench, &recipe);
		(void)run(round, recipe.steps);
		mask = round_mask(round);
		selection = round->selection;
		for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
			bool in = t == 8 || t == 12 || t == 14;
			size_t n = mask->layout->tensors[t].n;

			assert_close((double)selection->n_on[t] / (double)n, in ? .25 : 0, .02);
			for (size_t i = 0; i < n; i++)
				if (!mask_get(selection, t, i)) {
					float score =
						round->scores[mask->layout->tensors[t].offset + i];

					assert_true(mask_get(mask, t, i));
					assert_true(rule == RECIPE_TOPK || score == 1);
				}
			n_flips += n - mask->n_on[t];
		}
		print_message("%zu flips\n", n_flips);
		assert_true(n_flips > 50);
	}
}

static void everything_selected_is_no_selection(void **state)
{
	const struct bench *bench = *state;
	struct mask *mask = (struct mask *)1;

	assert_int_equal(selection_new(&mask, bench->tiny.vit, &bench->recipe), 0);
	assert_null(mask);
}

/* ---- memory */

static double norm_of_difference(const float *a, const float *b, size_t n)
{
	double sum = 0, whole = 0;

	for (size_t i = 0; i < n; i++) {
		sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		whole += (double)b[i] * b[i];
	}
	return sqrt(sum / whole);
}

static void draw_pixels(float *pixels, size_t n)
{
	struct rng rng = rng_stream(6, 0, 0, 0);

	for (size_t i = 0; i < n; i++)
		pixels[i] = rng_normal(&rng);
}

/* Through passes of their own: 20 views at once, in parts of 7 (the last of 6), and of 1. */
static void gradients_in_parts_equal_those_at_once(void **state)
{
	enum { N = 20, PX = 32, WIDTH = 48 };
	const struct bench *bench = *state;
	size_t n = vit_layout(bench->tiny.vit)->n_elements;
	_cleanup_(freep) float *want = calloc(n, sizeof(*want));
	static float embeddings[N * WIDTH], again[N * WIDTH], d_embeddings[N * WIDTH];
	static float pixels[N * 3 * PX * PX];
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct rng rng = rng_stream(5, 0, 0, 0);

	assert_int_equal(vit_slot_new(&slot, bench->tiny.vit, SLOT_LEARN), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	for (unsigned i = 0; i < N * WIDTH; i++)
		d_embeddings[i] = rng_normal(&rng);
	draw_pixels(pixels, ARRAY_SIZE(pixels));
	for (uint32_t at_once = 0; at_once <= 14; at_once += 7) {
		_cleanup_(freep) float *grad = calloc(n, sizeof(*grad));
		_cleanup_(pass_freep) struct pass *pass = NULL;

		assert_int_equal(pass_new(&pass, bench->tiny.vit, N, at_once == 14 ? 1 : at_once,
					 &(struct pass_options){ .px = PX, .pixels = pixels }),
			0);
		for (unsigned twice = 0; twice < 2; twice++) {
			memset(grad, 0, n * sizeof(*grad));
			assert_int_equal(pass_forward(pass, slot, at_once ? again : embeddings), 0);
			assert_int_equal(pass_backward(pass, slot, d_embeddings,
						 at_once ? grad : want, NULL),
				0);
			if (!at_once)
				break;
			print_message("embeddings %.1e, gradient %.1e\n",
				norm_of_difference(again, embeddings, N * WIDTH),
				norm_of_difference(grad, want, n));
			assert_true(norm_of_difference(again, embeddings, N * WIDTH) < 1e-6);
			assert_true(norm_of_difference(grad, want, n) < 1e-6);
		}
	}
}

/* What lies above an unselected block learns as with it. */
static void the_way_back_ends_at_the_first_block(void **state)
{
	enum { N = 3, PX = 32, WIDTH = 48 };
	const struct bench *bench = *state;
	const struct mask_layout *layout = vit_layout(bench->tiny.vit);
	size_t n = layout->n_elements, first = layout->tensors[N_PER_BLOCK].offset;
	_cleanup_(freep) float *grad = calloc(n, sizeof(*grad));
	_cleanup_(freep) float *want = calloc(n, sizeof(*want));
	float embeddings[N * WIDTH], d_embeddings[N * WIDTH], pixels[N * 3 * PX * PX];
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct rng rng = rng_stream(5, 0, 0, 0);

	assert_int_equal(vit_slot_new(&slot, bench->tiny.vit, SLOT_LEARN), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	for (unsigned i = 0; i < N * WIDTH; i++)
		d_embeddings[i] = rng_normal(&rng);
	draw_pixels(pixels, ARRAY_SIZE(pixels));
	for (uint32_t block = 0; block < 2; block++) {
		_cleanup_(pass_freep) struct pass *pass = NULL;

		assert_int_equal(
			pass_new(&pass, bench->tiny.vit, N, 0,
				&(struct pass_options){
					.px = PX, .first_block = block, .pixels = pixels }),
			0);
		assert_int_equal(pass_forward(pass, slot, embeddings), 0);
		assert_int_equal(
			pass_backward(pass, slot, d_embeddings, block ? grad : want, NULL), 0);
	}
	for (size_t i = 0; i < first; i++)
		assert_true(grad[i] == 0);
	assert_memory_equal(grad + first, want + first, (n - first) * sizeof(*grad));
	assert_true(fabsf(want[0]) > 0);
}

/* The same step: the loss sees the whole batch, Sinkhorn and queue included. */
static void a_round_in_parts_takes_the_same_step(void **state)
{
	const struct bench *bench = *state;
	size_t n = vit_layout(bench->tiny.vit)->n_elements;

	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *whole = NULL, *parts = NULL;
	struct round_progress a, b;

	recipe.optimiser = RECIPE_SGD;
	recipe.queue = 16;
	whole = start(bench, &recipe);
	recipe.at_once = 3;
	parts = start(bench, &recipe);
	assert_true(round_step(whole, &a) >= 0 && round_step(parts, &b) >= 0);
	print_message(
		"gradient of the weights %.1e\n", norm_of_difference(parts->grad, whole->grad, n));
	assert_true(fabsf(a.loss_ratio - b.loss_ratio) < 1e-6f);
	assert_true(norm_of_difference(parts->grad, whole->grad, n) < 1e-6);
}

static void a_budget_decides_how_many_images_are_held(void **state)
{
	const struct bench *bench = *state;
	struct vit *vit = bench->tiny.vit;
	struct recipe recipe = bench->recipe;
	size_t all;

	recipe.batch = 37;
	all = recipe_tape_bytes(&recipe, vit);
	recipe_fit(&recipe, vit, all);
	assert_int_equal(recipe.at_once, 0);
	for (size_t budget = all - 1; budget > all / 60; budget -= all / 50) {
		recipe_fit(&recipe, vit, budget);
		assert_true(recipe.at_once >= 1 && recipe.at_once <= 19);
		if (recipe.at_once > 1)
			assert_true(recipe_tape_bytes(&recipe, vit) <= budget);
	}
	recipe_fit(&recipe, vit, 1);
	assert_int_equal(recipe.at_once, 1);
	assert_int_equal(vit_tape_bytes(vit,
				 &(struct vit_tape_options){
					 .batch = 2, .px = 33, .precision = PRECISION_F32 }),
		0);
}

/* Without the term a score's gradient is its own product alone: where W is 0 nothing moves it. */
static void the_alpha_term_can_be_left_out(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *with = NULL, *without = NULL;

	with = start(bench, &recipe);
	recipe.alpha_term = false;
	without = start(bench, &recipe);
	(void)run(with, recipe.steps);
	(void)run(without, recipe.steps);
	assert_true(mask_distance(round_mask(with), round_mask(without)) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_counts_in_the_digest),
		cmocka_unit_test(every_value_out_of_range_is_named),
		cmocka_unit_test(a_recipe_comes_back_from_its_text),
		cmocka_unit_test(a_wrong_word_changes_nothing),
		cmocka_unit_test(fields_that_do_not_fit_each_other_are_named),
		cmocka_unit_test(a_warm_rate_rises_and_falls),
		cmocka_unit_test(the_score_rate_is_warmed),
		cmocka_unit_test(steps_rate_and_objective_go_together),
		cmocka_unit_test(scores_start_spread_around_one),
		cmocka_unit_test(scores_of_topk_start_as_its_authors_have_them),
		cmocka_unit_test(topk_keeps_its_share_of_every_tensor),
		cmocka_unit_test(weights_outside_the_selection_never_flip),
		cmocka_unit_test(everything_selected_is_no_selection),
		cmocka_unit_test(gradients_in_parts_equal_those_at_once),
		cmocka_unit_test(the_way_back_ends_at_the_first_block),
		cmocka_unit_test(a_round_in_parts_takes_the_same_step),
		cmocka_unit_test(a_budget_decides_how_many_images_are_held),
		cmocka_unit_test(the_alpha_term_can_be_left_out),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
