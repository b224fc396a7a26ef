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
#include "classify/cosine.h"
#include "classify/reference.h"

enum { N = 40, DIM = 5, N_HELD = 9 };

static struct reference *make_reference(void)
{
	static const float held[N_HELD] = { .9f, .1f, .2f, .3f, .4f, .5f, .6f, .7f, .8f };
	struct digest space = digest_of("space", 5);
	struct rng rng = rng_stream(2, 0, 0, 0);
	struct reference *reference = NULL;
	float x[N * DIM];

	for (unsigned i = 0; i < N * DIM; i++)
		x[i] = 3 * rng_normal(&rng);
	assert_int_equal(reference_new(&reference, x, N, held, N_HELD, DIM, &space), 0);
	return reference;
}

static void distance_is_the_mean_over_the_nearest(void **state)
{
	_cleanup_(reference_freep) struct reference *reference = make_reference();
	float query[DIM] = { 1, -2, .5f, 3, 0 };
	double cosine[N], sum = 0;

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		double dot = 0, length = 0;

		for (unsigned j = 0; j < DIM; j++) {
			dot += reference->embeddings[i * DIM + j] * query[j];
			length += query[j] * query[j];
		}
		cosine[i] = dot / sqrt(length);
	}
	for (unsigned k = 0; k < REFERENCE_K; k++) {
		unsigned best = 0;

		for (unsigned i = 0; i < N; i++)
			if (cosine[i] > cosine[best])
				best = i;
		sum += 1 - cosine[best];
		cosine[best] = -9;
	}
	assert_true(fabs(reference_distance(reference, query) - sum / REFERENCE_K) < 1e-6);
	memset(query, 0, sizeof(query));
	assert_true(reference_distance(reference, query) == 1.f);
	query[0] = nanf("");
	assert_true(reference_distance(reference, query) == 1.f);
}

static void novelty_rises_with_the_distance_and_stays_below_one(void **state)
{
	_cleanup_(reference_freep) struct reference *reference = make_reference();
	float last = -1;

	(void)state;
	assert_true(reference_novelty(reference, 0) == 0);
	assert_true(fabsf(reference_novelty(reference, .45f) - .4f) < 1e-6f);
	for (float d = .95f; d < 2; d += .05f) {
		float novelty = reference_novelty(reference, d);

		assert_true(novelty > last && novelty > .9f && novelty < 1);
		last = novelty;
	}
}

static void more_references_than_room_are_thinned_evenly(void **state)
{
	enum { MANY = 3 * REFERENCE_MAX + 1 };
	static float x[MANY * 2];
	_cleanup_(reference_freep) struct reference *reference = NULL;
	struct digest space = { 0 };

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		x[i * 2] = cosf((float)i * 1e-3f);
		x[i * 2 + 1] = sinf((float)i * 1e-3f);
	}
	assert_int_equal(reference_new(&reference, x, MANY, NULL, 0, 2, &space), 0);
	assert_int_equal(reference->n, REFERENCE_MAX);
	assert_true(fabsf(reference->embeddings[2 * REFERENCE_MAX - 1] - x[2 * MANY - 7]) < .01f);
	assert_int_equal(
		reference_new(&(struct reference *){ NULL }, x, 0, NULL, 0, 2, &space), -EINVAL);
}

static void a_reference_survives_its_file(void **state)
{
	_cleanup_(reference_freep) struct reference *reference = make_reference(), *back = NULL;
	_cleanup_(freep) void *data = NULL;
	struct diag diag;
	size_t n_bytes;

	(void)state;
	assert_int_equal(reference_encode(reference, &data, &n_bytes), 0);
	assert_int_equal(reference_decode(&back, data, n_bytes, &diag), 0);
	assert_int_equal(back->n, N);
	assert_int_equal(back->k, REFERENCE_K);
	assert_true(digest_equal(&back->space, &reference->space));
	assert_memory_equal(back->embeddings, reference->embeddings, N * DIM * sizeof(float));
	assert_memory_equal(back->held, reference->held, N_HELD * sizeof(float));
}

