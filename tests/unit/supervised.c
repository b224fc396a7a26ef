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
#include "learn/judge.h"
#include "learn/round_state.h"
#include "learn/supervised.h"

enum { ROWS = 12, UNKNOWN = 2, WIDTH = 16, CLASSES = 5 };

/* tests/golden/supervised.py; a step of SGD shows the gradient of the scores. */
static void loss_and_gradients_equal_autograd(void **state)
{
	struct recipe recipe = {
		.objective = RECIPE_SUPERVISED,
		.batch = ROWS,
		.steps = 1,
		.optimiser = RECIPE_SGD,
		.score_lr = 1,
		.score_init = 1,
		.alpha_term = true,
	};
	uint32_t labels[ROWS], images[ROWS];
	struct image_source source = { .n = ROWS, .labels = labels, .n_classes = CLASSES };
	const struct vit_shape shape = { WIDTH, 1, 2, WIDTH, .patch = 8, .grid = 2 };
	struct tiny_vit tiny;
	_cleanup_(objective_freep) struct objective *objective = NULL;
	struct objective_batch batch = { .images = images };
	float memory[2 * CLASSES * WIDTH] = { 0 }, d_f[ROWS * WIDTH];
	const float *want_loss, *want_d_f, *scores, *want;
	struct golden golden = { 0 };
	struct supervised *supervised;
	struct diag diag = { "" };
	double loss;

	(void)state;
	for (uint32_t i = 0; i < ROWS; i++) {
		/* The images of the batch are those of the source the other way round. */
		images[i] = ROWS - 1 - i;
		labels[images[i]] = i < ROWS - UNKNOWN ? i * 7 % CLASSES : UINT32_MAX;
	}
	assert_int_equal(golden_open(&golden, "tests/golden/supervised.f32"), 0);
	assert_int_equal(tiny_vit_of_shape(&tiny, &shape, 1), 0);
	assert_int_equal(objective_new(&objective,
				 &(struct objective_setup){ &recipe, &source, tiny.vit }, &diag),
		0);
	assert_int_equal(objective->n_state, ARRAY_SIZE(memory));
	assert_close(objective->scale, log(CLASSES), 1e-9);
	objective->kind->map(objective, memory);
	assert_int_equal(objective->kind->start(objective, NULL, 0), 0);
	supervised = (struct supervised *)objective;
	batch.branches[0].d_out = d_f;
	batch.branches[0].out = golden_take(&golden, (size_t)ROWS * WIDTH);
	memcpy(supervised->head.weights, golden_take(&golden, CLASSES * WIDTH),
		sizeof(float) * CLASSES * WIDTH);
	scores = golden_take(&golden, CLASSES * WIDTH);
	memcpy(supervised->head.scores, scores, sizeof(float) * CLASSES * WIDTH);
	want_loss = golden_take(&golden, 1);
	want_d_f = golden_take(&golden, (size_t)ROWS * WIDTH);
	want = golden_take(&golden, CLASSES * WIDTH);
	assert_non_null(want);
	assert_int_equal(golden.used, golden.n);

	assert_int_equal(objective->kind->loss(objective, &batch, &loss), 0);
	assert_close(loss, *want_loss, 1e-5);
	for (unsigned i = 0; i < ROWS * WIDTH; i++)
		assert_close(d_f[i], want_d_f[i], 1e-6);
	assert_true(mask_density(supervised->head.mask) < 1);
	objective->kind->update(objective, &batch);
	for (unsigned i = 0; i < CLASSES * WIDTH; i++)
		assert_close(scores[i] - supervised->head.scores[i], want[i], 1e-5);
	tiny_vit_done(&tiny);
	golden_done(&golden);
}

static void a_batch_without_a_class_asks_nothing(void **state)
{
	const float o[4] = { 1, 2, 3, 4 };
	const uint32_t labels[2] = { 2, UINT32_MAX };
	float d_o[4] = { 9, 9, 9, 9 };

	(void)state;
	assert_true(supervised_loss(o, labels, 2, 2, d_o) == 0);
	for (unsigned i = 0; i < 4; i++)
		assert_true(d_o[i] == 0);
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
	recipe_set_objective(&bench.recipe, RECIPE_SUPERVISED);
	bench.recipe.steps = 12;
	bench.recipe.batch = 20;
	bench.recipe.score_lr = .25f;
	*state = &bench;
	return 0;
}

