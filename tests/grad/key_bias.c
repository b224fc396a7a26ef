/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "fixture/tiny_vit.h"
#include "mask/scores.h"

#define SEED 31u
#define N_BATCH 4u
#define PX 32u

/** One backward pass of random gradients under a mask that dropped a part of every tensor. */
struct pass {
	struct tiny_vit tiny;
	struct mask *mask;
	float *grad, *dscores;
};

static struct mask *drop_some(const struct mask_layout *layout)
{
	struct mask *mask = NULL;

	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		struct rng rng = rng_stream(SEED, t, 0, 1);

		for (size_t i = 0; i < layout->tensors[t].n; i++)
			if (rng_below(&rng, 10) == 0)
				mask_put(mask, t, i, false);
	}
	return mask;
}

static void backward(struct pass *pass)
{
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	const struct mask_layout *layout = vit_layout(pass->tiny.vit);
	uint32_t width = vit_shape(pass->tiny.vit)->width;
	struct rng rng = rng_stream(SEED, 0, 0, 0);
	float *embeddings = calloc(2 * N_BATCH * width, sizeof(*embeddings));

	assert_int_equal(vit_slot_new(&slot, pass->tiny.vit, SLOT_LEARN), 0);
	assert_int_equal(slot_apply(slot, pass->mask), 0);
	assert_int_equal(vit_tape_open(&tape, pass->tiny.vit,
				 &(struct vit_tape_options){
					 .batch = N_BATCH, .px = PX, .precision = PRECISION_F32 }),
		0);
	for (size_t i = 0; i < (size_t)N_BATCH * 3 * PX * PX; i++)
		vit_tape_input(tape)[i] = rng_normal(&rng);
	assert_int_equal(vit_tape_forward(tape, slot, embeddings), 0);
	for (size_t i = 0; i < (size_t)N_BATCH * width; i++)
		embeddings[N_BATCH * width + i] = rng_normal(&rng);
	assert_int_equal(
		vit_tape_backward(tape, slot, embeddings + N_BATCH * width, pass->grad, NULL), 0);
	scores_backward(pass->dscores, pass->grad, vit_weights(pass->tiny.vit), pass->mask, true);
	assert_int_equal(layout->n_tensors, 8 * vit_shape(pass->tiny.vit)->depth);
	free(embeddings);
}

static int set_up(void **state)
{
	static struct pass pass;
	int r;

	print_message("seed %u\n", SEED);
	r = tiny_vit_new(&pass.tiny, SEED);
	if (r < 0)
		return r;
	pass.mask = drop_some(vit_layout(pass.tiny.vit));
	pass.grad = calloc(vit_layout(pass.tiny.vit)->n_elements, sizeof(float));
	pass.dscores = calloc(vit_layout(pass.tiny.vit)->n_elements, sizeof(float));
	backward(&pass);
	*state = &pass;
	return 0;
}

static int tear_down(void **state)
{
	struct pass *pass = *state;

	free(pass->dscores);
	free(pass->grad);
	mask_free(pass->mask);
	tiny_vit_done(&pass->tiny);
	return 0;
}

/* NaN counts as the largest. */
static double largest(const float *values, size_t n)
{
	double most = 0;

	for (size_t i = 0; i < n; i++) {
		double value = fabs((double)values[i]);

		if (!(value <= most))
			most = value;
	}
	return most;
}

/* A constant on every key moves all logits of a query alike: softmax does not see it. */
static void the_key_third_of_a_fused_bias_has_no_gradient(void **state)
{
	struct pass *pass = *state;
	const struct vit_shape *shape = vit_shape(pass->tiny.vit);

	for (uint32_t block = 0; block < shape->depth; block++) {
		const struct mask_tensor *tensor =
			&vit_layout(pass->tiny.vit)->tensors[8 * block + 1];
		const float *grad = pass->grad + tensor->offset;

		assert_int_equal(tensor->n, 3 * shape->width);
		assert_true(largest(grad, tensor->n) > 0);
		assert_true(largest(grad + shape->width, shape->width) <
			    1e-5 * largest(grad, tensor->n));
	}
}

static void its_scores_get_the_alpha_term_and_nothing_else(void **state)
{
	struct pass *pass = *state;
	const struct vit_shape *shape = vit_shape(pass->tiny.vit);

	for (uint32_t block = 0; block < shape->depth; block++) {
		unsigned t = 8 * block + 1;
		const struct mask_tensor *tensor = &vit_layout(pass->tiny.vit)->tensors[t];
		const float *weights = vit_weights(pass->tiny.vit)[t];
		const float *grad = pass->grad + tensor->offset;
		const float *keys = pass->dscores + tensor->offset + shape->width;
		double kept = 0, alpha_term,
		       noise = 1e-5 * largest(pass->dscores + tensor->offset, tensor->n);

		for (size_t i = 0; i < tensor->n; i++)
			kept += mask_get(pass->mask, t, i) * (double)grad[i] * weights[i];
		alpha_term = -kept / (2 * (double)tensor->n) *
			     pow(mask_tensor_density(pass->mask, t), -1.5);
		assert_true(fabs(alpha_term) > 10 * noise);
		for (uint32_t i = 0; i < shape->width; i++)
			assert_true(fabs(keys[i] - alpha_term) < noise);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_key_third_of_a_fused_bias_has_no_gradient),
		cmocka_unit_test(its_scores_get_the_alpha_term_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
