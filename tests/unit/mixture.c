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
#include "golden/golden.h"
#include "learn/gmm_fit.h"
#include "learn/whiten_fit.h"

/* The script's numbers. */
enum { W_N = 70, W_IN = 9, W_OUT = 4, N = 150, DIM = 5, K = 3, FACTOR = DIM * (DIM + 1) / 2 };

static void assert_near(const float *got, const float *want, size_t n, float tolerance)
{
	assert_non_null(want);
	for (size_t i = 0; i < n; i++)
		if (!(fabsf(got[i] - want[i]) <= tolerance))
			fail_msg("%zu: %g, not %g", i, (double)got[i], (double)want[i]);
}

static const float *take(struct golden *golden, size_t n)
{
	const float *values = golden_take(golden, n);

	assert_non_null(values);
	return values;
}

static void whitening_equals_the_singular_value_decomposition(void **state)
{
	_cleanup_(whiten_freep) struct whiten *whiten = NULL;
	struct golden golden = { 0 };
	float out[W_N * W_OUT];
	const float *rows;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/mixture.f32"), 0);
	rows = take(&golden, W_N * W_IN);
	assert_int_equal(whiten_fit(&whiten, rows, W_N, W_IN, W_OUT), 0);
	assert_near(whiten->mean, take(&golden, W_IN), W_IN, 1e-5f);
	assert_near(whiten->axes, take(&golden, W_OUT * W_IN), W_OUT * W_IN, 1e-5f);
	whiten_apply(whiten, rows, W_N, out);
	assert_near(out, take(&golden, W_N * W_OUT), W_N * W_OUT, 1e-5f);
	assert_int_equal(whiten_bytes(whiten), (W_OUT + 1) * W_IN * 4);
	golden_done(&golden);
}

static void directions_without_variance_say_nothing(void **state)
{
	_cleanup_(whiten_freep) struct whiten *whiten = NULL;
	float rows[20][3], out[20][3];

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		rows[i][0] = (float)(i % 5);
		rows[i][1] = (float)(i / 5);
		rows[i][2] = rows[i][0] - rows[i][1];
	}
	assert_int_equal(whiten_fit(&whiten, &rows[0][0], 20, 3, 3), 0);
	whiten_apply(whiten, &rows[0][0], 20, &out[0][0]);
	for (unsigned i = 0; i < 20; i++)
		assert_true(out[i][2] == 0);
	assert_int_equal(whiten_fit(&whiten, &rows[0][0], 20, 3, 4), -EINVAL);
	assert_int_equal(whiten_fit(&whiten, &rows[0][0], 0, 3, 3), -EINVAL);
}

static void a_mixture_climbs_as_the_golden_does(void **state)
{
	const struct gmm_options options = gmm_options_default();
	_cleanup_(gmm_freep) struct gmm *gmm = NULL;
	struct golden golden = { 0 };
	const float *rows, *start, *classes, *summary;
	uint32_t owners[N];

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/mixture.f32"), 0);
	(void)take(&golden, W_N * W_IN + W_IN + W_OUT * W_IN + W_N * W_OUT);
	rows = take(&golden, N * DIM);
	start = take(&golden, N);
	for (unsigned i = 0; i < N; i++)
		owners[i] = (uint32_t)start[i];
	assert_int_equal(gmm_refine(&gmm, rows, N, DIM, K, owners, &options), 0);
	assert_near(gmm->bias, take(&golden, K), K, 1e-4f);
	assert_near(gmm->means, take(&golden, K * DIM), K * DIM, 1e-4f);
	assert_near(gmm->factors, take(&golden, K * FACTOR), K * FACTOR, 1e-4f);
	classes = take(&golden, N);
	summary = take(&golden, 2);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(gmm_assign(gmm, rows + (size_t)i * DIM), classes[i]);
	assert_true(fabs(gmm->likelihood - (double)summary[0]) < 1e-5);
	assert_int_equal(gmm->n_iterations, summary[1]);
	assert_int_equal(golden.used, golden.n);
	assert_int_equal(gmm_bytes(gmm), K * (1 + DIM + FACTOR) * 4);
	golden_done(&golden);
}

/* Three round groups far from each other, row i in group i % 3. */
static void draw_groups(float *rows, uint32_t n)
{
	struct rng rng = rng_stream(8, 0, 0, 0);

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < DIM; j++)
			rows[(size_t)i * DIM + j] = .3f * rng_normal(&rng) + (j == i % 3 ? 4 : 0);
}

static void groups_far_apart_are_found_whatever_the_seed(void **state)
{
	const struct gmm_options options = gmm_options_default();
	float rows[N * DIM];

	(void)state;
	draw_groups(rows, N);
	for (uint64_t seed = 1; seed <= 5; seed++) {
		_cleanup_(gmm_freep) struct gmm *gmm = NULL, *again = NULL;

		assert_int_equal(gmm_fit(&gmm, rows, N, DIM, K, seed, &options), 0);
		for (unsigned i = 0; i < N; i++)
			assert_int_equal(gmm_assign(gmm, rows + (size_t)i * DIM),
				gmm_assign(gmm, rows + (size_t)(i % 3) * DIM));
		assert_int_not_equal(gmm_assign(gmm, rows), gmm_assign(gmm, rows + DIM));
		assert_int_not_equal(gmm_assign(gmm, rows), gmm_assign(gmm, rows + 2 * DIM));
		assert_int_equal(gmm_fit(&again, rows, N, DIM, K, seed, &options), 0);
		assert_memory_equal(
			gmm->factors, again->factors, K * FACTOR * sizeof(*gmm->factors));
	}
}

static void rows_that_are_all_the_same_make_a_mixture_too(void **state)
{
	const struct gmm_options options = gmm_options_default();
	_cleanup_(gmm_freep) struct gmm *gmm = NULL;
	struct gmm *none = NULL;
	static const float rows[12 * DIM];

	(void)state;
	assert_int_equal(gmm_fit(&gmm, rows, 12, DIM, K, 1, &options), 0);
	assert_true(gmm_assign(gmm, rows) < K);
	assert_int_equal(gmm_fit(&none, rows, 2, DIM, K, 1, &options), -EINVAL);
	assert_int_equal(
		gmm_refine(&none, rows, 2, DIM, K, (uint32_t[]){ 0, 3 }, &options), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whitening_equals_the_singular_value_decomposition),
		cmocka_unit_test(directions_without_variance_say_nothing),
		cmocka_unit_test(a_mixture_climbs_as_the_golden_does),
		cmocka_unit_test(groups_far_apart_are_found_whatever_the_seed),
		cmocka_unit_test(rows_that_are_all_the_same_make_a_mixture_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
