/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "classify/figures.h"
#include "fixture/close.h"
#include "golden/golden.h"

enum { N = 120, DIM = 19, N_CLASSES = 4, N_EPISODES = 200, SEED = 7 };

static void figures_equal_the_brute_force_golden(void **state)
{
	struct figures_detail detail;
	struct figures figures;
	struct golden golden = { 0 };
	uint32_t labels[N];
	const float *x, *y, *right;
	double n_right = 0;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/figures.f32"), 0);
	x = golden_take(&golden, N * DIM);
	y = golden_take(&golden, N);
	right = golden_take(&golden, N);
	assert_non_null(right);
	for (unsigned i = 0; i < N; i++)
		labels[i] = (uint32_t)y[i];
	assert_int_equal(figures_compute(&figures, &detail, x, labels, N, DIM, N_CLASSES, SEED), 0);

	assert_int_equal(figures.n, N);
	assert_int_equal(figures.n_classes, N_CLASSES);
	assert_int_equal(detail.n_episodes, N_EPISODES);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(detail.knn_right[i], (int)right[i]);
		n_right += right[i];
	}
	assert_true(fabs(figures.knn - n_right / N) < 1e-12);
	for (unsigned shots = 0; shots < 2; shots++) {
		const double *got = shots ? detail.shot5 : detail.shot1;
		const float *want = golden_take(&golden, N_EPISODES);
		const float *summary = golden_take(&golden, 2);

		assert_non_null(summary);
		for (unsigned e = 0; e < N_EPISODES; e++)
			assert_true(fabs(got[e] - (double)want[e]) < 1e-6);
		assert_true(fabs((shots ? figures.shot5 : figures.shot1) - summary[0]) < 1e-6);
		assert_true(
			fabs((shots ? figures.shot5_ci : figures.shot1_ci) - summary[1]) < 1e-6);
	}
	assert_int_equal(golden.used, golden.n);
	figures_detail_done(&detail);
	golden_done(&golden);
}

static void the_length_of_an_embedding_does_not_count(void **state)
{
	float x[40 * 3], scaled[40 * 3];
	uint32_t labels[40];
	struct figures a, b;
	struct rng rng = rng_stream(1, 0, 0, 0);

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		labels[i] = i % 2;
		for (unsigned j = 0; j < 3; j++) {
			x[i * 3 + j] = rng_normal(&rng) + (float)(i % 2 * (j == 0));
			scaled[i * 3 + j] = x[i * 3 + j] * (float)(1 << (i % 5));
		}
	}
	assert_int_equal(figures_compute(&a, NULL, x, labels, 40, 3, 2, 1), 0);
	assert_int_equal(figures_compute(&b, NULL, scaled, labels, 40, 3, 2, 1), 0);
	assert_true(a.knn == b.knn && a.shot1 == b.shot1 && a.shot5 == b.shot5);
	assert_true(a.knn > .5 && a.knn < 1);
}

