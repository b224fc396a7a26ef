/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <malloc.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "fixture/random_vit.h"
#include "model/vit_internal.h"

/* Plans that give all tokens, and class token and attended patches as one feature. */

#define SEED 53

/* What a team computes, what it does not, one head, and patches of one token. */
static const struct {
	struct vit_shape shape;
	uint32_t batch, px;
} cases[] = {
	{ { .width = 192, .depth = 2, .n_heads = 3, .mlp = 768, .patch = 16, .grid = 14 }, 3, 112 },
	{ { .width = 192, .depth = 2, .n_heads = 3, .mlp = 768, .patch = 16, .grid = 14 }, 4, 48 },
	{ { .width = 36, .depth = 2, .n_heads = 3, .mlp = 100, .patch = 8, .grid = 5 }, 2, 40 },
	{ { .width = 7, .depth = 1, .n_heads = 1, .mlp = 9, .patch = 4, .grid = 3 }, 2, 12 },
	{ { .width = 32, .depth = 1, .n_heads = 2, .mlp = 64, .patch = 8, .grid = 4 }, 1, 8 },
};

static const double tolerances[N_PRECISIONS] = {
	[PRECISION_F32] = 1e-5,
	[PRECISION_BF16] = 5e-2,
	[PRECISION_INT8] = .1,
};

struct fixture {
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct mask *mask;
	uint32_t batch, px, n_tokens, width;
	enum precision precision;
	float *pixels; /* (batch, 3, px, px) */
};

static bool fixture_init(struct fixture *f, size_t c, enum precision precision)
{
	const uint32_t grid = cases[c].px / cases[c].shape.patch;

	f->base = random_base(&cases[c].shape, SEED + c);
	f->vit = random_vit(f->base);
	f->precision = precision;
	f->batch = cases[c].batch;
	f->px = cases[c].px;
	f->n_tokens = 1 + grid * grid;
	f->width = cases[c].shape.width;
	if (!vit_has(f->vit, precision))
		return false;
	f->pixels = calloc((size_t)f->batch * 3 * f->px * f->px, sizeof(float));
	f->mask = random_mask(vit_layout(f->vit), SEED + c, .9F);
	random_pixels(f->pixels, (size_t)f->batch * 3 * f->px * f->px, SEED + c);
	assert_int_equal(vit_slot_new(&f->slot, f->vit, slot_use_in(SLOT_INFER, precision)), 0);
	assert_int_equal(slot_apply(f->slot, f->mask), 0);
	return true;
}

static void fixture_done(struct fixture *f)
{
	mask_free(f->mask);
	slot_free(f->slot);
	vit_free(f->vit);
	base_free(f->base);
	free(f->pixels);
}

static struct vit_plan *plan_of(
	const struct fixture *f, uint32_t first, uint32_t n, bool tokens_out, bool pooled)
{
	const size_t n_pixels = (size_t)3 * f->px * f->px;
	struct vit_plan *plan;

	assert_int_equal(vit_plan_open(&plan, f->vit,
				 &(struct vit_plan_options){
					 .batch = n,
					 .px = f->px,
					 .precision = f->precision,
					 .tokens_out = tokens_out,
					 .pooled = pooled,
				 }),
		0);
	memcpy(vit_plan_input(plan), f->pixels + first * n_pixels, n * n_pixels * sizeof(float));
	return plan;
}

static void compare_image(const struct fixture *f, const struct vit_plan *plan, uint32_t i)
{
	const size_t n_tokens = (size_t)f->n_tokens * f->width, n_feature = (size_t)2 * f->width;
	_cleanup_(freep) float *tokens = calloc(n_tokens, sizeof(float));
	_cleanup_(freep) float *feature = calloc(n_feature, sizeof(float));
	const double tolerance = tolerances[f->precision];
	double off_tokens, off_feature;

	assert_int_equal(vit_reference_tokens(f->vit, f->mask,
				 f->pixels + (size_t)i * 3 * f->px * f->px, f->px, tokens, feature),
		0);
	off_tokens = relative_difference(vit_plan_tokens(plan) + i * n_tokens, tokens, n_tokens);
	off_feature =
		relative_difference(vit_plan_features(plan) + i * n_feature, feature, n_feature);
	if (!(off_tokens <= tolerance) || !(off_feature <= tolerance))
		fail_msg("width %u in %s, image %u: tokens off by %g, feature by %g", f->width,
			precision_name(f->precision), i, off_tokens, off_feature);
}

