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
#include "golden/golden.h"
#include "learn/masksub.h"
#include "learn/round_state.h"
#include "learn/supervised.h"
#include "model/vit_params.h"

enum { ROWS = 9, WIDTH = 16, CLASSES = 5 };

static double norm_of_difference(const float *got, const float *want, size_t n)
{
	double difference = 0, norm = 0;

	for (size_t i = 0; i < n; i++) {
		difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		norm += (double)want[i] * want[i];
	}
	return sqrt(difference / norm);
}

/* What both golden tests need of an objective: one over a head of this size, asked without a round. */
struct asked {
	struct tiny_vit tiny;
	struct recipe recipe;
	struct image_source source;
	uint32_t labels[ROWS], images[ROWS];
	struct objective *objective;
	struct objective_batch batch;
	float f[2 * ROWS * WIDTH], d_f[2 * ROWS * WIDTH];
	float state[2 * CLASSES * WIDTH], figures[2];
};

static void ask(struct asked *asked)
{
	const struct vit_shape shape = { WIDTH, 1, 2, WIDTH, .patch = 8, .grid = 2 };
	struct diag diag = { "" };

	assert_int_equal(tiny_vit_of_shape(&asked->tiny, &shape, 1), 0);
	asked->recipe = (struct recipe){ .objective = RECIPE_MASKSUB,
		.batch = ROWS,
		.steps = 1,
		.large_px = 16,
		.optimiser = RECIPE_SGD,
		.score_lr = 1,
		.score_init = 1,
		.alpha_term = true,
		.masksub_ratio = .5f };
	for (uint32_t i = 0; i < ROWS; i++) {
		asked->images[i] = ROWS - 1 - i;
		asked->labels[asked->images[i]] = i * 7 % CLASSES;
	}
	asked->source =
		(struct image_source){ .n = ROWS, .labels = asked->labels, .n_classes = CLASSES };
	assert_int_equal(objective_new(&asked->objective,
				 &(struct objective_setup){
					 &asked->recipe, &asked->source, asked->tiny.vit },
				 &diag),
		0);
	assert_int_equal(asked->objective->n_state, ARRAY_SIZE(asked->state));
	asked->objective->kind->map(asked->objective, asked->state);
	assert_int_equal(asked->objective->kind->start(asked->objective, NULL, 0), 0);
	asked->batch.images = asked->images;
	asked->batch.figures = asked->figures;
	asked->batch.branches[0].out = asked->f;
	asked->batch.branches[0].d_out = asked->d_f;
}

static void ask_done(struct asked *asked)
{
	objective_free(asked->objective);
	tiny_vit_done(&asked->tiny);
}

static double loss_of(struct asked *asked)
{
	double loss;

	assert_int_equal(asked->objective->kind->loss(asked->objective, &asked->batch, &loss), 0);
	return loss;
}

static void loss_and_gradients_equal_autograd(void **state)
{
	const size_t n_f = (size_t)ROWS * WIDTH, n_head = CLASSES * WIDTH;
	static struct asked asked;
	struct masksub *masksub;
	struct golden golden = { 0 };
	const float *scores, *losses, *d_f, *want;

	(void)state;
	memset(&asked, 0, sizeof(asked));
	ask(&asked);
	masksub = (struct masksub *)asked.objective;
	assert_int_equal(golden_open(&golden, "tests/golden/masksub.f32"), 0);
	memcpy(asked.f, golden_take(&golden, 2 * n_f), sizeof(asked.f));
	memcpy(masksub->head.weights, golden_take(&golden, n_head), n_head * sizeof(float));
	scores = golden_take(&golden, n_head);
	memcpy(masksub->head.scores, scores, n_head * sizeof(float));
	losses = golden_take(&golden, 2);
	d_f = golden_take(&golden, 2 * n_f);
	want = golden_take(&golden, n_head);
	assert_non_null(want);
	assert_int_equal(golden.used, golden.n);

	assert_close(loss_of(&asked), (losses[0] + losses[1]) / 2, 1e-5);
	assert_close(asked.figures[0], losses[0], 1e-5);
	assert_close(asked.figures[1], losses[1], 1e-5);
	assert_true(norm_of_difference(asked.d_f, d_f, 2 * n_f) < 1e-6);
	assert_true(mask_density(masksub->head.mask) < 1);
	/* A step of SGD shows the gradient of the scores. */
	asked.objective->kind->update(asked.objective, &asked.batch);
	for (size_t i = 0; i < n_head; i++)
		assert_close(scores[i] - masksub->head.scores[i], want[i], 1e-5);
	golden_done(&golden);
	ask_done(&asked);
}

