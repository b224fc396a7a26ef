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

#include "base/rng.h"
#include "fixture/close.h"
#include "fixture/learn_bench.h"
#include "learn/head.h"
#include "learn/micm.h"
#include "learn/round_state.h"
#include "learn/sinkhorn.h"
#include "learn/warm.h"

#define SEED 5u

static int set_up(void **state)
{
	static struct bench bench;

	if (bench_new(&bench) < 0)
		return -1;
	recipe_set_objective(&bench.recipe, RECIPE_MICM);
	bench.recipe.steps = 12;
	bench.recipe.batch = 10;
	bench.recipe.head_dim = 8;
	bench.recipe.micm_hidden = 20;
	bench.recipe.score_lr = .25f;
	/* Of 4 x 4 patches, so that there is something to mask. */
	*state = &bench;
	return 0;
}

/* ---- one step's loss, on tokens that no network has made */

enum { MAX_PIXELS = 3 * 64 * 64 };

struct step {
	struct objective *objective;
	struct objective_batch batch;
	uint32_t images[64];
	float *state, *pixels, *out[3], *d_out[3], *d_entry;
	bool *replaced;
	float figures[MICM_N_FIGURES];
	size_t n_out[3];
};

static float *draw(struct rng *rng, size_t n)
{
	float *values = malloc(n * sizeof(*values));

	assert_non_null(values);
	for (size_t i = 0; i < n; i++)
		values[i] = rng_normal(rng);
	return values;
}

static void step_new(struct step *step, const struct bench *bench, const struct recipe *recipe)
{
	const struct vit_shape *shape = vit_shape(bench->tiny.vit);
	struct rng rng = rng_stream(SEED, 0, 0, 0);
	struct diag diag = { "" };
	const struct micm *micm;
	float *features = draw(&rng, (size_t)N_IMAGES * shape->width);

	memset(step, 0, sizeof(*step));
	if (objective_new(&step->objective,
		    &(struct objective_setup){ recipe, &bench->source, bench->tiny.vit },
		    &diag) < 0)
		fail_msg("%s", diag.text);
	micm = (const struct micm *)step->objective;
	step->state = calloc(step->objective->n_state, sizeof(float));
	assert_non_null(step->state);
	step->objective->kind->map(step->objective, step->state);
	assert_int_equal(step->objective->kind->start(step->objective, features, N_IMAGES), 0);
	free(features);
	/* Off the start, where the mask token is 0 and the student is its own teacher. */
	for (size_t i = 0; i < micm->params->n_values; i++)
		micm->values[i] += .05f * rng_normal(&rng);
	for (uint32_t b = 0; b < step->objective->n_branches; b++) {
		struct objective_rows *rows = &step->batch.branches[b];

		rows->n_rows = step->objective->branches[b].n_views * recipe->batch;
		rows->n_tokens = step->objective->branches[b].all_out ? micm->n_tokens : 1;
		step->n_out[b] = (size_t)rows->n_rows * rows->n_tokens * shape->width;
		rows->out = step->out[b] = draw(&rng, step->n_out[b]);
		rows->d_out = step->d_out[b] = draw(&rng, step->n_out[b]);
	}
	step->pixels = draw(&rng,
		(size_t)MICM_TARGETS * recipe->batch * 3 * recipe->large_px * recipe->large_px);
	step->batch.branches[MICM_LARGE].pixels = step->pixels;
	step->d_entry = draw(&rng, step->n_out[MICM_LARGE]);
	step->batch.branches[MICM_LARGE].d_entry = step->d_entry;
	step->replaced = calloc(step->n_out[MICM_LARGE], sizeof(bool));
	assert_non_null(step->replaced);
	step->batch.branches[MICM_LARGE].replaced = step->replaced;
	for (uint32_t i = 0; i < recipe->batch; i++)
		step->images[i] = i;
	step->batch.images = step->images;
	step->batch.figures = step->figures;
	assert_int_equal(step->objective->kind->choose(step->objective, &step->batch), 0);
}

static void step_done(struct step *step)
{
	for (uint32_t b = 0; b < 3; b++) {
		free(step->out[b]);
		free(step->d_out[b]);
	}
	free(step->replaced);
	free(step->d_entry);
	free(step->pixels);
	free(step->state);
	objective_free(step->objective);
}

static double loss_of(struct step *step)
{
	double loss;

	assert_int_equal(step->objective->kind->loss(step->objective, &step->batch, &loss), 0);
	return loss * ((const struct micm *)step->objective)->guess;
}