static void labels_are_learnt(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	const struct supervised *supervised;
	float early, late;

	recipe.steps = 60;
	recipe.score_lr = .06f;
	recipe.min_area = .5f;
	round = start(bench, &recipe);
	early = run(round, 5).loss_ratio;
	late = run(round, 55).loss_ratio;
	supervised = (const struct supervised *)round->objective;
	print_message("loss / ln 5 %.3f -> %.3f, density %.4f, of the head %.4f\n", early, late,
		mask_density(round_mask(round)), mask_density(supervised->head.mask));
	assert_true(early > .7f && early < 2);
	assert_true(late < early - .2f);
	assert_true(mask_density(round_mask(round)) < 1);
	assert_true(mask_density(supervised->head.mask) < 1);
}

static void a_supervised_round_resumes_with_the_same_bits(void **state)
{
	struct bench *bench = *state;
	char dir[] = "/tmp/kamen-supervised-XXXXXX";
	_cleanup_(closep) int fd = -1;

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned optimiser = RECIPE_ADAM; optimiser <= RECIPE_SGD; optimiser++) {
		struct recipe recipe = bench->recipe;
		_cleanup_(round_freep) struct round *whole = NULL, *killed = NULL, *resumed = NULL;
		_cleanup_(round_freep) struct round *relabelled = NULL;
		struct bench other = *bench;
		uint32_t labels[N_IMAGES];
		struct diag diag;

		recipe.optimiser = optimiser;
		recipe.score_lr *= optimiser == RECIPE_SGD ? 1000 : 1;
		whole = start(bench, &recipe);
		killed = start(bench, &recipe);
		resumed = start(bench, &recipe);
		(void)run(whole, 12);
		(void)run(killed, 7);
		assert_int_equal(round_save(killed, fd, "round"), 0);
		assert_int_equal(round_resume(resumed, fd, "round", &diag), 0);
		(void)run(resumed, 5);
		assert_true(mask_density(round_mask(whole)) < 1);
		assert_memory_equal(
			whole->state, resumed->state, whole->n_state * sizeof(*whole->state));
		assert_int_equal(mask_distance(round_mask(whole), round_mask(resumed)), 0);

		memcpy(labels, bench->source.labels, sizeof(labels));
		labels[3]++;
		other.source.labels = labels;
		relabelled = start(&other, &recipe);
		assert_int_equal(round_resume(relabelled, fd, "round", &diag), -ESTALE);
		assert_non_null(strstr(diag.text, "manifest"));
	}
	assert_int_equal(unlinkat(fd, "round", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* Views of whole images find each other by that: such a judge would tell masks apart by nothing. */
static void a_supervised_mask_is_judged_by_the_views_of_others(void **state)
{
	const struct bench *bench = *state;
	struct recipe swav = bench->recipe;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct judge_image images[JUDGE_MAX_IMAGES];
	struct judgement a, b;

	recipe_set_objective(&swav, RECIPE_SWAV);
	assert_true(bench->recipe.min_area == 1 && swav.min_area < 1);
	assert_int_equal(vit_slot_new(&slot, bench->tiny.vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	assert_int_equal(judge_views(&a, images, bench->tiny.vit, slot, &bench->recipe,
				 &bench->prep, &bench->source),
		0);
	assert_int_equal(
		judge_views(&b, images, bench->tiny.vit, slot, &swav, &bench->prep, &bench->source),
		0);
	assert_memory_equal(&a, &b, sizeof(a));
}

static void images_without_labels_are_refused(void **state)
{
	const struct bench *bench = *state;
	struct image_source source = bench->source;
	struct round *round = NULL;
	struct diag diag = { "" };

	source.labels = NULL;
	assert_int_equal(
		round_new(&round, bench->tiny.vit, &bench->recipe, &bench->prep, &source, &diag),
		-EINVAL);
	assert_non_null(strstr(diag.text, "labels"));
	source.labels = bench->source.labels;
	source.n_classes = 1;
	assert_int_equal(
		round_new(&round, bench->tiny.vit, &bench->recipe, &bench->prep, &source, &diag),
		-EINVAL);
	assert_null(round);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loss_and_gradients_equal_autograd),
		cmocka_unit_test(a_batch_without_a_class_asks_nothing),
		cmocka_unit_test(labels_are_learnt),
		cmocka_unit_test(a_supervised_round_resumes_with_the_same_bits),
		cmocka_unit_test(a_supervised_mask_is_judged_by_the_views_of_others),
		cmocka_unit_test(images_without_labels_are_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
