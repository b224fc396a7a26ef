/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "classify/cosine.h"
#include "classify/opta.h"
#include "fixture/close.h"
#include "golden/golden.h"

#define SEED 61

/* As tests/golden/opta.py has them. */
static const struct {
	uint32_t n_classes, dim, n_shots, n;
} cases[] = {
	{ 5, 24, 1, 75 },
	{ 5, 24, 5, 75 },
	{ 6, 17, 1, 90 },
	{ 3, 8, 2, 33 },
};

static struct prototypes *prototypes_of(
	const float *supports, uint32_t n_classes, uint32_t n_shots, uint32_t dim)
{
	struct prototypes *prototypes;
	uint32_t labels[64];

	assert_true(n_classes * n_shots <= ARRAY_SIZE(labels));
	for (uint32_t i = 0; i < n_classes * n_shots; i++)
		labels[i] = i / n_shots;
	assert_int_equal(
		prototypes_new(&prototypes, supports, labels, n_classes * n_shots, dim, n_classes),
		0);
	return prototypes;
}

static void compare_case(size_t c, struct golden *golden)
{
	const uint32_t k = cases[c].n_classes, dim = cases[c].dim, n = cases[c].n;
	const float *supports = golden_take(golden, (size_t)k * cases[c].n_shots * dim);
	const float *queries = golden_take(golden, (size_t)n * dim);
	const float *moved = golden_take(golden, (size_t)k * dim);
	const float *by_opta = golden_take(golden, n);
	const float *imbalance = golden_take(golden, 1);
	const float *by_mixture = golden_take(golden, n);
	_cleanup_(prototypes_freep) struct prototypes *prototypes =
		prototypes_of(supports, k, cases[c].n_shots, dim);
	_cleanup_(opta_freep) struct opta *opta = NULL;
	struct prototype_answer answers[90];
	float units[90 * 24], got[6 * 24];
	struct opta_report report;
	double found;

	assert_non_null(by_mixture);
	assert_int_equal(opta_new(&opta, k, n, dim), 0);
	cosine_normalise(units, queries, n, dim);
	opta_move(opta, prototypes->means, k, units, n, opta_passes(cases[c].n_shots), got);
	for (uint32_t i = 0; i < k * dim; i++)
		if (!(fabsf(got[i] - moved[i]) <= 1e-5F))
			fail_msg("case %zu, value %u: %g, not %g", c, i, (double)got[i],
				(double)moved[i]);
	found = opta_mixture(opta, prototypes->means, prototypes->n_supports, k, units, n, answers);
	assert_true(fabs(found - (double)*imbalance) <= 1e-4);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(answers[i].class, (uint32_t)by_mixture[i]);

	opta_classify(opta, prototypes, queries, n, answers, &report);
	assert_true(fabs(report.imbalance - found) == 0);
	assert_true(fabs(report.most_imbalance - (.05 + .07 / cases[c].n_shots)) < 1e-12);
	assert_int_equal(report.is_balanced, found <= report.most_imbalance);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(
			answers[i].class, (uint32_t)(report.is_balanced ? by_opta : by_mixture)[i]);
}

static void it_is_what_numpy_makes_of_gaussians(void **state)
{
	struct golden golden = { 0 };

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/opta.f32"), 0);
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++)
		compare_case(c, &golden);
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

enum { K = 4, DIM = 32, MOST = 120 };

/* Classes as clouds around directions of their own; counts queries of each class. */
static uint32_t clouds(uint64_t seed, uint32_t n_shots, const uint32_t *counts, float *supports,
	float *queries, uint32_t *labels)
{
	struct rng rng = rng_stream(seed, 0, 0, 0);
	float centres[K * DIM];
	uint32_t n = 0;

	for (unsigned i = 0; i < K * DIM; i++)
		centres[i] = rng_normal(&rng);
	for (uint32_t c = 0; c < K; c++) {
		for (uint32_t i = 0; i < n_shots * DIM; i++)
			supports[(size_t)c * n_shots * DIM + i] =
				centres[c * DIM + i % DIM] + 1.5F * rng_normal(&rng);
		for (uint32_t i = 0; i < counts[c]; i++, n++) {
			labels[n] = c;
			for (uint32_t d = 0; d < DIM; d++)
				queries[n * DIM + d] =
					centres[c * DIM + d] + 1.5F * rng_normal(&rng);
		}
	}
	return n;
}

struct accuracy {
	double plain, opta, guarded;
	unsigned n_balanced, n;
};

static double share_right(
	const struct prototype_answer *answers, const uint32_t *labels, uint32_t n)
{
	uint32_t n_right = 0;

	for (uint32_t i = 0; i < n; i++)
		n_right += answers[i].class == labels[i];
	return (double)n_right / n;
}

static void try_batch(struct accuracy *sum, uint64_t seed, const uint32_t *counts)
{
	float supports[K * DIM], queries[MOST * DIM], units[MOST * DIM], moved[K * DIM];
	struct prototype_answer answers[MOST];
	uint32_t labels[MOST], n_right = 0;
	const uint32_t n = clouds(seed, 1, counts, supports, queries, labels);
	_cleanup_(prototypes_freep) struct prototypes *prototypes =
		prototypes_of(supports, K, 1, DIM);
	_cleanup_(opta_freep) struct opta *opta = NULL;
	struct opta_report report;

	for (uint32_t i = 0; i < n; i++)
		answers[i] = prototypes_classify(prototypes, queries + (size_t)i * DIM, NULL);
	sum->plain += share_right(answers, labels, n);
	assert_int_equal(opta_new(&opta, K, n, DIM), 0);
	cosine_normalise(units, queries, n, DIM);
	opta_move(opta, prototypes->means, K, units, n, opta_passes(1), moved);
	cosine_normalise(moved, moved, K, DIM);
	for (uint32_t i = 0; i < n; i++) {
		float best = -2;
		uint32_t at = 0;

		for (uint32_t c = 0; c < K; c++) {
			float cosine =
				cosine_dot(moved + (size_t)c * DIM, units + (size_t)i * DIM, DIM);

			at = cosine > best ? c : at;
			best = fmaxf(best, cosine);
		}
		n_right += at == labels[i];
	}
	sum->opta += (double)n_right / n;
	opta_classify(opta, prototypes, queries, n, answers, &report);
	sum->guarded += share_right(answers, labels, n);
	sum->n_balanced += report.is_balanced;
	sum->n++;
}