/* The slope along a random direction of n values against that of their gradient. */
static void check_slope(struct step *step, const char *what, float *values, const float *grad,
	size_t n, uint32_t stream)
{
	struct rng rng = rng_stream(SEED, 1, 0, stream);
	float *way = draw(&rng, n), *kept = malloc(n * sizeof(*kept));
	double slope = 0, length = 0, up, down, h = 2e-3;

	assert_non_null(kept);
	memcpy(kept, values, n * sizeof(*kept));
	/* Along the gradient for the most part, so that there is a slope to see. */
	for (size_t i = 0; i < n; i++)
		length += (double)grad[i] * grad[i];
	length = sqrt(length);
	for (size_t i = 0; i < n; i++) {
		way[i] = way[i] / sqrtf((float)n) + (float)(grad[i] / length);
		slope += (double)way[i] * grad[i];
	}
	for (size_t i = 0; i < n; i++)
		values[i] = kept[i] + (float)h * way[i];
	up = loss_of(step);
	for (size_t i = 0; i < n; i++)
		values[i] = kept[i] - (float)h * way[i];
	down = loss_of(step);
	memcpy(values, kept, n * sizeof(*kept));
	print_message("%-22s %.6f, by differences %.6f\n", what, slope, (up - down) / (2 * h));
	assert_true(length > 1e-3);
	assert_true(fabs((up - down) / (2 * h) - slope) < .01 * slope + 2e-4);
	free(kept);
	free(way);
}

static void check_step(const struct bench *bench, const struct recipe *recipe, uint32_t at)
{
	const struct micm *micm;
	struct step step;
	float *d_out[3], *grad;

	step_new(&step, bench, recipe);
	step.batch.step = at;
	micm = (const struct micm *)step.objective;
	(void)loss_of(&step);
	assert_true(micm->n_masked > 0);
	grad = malloc(micm->params->n_values * sizeof(*grad));
	assert_non_null(grad);
	memcpy(grad, micm->grad, micm->params->n_values * sizeof(*grad));
	for (uint32_t b = 0; b < 3; b++) {
		d_out[b] = malloc(step.n_out[b] * sizeof(float));
		assert_non_null(d_out[b]);
		memcpy(d_out[b], step.d_out[b], step.n_out[b] * sizeof(float));
	}
	check_slope(&step, "tokens of large views", step.out[MICM_LARGE], d_out[MICM_LARGE],
		step.n_out[MICM_LARGE], 1);
	if (!micm_is_second(recipe, at))
		check_slope(&step, "of small views", step.out[MICM_SMALL], d_out[MICM_SMALL],
			step.n_out[MICM_SMALL], 2);
	check_slope(&step, "head", micm->values, grad, micm->n_head, 3);
	check_slope(&step, "what tells pixels", micm->values + micm_telling_at(micm),
		grad + micm_telling_at(micm), micm->params->n_values - micm_telling_at(micm), 4);
	for (uint32_t b = 0; b < 3; b++)
		free(d_out[b]);
	free(grad);
	step_done(&step);
}

static void gradients_of_a_step_equal_central_differences(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;

	/* Weights that are not 1 count too; a temperature at which differences of floats say much. */
	recipe.temperature = .3f;
	recipe.micm_class = .7f;
	recipe.micm_patch = 1.3f;
	recipe.micm_pixel = .9f;
	recipe.micm_second = .25f;
	for (unsigned balance = 0; balance < 2; balance++) {
		recipe.micm_balance = balance;
		check_step(bench, &recipe, 0);
		check_step(bench, &recipe, 9);
	}
}

/* Of every term, also of those that a step may have few of: patches, pixels, neighbours. */
static void who_says_nothing_has_the_ratio_of_a_guess(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;

	recipe.micm_class = .7f;
	recipe.micm_patch = 1.3f;
	recipe.micm_pixel = .9f;
	recipe.micm_second = .25f;
	for (uint32_t i = 0; i < 8; i++) {
		struct step step;
		struct micm *micm;
		double loss;

		recipe.micm_balance = i % 2;
		recipe.micm_normalise = i / 2 % 2;
		step_new(&step, bench, &recipe);
		step.batch.step = i < 4 ? 0 : 9;
		micm = micm_of(step.objective);
		memset(micm->values, 0, micm->params->n_values * sizeof(*micm->values));
		assert_int_equal(step.objective->kind->loss(step.objective, &step.batch, &loss), 0);
		print_message("ratio %.6f, pixel %.3f\n", loss, step.figures[MICM_FIGURE_PIXEL]);
		assert_true(step.figures[MICM_FIGURE_PIXEL] > 0);
		assert_close(loss, 1, 1e-5);
		assert_int_equal(step.objective->scale, 1);
		step_done(&step);
	}
}

