/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "model/vit.h"
#include "model/vit_internal.h"

/*
 * Gradients of a weighted sum of the embeddings of BATCH images: the tape in f32 against central
 * differences of the plain C twin in double, along random directions and along single weights. The
 * differences are good to 1e-8; the tolerance is the tape's f32.
 */
#define SEED 4711
#define TOLERANCE 2e-5 /* of the gradient's norm, or of its largest entry */
#define STEP 1e-4
#define KEEP .85F

enum { BATCH = 2, PX = 24, N_DIRECTIONS = 2, N_SINGLE = 4 };

static const struct vit_shape shape = {
	.width = 24,
	.depth = 3,
	.n_heads = 3,
	.mlp = 40,
	.patch = 8,
	.grid = 4,
};

struct model {
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct mask *mask;
	struct vit_tape *tape;
	float *grad; /* (n_elements) */
	float weight[BATCH * 24];
};

static int setup(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	float embeddings[BATCH * 24];

	model->base = random_base(&shape, SEED);
	model->vit = random_vit(model->base);
	model->mask = random_mask(vit_layout(model->vit), SEED, KEEP);
	model->grad = calloc(vit_layout(model->vit)->n_elements, sizeof(float));
	random_pixels(model->weight, ARRAY_SIZE(model->weight), SEED + 1);
	assert_int_equal(vit_slot_new(&model->slot, model->vit, SLOT_LEARN), 0);
	assert_int_equal(slot_apply(model->slot, model->mask), 0);
	assert_int_equal(vit_tape_open(&model->tape, model->vit,
				 &(struct vit_tape_options){
					 .batch = BATCH, .px = PX, .precision = PRECISION_F32 }),
		0);
	random_pixels(vit_tape_input(model->tape), (size_t)BATCH * 3 * PX * PX, SEED);
	assert_int_equal(vit_tape_forward(model->tape, model->slot, embeddings), 0);
	assert_int_equal(
		vit_tape_backward(model->tape, model->slot, model->weight, model->grad, NULL), 0);
	*state = model;
	return 0;
}

static int teardown(void **state)
{
	struct model *model = *state;

	vit_tape_free(model->tape);
	slot_free(model->slot);
	mask_free(model->mask);
	vit_free(model->vit);
	base_free(model->base);
	free(model->grad);
	free(model);
	return 0;
}

static double loss(const struct model *model, const struct vit_nudge *nudge)
{
	double embedding[24], sum = 0;

	for (int b = 0; b < BATCH; b++) {
		const float *pixels = vit_tape_input(model->tape) + (size_t)b * 3 * PX * PX;

		assert_int_equal(
			vit_reference_nudged(model->vit, model->mask, nudge, pixels, PX, embedding),
			0);
		for (uint32_t d = 0; d < shape.width; d++)
			sum += embedding[d] * model->weight[b * shape.width + d];
	}
	return sum;
}

static double difference(const struct model *model, unsigned tensor, const float *direction)
{
	struct vit_nudge nudge = { .tensor = tensor, .direction = direction, .step = STEP };
	double above = loss(model, &nudge);

	nudge.step = -STEP;
	return (above - loss(model, &nudge)) / (2 * STEP);
}

static void the_tape_agrees_with_differences_along_random_directions(void **state)
{
	struct model *model = *state;
	const struct mask_layout *layout = vit_layout(model->vit);

	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];
		const float *grad = model->grad + tensor->offset;
		_cleanup_(freep) float *direction = calloc(tensor->n, sizeof(float));

		for (uint32_t k = 0; k < N_DIRECTIONS; k++) {
			struct rng rng = rng_stream(SEED, t, k, 3);
			double got = 0, norm = 0, want;

			for (size_t i = 0; i < tensor->n; i++) {
				direction[i] = rng_normal(&rng);
				got += (double)grad[i] * direction[i];
				norm += (double)grad[i] * grad[i];
			}
			want = difference(model, t, direction);
			assert_true(norm > 0);
			if (!(fabs(got - want) <= TOLERANCE * sqrt(norm)))
				fail_msg("%s: %.8g, differences say %.8g, norm %.3g", tensor->name,
					got, want, sqrt(norm));
		}
	}
}