static void classes_that_cannot_be_judged_are_refused(void **state)
{
	const float x[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	struct figures figures;

	(void)state;
	assert_int_equal(figures_compute(&figures, NULL, x, (uint32_t[]){ 0, 0, 0, 0 }, 4, 2, 1, 1),
		-EINVAL);
	assert_int_equal(figures_compute(&figures, NULL, x, (uint32_t[]){ 0, 0, 0, 1 }, 4, 2, 2, 1),
		-EINVAL);
	assert_int_equal(figures_compute(&figures, NULL, x, (uint32_t[]){ 0, 0, 1, 2 }, 4, 2, 2, 1),
		-EINVAL);
	assert_int_equal(
		figures_compute(&figures, NULL, x, (uint32_t[]){ 0, 0, 1, 1 }, 4, 2, 2, 1), 0);
}

static void a_paired_interval_covers_its_difference(void **state)
{
	uint8_t a_right[200], b_right[200];
	double a_shot[50], b_shot[50];
	struct figures_detail a = { a_right, a_shot, a_shot, 50 };
	struct figures_detail b = { b_right, b_shot, a_shot, 50 };
	struct figures_diff knn, shot1, shot5;
	struct rng rng = rng_stream(5, 0, 0, 0);

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		a_right[i] = i % 4 != 0;
		b_right[i] = a_right[i] || i % 8 == 0; /* 25 of 50 wrong ones mended */
	}
	for (unsigned e = 0; e < 50; e++) {
		a_shot[e] = rng_uniform(&rng);
		b_shot[e] = a_shot[e] + .1 + .01 * rng_normal(&rng);
	}
	assert_int_equal(figures_compare(&knn, &shot1, &shot5, &a, &b, 200, 9), 0);
	assert_true(fabs(knn.diff - .125) < 1e-12);
	assert_true(knn.lo > .07 && knn.lo < .1 && knn.hi > .15 && knn.hi < .18);
	assert_true(shot1.lo > .09 && shot1.hi < .11 && shot1.lo < shot1.diff);
	assert_true(shot5.diff == 0 && shot5.lo == 0 && shot5.hi == 0);
}

static void a_few_images_say_little_however_many_the_episodes(void **state)
{
	struct figures_detail a = { 0 }, b = { 0 };
	float x[24 * 8], y[24 * 8];
	uint32_t labels[24];
	struct figures_diff knn, shot1, shot5, query1, query5;
	struct figures figures;
	struct rng rng = rng_stream(3, 0, 0, 0);

	(void)state;
	for (unsigned i = 0; i < 24; i++) {
		labels[i] = i % 2;
		for (unsigned j = 0; j < 8; j++) {
			x[i * 8 + j] = rng_normal(&rng) + (j == 0 && i % 2 ? 1.f : 0.f);
			y[i * 8 + j] = rng_normal(&rng) + (j == 0 && i % 2 ? 1.f : 0.f);
		}
	}
	assert_int_equal(figures_compute(&figures, &a, x, labels, 24, 8, 2, 1), 0);
	assert_int_equal(figures_compute(&figures, &b, y, labels, 24, 8, 2, 1), 0);
	assert_int_equal(figures_compare(&knn, &shot1, &shot5, &a, &b, 24, 1), 0);
	assert_int_equal(figures_compare_queries(&query1, &query5, &a, &b, labels, 24, 2, 1), 0);
	/* Every image is asked about as often: both means are of the same answers. */
	assert_true(fabs(query5.diff - shot5.diff) < .02);
	assert_true(query5.hi - query5.lo > 2 * (shot5.hi - shot5.lo));
	assert_int_equal(figures_compare_queries(&query1, &query5, &a, &a, labels, 24, 2, 1), 0);
	assert_true(query1.lo == 0 && query1.hi == 0 && query5.diff == 0);
	figures_detail_done(&a);
	figures_detail_done(&b);
}

static void classes_count_alike_whatever_their_size(void **state)
{
	double before[100], after[100];
	const struct figures_detail a = { .query1 = before, .query5 = before };
	const struct figures_detail b = { .query1 = after, .query5 = before };
	struct figures_diff shot1, shot5;
	uint32_t labels[100];

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		labels[i] = i >= 80;
		before[i] = i % 20 == 7 ? (double)NAN : .25;
		after[i] = i >= 80 ? .75 : before[i];
	}
	assert_int_equal(figures_compare_queries(&shot1, &shot5, &a, &b, labels, 100, 2, 1), 0);
	assert_close(shot1.diff, .25, 1e-12);
	assert_true(shot1.lo > .1 && shot1.lo < .25 && shot1.hi > .25);
	assert_true(shot5.diff == 0);
	labels[3] = 2;
	assert_int_equal(
		figures_compare_queries(&shot1, &shot5, &a, &b, labels, 100, 2, 1), -EINVAL);
}