/* Whatever it says: no output is asked for more than the others. */
static void balanced_targets_use_all_outputs_alike(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	const struct micm *micm;
	struct step step;
	float least = 1e9f, most = 0;
	uint32_t k;

	recipe.sinkhorn_iterations = 50;
	step_new(&step, bench, &recipe);
	(void)loss_of(&step);
	micm = (const struct micm *)step.objective;
	k = micm->head_shape.n_outputs;
	for (uint32_t j = 0; j < k; j++) {
		float sum = 0;

		for (uint32_t i = 0; i < MICM_TARGETS * recipe.batch; i++)
			sum += micm->t[(size_t)i * k + j];
		least = fminf(least, sum);
		most = fmaxf(most, sum);
	}
	print_message("each of %u outputs: %.3f to %.3f of %u rows\n", k, least, most,
		MICM_TARGETS * recipe.batch);
	assert_true(most < 1.2f * least);
	step_done(&step);
}

/* The head's gains are learnt, and nothing bounds them: e^(gain / temperature) is no float for long. */
static void balanced_targets_bear_any_gain(void **state)
{
	const struct bench *bench = *state;
	static const float gains[] = { 4, 30, 1000 };

	for (unsigned i = 0; i < ARRAY_SIZE(gains); i++) {
		struct step step;
		struct micm *micm;
		uint32_t k;

		step_new(&step, bench, &bench->recipe);
		micm = micm_of(step.objective);
		k = micm->head_shape.n_outputs;
		for (uint32_t j = 0; j < k; j++)
			micm_head_map(&micm->head_shape, micm->teacher).gain[j] = gains[i];
		assert_true(isfinite(loss_of(&step)));
		for (uint32_t j = 0; j < MICM_TARGETS * bench->recipe.batch; j++) {
			double sum = 0;

			for (uint32_t c = 0; c < k; c++)
				sum += (double)micm->t[(size_t)j * k + c];
			assert_close(sum, 1, 1e-5);
		}
		for (size_t j = 0; j < (size_t)micm->n_masked * k; j++)
			assert_true(micm->patch_t[j] >= 0 && micm->patch_t[j] <= 1.00001f);
		step_done(&step);
	}
}

/* Balanced, it is asked of nothing but them; centred, of every token. */
static void targets_are_of_the_teacher_at_the_same_places(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;

	for (unsigned balance = 0; balance < 2; balance++) {
		_cleanup_(freep) float *got = NULL;
		const float *tokens;
		struct step step;
		struct micm *micm;
		uint32_t k, n_large = MICM_TARGETS * recipe.batch, n;

		recipe.micm_balance = balance;
		step_new(&step, bench, &recipe);
		micm = micm_of(step.objective);
		k = micm->head_shape.n_outputs;
		n = n_large + micm->n_masked;
		(void)loss_of(&step);
		got = malloc((size_t)n * k * sizeof(*got));
		assert_non_null(got);
		memcpy(got, micm->raw, (size_t)n_large * k * sizeof(*got));
		memcpy(got + (size_t)n_large * k, micm->patch_t,
			(size_t)micm->n_masked * k * sizeof(*got));
		tokens = step.batch.branches[MICM_TEACHER].out;
		for (uint32_t i = 0; i < n; i++) {
			const uint32_t sample = i < n_large ? i : micm->samples[i - n_large];
			const uint32_t token = i < n_large ? 0 : 1 + micm->patches[i - n_large];

			memcpy(micm_head_input(micm->head) + (size_t)i * micm->width,
				tokens + ((size_t)sample * micm->n_tokens + token) * micm->width,
				micm->width * sizeof(float));
		}
		assert_int_equal(micm_head_forward(micm->head, micm->teacher, n), 0);
		for (size_t i = 0; i < (size_t)n_large * k; i++)
			assert_close(got[i], micm_head_outputs(micm->head)[i], 1e-5);
		memcpy(micm->patch_t, micm_head_outputs(micm->head) + (size_t)n_large * k,
			(size_t)micm->n_masked * k * sizeof(float));
		if (balance)
			sinkhorn(micm->patch_t, micm->n_masked, k, micm_temperature(&recipe, 0),
				recipe.sinkhorn_iterations);
		else
			micm_sharpen(micm->patch_t, micm->patch_t, micm->patch_centre,
				micm->n_masked, k, micm_temperature(&recipe, 0));
		for (size_t i = 0; i < (size_t)micm->n_masked * k; i++)
			assert_close(got[(size_t)n_large * k + i], micm->patch_t[i], 1e-4);
		step_done(&step);
	}
}