static void single_weights_agree_kept_and_dropped_alike(void **state)
{
	struct model *model = *state;
	const struct mask_layout *layout = vit_layout(model->vit);
	unsigned n_dropped = 0;

	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];
		const float *grad = model->grad + tensor->offset;
		_cleanup_(freep) float *direction = calloc(tensor->n, sizeof(float));
		struct rng rng = rng_stream(SEED, t, 0, 4);
		double largest = 0;

		for (size_t i = 0; i < tensor->n; i++)
			largest = fmax(largest, fabs((double)grad[i]));
		for (int k = 0; k < N_SINGLE; k++) {
			uint32_t i = rng_below(&rng, (uint32_t)tensor->n);
			double want;

			n_dropped += !mask_get(model->mask, t, i);
			direction[i] = 1;
			want = difference(model, t, direction);
			direction[i] = 0;
			if (!(fabs(grad[i] - want) <= TOLERANCE * largest))
				fail_msg("%s[%u]: %.8g, differences say %.8g", tensor->name, i,
					grad[i], want);
		}
	}
	assert_true(n_dropped > 0);
}

static void the_key_biases_have_no_gradient(void **state)
{
	struct model *model = *state;
	const struct mask_layout *layout = vit_layout(model->vit);

	for (unsigned t = 1; t < layout->n_tensors; t += 8) {
		const float *grad = model->grad + layout->tensors[t].offset;
		double largest = 0;

		for (uint32_t i = 0; i < 3 * shape.width; i++)
			largest = fmax(largest, fabs((double)grad[i]));
		for (uint32_t i = shape.width; i < 2 * shape.width; i++)
			assert_true(fabs((double)grad[i]) <= 1e-6 * largest);
	}
}

static void a_second_backward_adds_the_same_bits(void **state)
{
	struct model *model = *state;
	const size_t n = vit_layout(model->vit)->n_elements;
	_cleanup_(freep) float *again = calloc(n, sizeof(float));
	_cleanup_(freep) float *twice = calloc(n, sizeof(float));
	float embeddings[BATCH * 24];

	assert_int_equal(vit_tape_forward(model->tape, model->slot, embeddings), 0);
	assert_int_equal(
		vit_tape_backward(model->tape, model->slot, model->weight, again, NULL), 0);
	assert_memory_equal(again, model->grad, n * sizeof(float));

	memcpy(twice, again, n * sizeof(float));
	assert_int_equal(
		vit_tape_backward(model->tape, model->slot, model->weight, twice, NULL), 0);
	for (size_t i = 0; i < n; i++)
		again[i] *= 2;
	assert_true(relative_difference(twice, again, n) <= 1e-6);
}

static void plan_tape_and_reference_agree(void **state)
{
	struct model *model = *state;
	const size_t n_pixels = (size_t)3 * PX * PX;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	float planned[BATCH * 24], taped[BATCH * 24], want[24];

	assert_int_equal(vit_plan_new(&plan, model->vit, BATCH, PX, PRECISION_F32), 0);
	memcpy(vit_plan_input(plan), vit_tape_input(model->tape), BATCH * n_pixels * sizeof(float));
	assert_int_equal(vit_forward(plan, model->slot, planned), 0);
	assert_int_equal(vit_tape_forward(model->tape, model->slot, taped), 0);
	assert_true(relative_difference(taped, planned, BATCH * shape.width) <= 1e-5);
	for (int b = 0; b < BATCH; b++) {
		assert_int_equal(vit_reference(model->vit, model->mask,
					 vit_tape_input(model->tape) + b * n_pixels, PX, want),
			0);
		assert_true(
			relative_difference(taped + b * shape.width, want, shape.width) <= 1e-5);
	}
}

static void a_slot_for_inference_cannot_go_backward(void **state)
{
	struct model *model = *state;
	_cleanup_(slot_freep) struct slot *slot = NULL;

	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_INFER), 0);
	assert_int_equal(
		vit_tape_backward(model->tape, slot, model->weight, model->grad, NULL), -EINVAL);
}

static double cosine(const float *a, const float *b, size_t n)
{
	double ab = 0, aa = 0, bb = 0;

	for (size_t i = 0; i < n; i++) {
		ab += (double)a[i] * b[i];
		aa += (double)a[i] * a[i];
		bb += (double)b[i] * b[i];
	}
	return ab / sqrt(aa * bb);
}