/* Six clouds that overlap; the last one has too few for ten times the others' queries. */
static void episodes_asked_at_once_gain_and_keep_what_is_unbalanced(void **state)
{
	enum { CLASSES = 6, OF_EACH = 80, OF_LAST = 20, ALL = 5 * OF_EACH + OF_LAST, WIDTH = 16 };
	static float x[ALL * WIDTH];
	float centres[CLASSES * WIDTH];
	uint32_t labels[ALL];
	struct figures_options options = { .seed = 3, .n_episodes = 60, .opta = true };
	struct figures plain, balanced, unbalanced;
	struct rng rng = rng_stream(21, 0, 0, 0);

	(void)state;
	for (unsigned i = 0; i < CLASSES * WIDTH; i++)
		centres[i] = rng_normal(&rng);
	for (unsigned i = 0; i < ALL; i++) {
		labels[i] = i / OF_EACH;
		for (unsigned j = 0; j < WIDTH; j++)
			x[i * WIDTH + j] = centres[labels[i] * WIDTH + j] + rng_normal(&rng);
	}
	assert_int_equal(
		figures_measure(&balanced, NULL, x, labels, ALL, WIDTH, CLASSES, &options), 0);
	options.ratio = 10;
	assert_int_equal(
		figures_measure(&unbalanced, NULL, x, labels, ALL, WIDTH, CLASSES, &options), 0);
	options = (struct figures_options){ .seed = 3, .n_episodes = 60 };
	assert_int_equal(
		figures_measure(&plain, NULL, x, labels, ALL, WIDTH, CLASSES, &options), 0);
	print_message("10:1: opta %+.3f, guarded %+.3f; 1:1: %+.3f, %+.3f\n",
		unbalanced.batch1.opta_gain.diff, unbalanced.batch1.guarded_gain.diff,
		balanced.batch1.opta_gain.diff, balanced.batch1.guarded_gain.diff);
	assert_true(plain.shot1 == balanced.shot1 && plain.shot5 == balanced.shot5);
	assert_true(plain.batch1.opta == 0);
	assert_true(fabs(balanced.batch1.opta - balanced.shot1 - balanced.batch1.opta_gain.diff) <
		    1e-12);
	assert_true(balanced.batch1.opta_gain.lo > 0 && balanced.batch1.guarded_gain.lo > 0);
	assert_true(balanced.batch1.balanced > unbalanced.batch1.balanced);
	assert_true(unbalanced.batch1.opta_gain.hi < 0 && unbalanced.batch5.opta_gain.hi < 0);
	assert_true(unbalanced.batch1.guarded_gain.diff > -.01);
	assert_true(unbalanced.batch5.guarded_gain.diff > -.01);
}

static void auroc_counts_ties_half(void **state)
{
	const double scores[] = { .1, .4, .35, .8, .4 };
	const uint8_t positive[] = { 0, 0, 1, 1, 1 };

	(void)state;
	/* Pairs: .35 beats .1; .8 beats both; .4 beats .1 and ties: 4.5 of 6. */
	assert_true(fabs(figures_auroc(scores, positive, 5) - 4.5 / 6) < 1e-12);
	assert_true(figures_auroc(scores, (uint8_t[]){ 0, 0, 0, 0, 0 }, 5) == .5);
	assert_true(figures_auroc(scores, positive, 0) == .5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(figures_equal_the_brute_force_golden),
		cmocka_unit_test(the_length_of_an_embedding_does_not_count),
		cmocka_unit_test(classes_that_cannot_be_judged_are_refused),
		cmocka_unit_test(a_paired_interval_covers_its_difference),
		cmocka_unit_test(a_few_images_say_little_however_many_the_episodes),
		cmocka_unit_test(classes_count_alike_whatever_their_size),
		cmocka_unit_test(episodes_asked_at_once_gain_and_keep_what_is_unbalanced),
		cmocka_unit_test(auroc_counts_ties_half),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