static void stage_two_asks_small_views_nothing(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	struct step step;
	const struct micm *micm;

	recipe.micm_second = .25f;
	step_new(&step, bench, &recipe);
	micm = (const struct micm *)step.objective;
	assert_true(micm->n_views > MICM_TARGETS);
	for (unsigned at = 0; at < recipe.steps; at++) {
		step.batch.step = at;
		assert_int_equal(step.objective->kind->choose(step.objective, &step.batch), 0);
		assert_int_equal(step.batch.branches[MICM_SMALL].idle, at >= 9);
		assert_false(step.batch.branches[MICM_LARGE].idle);
	}
	/* What they said in an earlier step is still there. */
	for (size_t i = 0; i < step.n_out[MICM_SMALL]; i++)
		step.out[MICM_SMALL][i] = nanf("");
	assert_true(isfinite(loss_of(&step)));
	assert_true(step.figures[MICM_FIGURE_PSEUDO] > 0);
	for (size_t i = 0; i < step.n_out[MICM_LARGE]; i++)
		assert_true(isfinite(step.d_out[MICM_LARGE][i]));
	step_done(&step);
}

static void the_mask_token_learns_where_it_stood(void **state)
{
	const struct bench *bench = *state;
	struct step step;
	struct micm *micm;
	const float *token;
	uint32_t n = 0;

	step_new(&step, bench, &bench->recipe);
	micm = micm_of(step.objective);
	(void)loss_of(&step);
	assert_ptr_equal(step.batch.branches[MICM_LARGE].replacement,
		micm->values + micm_mask_token_at(micm));
	micm_mask_token_backward(micm, &step.batch.branches[MICM_LARGE]);
	token = micm->grad + micm_mask_token_at(micm);
	for (uint32_t j = 0; j < micm->width; j++) {
		double sum = 0;

		n = 0;
		for (uint32_t i = 0; i < step.batch.branches[MICM_LARGE].n_rows; i++)
			for (uint32_t p = 0; p < micm->n_tokens - 1; p++)
				if (step.replaced[i * (micm->n_tokens - 1) + p]) {
					sum += step.d_entry[((size_t)i * micm->n_tokens + 1 + p) *
								    micm->width +
							    j];
					n++;
				}
		assert_close(token[j], sum, 1e-4);
	}
	assert_int_equal(n, micm->n_masked);
	step_done(&step);
}

/* The same step over and over: what can be learnt of it is. */
static void head_and_what_tells_pixels_learn(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	struct step step;
	float first[MICM_N_FIGURES];

	recipe.steps = 1000;
	recipe.micm_lr = .01f;
	/* A teacher that stays. */
	recipe.micm_teacher = 1;
	step_new(&step, bench, &recipe);
	(void)loss_of(&step);
	memcpy(first, step.figures, sizeof(first));
	for (step.batch.step = 0; step.batch.step < 60; step.batch.step++) {
		(void)loss_of(&step);
		step.objective->kind->update(step.objective, &step.batch);
	}
	(void)loss_of(&step);
	print_message("class %.3f -> %.3f, patch %.3f -> %.3f, pixel %.3f -> %.3f\n",
		first[MICM_FIGURE_CLASS], step.figures[MICM_FIGURE_CLASS], first[MICM_FIGURE_PATCH],
		step.figures[MICM_FIGURE_PATCH], first[MICM_FIGURE_PIXEL],
		step.figures[MICM_FIGURE_PIXEL]);
	for (unsigned i = MICM_FIGURE_CLASS; i <= MICM_FIGURE_PIXEL; i++)
		assert_true(step.figures[i] < .9f * first[i]);
	step_done(&step);
}

/* ---- the start */

