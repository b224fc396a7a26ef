/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "model/vit.h"

/* A forward pass in int8, where the CPU has it. */

#define SEED 20261122
#define SKIP 77

enum { BATCH = 3, PX = 64, WIDTH = 96 };

static const struct vit_shape shape = {
	.width = WIDTH,
	.depth = 3,
	.n_heads = 3,
	.mlp = 256,
	.patch = 16,
	.grid = 4,
};

struct model {
	struct base *base;
	struct vit *vit;
	struct vit_plan *plan;
	struct slot *slot;
};

static int setup(void **state)
{
	struct model *model = calloc(1, sizeof(*model));

	model->base = random_base(&shape, SEED);
	model->vit = random_vit(model->base);
	assert_int_equal(vit_plan_new(&model->plan, model->vit, BATCH, PX, PRECISION_INT8), 0);
	assert_int_equal(vit_slot_new(&model->slot, model->vit, SLOT_INFER | SLOT_INT8), 0);
	random_pixels(vit_plan_input(model->plan), (size_t)BATCH * 3 * PX * PX, SEED);
	*state = model;
	return 0;
}

static int teardown(void **state)
{
	struct model *model = *state;

	slot_free(model->slot);
	vit_plan_free(model->plan);
	vit_free(model->vit);
	base_free(model->base);
	free(model);
	return 0;
}

static void forward(struct model *model, const struct mask *mask, float *dst)
{
	assert_int_equal(slot_apply(model->slot, mask), 0);
	assert_int_equal(vit_forward(model->plan, model->slot, dst), 0);
}

static void it_is_near_the_reference_under_any_mask(void **state)
{
	struct model *model = *state;
	float got[BATCH * WIDTH], want[WIDTH];
	double worst = 0;

	for (int i = 1; i <= 4; i++) {
		_cleanup_(mask_freep) struct mask *mask =
			random_mask(vit_layout(model->vit), SEED + i, .25F * i);

		forward(model, mask, got);
		for (int b = 0; b < BATCH; b++) {
			double off;

			assert_int_equal(
				vit_reference(model->vit, mask,
					vit_plan_input(model->plan) + b * 3 * PX * PX, PX, want),
				0);
			off = relative_difference(got + b * WIDTH, want, WIDTH);
			worst = off > worst ? off : worst;
			if (!(off <= .05))
				fail_msg("seed %d: off by %g", SEED + i, off);
		}
	}
	print_message("off by %.4f at most\n", worst);
}

static void a_mask_that_keeps_all_is_the_frozen_model_bit_for_bit(void **state)
{
	struct model *model = *state;
	_cleanup_(mask_freep) struct mask *all = NULL;
	_cleanup_(mask_freep) struct mask *some = random_mask(vit_layout(model->vit), SEED, .8F);
	float want[BATCH * WIDTH], got[BATCH * WIDTH];

	assert_int_equal(mask_new(&all, vit_layout(model->vit)), 0);
	forward(model, NULL, want);
	forward(model, all, got);
	assert_memory_equal(got, want, sizeof(want));
	forward(model, some, got);
	assert_true(relative_difference(got, want, BATCH * WIDTH) > 1e-2);
	forward(model, all, got);
	assert_memory_equal(got, want, sizeof(want));
}

static void an_image_is_the_same_alone_and_in_any_batch(void **state)
{
	const size_t n = (size_t)3 * PX * PX;
	struct model *model = *state;
	_cleanup_(vit_plan_freep) struct vit_plan *one = NULL;
	float all[BATCH * WIDTH], beside[BATCH * WIDTH], alone[WIDTH];
	float *pixels = vit_plan_input(model->plan);

	forward(model, NULL, all);
	assert_int_equal(vit_plan_new(&one, model->vit, 1, PX, PRECISION_INT8), 0);
	for (int b = 0; b < BATCH; b++) {
		memcpy(vit_plan_input(one), pixels + b * n, n * sizeof(float));
		assert_int_equal(vit_forward(one, model->slot, alone), 0);
		assert_true(relative_difference(alone, all + b * WIDTH, WIDTH) < 1e-2);
	}
	/* Company of very large values, which would move any step that is a batch's. */
	for (size_t i = 0; i < n; i++)
		pixels[i] *= 100;
	forward(model, NULL, beside);
	random_pixels(pixels, n, SEED);
	assert_memory_not_equal(beside, all, WIDTH * sizeof(float));
	assert_memory_equal(beside + WIDTH, all + WIDTH, (BATCH - 1) * WIDTH * sizeof(float));
}

/* More sums than are kept near by: two parts of three images. */
static void a_batch_in_parts_is_as_its_images_alone(void **state)
{
	enum { LARGE_PX = 256, MANY = 6 };
	const size_t n = (size_t)3 * LARGE_PX * LARGE_PX;
	struct model *model = *state;
	_cleanup_(vit_plan_freep) struct vit_plan *one = NULL, *many = NULL;
	float all[MANY * WIDTH], alone[WIDTH];

	assert_int_equal(slot_apply(model->slot, NULL), 0);
	assert_int_equal(vit_plan_new(&one, model->vit, 1, LARGE_PX, PRECISION_INT8), 0);
	assert_int_equal(vit_plan_new(&many, model->vit, MANY, LARGE_PX, PRECISION_INT8), 0);
	random_pixels(vit_plan_input(many), MANY * n, SEED);
	assert_int_equal(vit_forward(many, model->slot, all), 0);
	for (int b = 0; b < MANY; b++) {
		memcpy(vit_plan_input(one), vit_plan_input(many) + b * n, n * sizeof(float));
		assert_int_equal(vit_forward(one, model->slot, alone), 0);
		assert_true(relative_difference(alone, all + b * WIDTH, WIDTH) < 1e-2);
	}
}

static void a_slot_of_another_precision_is_refused(void **state)
{
	struct model *model = *state;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct vit_tape *tape;
	float got[BATCH * WIDTH];

	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_INFER), 0);
	assert_int_equal(vit_forward(model->plan, slot, got), -EINVAL);
	assert_int_equal(vit_tape_open(&tape, model->vit,
				 &(struct vit_tape_options){
					 .batch = 1, .px = PX, .precision = PRECISION_INT8 }),
		-EINVAL);
	assert_int_equal(vit_tape_bytes(model->vit,
				 &(struct vit_tape_options){
					 .batch = 1, .px = PX, .precision = PRECISION_INT8 }),
		0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_near_the_reference_under_any_mask),
		cmocka_unit_test(a_mask_that_keeps_all_is_the_frozen_model_bit_for_bit),
		cmocka_unit_test(an_image_is_the_same_alone_and_in_any_batch),
		cmocka_unit_test(a_batch_in_parts_is_as_its_images_alone),
		cmocka_unit_test(a_slot_of_another_precision_is_refused),
	};
	_cleanup_(base_freep) struct base *base = random_base(&shape, SEED);
	_cleanup_(vit_freep) struct vit *vit = random_vit(base);

	if (!vit_has(vit, PRECISION_INT8)) {
		printf("skipped: no int8 on this CPU (%s)\n", vit_isa(vit));
		return SKIP;
	}
	print_message("seed %d\n", SEED);
	return cmocka_run_group_tests(tests, setup, teardown);
}