static void every_damaged_reference_is_refused(void **state)
{
	_cleanup_(reference_freep) struct reference *reference = make_reference();
	_cleanup_(freep) void *data = NULL;
	struct reference *none = NULL;
	struct diag diag;
	size_t n_bytes;

	(void)state;
	assert_int_equal(reference_encode(reference, &data, &n_bytes), 0);
	for (size_t n = 0; n < n_bytes; n++)
		assert_int_equal(reference_decode(&none, data, n, &diag), -EBADMSG);
	for (size_t i = 0; i < n_bytes; i++) {
		((uint8_t *)data)[i] ^= 1 << (i % 8);
		diag.text[0] = 0;
		assert_int_equal(reference_decode(&none, data, n_bytes, &diag), -EBADMSG);
		assert_true(diag.text[0] != 0);
		((uint8_t *)data)[i] ^= 1 << (i % 8);
	}
	assert_null(none);
}

static void an_embedding_of_another_length_is_refused(void **state)
{
	_cleanup_(reference_freep) struct reference *reference = make_reference(), *back = NULL;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		const float factor = (const float[]){ 0, 1.01f, 2 }[i];
		_cleanup_(freep) void *data = NULL;
		struct diag diag = { "" };
		size_t n_bytes;

		for (unsigned j = 0; j < DIM; j++)
			reference->embeddings[3 * DIM + j] *= factor;
		assert_int_equal(reference_encode(reference, &data, &n_bytes), 0);
		/* All zero is what normalising makes of no direction: at distance 1 from all. */
		assert_int_equal(
			reference_decode(&back, data, n_bytes, &diag), factor == 0 ? 0 : -EBADMSG);
		if (factor == 0) {
			reference_free(TAKE_PTR(reference));
			reference_free(TAKE_PTR(back));
			reference = make_reference();
		} else {
			assert_non_null(strstr(diag.text, "embedding 3"));
		}
	}
}

static void a_space_names_everything_it_depends_on(void **state)
{
	struct digest a = digest_of("a", 1), b = digest_of("b", 1);
	struct digest spaces[6];

	(void)state;
	spaces[0] = space_digest(&a, &b, &a, "f32", "norm");
	spaces[1] = space_digest(&a, NULL, &a, "f32", "norm");
	spaces[2] = space_digest(&b, &b, &a, "f32", "norm");
	spaces[3] = space_digest(&a, &b, &b, "f32", "norm");
	spaces[4] = space_digest(&a, &b, &a, "bf16", "norm");
	spaces[5] = space_digest(&a, &b, &a, "f3", "2norm");
	for (unsigned i = 0; i < 6; i++)
		for (unsigned j = 0; j < i; j++)
			assert_false(digest_equal(&spaces[i], &spaces[j]));
	spaces[1] = space_digest(&a, &b, &a, "f32", "norm");
	assert_true(digest_equal(&spaces[0], &spaces[1]));
}

/* However it is compiled: embeddings are compared bit by bit over restarts and machines. */
static void a_dot_product_adds_in_its_order(void **state)
{
	enum { MAX_DIM = 100, N_LANES = 16 };
	struct rng rng = rng_stream(3, 0, 0, 0);
	float a[MAX_DIM], b[MAX_DIM];

	(void)state;
	for (uint32_t i = 0; i < MAX_DIM; i++) {
		a[i] = rng_normal(&rng);
		b[i] = rng_normal(&rng);
	}
	for (uint32_t dim = 0; dim <= MAX_DIM; dim++) {
		volatile float lanes[N_LANES] = { 0 }, sum = 0;

		for (uint32_t i = 0; i < dim; i++) {
			volatile float product = a[i] * b[i];

			if (i < dim / N_LANES * N_LANES)
				lanes[i % N_LANES] += product;
			else
				sum += product;
		}
		for (uint32_t j = 0; j < N_LANES; j++)
			sum += lanes[j];
		assert_true(cosine_dot(a, b, dim) == sum);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(distance_is_the_mean_over_the_nearest),
		cmocka_unit_test(novelty_rises_with_the_distance_and_stays_below_one),
		cmocka_unit_test(more_references_than_room_are_thinned_evenly),
		cmocka_unit_test(a_reference_survives_its_file),
		cmocka_unit_test(every_damaged_reference_is_refused),
		cmocka_unit_test(an_embedding_of_another_length_is_refused),
		cmocka_unit_test(a_space_names_everything_it_depends_on),
		cmocka_unit_test(a_dot_product_adds_in_its_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
