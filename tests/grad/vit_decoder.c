/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "golden/golden.h"
#include "model/vit_decoder.h"

enum { N = 2, N_IN = 6, GRID = 3, L = GRID * GRID, N_OUT = 5, N_KEPT = 4 };
enum { ALL_TOKENS = N * (1 + L) * N_IN, ALL_OUT = 2 * N * L * N_OUT };

static const struct vit_decoder_shape shape = {
	.n_in = N_IN,
	.width = 8,
	.depth = 2,
	.n_heads = 2,
	.mlp = 12,
	.grid = GRID,
	.n_out = N_OUT,
	.n_trunks = 2,
};

/* As in tests/golden/learnt.py. */
static const uint32_t kept[N * N_KEPT] = { 7, 0, 4, 2, 1, 8, 3, 5 };

static struct vit_decoder *decoder_of(uint32_t n_kept, bool forward_only)
{
	struct vit_decoder *decoder = NULL;

	assert_int_equal(vit_decoder_new(&decoder, &shape,
				 &(struct vit_decoder_options){
					 .batch = N,
					 .n_kept = n_kept,
					 .forward_only = forward_only,
				 }),
		0);
	return decoder;
}

static void values_and_gradients_equal_the_golden(void **state)
{
	_cleanup_(vit_decoder_freep) struct vit_decoder *decoder = decoder_of(N_KEPT, false);
	const struct params *params = vit_decoder_params(decoder);
	_cleanup_(freep) float *grad = calloc(params->n_values, sizeof(*grad));
	enum { N_TOKENS = N * (1 + N_KEPT) * N_IN };
	struct golden golden = { 0 };
	const float *values, *tokens, *weight;
	float out[ALL_OUT], d_tokens[N_TOKENS];

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/learnt_decoder.f32"), 0);
	values = golden_take(&golden, params->n_values);
	tokens = golden_take(&golden, N_TOKENS);
	weight = golden_take(&golden, ALL_OUT);
	assert_int_equal(vit_decoder_load(decoder, values), 0);
	assert_int_equal(vit_decoder_forward(decoder, tokens, kept, out), 0);
	assert_true(relative_difference(out, golden_take(&golden, ALL_OUT), ALL_OUT) < 1e-5);
	assert_int_equal(vit_decoder_backward(decoder, weight, grad, d_tokens), 0);
	for (unsigned t = 0; t < params->n_tensors; t++)
		assert_true(relative_difference(grad + params->tensors[t].offset,
				    golden_take(&golden, params->tensors[t].n),
				    params->tensors[t].n) < 1e-4);
	assert_true(relative_difference(d_tokens, golden_take(&golden, N_TOKENS), N_TOKENS) < 1e-4);
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

/* A loss of random weights, and a random direction of all that it depends on. */
static void differences_along_a_direction_agree(void **state)
{
	_cleanup_(vit_decoder_freep) struct vit_decoder *decoder = decoder_of(0, false);
	const struct params *params = vit_decoder_params(decoder);
	const size_t n = params->n_values;
	_cleanup_(freep) float *values = calloc(n, sizeof(*values));
	_cleanup_(freep) float *moved = calloc(n, sizeof(*moved));
	_cleanup_(freep) float *grad = calloc(n, sizeof(*grad));
	float tokens[ALL_TOKENS], d_tokens[ALL_TOKENS], weight[ALL_OUT], out[ALL_OUT];
	double sides[2] = { 0 }, want = 0;
	const float step = 4e-3f;

	(void)state;
	vit_decoder_start(params, values, 1);
	random_pixels(tokens, ALL_TOKENS, 2);
	random_pixels(weight, ALL_OUT, 3);
	assert_int_equal(vit_decoder_load(decoder, values), 0);
	assert_int_equal(vit_decoder_forward(decoder, tokens, NULL, out), 0);
	assert_int_equal(vit_decoder_backward(decoder, weight, grad, d_tokens), 0);
	for (int side = 0; side < 2; side++) {
		float other[ALL_TOKENS];

		random_pixels(moved, n, 4);
		random_pixels(other, ALL_TOKENS, 5);
		for (size_t i = 0; i < n; i++) {
			want += side ? 0 : (double)moved[i] * grad[i];
			moved[i] = values[i] + (side ? -step : step) * moved[i];
		}
		for (size_t i = 0; i < ALL_TOKENS; i++) {
			want += side ? 0 : (double)other[i] * d_tokens[i];
			other[i] = tokens[i] + (side ? -step : step) * other[i];
		}
		assert_int_equal(vit_decoder_load(decoder, moved), 0);
		assert_int_equal(vit_decoder_forward(decoder, other, NULL, out), 0);
		for (size_t i = 0; i < ALL_OUT; i++)
			sides[side] += (double)out[i] * weight[i];
	}
	want *= 2 * (double)step;
	print_message("difference %g, gradient %g\n", sides[0] - sides[1], want);
	assert_true(fabs(sides[0] - sides[1] - want) < 2e-3 * fabs(want));
}

/* As one that is asked for both, and told nothing of the other. */
static void a_trunk_that_is_asked_alone_says_and_learns_the_same(void **state)
{
	enum { ONE = ALL_OUT / 2 };
	const struct vit_decoder_options options = { .batch = N, .n_kept = N_KEPT, .trunks = 2 };
	_cleanup_(vit_decoder_freep) struct vit_decoder *both = decoder_of(N_KEPT, false),
							*one = NULL;
	const size_t n = vit_decoder_params(both)->n_values;
	_cleanup_(freep) float *values = calloc(3 * n, sizeof(*values));
	float *grad = values + n, *again = grad + n;
	float tokens[ALL_TOKENS], d_tokens[2][N * (1 + N_KEPT) * N_IN] = { 0 };
	float out[2][ALL_OUT] = { 0 }, weight[ALL_OUT] = { 0 };

	(void)state;
	assert_int_equal(vit_decoder_new(&one, &shape, &options), 0);
	vit_decoder_start(vit_decoder_params(both), values, 1);
	random_pixels(tokens, ALL_TOKENS, 2);
	random_pixels(weight + ONE, ONE, 3);
	assert_int_equal(vit_decoder_load(both, values), 0);
	assert_int_equal(vit_decoder_load(one, values), 0);
	assert_int_equal(vit_decoder_forward(both, tokens, kept, out[0]), 0);
	assert_int_equal(vit_decoder_forward(one, tokens, kept, out[1]), 0);
	assert_memory_equal(out[0] + ONE, out[1] + ONE, ONE * sizeof(float));
	assert_true(out[0][0] != 0 && out[1][0] == 0);
	assert_int_equal(vit_decoder_backward(both, weight, grad, d_tokens[0]), 0);
	weight[0] = NAN;
	assert_int_equal(vit_decoder_backward(one, weight, again, d_tokens[1]), 0);
	for (size_t i = 0; i < n; i++)
		assert_true(grad[i] == again[i]);
	assert_true(relative_difference(d_tokens[1], d_tokens[0], ARRAY_SIZE(d_tokens[0])) < 1e-6);
	assert_true(vit_decoder_bytes(&shape, &options) <
		    vit_decoder_bytes(
			    &shape, &(struct vit_decoder_options){ .batch = N, .n_kept = N_KEPT }));
}

static void all_kept_in_any_order_is_all(void **state)
{
	_cleanup_(vit_decoder_freep) struct vit_decoder *decoder = decoder_of(0, true);
	const struct params *params = vit_decoder_params(decoder);
	_cleanup_(freep) float *values = calloc(params->n_values, sizeof(*values));
	float tokens[ALL_TOKENS], other[ALL_TOKENS], out[ALL_OUT], again[ALL_OUT];
	uint32_t order[N * L];

	(void)state;
	vit_decoder_start(params, values, 1);
	random_pixels(tokens, ALL_TOKENS, 2);
	memcpy(other, tokens, sizeof(other));
	for (uint32_t i = 0; i < N; i++)
		for (uint32_t p = 0; p < L; p++) {
			order[i * L + p] = (p * 4 + i) % L;
			memcpy(other + (i * (1 + L) + 1 + p) * N_IN,
				tokens + (i * (1 + L) + 1 + order[i * L + p]) * N_IN,
				N_IN * sizeof(float));
		}
	assert_int_equal(vit_decoder_load(decoder, values), 0);
	assert_int_equal(vit_decoder_forward(decoder, tokens, NULL, out), 0);
	assert_int_equal(vit_decoder_forward(decoder, other, order, again), 0);
	assert_true(relative_difference(again, out, ALL_OUT) < 1e-5);
	assert_int_equal(vit_decoder_backward(decoder, out, values, NULL), -EINVAL);
}

static void patches_that_are_none_are_refused(void **state)
{
	_cleanup_(vit_decoder_freep) struct vit_decoder *decoder = decoder_of(N_KEPT, true);
	uint32_t bad[N * N_KEPT];
	float tokens[ALL_TOKENS] = { 0 }, out[ALL_OUT];
	struct vit_decoder *none = NULL;
	struct vit_decoder_shape odd = shape;

	(void)state;
	memcpy(bad, kept, sizeof(bad));
	bad[5] = L;
	assert_int_equal(vit_decoder_forward(decoder, tokens, bad, out), -EINVAL);
	bad[5] = bad[4];
	assert_int_equal(vit_decoder_forward(decoder, tokens, bad, out), -EINVAL);
	assert_int_equal(vit_decoder_forward(decoder, tokens, NULL, out), -EINVAL);
	odd.n_trunks = 3;
	assert_int_equal(
		vit_decoder_new(&none, &odd, &(struct vit_decoder_options){ .batch = N }), -EINVAL);
	odd = shape;
	odd.n_heads = 3;
	assert_int_equal(
		vit_decoder_new(&none, &odd, &(struct vit_decoder_options){ .batch = N }), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_and_gradients_equal_the_golden),
		cmocka_unit_test(differences_along_a_direction_agree),
		cmocka_unit_test(a_trunk_that_is_asked_alone_says_and_learns_the_same),
		cmocka_unit_test(all_kept_in_any_order_is_all),
		cmocka_unit_test(patches_that_are_none_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
