/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "learn/head.h"
#include "learn/swav.h"

#define SEED 42u
enum { B = 3, VIEWS = 3, D = 5, E = 4, K = 6, R = B * VIEWS, N_HEAD = E * D + E + K * E };

static const float temperature = .1f;

/* o of one row in double: features, head values (A, b, C). */
static void row_scores(double *o, const double *f, const double *head)
{
	const double *bias = head + E * D, *prototypes = bias + E;
	double y[E], length = 0;

	for (unsigned e = 0; e < E; e++) {
		y[e] = bias[e];
		for (unsigned j = 0; j < D; j++)
			y[e] += head[e * D + j] * f[j];
		length += y[e] * y[e];
	}
	for (unsigned k = 0; k < K; k++) {
		o[k] = 0;
		for (unsigned e = 0; e < E; e++)
			o[k] += prototypes[k * E + e] * y[e] / sqrt(length);
	}
}

static double cross_entropy(const double *o, const double *q)
{
	double sum = 0, loss = 0;

	for (unsigned k = 0; k < K; k++)
		sum += exp(o[k] / (double)temperature);
	for (unsigned k = 0; k < K; k++)
		loss -= q[k] * (o[k] / (double)temperature - log(sum));
	return loss;
}

/* The loss once more, in double, by the formula of algorithms.md 1.6 with fixed assignments. */
static double loss_of(const double *f, const double *head, const double *q)
{
	double loss = 0;

	for (unsigned target = 0; target < SWAV_TARGETS; target++)
		for (unsigned view = 0; view < VIEWS; view++)
			for (unsigned b = 0; b < B && view != target; b++) {
				double o[K];

				row_scores(o, f + (view * B + b) * D, head);
				loss += cross_entropy(o, q + (target * B + b) * K) /
					(B * (VIEWS - 1) * SWAV_TARGETS);
			}
	return loss;
}

/* Central differences over n values against grad. */
static void check(double *values, const float *grad, unsigned n, const double *f,
	const double *head, const double *q)
{
	const double h = 1e-5;

	for (unsigned i = 0; i < n; i++) {
		double kept = values[i], up, down;

		values[i] = kept + h;
		up = loss_of(f, head, q);
		values[i] = kept - h;
		down = loss_of(f, head, q);
		values[i] = kept;
		assert_true(fabs(grad[i] - (up - down) / (2 * h)) < 2e-5);
	}
}

static void gradients_equal_central_differences(void **state)
{
	const struct swav_shape shape = { B, VIEWS, K, temperature };
	float f[R * D], values[N_HEAD], gradients[N_HEAD], q[SWAV_TARGETS * B * K];
	float z[R * E], d_z[R * E], lengths[R], o[R * K], d_o[R * K], d_f[R * D];
	double f2[R * D], values2[N_HEAD], q2[SWAV_TARGETS * B * K], loss;
	struct head head = head_map(values, D, E, K), grad = head_map(gradients, D, E, K);
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	(void)state;
	print_message("seed %u\n", SEED);
	for (unsigned i = 0; i < R * D; i++)
		f2[i] = f[i] = rng_normal(&rng);
	for (unsigned i = 0; i < N_HEAD; i++)
		values2[i] = values[i] = .5f * rng_normal(&rng);
	/* Targets that do not sum to 1: the gradient must not take it for granted. */
	for (unsigned i = 0; i < SWAV_TARGETS * B * K; i++)
		q2[i] = q[i] = rng_uniform(&rng) / 2;

	head_project(&head, f, R, z, lengths);
	head_score(&head, z, R, o);
	loss = swav_loss(&shape, o, q, d_o);
	assert_true(fabs(loss - loss_of(f2, values2, q2)) < 1e-5);
	head_backward(&grad, d_f, &head, f, z, lengths, d_o, R, d_z);
	check(values2, gradients, N_HEAD, f2, values2, q2);
	check(f2, d_f, R * D, f2, values2, q2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gradients_equal_central_differences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
