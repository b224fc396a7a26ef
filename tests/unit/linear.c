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
#include "classify/linear.h"
#include "golden/golden.h"

enum { N = 90, DIM = 11, N_CLASSES = 4, SIZE = N_CLASSES * (DIM + 1) };

static void the_probe_finds_the_minimum_that_newton_finds(void **state)
{
	_cleanup_(linear_freep) struct linear *linear = NULL;
	struct golden golden = { 0 };
	const float *rows, *y, *weights, *classes, *loss;
	uint32_t labels[N];

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/linear.f32"), 0);
	rows = golden_take(&golden, N * DIM);
	y = golden_take(&golden, N);
	weights = golden_take(&golden, SIZE);
	classes = golden_take(&golden, N);
	loss = golden_take(&golden, 1);
	assert_non_null(loss);
	assert_int_equal(golden.used, golden.n);
	for (unsigned i = 0; i < N; i++)
		labels[i] = (uint32_t)y[i];

	assert_int_equal(linear_fit(&linear, rows, labels, N, DIM, N_CLASSES), 0);
	assert_true(linear->slope <= 1e-7);
	assert_true(fabs(linear->loss - *loss) < 1e-6);
	/* The penalty alone holds some directions: a slope of 1e-7 leaves them 1e-3 of room. */
	for (unsigned i = 0; i < SIZE; i++)
		assert_true(fabs(linear->weights[i] - weights[i]) < 2e-3);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(linear_classify(linear, rows + (size_t)i * DIM), classes[i]);
	golden_done(&golden);
}

/* Two far groups on a line, one label each; a third class nobody has. */
static void draw(float *rows, uint32_t *labels, uint32_t n, uint32_t dim)
{
	struct rng rng = rng_stream(3, 0, 0, 0);

	for (uint32_t i = 0; i < n; i++) {
		labels[i] = i % 2;
		for (uint32_t j = 0; j < dim; j++)
			rows[(size_t)i * dim + j] =
				rng_normal(&rng) + (j == 0 ? 100 + 8 * (float)labels[i] : 0);
	}
}

static void what_can_be_told_apart_is_and_the_same_every_time(void **state)
{
	enum { MANY = 60, WIDE = 70 };
	_cleanup_(linear_freep) struct linear *linear = NULL, *again = NULL;
	static float rows[MANY * WIDE];
	uint32_t labels[MANY];

	(void)state;
	draw(rows, labels, MANY, WIDE);
	assert_int_equal(linear_fit(&linear, rows, labels, MANY, WIDE, 3), 0);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(linear_classify(linear, rows + (size_t)i * WIDE), labels[i]);
	assert_int_equal(linear_fit(&again, rows, labels, MANY, WIDE, 3), 0);
	assert_memory_equal(
		linear->weights, again->weights, 3 * (WIDE + 1) * sizeof(*linear->weights));
	assert_true(linear->n_iterations > 0 && linear->n_iterations <= 500);
}

static void what_is_no_problem_is_refused(void **state)
{
	float rows[] = { 1, 2, 3, 4 };
	struct linear *linear = NULL;

	(void)state;
	assert_int_equal(linear_fit(&linear, rows, (uint32_t[]){ 0, 1 }, 2, 2, 1), -EINVAL);
	assert_int_equal(linear_fit(&linear, rows, (uint32_t[]){ 0, 2 }, 2, 2, 2), -EINVAL);
	assert_int_equal(linear_fit(&linear, rows, NULL, 0, 2, 2), -EINVAL);
	rows[2] = NAN;
	assert_int_equal(linear_fit(&linear, rows, (uint32_t[]){ 0, 1 }, 2, 2, 2), -EDOM);
	assert_null(linear);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_probe_finds_the_minimum_that_newton_finds),
		cmocka_unit_test(what_can_be_told_apart_is_and_the_same_every_time),
		cmocka_unit_test(what_is_no_problem_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
