/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "model/vit.h"

/* All tokens and the pooled feature of a small ViT against PyTorch in double: make_pooled_goldens.py,
 * whose integer formulas for pixels and mask are repeated below. */

enum { WIDTH = 40, BATCH = 2, PX = 98, N_TOKENS = 1 + 7 * 7 };

struct oracle {
	struct base *base, *golden;
	struct vit *vit;
	struct slot *slot;
	struct mask *mask;
};

static uint32_t hashed(uint32_t i, uint32_t salt)
{
	return ((i + salt) * UINT32_C(2654435761)) >> 16;
}

static int setup(void **state)
{
	struct oracle *oracle = calloc(1, sizeof(*oracle));
	const struct mask_layout *layout;
	struct diag diag = { "" };

	if (base_load(&oracle->base, "tests/oracle/vit_small.safetensors", &diag) < 0 ||
		base_load(&oracle->golden, "tests/oracle/vit_small_pooled_golden.safetensors",
			&diag) < 0 ||
		vit_new(&oracle->vit, oracle->base, NULL, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(vit_slot_new(&oracle->slot, oracle->vit, SLOT_INFER), 0);
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
	base_free(oracle->golden);
	base_free(oracle->base);
	free(oracle);
	return 0;
}

static void expect(const struct oracle *oracle, const char *name, const float *got, size_t n)
{
	const struct tensor *tensor = safetensors_find(base_tensors(oracle->golden), name);
	_cleanup_(freep) float *want = calloc(n, sizeof(float));
	double off;

	assert_non_null(tensor);
	assert_int_equal(tensor->n_elements, n);
	tensor_to_f32(want, tensor);
	off = relative_difference(got, want, n);
	print_message("%s: off by %.2g\n", name, off);
	if (!(off <= 1e-5))
		fail_msg("%s: off by %g", name, off);
}

static void expect_both(
	const struct oracle *oracle, bool masked, const float *pixels, struct vit_plan *plan)
{
	const size_t n_tokens = (size_t)N_TOKENS * WIDTH;
	float tokens[BATCH * N_TOKENS * WIDTH], features[BATCH * 2 * WIDTH];
	const char *const names[] = { masked ? "masked.tokens" : "frozen.tokens",
		masked ? "masked.feature" : "frozen.feature" };

	expect(oracle, names[0], vit_plan_tokens(plan), BATCH * n_tokens);
	expect(oracle, names[1], vit_plan_features(plan), (size_t)BATCH * 2 * WIDTH);
	for (size_t i = 0; i < BATCH; i++)
		assert_int_equal(vit_reference_tokens(oracle->vit, masked ? oracle->mask : NULL,
					 pixels + i * 3 * PX * PX, PX, tokens + i * n_tokens,
					 features + i * 2 * WIDTH),
			0);
	expect(oracle, names[0], tokens, BATCH * n_tokens);
	expect(oracle, names[1], features, (size_t)BATCH * 2 * WIDTH);
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
	for (uint32_t i = 0; i < BATCH * 3 * PX * PX; i++)
		pixels[i] = (float)(hashed(i, 1) % 256) / 128 - 1;
	for (unsigned masked = 0; masked < 2; masked++) {
		assert_int_equal(slot_apply(oracle->slot, masked ? oracle->mask : NULL), 0);
		assert_int_equal(vit_forward(plan, oracle->slot, embeddings), 0);
		expect_both(oracle, masked, pixels, plan);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tokens_and_features_are_what_pytorch_gives),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
