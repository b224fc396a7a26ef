/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "model/vit.h"

#define SEED 20260101

enum { BATCH = 2, PX = 64, WIDTH = 96 };

static const struct vit_shape shape = {
	.width = WIDTH,
	.depth = 2,
	.n_heads = 3,
	.mlp = 256,
	.patch = 16,
	.grid = 4,
};

struct model {
	struct base *base;
	struct vit *vit;
	struct vit_plan *plan;
};

static int setup(void **state)
{
	struct model *model = calloc(1, sizeof(*model));

	model->base = random_base(&shape, SEED);
	model->vit = random_vit(model->base);
	assert_int_equal(vit_plan_new(&model->plan, model->vit, BATCH, PX, PRECISION_F32), 0);
	random_pixels(vit_plan_input(model->plan), (size_t)BATCH * 3 * PX * PX, SEED);
	*state = model;
	return 0;
}

static int teardown(void **state)
{
	struct model *model = *state;

	vit_plan_free(model->plan);
	vit_free(model->vit);
	base_free(model->base);
	free(model);
	return 0;
}

static void forward(struct model *model, struct slot *slot, const struct mask *mask, float *dst)
{
	assert_int_equal(slot_apply(slot, mask), 0);
	assert_int_equal(vit_forward(model->plan, slot, dst), 0);
}

static void a_mask_that_keeps_all_is_the_frozen_model_bit_for_bit(void **state)
{
	struct model *model = *state;
	_cleanup_(slot_freep) struct slot *frozen = NULL, *slot = NULL;
	_cleanup_(mask_freep) struct mask *all = NULL;
	_cleanup_(mask_freep) struct mask *some = random_mask(vit_layout(model->vit), SEED, .8F);
	float want[BATCH * WIDTH], got[BATCH * WIDTH];

	assert_int_equal(mask_new(&all, vit_layout(model->vit)), 0);
	assert_int_equal(vit_slot_new(&frozen, model->vit, SLOT_INFER), 0);
	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_LEARN), 0);
	assert_int_equal(vit_forward(model->plan, frozen, want), 0);
	forward(model, slot, all, got);
	assert_memory_equal(got, want, sizeof(want));

	forward(model, slot, some, got);
	assert_true(relative_difference(got, want, BATCH * WIDTH) > 1e-2);
	forward(model, slot, NULL, got);
	assert_memory_equal(got, want, sizeof(want));
	forward(model, slot, all, got);
	assert_memory_equal(got, want, sizeof(want));
}

static void a_masked_slot_computes_what_the_formula_says(void **state)
{
	struct model *model = *state;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	float got[BATCH * WIDTH], want[WIDTH];

	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_INFER), 0);
	for (int i = 1; i <= 4; i++) {
		_cleanup_(mask_freep) struct mask *mask =
			random_mask(vit_layout(model->vit), SEED + i, .24F * i);

		forward(model, slot, mask, got);
		for (int b = 0; b < BATCH; b++) {
			double off;

			assert_int_equal(
				vit_reference(model->vit, mask,
					vit_plan_input(model->plan) + b * 3 * PX * PX, PX, want),
				0);
			off = relative_difference(got + b * WIDTH, want, WIDTH);
			if (!(off <= 1e-5))
				fail_msg("seed %d: off by %g", SEED + i, off);
		}
	}
}

static void a_slot_forgets_the_masks_before(void **state)
{
	struct model *model = *state;
	_cleanup_(slot_freep) struct slot *fresh = NULL, *used = NULL;
	_cleanup_(mask_freep) struct mask *mask = random_mask(vit_layout(model->vit), SEED, .9F);
	_cleanup_(mask_freep) struct mask *one_bias = NULL;
	float want[BATCH * WIDTH], got[BATCH * WIDTH];

	assert_int_equal(mask_new(&one_bias, vit_layout(model->vit)), 0);
	mask_put(one_bias, 1, 7, false);
	assert_int_equal(vit_slot_new(&fresh, model->vit, SLOT_INFER), 0);
	assert_int_equal(vit_slot_new(&used, model->vit, SLOT_INFER), 0);
	forward(model, fresh, mask, want);
	for (int i = 1; i < 4; i++) {
		_cleanup_(mask_freep) struct mask *other =
			random_mask(vit_layout(model->vit), SEED + i, .7F);

		forward(model, used, other, got);
		forward(model, used, one_bias, got);
		forward(model, used, mask, got);
		assert_memory_equal(got, want, sizeof(want));
	}
}

static void a_tensor_without_any_bit_left_gives_numbers(void **state)
{
	struct model *model = *state;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(mask_freep) struct mask *none = random_mask(vit_layout(model->vit), SEED, -1);
	float got[BATCH * WIDTH];

	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_INFER), 0);
	forward(model, slot, none, got);
	for (int i = 0; i < BATCH * WIDTH; i++)
		assert_true(isfinite(got[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mask_that_keeps_all_is_the_frozen_model_bit_for_bit),
		cmocka_unit_test(a_masked_slot_computes_what_the_formula_says),
		cmocka_unit_test(a_slot_forgets_the_masks_before),
		cmocka_unit_test(a_tensor_without_any_bit_left_gives_numbers),
	};

	print_message("seed %d\n", SEED);
	return cmocka_run_group_tests(tests, setup, teardown);
}