/* algorithms.md 3.7, both identities, of the features' gradients. */
static void a_pass_of_nothing_masked_changes_nothing_but_the_half(void **state)
{
	const size_t n_f = (size_t)ROWS * WIDTH;
	static struct asked asked;
	static float d_f[ROWS * WIDTH];
	struct masksub *masksub;
	float o[ROWS * CLASSES], d_o[ROWS * CLASSES];
	struct rng rng = rng_stream(5, 0, 0, 0);
	struct head head;
	double main;

	(void)state;
	memset(&asked, 0, sizeof(asked));
	ask(&asked);
	masksub = (struct masksub *)asked.objective;
	for (size_t i = 0; i < n_f; i++)
		asked.f[i] = asked.f[n_f + i] = rng_normal(&rng);
	(void)loss_of(&asked);
	/* o2 = o1: the second half is the answer's entropy, and has no gradient. */
	for (size_t i = 0; i < n_f; i++)
		assert_true(fabsf(asked.d_f[n_f + i]) < 1e-7f);
	head = score_head_masked(&masksub->head);
	head_score(&head, asked.f, ROWS, o);
	main = supervised_loss(o, masksub->row_labels, ROWS, CLASSES, d_o);
	for (size_t i = 0; i < ARRAY_SIZE(d_o); i++)
		d_o[i] /= 2;
	{
		float gradients[CLASSES * WIDTH] = { 0 };

		head_score_backward(gradients, d_f, &head, asked.f, d_o, ROWS);
	}
	assert_close(asked.figures[0], main, 1e-6);
	assert_memory_equal(asked.d_f, d_f, sizeof(d_f));
	/* Whatever the second pass answers: nothing of it reaches the first. */
	for (size_t i = 0; i < n_f; i++)
		asked.f[n_f + i] = rng_normal(&rng);
	(void)loss_of(&asked);
	assert_memory_equal(asked.d_f, d_f, sizeof(d_f));
	assert_true(fabsf(asked.d_f[n_f]) > 1e-6f);
	ask_done(&asked);
}

/* ---- rounds */

static int set_up(void **state)
{
	static uint32_t labels[N_IMAGES];
	static struct bench bench;

	if (bench_new(&bench) < 0)
		return -1;
	/* The direction of the stripes. */
	for (uint32_t i = 0; i < N_IMAGES; i++)
		labels[i] = i % 5;
	bench.source.labels = labels;
	bench.source.n_classes = 5;
	recipe_set_objective(&bench.recipe, RECIPE_MASKSUB);
	bench.recipe.precision = PRECISION_F32;
	bench.recipe.steps = 12;
	bench.recipe.batch = 20;
	bench.recipe.score_lr = .25f;
	*state = &bench;
	return 0;
}

/* The whole network's: r = 0 is supervised learning by half the gradient. */
static void without_masking_the_gradient_is_half_of_supervised(void **state)
{
	const struct bench *bench = *state;
	const size_t n = vit_layout(bench->tiny.vit)->n_elements;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *sub = NULL, *supervised = NULL;

	recipe.masksub_ratio = 0;
	sub = start(bench, &recipe);
	recipe.objective = RECIPE_SUPERVISED;
	supervised = start(bench, &recipe);
	assert_int_equal(sub->objective->branches[1].tokens, BRANCH_ALL);
	(void)run(sub, 1);
	(void)run(supervised, 1);
	for (size_t i = 0; i < n; i++)
		supervised->grad[i] /= 2;
	print_message("differs by %.1e\n", norm_of_difference(sub->grad, supervised->grad, n));
	assert_true(norm_of_difference(sub->grad, supervised->grad, n) < 1e-5);
}

static void every_row_and_step_keeps_patches_of_its_own(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start(bench, &bench->recipe);
	const struct objective_rows *rows = &round->passed.branches[1];
	const uint32_t n_kept = rows->n_tokens - 1;
	_cleanup_(freep) uint32_t *before = calloc(rows->n_rows * n_kept, sizeof(*before));

	assert_int_equal(n_kept, rows->n_patches / 2);
	(void)run(round, 1);
	for (uint32_t row = 0; row < rows->n_rows; row++) {
		bool seen[256] = { false };

		for (uint32_t k = 0; k < n_kept; k++) {
			uint32_t patch = rows->kept[row * n_kept + k];

			assert_true(patch < rows->n_patches && !seen[patch]);
			seen[patch] = true;
		}
		assert_true(row == 0 || memcmp(rows->kept, rows->kept + row * n_kept,
						n_kept * sizeof(*before)) != 0);
	}
	memcpy(before, rows->kept, rows->n_rows * n_kept * sizeof(*before));
	(void)run(round, 1);
	assert_memory_not_equal(before, rows->kept, rows->n_rows * n_kept * sizeof(*before));
}

