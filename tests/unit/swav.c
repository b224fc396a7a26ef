/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/rng.h"
#include "golden/golden.h"
#include "learn/head.h"
#include "learn/kmeans.h"
#include "learn/queue.h"
#include "learn/sinkhorn.h"
#include "learn/swav.h"
#include "learn/warm.h"

/* Largest difference, relative to the golden array's largest value; NaN counts. */
static double worst(const float *got, const float *want, size_t n)
{
	double difference = 0, scale = 1e-30;

	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)got[i] - want[i]);

		if (!(d <= difference))
			difference = d;
		scale = fmax(scale, fabs((double)want[i]));
	}
	return difference / scale;
}

static void loss_and_gradients_equal_the_golden(void **state)
{
	enum { B = 6, VIEWS = 4, D = 10, E = 7, K = 9, QUEUE = 12, R = B * VIEWS };
	const struct swav_shape shape = { B, VIEWS, K, .1f };
	struct golden golden = { 0 };
	float values[E * D + E + K * E], gradients[E * D + E + K * E];
	float z[R * E], d_z[R * E], lengths[R], o[R * K], d_o[R * K], d_f[R * D];
	float q[2 * B * K], queued[(QUEUE + B) * K];
	struct head head = head_map(values, D, E, K), grad = head_map(gradients, D, E, K);
	const float *f, *past, *want;
	double loss;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/swav.f32"), 0);
	f = golden_take(&golden, R * D);
	memcpy(values, golden_take(&golden, head_size(D, E, K)), sizeof(values));
	past = golden_take(&golden, QUEUE * E);

	head_project(&head, f, R, z, lengths);
	assert_true(worst(z, golden_take(&golden, R * E), R * E) < 1e-6);
	head_score(&head, z, R, o);
	assert_true(worst(o, golden_take(&golden, R * K), R * K) < 1e-6);

	memcpy(q, o, B * K * sizeof(*q));
	sinkhorn(q, B, K, .05f, 3);
	assert_true(worst(q, golden_take(&golden, B * K), B * K) < 1e-5);
	head_score(&head, past, QUEUE, queued);
	memcpy(queued + QUEUE * K, o + B * K, B * K * sizeof(*q));
	sinkhorn(queued, QUEUE + B, K, .05f, 3);
	memcpy(q + B * K, queued + QUEUE * K, B * K * sizeof(*q));
	assert_true(worst(q + B * K, golden_take(&golden, B * K), B * K) < 1e-5);

	loss = swav_loss(&shape, o, q, d_o);
	want = golden_take(&golden, 1);
	assert_true(fabs(loss - *want) < 1e-5 * *want);
	assert_true(worst(d_o, golden_take(&golden, R * K), R * K) < 1e-5);
	head_backward(&grad, d_f, &head, f, z, lengths, d_o, R, d_z);
	assert_true(worst(d_f, golden_take(&golden, R * D), R * D) < 1e-5);
	assert_true(worst(grad.weight, golden_take(&golden, E * D), E * D) < 1e-5);
	assert_true(worst(grad.bias, golden_take(&golden, E), E) < 1e-5);
	want = golden_take(&golden, K * E);
	assert_true(worst(grad.prototypes, want, K * E) < 1e-5);
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

/* In logarithms and doubles: rows and columns may lie as far apart as they like. */
static void sinkhorn_of_logs(double *l, unsigned n, unsigned k, double eps, unsigned iterations)
{
	for (unsigned i = 0; i < n * k; i++)
		l[i] /= eps;
	for (unsigned t = 0; t < 2 * iterations; t++) {
		const bool columns = t % 2 == 0;

		for (unsigned a = 0; a < (columns ? k : n); a++) {
			double most = -INFINITY, sum = 0;

			for (unsigned b = 0; b < (columns ? n : k); b++)
				most = fmax(most, l[columns ? b * k + a : a * k + b]);
			for (unsigned b = 0; b < (columns ? n : k); b++)
				sum += exp(l[columns ? b * k + a : a * k + b] - most);
			for (unsigned b = 0; b < (columns ? n : k); b++)
				l[columns ? b * k + a : a * k + b] -=
					most + log(sum) + log(columns ? k : 1);
		}
	}
}

static void sinkhorn_bears_scores_of_any_size(void **state)
{
	enum { N = 24, K = 7 };
	static const float gains[] = { 1, 3, 10, 100, 1e4f };
	struct rng rng = rng_stream(3, 0, 0, 0);

	(void)state;
	for (unsigned g = 0; g < ARRAY_SIZE(gains); g++) {
		float q[N * K];
		double want[N * K], worst = 0;

		/* One row is far from all outputs, another from none; all of them far from 0. */
		for (unsigned i = 0; i < N * K; i++) {
			q[i] = gains[g] * (rng_range(&rng, -1, 1) + (i / K == 3 ? -2 : 0) +
						  (i / K == 5 ? 2 : 0) + (g % 2 ? -5 : 5));
			want[i] = (double)q[i];
		}
		sinkhorn(q, N, K, .05f, 3);
		sinkhorn_of_logs(want, N, K, .05, 3);
		for (unsigned i = 0; i < N * K; i++) {
			double difference = fabs((double)q[i] - exp(want[i]));

			assert_true(isfinite(q[i]));
			worst = fmax(worst, difference);
		}
		print_message("gain %g: %.1e\n", (double)gains[g], worst);
		assert_true(worst < 1e-6);
	}
}

static void sinkhorn_shares_the_prototypes_equally(void **state)
{
	enum { N = 40, K = 8 };
	float q[N * K];

	(void)state;
	/* All rows like one prototype best: it must still get no more than its share. */
	for (unsigned i = 0; i < N * K; i++)
		q[i] = i % K == 0 ? .9f : .01f * (float)(i * 7919 % 31);
	sinkhorn(q, N, K, .05f, 50);
	for (unsigned k = 0; k < K; k++) {
		double sum = 0;

		for (unsigned i = 0; i < N; i++)
			sum += q[i * K + k];
		assert_true(fabs(sum - (double)N / K) < .05);
	}
	for (unsigned i = 0; i < N; i++) {
		double sum = 0;

		for (unsigned k = 0; k < K; k++)
			sum += q[i * K + k];
		assert_true(fabs(sum - 1) < 1e-5);
	}
}

static void the_warm_projection_equals_the_golden_up_to_sign(void **state)
{
	enum { N = 90, D = 12, E = 8, K = 7 };
	struct golden golden = { 0 };
	float values[E * D + E + K * E];
	struct head head = head_map(values, D, E, K);
	const float *f, *weight, *bias;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/warm.f32"), 0);
	f = golden_take(&golden, N * D);
	weight = golden_take(&golden, E * D);
	bias = golden_take(&golden, E);
	assert_int_equal(warm_projection(&head, f, N), 0);
	for (unsigned e = 0; e < E; e++) {
		float sign = 0, row[D + 1], want[D + 1];

		for (unsigned j = 0; j < D; j++)
			sign += head.weight[e * D + j] * weight[e * D + j];
		for (unsigned j = 0; j <= D; j++) {
			row[j] = j < D ? head.weight[e * D + j] : head.bias[e];
			want[j] = copysignf(1, sign) * (j < D ? weight[e * D + j] : bias[e]);
		}
		assert_true(worst(row, want, D + 1) < 1e-5);
	}
	golden_done(&golden);
}

static void kmeans_from_a_given_start_equals_the_golden(void **state)
{
	enum { N = 90, D = 12, E = 8, K = 7 };
	struct golden golden = { 0 };
	float centres[K * E];
	const float *z;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/warm.f32"), 0);
	(void)golden_take(&golden, N * D + E * D + E);
	z = golden_take(&golden, N * E);
	memcpy(centres, golden_take(&golden, K * E), sizeof(centres));
	assert_int_equal(kmeans_run(centres, K, z, N, E, 20, 1), 0);
	assert_true(worst(centres, golden_take(&golden, K * E), K * E) < 1e-5);
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

static void an_empty_centre_takes_a_point(void **state)
{
	float points[6 * 2], centres[2 * 2] = { 1, 0, -1, 0 };

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		points[i * 2] = cosf(.1f * (float)i);
		points[i * 2 + 1] = sinf(.1f * (float)i);
	}
	assert_int_equal(kmeans_run(centres, 2, points, 6, 2, 20, 1), 0);
	assert_true(centres[2] > 0);
	assert_true(fabsf(hypotf(centres[2], centres[3]) - 1) < 1e-6f);
}

static void a_warm_start_survives_features_of_low_rank(void **state)
{
	enum { N = 20, D = 6, E = 5, K = 4 };
	float values[E * D + E + K * E], f[N * D];
	struct head head = head_map(values, D, E, K);

	(void)state;
	for (unsigned i = 0; i < N * D; i++)
		f[i] = (float)(i / D % 5) * (float)(i % D % 2 + 1); /* rank 1, repeated */
	assert_int_equal(warm_start(&head, f, N, 1), 0);
	for (size_t i = 0; i < head_size(D, E, K); i++)
		assert_true(isfinite(values[i]));
	f[3] = nanf("");
	assert_true(warm_start(&head, f, N, 1) < 0);
}

/* n features of falling deviation, and the same ones seen a little differently. */
static void draw_features(float *f, float *perturbed, uint32_t n, uint32_t width, uint64_t seed)
{
	struct rng rng = rng_stream(seed, n, 0, 0);

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < width; j++) {
			size_t at = (size_t)i * width + j;

			f[at] = 3 + rng_normal(&rng) / (float)(1 + j);
			perturbed[at] = f[at] + .1f * rng_normal(&rng);
		}
}