static void a_warm_head_begins_as_that_of_swav(void **state)
{
	const struct bench *bench = *state;
	enum { N = 60, D = 12, DIM = 5, K = 9, HIDDEN = 14 };
	const struct micm_head_shape shape = { D, HIDDEN, DIM, K };
	_cleanup_(micm_head_freep) struct micm_head *head = NULL;
	const size_t n_values = micm_head_size(&shape);
	float *values = calloc(n_values, sizeof(*values)), linear_values[D * DIM + DIM + K * DIM];
	struct head linear = head_map(linear_values, D, DIM, K);
	float features[N * D], z[N * DIM], lengths[N], o[N * K];
	struct rng rng = rng_stream(SEED, 2, 0, 0);

	assert_non_null(values);
	for (unsigned i = 0; i < N * D; i++)
		features[i] = rng_normal(&rng) * (float)(1 + i % D) + 2;
	assert_int_equal(warm_start(&linear, features, N, SEED), 0);
	head_project(&linear, features, N, z, lengths);
	head_score(&linear, z, N, o);

	assert_int_equal(micm_head_new(&head, bench->tiny.vit, &shape, N), 0);
	micm_head_draw(&shape, values, SEED);
	assert_int_equal(micm_head_warm(&shape, values, features, N, SEED), 0);
	memcpy(micm_head_input(head), features, sizeof(features));
	assert_int_equal(micm_head_forward(head, values, N), 0);
	for (unsigned i = 0; i < N * K; i++)
		assert_close(micm_head_outputs(head)[i], o[i], 1e-4);
	/* No room for both signs. */
	assert_int_equal(micm_head_warm(&(struct micm_head_shape){ D, 2 * DIM - 1, DIM, K }, values,
				 features, N, SEED),
		-EINVAL);
	free(values);
}

static void schedules_are_exact(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(objective_freep) struct objective *objective = NULL;
	struct diag diag;

	recipe.steps = 100;
	recipe.micm_rise = .25f;
	recipe.micm_first_temperature = .04f;
	recipe.micm_last_temperature = .07f;
	recipe.micm_second = .1f;
	recipe.micm_teacher = .9f;
	assert_close(micm_temperature(&recipe, 0), .04, 1e-7);
	assert_close(micm_temperature(&recipe, 10), .052, 1e-7);
	assert_close(micm_temperature(&recipe, 25), .07, 1e-7);
	assert_close(micm_temperature(&recipe, 99), .07, 1e-7);
	assert_false(micm_is_second(&recipe, 89));
	assert_true(micm_is_second(&recipe, 90));
	recipe.micm_second = 0;
	assert_false(micm_is_second(&recipe, 99));
	assert_int_equal(
		objective_new(&objective,
			&(struct objective_setup){ &recipe, &bench->source, bench->tiny.vit },
			&diag),
		0);
	assert_close(objective->kind->teacher_decay(objective, 0), .9, 1e-6);
	assert_close(objective->kind->teacher_decay(objective, 50), .95, 1e-6);
}

/* ---- rounds */

static float figure(const struct round_progress *progress, const char *name)
{
	for (uint32_t i = 0; i < progress->n_figures; i++)
		if (strcmp(progress->figures[i].name, name) == 0)
			return progress->figures[i].value;
	fail_msg("no figure %s", name);
	return 0;
}

static void student_and_teacher_come_to_agree(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	struct round_progress early, late;

	recipe.steps = 40;
	recipe.score_lr = .06f;
	round = start(bench, &recipe);
	early = run(round, 5);
	late = run(round, 35);
	print_message("loss ratio %.3f -> %.3f, class %.3f -> %.3f, pixel %.3f -> %.3f, "
		      "masked %.3f, density %.4f\n",
		early.loss_ratio, late.loss_ratio, figure(&early, "class"), figure(&late, "class"),
		figure(&early, "pixel"), figure(&late, "pixel"), figure(&late, "masked"),
		late.density);
	assert_true(late.loss_ratio < early.loss_ratio);
	assert_true(figure(&late, "class") < figure(&early, "class"));
	assert_true(late.density < 1);
	assert_true(figure(&late, "masked") > 0 && figure(&late, "masked") < .25f);
	assert_true(figure(&late, "pseudo") == 0);
}