static void balanced_batches_gain_and_others_lose_nothing(void **state)
{
	static const uint32_t kinds[][K] = { { 20, 20, 20, 20 }, { 60, 6, 6, 6 }, { 6, 6, 60, 6 },
		{ 30, 3, 30, 3 }, { 60, 28, 13, 6 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct accuracy sum = { 0 };

		for (uint64_t seed = 0; seed < 60; seed++)
			try_batch(&sum, SEED + seed, kinds[i]);
		print_message("%u %u %u %u: plain %.3f opta %.3f guarded %.3f, %u of %u balanced\n",
			kinds[i][0], kinds[i][1], kinds[i][2], kinds[i][3], sum.plain / sum.n,
			sum.opta / sum.n, sum.guarded / sum.n, sum.n_balanced, sum.n);
		if (i == 0) {
			assert_true(sum.opta - sum.plain > .02 * sum.n);
			assert_true(sum.guarded - sum.plain > .02 * sum.n);
			continue;
		}
		assert_true(sum.guarded - sum.plain > -.01 * sum.n);
	}
}

static void the_same_batch_has_the_same_bits(void **state)
{
	static const uint32_t counts[][K] = { { 20, 20, 20, 20 }, { 60, 6, 6, 6 } };
	float supports[3 * K * DIM], queries[MOST * DIM];
	uint32_t labels[MOST];

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
		const uint32_t n = clouds(SEED, 3, counts[c], supports, queries, labels);
		_cleanup_(prototypes_freep) struct prototypes *prototypes =
			prototypes_of(supports, K, 3, DIM);
		_cleanup_(opta_freep) struct opta *tight = NULL, *wide = NULL;
		struct prototype_answer first[MOST], again[MOST];
		struct opta_report a, b;

		memset(first, 0, sizeof(first));
		memset(again, 0, sizeof(again));
		assert_int_equal(opta_new(&tight, K, n, DIM), 0);
		assert_int_equal(opta_new(&wide, 2 * K, 3 * MOST, DIM), 0);
		opta_classify(tight, prototypes, queries, n, first, &a);
		/* Room that has seen another batch. */
		opta_classify(wide, prototypes, queries + DIM, n - 1, again, &b);
		opta_classify(wide, prototypes, queries, n, again, &b);
		assert_memory_equal(first, again, sizeof(first));
		assert_memory_equal(&a.imbalance, &b.imbalance, sizeof(a.imbalance));
	}
}

static void a_batch_keeps_no_memory(void **state)
{
	static const uint32_t counts[K] = { 20, 20, 20, 20 };
	float supports[K * DIM], queries[MOST * DIM];
	uint32_t labels[MOST], n = clouds(SEED, 1, counts, supports, queries, labels);
	_cleanup_(prototypes_freep) struct prototypes *prototypes =
		prototypes_of(supports, K, 1, DIM);
	_cleanup_(opta_freep) struct opta *opta = NULL;
	struct prototype_answer answers[MOST];
	struct opta_report report;
	size_t before;

	(void)state;
	assert_int_equal(opta_new(&opta, K, n, DIM), 0);
	before = mallinfo2().uordblks;
	opta_classify(opta, prototypes, queries, n, answers, &report);
	assert_int_equal(mallinfo2().uordblks, before);
}

static void degenerate_batches_have_finite_answers(void **state)
{
	static const float supports[3 * 2] = { 1, 0, 1, 0, 1, 0 };
	float queries[4 * 2] = { 1, 0, 1, 0, 0, 0, NAN, 1 };
	_cleanup_(prototypes_freep) struct prototypes *same = prototypes_of(supports, 3, 1, 2);
	_cleanup_(prototypes_freep) struct prototypes *one = prototypes_of(supports, 1, 1, 2);
	_cleanup_(opta_freep) struct opta *opta = NULL, *none = NULL;
	struct prototype_answer answers[4];
	struct opta_report report;

	(void)state;
	assert_int_equal(opta_new(&none, 0, 1, 1), -EINVAL);
	assert_int_equal(opta_new(&none, UINT32_MAX, UINT32_MAX, UINT32_MAX), -EINVAL);
	assert_int_equal(opta_new(&opta, 3, 4, 2), 0);
	for (uint32_t n = 1; n <= 4; n++) {
		opta_classify(opta, same, queries, n, answers, &report);
		assert_true(isfinite(report.imbalance));
		for (uint32_t i = 0; i < n; i++) {
			assert_true(answers[i].class < 3);
			assert_true(isfinite(answers[i].confidence));
		}
		opta_classify(opta, one, queries, n, answers, &report);
		assert_int_equal(answers[0].class, 0);
		assert_close(answers[0].confidence, 1, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_what_numpy_makes_of_gaussians),
		cmocka_unit_test(balanced_batches_gain_and_others_lose_nothing),
		cmocka_unit_test(the_same_batch_has_the_same_bits),
		cmocka_unit_test(a_batch_keeps_no_memory),
		cmocka_unit_test(degenerate_batches_have_finite_answers),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
