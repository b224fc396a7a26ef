/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "mask/scores.h"
#include "model/vit.h"

/* A small ViT of an unusual shape against PyTorch in double: make_goldens.py and make_pooled_goldens.py
 * say what is in the files and repeat the integer formulas below. */

enum { WIDTH = 40, BATCH = 2, PX = 98, N_OUT = BATCH * WIDTH, N_TOKENS = 1 + 7 * 7 };

struct oracle {
	struct base *base, *golden, *pooled;
	struct vit *vit;
	struct slot *slot;
	struct mask *mask;
};

static uint32_t hashed(uint32_t i, uint32_t salt)
{
	return ((i + salt) * UINT32_C(2654435761)) >> 16;
}

static void fill(float *values, size_t n, uint32_t salt)
{
	for (size_t i = 0; i < n; i++)
		values[i] = (float)(hashed((uint32_t)i, salt) % 256) / 128 - 1;
}

static int setup(void **state)
{
	struct oracle *oracle = calloc(1, sizeof(*oracle));
	const struct mask_layout *layout;
	struct diag diag = { "" };

	if (base_load(&oracle->base, "tests/oracle/vit_small.safetensors", &diag) < 0 ||
		base_load(&oracle->golden, "tests/oracle/vit_small_golden.safetensors", &diag) <
			0 ||
		base_load(&oracle->pooled, "tests/oracle/vit_small_pooled_golden.safetensors",
			&diag) < 0 ||
		vit_new(&oracle->vit, oracle->base, NULL, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(vit_slot_new(&oracle->slot, oracle->vit, SLOT_LEARN), 0);
	layout = vit_layout(oracle->vit);
	assert_int_equal(mask_new(&oracle->mask, layout), 0);
	for (unsigned t = 0; t < layout->n_tensors; t++)
		for (size_t i = 0; i < layout->tensors[t].n; i++)
			mask_put(oracle->mask, t, i, hashed((uint32_t)i, 1000 * (t + 1)) % 8 != 0);
	*state = oracle;
	return 0;
}

static int teardown(void **state)
{
	struct oracle *oracle = *state;

	mask_free(oracle->mask);
	slot_free(oracle->slot);
	vit_free(oracle->vit);
	base_free(oracle->pooled);
	base_free(oracle->golden);
	base_free(oracle->base);
	free(oracle);
	return 0;
}

/* Largest difference to a golden tensor, as a share of its largest value. */
static double off_by(const struct base *golden, const char *name, const float *got, size_t n)
{
	const struct tensor *tensor = safetensors_find(base_tensors(golden), name);
	_cleanup_(freep) float *want = calloc(n, sizeof(float));

	assert_non_null(tensor);
	assert_int_equal(tensor->n_elements, n);
	tensor_to_f32(want, tensor);
	return relative_difference(got, want, n);
}

static void expect(
	const struct base *golden, const char *name, const float *got, size_t n, double tolerance)
{
	double off = off_by(golden, name, got, n);

	print_message("%s: off by %.2g\n", name, off);
	if (!(off <= tolerance))
		fail_msg("%s: off by %g, more than %g", name, off, tolerance);
}

static void a_forward_gives_what_pytorch_does(void **state)
{
	struct oracle *oracle = *state;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	float embeddings[N_OUT];

	assert_int_equal(vit_shape(oracle->vit)->n_heads, 5);
	assert_int_equal(vit_plan_new(&plan, oracle->vit, BATCH, PX, PRECISION_F32), 0);
	fill(vit_plan_input(plan), (size_t)BATCH * 3 * PX * PX, 1);
	assert_int_equal(slot_apply(oracle->slot, NULL), 0);
	assert_int_equal(vit_forward(plan, oracle->slot, embeddings), 0);
	expect(oracle->golden, "frozen", embeddings, N_OUT, 1e-5);
	assert_int_equal(slot_apply(oracle->slot, oracle->mask), 0);
	assert_int_equal(vit_forward(plan, oracle->slot, embeddings), 0);
	expect(oracle->golden, "masked", embeddings, N_OUT, 1e-5);
}

static void score_gradients_are_those_of_autograd(void **state)
{
	struct oracle *oracle = *state;
	const struct mask_layout *layout = vit_layout(oracle->vit);
	_cleanup_(freep) float *grad = calloc(layout->n_elements, sizeof(float));
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	float embeddings[N_OUT], d_embeddings[N_OUT];

	fill(d_embeddings, N_OUT, 2);
	assert_int_equal(vit_tape_open(&tape, oracle->vit,
				 &(struct vit_tape_options){
					 .batch = BATCH, .px = PX, .precision = PRECISION_F32 }),
		0);
	fill(vit_tape_input(tape), (size_t)BATCH * 3 * PX * PX, 1);
	assert_int_equal(slot_apply(oracle->slot, oracle->mask), 0);
	assert_int_equal(vit_tape_forward(tape, oracle->slot, embeddings), 0);
	expect(oracle->golden, "masked", embeddings, N_OUT, 1e-5);
	assert_int_equal(vit_tape_backward(tape, oracle->slot, d_embeddings, grad, NULL), 0);

	scores_backward(grad, grad, vit_weights(oracle->vit), oracle->mask, true);
	for (unsigned t = 0; t < layout->n_tensors; t++)
		expect(oracle->golden, layout->tensors[t].name, grad + layout->tensors[t].offset,
			layout->tensors[t].n, 1e-4);
}

static void expect_both(
	const struct oracle *oracle, bool masked, const float *pixels, struct vit_plan *plan)
{
	const size_t n_tokens = (size_t)N_TOKENS * WIDTH;
	float tokens[BATCH * N_TOKENS * WIDTH], features[BATCH * 2 * WIDTH];
	const char *const names[] = { masked ? "masked.tokens" : "frozen.tokens",
		masked ? "masked.feature" : "frozen.feature" };

	expect(oracle->pooled, names[0], vit_plan_tokens(plan), BATCH * n_tokens, 1e-5);
	expect(oracle->pooled, names[1], vit_plan_features(plan), (size_t)BATCH * 2 * WIDTH, 1e-5);
	for (size_t i = 0; i < BATCH; i++)
		assert_int_equal(vit_reference_tokens(oracle->vit, masked ? oracle->mask : NULL,
					 pixels + i * 3 * PX * PX, PX, tokens + i * n_tokens,
					 features + i * 2 * WIDTH),
			0);
	expect(oracle->pooled, names[0], tokens, BATCH * n_tokens, 1e-5);
	expect(oracle->pooled, names[1], features, (size_t)BATCH * 2 * WIDTH, 1e-5);
}

static void tokens_and_features_are_what_pytorch_gives(void **state)
{
	struct oracle *oracle = *state;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	const struct vit_plan_options options = { .batch = BATCH,
		.px = PX,
		.precision = PRECISION_F32,
		.tokens_out = true,
		.pooled = true };
	float embeddings[BATCH * WIDTH], *pixels;

	assert_int_equal(vit_plan_open(&plan, oracle->vit, &options), 0);
	pixels = vit_plan_input(plan);
	fill(pixels, (size_t)BATCH * 3 * PX * PX, 1);
	for (unsigned masked = 0; masked < 2; masked++) {
		assert_int_equal(slot_apply(oracle->slot, masked ? oracle->mask : NULL), 0);
		assert_int_equal(vit_forward(plan, oracle->slot, embeddings), 0);
		expect_both(oracle, masked, pixels, plan);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_forward_gives_what_pytorch_does),
		cmocka_unit_test(score_gradients_are_those_of_autograd),
		cmocka_unit_test(tokens_and_features_are_what_pytorch_gives),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