static void labels_are_learnt_by_every_form(void **state)
{
	const struct bench *bench = *state;

	for (unsigned form = RECIPE_MASKSUB_SUB; form <= RECIPE_MASKSUB_TWICE; form++) {
		struct recipe recipe = bench->recipe;
		_cleanup_(round_freep) struct round *round = NULL;
		struct round_progress early, late;

		recipe.steps = 60;
		recipe.score_lr = .06f;
		recipe.min_area = .5f;
		recipe.masksub_form = form;
		recipe.masksub_drop = recipe.masksub_path = form == RECIPE_MASKSUB_SUB ? .1f : 0;
		round = start(bench, &recipe);
		early = run(round, 5);
		late = run(round, 55);
		print_message("form %u: main %.3f -> %.3f, sub %.3f -> %.3f, density %.4f\n", form,
			(double)early.figures[0].value, (double)late.figures[0].value,
			(double)early.figures[1].value, (double)late.figures[1].value,
			late.density);
		assert_int_equal(early.n_figures, 2);
		assert_string_equal(early.figures[1].name, "sub");
		assert_true(late.figures[0].value < early.figures[0].value - .2f);
		assert_true(late.density < 1);
	}
}

static void a_masksub_round_resumes_with_the_same_bits(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *whole = NULL, *killed = NULL, *resumed = NULL;
	char dir[] = "/tmp/kamen-masksub-XXXXXX";
	_cleanup_(closep) int fd = -1;
	struct diag diag;

	recipe.masksub_drop = .2f;
	recipe.masksub_path = .1f;
	whole = start(bench, &recipe);
	killed = start(bench, &recipe);
	resumed = start(bench, &recipe);
	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)run(whole, 12);
	(void)run(killed, 7);
	assert_int_equal(round_save(killed, fd, "round"), 0);
	assert_int_equal(round_resume(resumed, fd, "round", &diag), 0);
	(void)run(resumed, 5);
	assert_true(mask_density(round_mask(whole)) < 1);
	assert_memory_equal(whole->state, resumed->state, whole->n_state * sizeof(*whole->state));
	assert_int_equal(unlinkat(fd, "round", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* The last block's weights in the place of a mask. */
static void the_last_blocks_can_be_what_learns(void **state)
{
	const struct bench *bench = *state;
	const struct vit_shape *shape = vit_shape(bench->tiny.vit);
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *values = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(round_freep) struct round *round = NULL;
	struct recipe recipe = bench->recipe;
	struct round_progress early, late;
	struct diag diag = { "" };
	size_t n_moved = 0;

	assert_int_equal(vit_params_new(&params, shape, false), 0);
	values = malloc(params->n_values * sizeof(*values));
	vit_params_start(params, shape, values, VIT_START_NORMAL, 4);
	assert_int_equal(vit_over(&vit, shape, false, values, &diag), 0);
	recipe.drive = RECIPE_WEIGHTS;
	recipe.steps = 60;
	recipe.min_area = .5f;
	recipe.weight_lr = 3e-3f;
	recipe.score_lr = .06f;
	recipe.first_block = 1;
	if (round_new(&round, vit, &recipe, &bench->prep, &bench->source, &diag) < 0)
		fail_msg("%s", diag.text);
	early = run(round, 5);
	late = run(round, 55);
	print_message("main %.3f -> %.3f\n", (double)early.figures[0].value,
		(double)late.figures[0].value);
	assert_true(late.figures[0].value < early.figures[0].value - .2f);
	for (unsigned t = 0; t < params->n_tensors; t++) {
		const struct param *param = &params->tensors[t];
		const bool is_above = strncmp(param->name, "blocks.1.", 9) == 0 ||
				      strncmp(param->name, "norm.", 5) == 0;

		for (size_t i = param->offset; i < param->offset + param->n; i++) {
			assert_true(is_above || round->weights[i] == values[i]);
			n_moved += round->weights[i] != values[i];
		}
	}
	assert_true(n_moved > 0);
}

static void a_masked_pass_costs_less_memory(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	size_t sub = recipe_tape_bytes(&recipe, bench->tiny.vit), masked, twice;

	recipe.masksub_form = RECIPE_MASKSUB_MASKED;
	masked = recipe_tape_bytes(&recipe, bench->tiny.vit);
	recipe.masksub_form = RECIPE_MASKSUB_TWICE;
	twice = recipe_tape_bytes(&recipe, bench->tiny.vit);
	assert_true(masked < sub && sub < twice);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loss_and_gradients_equal_autograd),
		cmocka_unit_test(a_pass_of_nothing_masked_changes_nothing_but_the_half),
		cmocka_unit_test(without_masking_the_gradient_is_half_of_supervised),
		cmocka_unit_test(every_row_and_step_keeps_patches_of_its_own),
		cmocka_unit_test(labels_are_learnt_by_every_form),
		cmocka_unit_test(a_masksub_round_resumes_with_the_same_bits),
		cmocka_unit_test(the_last_blocks_can_be_what_learns),
		cmocka_unit_test(a_masked_pass_costs_less_memory),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