/* What is rounded has 8 bits of mantissa: 2^-8 of every operand at most, and less of their sums. */
static void bf16_points_where_f32_does(void **state)
{
	struct model *model = *state;
	const struct mask_layout *layout = vit_layout(model->vit);
	_cleanup_(freep) float *grad = NULL;
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	float taped[BATCH * 24], rounded[BATCH * 24], planned[BATCH * 24];

	if (!vit_has(model->vit, PRECISION_BF16))
		skip();
	grad = calloc(layout->n_elements, sizeof(float));
	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_LEARN | SLOT_BF16), 0);
	assert_int_equal(slot_apply(slot, model->mask), 0);
	assert_int_equal(vit_tape_open(&tape, model->vit,
				 &(struct vit_tape_options){
					 .batch = BATCH, .px = PX, .precision = PRECISION_BF16 }),
		0);
	memcpy(vit_tape_input(tape), vit_tape_input(model->tape),
		(size_t)BATCH * 3 * PX * PX * sizeof(float));
	assert_int_equal(vit_tape_forward(tape, slot, rounded), 0);
	assert_int_equal(vit_tape_forward(model->tape, model->slot, taped), 0);
	assert_true(relative_difference(rounded, taped, BATCH * shape.width) <= 2e-2);
	assert_true(relative_difference(rounded, taped, BATCH * shape.width) > 0);

	assert_int_equal(vit_plan_new(&plan, model->vit, BATCH, PX, PRECISION_BF16), 0);
	memcpy(vit_plan_input(plan), vit_tape_input(tape),
		(size_t)BATCH * 3 * PX * PX * sizeof(float));
	assert_int_equal(vit_forward(plan, slot, planned), 0);
	assert_true(relative_difference(planned, rounded, BATCH * shape.width) <= 1e-5);

	assert_int_equal(vit_tape_backward(tape, slot, model->weight, grad, NULL), 0);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];
		/* The key third of qkv's bias has no gradient but rounding. */
		size_t n = t % 8 == 1 ? tensor->n / 3 : tensor->n;
		double same = cosine(grad + tensor->offset, model->grad + tensor->offset, n);

		if (!(same >= .999))
			fail_msg("%s: cosine %g", tensor->name, same);
	}
}

static void a_tape_takes_no_slot_of_another_precision(void **state)
{
	struct model *model = *state;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	float embeddings[BATCH * 24];

	if (!vit_has(model->vit, PRECISION_BF16))
		skip();
	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_LEARN | SLOT_BF16), 0);
	assert_int_equal(vit_tape_forward(model->tape, slot, embeddings), -EINVAL);
	assert_int_equal(
		vit_tape_backward(model->tape, slot, model->weight, model->grad, NULL), -EINVAL);
	assert_int_equal(vit_plan_new(&plan, model->vit, BATCH, PX, PRECISION_F32), 0);
	assert_int_equal(vit_forward(plan, slot, embeddings), -EINVAL);
}

static void no_slow_implementation_is_chosen_for_a_real_model(void **state)
{
	const struct model *model = *state;
	struct vit_shape real;
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(vit_tape_freep) struct vit_tape *large = NULL, *small = NULL, *rounded = NULL;

	/* oneDNN 2.6 has no other softmax backward for less. */
	if (strncmp(vit_isa(model->vit), "avx512", 6) != 0)
		skip();
	assert_int_equal(random_vit_shape(&real, "vit_t"), 0);
	real.depth = 2;
	base = random_base(&real, SEED);
	vit = random_vit(base);
	assert_int_equal(vit_tape_open(&large, vit,
				 &(struct vit_tape_options){
					 .batch = 8, .px = 112, .precision = PRECISION_F32 }),
		0);
	assert_int_equal(vit_tape_open(&small, vit,
				 &(struct vit_tape_options){
					 .batch = 8, .px = 64, .precision = PRECISION_F32 }),
		0);
	if (vit_has(vit, PRECISION_BF16))
		assert_int_equal(
			vit_tape_open(&rounded, vit,
				&(struct vit_tape_options){
					.batch = 8, .px = 112, .precision = PRECISION_BF16 }),
			0);
	assert_int_equal(onednn_n_slow(vit->onednn), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_tape_agrees_with_differences_along_random_directions),
		cmocka_unit_test(single_weights_agree_kept_and_dropped_alike),
		cmocka_unit_test(the_key_biases_have_no_gradient),
		cmocka_unit_test(a_second_backward_adds_the_same_bits),
		cmocka_unit_test(plan_tape_and_reference_agree),
		cmocka_unit_test(a_slot_for_inference_cannot_go_backward),
		cmocka_unit_test(bf16_points_where_f32_does),
		cmocka_unit_test(a_tape_takes_no_slot_of_another_precision),
		cmocka_unit_test(no_slow_implementation_is_chosen_for_a_real_model),
	};

	print_message("seed %d\n", SEED);
	return cmocka_run_group_tests(tests, setup, teardown);
}