static void a_micm_round_resumes_with_the_same_bits(void **state)
{
	const struct bench *bench = *state;
	char dir[] = "/tmp/kamen-micm-XXXXXX";
	_cleanup_(closep) int fd = -1;

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Killed before and in stage two; with small views and without. */
	for (uint32_t i = 0; i < 4; i++) {
		_cleanup_(round_freep) struct round *whole = NULL, *killed = NULL, *resumed = NULL;
		struct recipe recipe = bench->recipe;
		const uint32_t at = i % 2 ? 5 : 10;
		struct round_progress progress;
		struct diag diag;

		recipe.micm_second = .25f;
		recipe.n_small = i < 2 ? recipe.n_small : 0;
		whole = start(bench, &recipe);
		killed = start(bench, &recipe);
		resumed = start(bench, &recipe);
		progress = run(whole, 12);
		assert_true(figure(&progress, "pseudo") > 0);
		(void)run(killed, at);
		assert_int_equal(round_save(killed, fd, "round"), 0);
		assert_int_equal(round_resume(resumed, fd, "round", &diag), 0);
		(void)run(resumed, 12 - at);
		assert_true(mask_density(round_mask(whole)) < 1);
		assert_memory_equal(
			whole->state, resumed->state, whole->n_state * sizeof(*whole->state));
		assert_int_equal(mask_distance(round_mask(whole), round_mask(resumed)), 0);
	}
	assert_int_equal(unlinkat(fd, "round", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* What stage two asks nothing of is not drawn; the large views are those of any step. */
static void stage_two_draws_no_small_views(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	_cleanup_(freep) float *large = NULL, *small = NULL;
	size_t n_large, n_small;

	recipe.micm_second = .25f;
	round = start(bench, &recipe);
	n_large = (size_t)MICM_TARGETS * recipe.batch * 3 * recipe.large_px * recipe.large_px;
	n_small = (size_t)recipe.n_small * recipe.batch * 3 * recipe.small_px * recipe.small_px;
	large = malloc(n_large * sizeof(*large));
	small = malloc(n_small * sizeof(*small));
	assert_true(large && small && n_small > 0);
	(void)run(round, 9);
	memcpy(small, round->small, n_small * sizeof(*small));
	(void)run(round, 1);
	assert_memory_equal(round->small, small, n_small * sizeof(*small));
	memcpy(large, round->large, n_large * sizeof(*large));
	assert_int_equal(views_fill(round->views, 9, round->large, round->small), 0);
	assert_memory_equal(round->large, large, n_large * sizeof(*large));
	assert_memory_not_equal(round->small, small, n_small * sizeof(*small));
}

/* The head has a row for every class and every masked patch, however many images are held. */
static void the_head_counts_in_what_a_step_takes(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	const struct vit *vit = bench->tiny.vit;
	const size_t n_rows = (MICM_TARGETS + recipe.n_small) * recipe.batch;
	size_t narrow, bare;

	narrow = recipe_tape_bytes(&recipe, vit);
	recipe.micm_hidden += 100;
	assert_true(recipe_tape_bytes(&recipe, vit) >= narrow + 4 * n_rows * 100 * sizeof(float));
	recipe = bench->recipe;
	recipe.n_prototypes += 100;
	assert_true(recipe_tape_bytes(&recipe, vit) >= narrow + 2 * n_rows * 100 * sizeof(float));
	recipe = bench->recipe;
	recipe.at_once = 1;
	bare = recipe_tape_bytes(&recipe, vit);
	assert_true(bare < narrow);
	assert_true(bare > 4 * n_rows * recipe.micm_hidden * sizeof(float));
}

static void a_head_too_small_for_its_start_is_refused(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	struct diag diag = { "" };

	recipe.micm_hidden = 2 * recipe.head_dim - 1;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "micm_hidden"));
	recipe.micm_warm = false;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gradients_of_a_step_equal_central_differences),
		cmocka_unit_test(who_says_nothing_has_the_ratio_of_a_guess),
		cmocka_unit_test(balanced_targets_use_all_outputs_alike),
		cmocka_unit_test(balanced_targets_bear_any_gain),
		cmocka_unit_test(targets_are_of_the_teacher_at_the_same_places),
		cmocka_unit_test(stage_two_asks_small_views_nothing),
		cmocka_unit_test(the_mask_token_learns_where_it_stood),
		cmocka_unit_test(head_and_what_tells_pixels_learn),
		cmocka_unit_test(a_warm_head_begins_as_that_of_swav),
		cmocka_unit_test(schedules_are_exact),
		cmocka_unit_test(student_and_teacher_come_to_agree),
		cmocka_unit_test(a_micm_round_resumes_with_the_same_bits),
		cmocka_unit_test(stage_two_draws_no_small_views),
		cmocka_unit_test(the_head_counts_in_what_a_step_takes),
		cmocka_unit_test(a_head_too_small_for_its_start_is_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
