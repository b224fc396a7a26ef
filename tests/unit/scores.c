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
	mask_from_scores(mask, scores);
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
		cmocka_unit_test(the_alpha_term_is_the_derivative_of_a_linear_gate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