static void every_plan_agrees_with_the_reference(void **state)
{
	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++)
		for (enum precision p = 0; p < N_PRECISIONS; p++) {
			_cleanup_(fixture_done) struct fixture f = { 0 };
			_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
			_cleanup_(freep) float *embeddings = NULL;

			if (!fixture_init(&f, c, p))
				continue;
			embeddings = calloc((size_t)f.batch * f.width, sizeof(float));
			plan = plan_of(&f, 0, f.batch, true, true);
			assert_int_equal(vit_forward(plan, f.slot, embeddings), 0);
			for (uint32_t i = 0; i < f.batch; i++)
				compare_image(&f, plan, i);
		}
}

static void embeddings_keep_their_bits_whatever_else_is_asked_for(void **state)
{
	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++)
		for (enum precision p = 0; p < N_PRECISIONS; p++) {
			_cleanup_(fixture_done) struct fixture f = { 0 };
			_cleanup_(freep) float *want = NULL, *got = NULL;
			size_t n;

			if (!fixture_init(&f, c, p))
				continue;
			n = (size_t)f.batch * f.width;
			want = calloc(n, sizeof(float));
			got = calloc(n, sizeof(float));
			for (unsigned what = 0; what < 4; what++) {
				const bool tokens_out = what & 1, pooled = what & 2;
				_cleanup_(vit_plan_freep) struct vit_plan *plan =
					plan_of(&f, 0, f.batch, tokens_out, pooled);

				assert_int_equal(
					vit_forward(plan, f.slot, what == 0 ? want : got), 0);
				assert_int_equal(vit_plan_tokens(plan) != NULL, tokens_out);
				assert_int_equal(vit_plan_features(plan) != NULL, pooled);
				if (what > 0)
					assert_memory_equal(got, want, n * sizeof(float));
				if (tokens_out)
					assert_memory_equal(vit_plan_tokens(plan), got,
						f.width * sizeof(float));
			}
		}
}

/* Where lanes share images and where they share one. */
static void a_feature_has_the_same_bits_in_any_batch(void **state)
{
	(void)state;
	for (enum precision p = PRECISION_F32; p <= PRECISION_BF16; p++) {
		_cleanup_(fixture_done) struct fixture f = { 0 };
		_cleanup_(vit_plan_freep) struct vit_plan *all = NULL;
		float embeddings[4 * 192];

		if (!fixture_init(&f, 1, p))
			continue;
		all = plan_of(&f, 0, f.batch, false, true);
		assert_int_equal(vit_forward(all, f.slot, embeddings), 0);
		for (uint32_t i = 0; i < f.batch; i++) {
			_cleanup_(vit_plan_freep) struct vit_plan *one =
				plan_of(&f, i, 1, false, true);
			const size_t n = (size_t)2 * f.width;

			assert_int_equal(vit_forward(one, f.slot, embeddings), 0);
			assert_memory_equal(vit_plan_features(one), vit_plan_features(all) + i * n,
				n * sizeof(float));
		}
	}
}

static void a_forward_keeps_no_memory(void **state)
{
	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		_cleanup_(fixture_done) struct fixture f = { 0 };
		_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
		float embeddings[4 * 192];
		size_t before;

		assert_true(fixture_init(&f, c, PRECISION_F32));
		plan = plan_of(&f, 0, f.batch, true, true);
		/* As in vit.c: what every thread's first turns leave in malloc's own cache. */
		for (int i = 0; i < 50; i++)
			assert_int_equal(vit_forward(plan, f.slot, embeddings), 0);
		before = mallinfo2().uordblks;
		for (int i = 0; i < 50; i++)
			assert_int_equal(vit_forward(plan, f.slot, embeddings), 0);
		assert_int_equal(mallinfo2().uordblks, before);
	}
}

static void nothing_to_look_at_is_no_direction(void **state)
{
	static const float probs[2 * 3] = { 1, 0, 0, .5F, .25F, .25F };
	static const float patches[2 * 2] = { 3, 0, 0, 4 }, embedding[2] = { 0, 0 };
	const struct vit_class_probs looks = { probs, PRECISION_F32, 2, 1, 3, 3 };
	float weights[4], feature[4];

	(void)state;
	vit_pool_weights(&looks, weights);
	assert_close(weights[0] + weights[1], 0, 0);
	assert_close(weights[2], .5, 0);
	vit_pool(embedding, patches, weights, 2, 2, feature);
	for (int i = 0; i < 4; i++)
		assert_close(feature[i], 0, 0);
	vit_pool(embedding, patches, weights + 2, 2, 2, feature);
	assert_close(feature[2], .6, 1e-6);
	assert_close(feature[3], .8, 1e-6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_plan_agrees_with_the_reference),
		cmocka_unit_test(embeddings_keep_their_bits_whatever_else_is_asked_for),
		cmocka_unit_test(a_feature_has_the_same_bits_in_any_batch),
		cmocka_unit_test(a_forward_keeps_no_memory),
		cmocka_unit_test(nothing_to_look_at_is_no_direction),
	};

	print_message("seed %d\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