/* Largest share of one direction in |z|^2. */
static double largest_share(const float *z, uint32_t n, uint32_t dim)
{
	double most = 0;

	for (uint32_t e = 0; e < dim; e++) {
		double sum = 0;

		for (uint32_t i = 0; i < n; i++)
			sum += (double)z[(size_t)i * dim + e] * z[(size_t)i * dim + e] / n;
		if (!(sum <= most))
			most = sum;
	}
	return most;
}

static void no_direction_drowns_the_others_in_another_view(void **state)
{
	enum { MAX = 128, D = 192, K = 4 };
	static float f[MAX * D], perturbed[MAX * D], z[MAX * MAX], lengths[MAX];
	static float values[MAX * D + MAX + K * MAX];

	(void)state;
	/* As many directions as images: one too many for what they span. */
	for (unsigned i = 0; i < 3; i++) {
		const uint32_t n = (const uint32_t[]){ 40, 100, 128 }[i];
		struct head head = head_map(values, D, n, K);

		draw_features(f, perturbed, n, D, 17);
		assert_int_equal(warm_start(&head, f, n, 1), 0);
		head_project(&head, perturbed, n, z, lengths);
		print_message("%u features: %.3f\n", n, largest_share(z, n, n));
		assert_true(largest_share(z, n, n) < .3);
		assert_int_equal(warm_start(&head, f, K - 1, 1), -EINVAL);
	}
}

