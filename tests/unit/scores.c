/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "golden/golden.h"
#include "mask/scores.h"

enum { N_TENSORS = 4, N_ELEMENTS = 275 };
static const char *const names[] = { "a", "b", "c", "d" };
static const size_t sizes[] = { 200, 67, 5, 3 };

static void gradients_equal_autograd(void **state)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	const float *weights[N_TENSORS], *wants[N_TENSORS];
	float grad[N_ELEMENTS], scores[N_ELEMENTS], got[N_ELEMENTS];
	struct golden golden = { 0 };

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/scores.f32"), 0);
	assert_int_equal(mask_layout_new(&layout, N_TENSORS, names, sizes), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned t = 0; t < N_TENSORS; t++) {
		size_t n = sizes[t], at = layout->tensors[t].offset;

		weights[t] = golden_take(&golden, n);
		memcpy(grad + at, golden_take(&golden, n), n * sizeof(*grad));
		memcpy(scores + at, golden_take(&golden, n), n * sizeof(*scores));
		wants[t] = golden_take(&golden, n);
	}
	assert_int_equal(golden.used, golden.n);
	mask_from_scores(mask, scores, 0);
	assert_int_equal(mask->n_on[3], 0);
	scores_backward(got, grad, weights, mask, true);
	for (unsigned t = 0; t < N_TENSORS; t++)
		for (size_t i = 0; i < sizes[t]; i++) {
			double want = wants[t][i];

			assert_true(fabs(got[layout->tensors[t].offset + i] - want) <=
				    1e-4 * fabs(want) + 1e-6);
		}
	/* In place, as a round does it. */
	scores_backward(grad, grad, weights, mask, true);
	assert_memory_equal(grad, got, sizeof(grad));
	golden_done(&golden);
}

/* tests/golden/topk.py: every share over every size, ties and zeros among them. */
static void the_highest_scores_are_those_of_autograd(void **state)
{
	static const float keeps[] = { .5f, .9f, .1f };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct golden golden = { 0 };

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/topk.f32"), 0);
	assert_int_equal(mask_layout_new(&layout, N_TENSORS, names, sizes), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned k = 0; k < ARRAY_SIZE(keeps); k++) {
		const float *weights[N_TENSORS], *wants[N_TENSORS], *bits[N_TENSORS];
		float grad[N_ELEMENTS], scores[N_ELEMENTS], got[N_ELEMENTS];

		for (unsigned t = 0; t < N_TENSORS; t++) {
			size_t n = sizes[t], at = layout->tensors[t].offset;

			weights[t] = golden_take(&golden, n);
			memcpy(grad + at, golden_take(&golden, n), n * sizeof(*grad));
			memcpy(scores + at, golden_take(&golden, n), n * sizeof(*scores));
			bits[t] = golden_take(&golden, n);
			wants[t] = golden_take(&golden, n);
		}
		scores_keep_top(mask, scores, keeps[k], NULL);
		scores_backward(got, grad, weights, mask, true);
		for (unsigned t = 0; t < N_TENSORS; t++)
			for (size_t i = 0; i < sizes[t]; i++) {
				double want = wants[t][i];

				assert_int_equal(mask_get(mask, t, i), bits[t][i] > 0);
				assert_true(fabs(got[layout->tensors[t].offset + i] - want) <=
					    1e-4 * fabs(want) + 1e-6);
			}
	}
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

static void only_what_may_drop_is_ranked(void **state)
{
	static const size_t size = 100;
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL, *may_drop = NULL;
	float scores[100], values[100];

	(void)state;
	assert_int_equal(mask_layout_new(&layout, 1, names, &size), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	assert_int_equal(mask_new(&may_drop, layout), 0);
	for (unsigned i = 0; i < 100; i++) {
		scores[i] = (float)i - 50;
		values[i] = 1;
		mask_put(may_drop, 0, i, i % 2);
	}
	/* Of the 50 odd ones the 15 lowest. */
	scores_keep_top(mask, scores, .7f, may_drop);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(mask_get(mask, 0, i), i % 2 == 0 || i > 30);
	assert_int_equal(mask->n_on[0], 85);
	scores_confine(values, may_drop);
	for (unsigned i = 0; i < 100; i++)
		assert_true(values[i] == (float)(i % 2));
}

static void a_threshold_is_not_reached_by_what_equals_it(void **state)
{
	static const size_t size = 70;
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	float scores[70];

	(void)state;
	assert_int_equal(mask_layout_new(&layout, 1, names, &size), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned i = 0; i < 70; i++)
		scores[i] = .25f * (float)i;
	mask_from_scores(mask, scores, 1.5f);
	for (unsigned i = 0; i < 70; i++)
		assert_int_equal(mask_get(mask, 0, i), i > 6);
	mask_fill(mask);
	assert_int_equal(mask->n_on[0], 70);
	assert_true(mask->words[1] == 0x3f);
}

/* The step replaced by a linear gate: L(s) = sum G W s / sqrt(mean s) with s = M. */
static double gated_loss(const double *gate, const float *grad, const float *weights, size_t n)
{
	double sum = 0, mean = 0;

	for (size_t i = 0; i < n; i++) {
		sum += (double)grad[i] * weights[i] * gate[i];
		mean += gate[i] / (double)n;
	}
	return sum / sqrt(mean);
}

static void the_alpha_term_is_the_derivative_of_a_linear_gate(void **state)
{
	enum { N = 90 };
	static const size_t size = N;
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	float weights[N], grad[N], got[N], without[N];
	const float *const values[] = { weights };
	struct rng rng = rng_stream(8, 0, 0, 0);
	double gate[N];

	(void)state;
	assert_int_equal(mask_layout_new(&layout, 1, names, &size), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned i = 0; i < N; i++) {
		weights[i] = rng_normal(&rng);
		grad[i] = rng_normal(&rng);
		gate[i] = rng_below(&rng, 4) != 0;
		mask_put(mask, 0, i, gate[i] > 0);
	}
	scores_backward(got, grad, values, mask, true);
	scores_backward(without, grad, values, mask, false);
	for (unsigned i = 0; i < N; i++) {
		double kept = gate[i], up, down, main_term;

		gate[i] = kept + 1e-5;
		up = gated_loss(gate, grad, weights, N);
		gate[i] = kept - 1e-5;
		down = gated_loss(gate, grad, weights, N);
		gate[i] = kept;
		assert_true(fabs(got[i] - (up - down) / 2e-5) < 1e-5);
		main_term = (double)grad[i] * weights[i] / sqrt(mask_density(mask));
		assert_true(fabs(without[i] - main_term) < 1e-6);
		/* The same constant everywhere. */
		assert_true(fabs((got[i] - without[i]) - (got[0] - without[0])) < 1e-6);
	}
	assert_true(fabs(got[0] - without[0]) > 1e-4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gradients_equal_autograd),
		cmocka_unit_test(the_highest_scores_are_those_of_autograd),
		cmocka_unit_test(only_what_may_drop_is_ranked),
		cmocka_unit_test(a_threshold_is_not_reached_by_what_equals_it),
		cmocka_unit_test(the_alpha_term_is_the_derivative_of_a_linear_gate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