static void a_queue_forgets_the_oldest(void **state)
{
	float rows[5 * 2];
	struct queue queue = { rows, 5, 0, 2 };
	const float a[] = { 1, 1, 2, 2 }, b[] = { 3, 3, 4, 4 }, c[] = { 5, 5, 6, 6 };
	const float want[] = { 5, 5, 6, 6, 3, 3, 4, 4, 1, 1 };

	(void)state;
	queue_push(&queue, a, 2);
	queue_push(&queue, b, 2);
	assert_false(queue_is_full(&queue));
	queue_push(&queue, c, 2);
	assert_true(queue_is_full(&queue));
	assert_memory_equal(rows, want, sizeof(want));
	queue = (struct queue){ rows, 1, 0, 2 };
	queue_push(&queue, a, 2);
	assert_true(queue_is_full(&queue));
	assert_memory_equal(rows, a, 2 * sizeof(*a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loss_and_gradients_equal_the_golden),
		cmocka_unit_test(sinkhorn_bears_scores_of_any_size),
		cmocka_unit_test(sinkhorn_shares_the_prototypes_equally),
		cmocka_unit_test(the_warm_projection_equals_the_golden_up_to_sign),
		cmocka_unit_test(kmeans_from_a_given_start_equals_the_golden),
		cmocka_unit_test(an_empty_centre_takes_a_point),
		cmocka_unit_test(a_warm_start_survives_features_of_low_rank),
		cmocka_unit_test(no_direction_drowns_the_others_in_another_view),
		cmocka_unit_test(a_queue_forgets_the_oldest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
