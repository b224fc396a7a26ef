/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "model/vit.h"
#include "model/vit_internal.h"

#define SEED 31

static const struct vit_shape small = {
	.width = 32,
	.depth = 2,
	.n_heads = 2,
	.mlp = 64,
	.patch = 8,
	.grid = 4,
	.n_classes = 5,
};

/* Widths, heads and token counts that fill no block of oneDNN's evenly, and ones that do. */
static const struct {
	struct vit_shape shape;
	uint32_t batch, px;
} cases[] = {
	{ { 32, 2, 2, 64, 8, 4, 5, 0 }, 3, 32 },
	{ { 40, 2, 5, 72, 14, 3, 0, 0 }, 1, 56 },
	{ { 36, 1, 3, 100, 8, 5, 0, 0 }, 2, 16 },
	{ { 192, 2, 3, 768, 16, 14, 10, 0 }, 5, 112 },
	{ { 128, 3, 2, 512, 16, 6, 0, 0 }, 1, 64 },
	{ { 7, 1, 1, 9, 4, 3, 0, 0 }, 1, 12 },
};

static void every_plan_agrees_with_the_reference(void **state)
{
	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		const uint32_t px = cases[c].px, width = cases[c].shape.width;
		const size_t n_pixels = (size_t)3 * px * px;
		_cleanup_(base_freep) struct base *base = random_base(&cases[c].shape, SEED + c);
		_cleanup_(vit_freep) struct vit *vit = random_vit(base);
		_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
		_cleanup_(slot_freep) struct slot *slot = NULL;
		_cleanup_(freep) float *got = calloc((size_t)cases[c].batch * width, sizeof(float));
		_cleanup_(freep) float *want = calloc(width, sizeof(float));

		assert_int_equal(vit_plan_new(&plan, vit, cases[c].batch, px, PRECISION_F32), 0);
		assert_int_equal(vit_slot_new(&slot, vit, SLOT_INFER), 0);
		random_pixels(vit_plan_input(plan), cases[c].batch * n_pixels, SEED + c);
		assert_int_equal(vit_forward(plan, slot, got), 0);
		for (uint32_t b = 0; b < cases[c].batch; b++) {
			double off;

			assert_int_equal(vit_reference(vit, NULL,
						 vit_plan_input(plan) + b * n_pixels, px, want),
				0);
			off = relative_difference(got + (size_t)b * width, want, width);
			if (!(off <= 1e-5))
				fail_msg("case %zu image %u: off by %g", c, b, off);
		}
	}
}

static void no_slow_implementation_is_chosen_for_a_real_model(void **state)
{
	static const char *const names[] = { "vit_t", "vit_s", "vit_b", "vit_demo" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_(base_freep) struct base *base = NULL;
		_cleanup_(vit_freep) struct vit *vit = NULL;
		_cleanup_(vit_plan_freep) struct vit_plan *one = NULL, *many = NULL;
		struct vit_shape shape;

		assert_int_equal(random_vit_shape(&shape, names[i]), 0);
		shape.depth = 2;
		shape.n_classes = 0;
		base = random_base(&shape, SEED);
		vit = random_vit(base);
		assert_int_equal(vit_plan_new(&one, vit, 1, 224, PRECISION_F32), 0);
		assert_int_equal(vit_plan_new(&many, vit, 8, 112, PRECISION_F32), 0);
		assert_int_equal(onednn_n_slow(vit->onednn), 0);
	}
}

static void a_forward_keeps_no_memory(void **state)
{
	_cleanup_(base_freep) struct base *base = random_base(&small, SEED);
	_cleanup_(vit_freep) struct vit *vit = random_vit(base);
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	float embedding[32];
	size_t before;

	(void)state;
	assert_int_equal(vit_plan_new(&plan, vit, 1, 32, PRECISION_F32), 0);
	assert_int_equal(vit_slot_new(&slot, vit, SLOT_INFER), 0);
	random_pixels(vit_plan_input(plan), (size_t)3 * 32 * 32, SEED);
	/* What every thread's first turns leave in malloc's own cache counts as used: in the first five
	 * passes where others keep the threads waiting, and in none of 20000 after them. */
	for (int i = 0; i < 50; i++)
		assert_int_equal(vit_forward(plan, slot, embedding), 0);
	before = mallinfo2().uordblks;
	for (int i = 0; i < 200; i++)
		assert_int_equal(vit_forward(plan, slot, embedding), 0);
	assert_true(mallinfo2().uordblks < before + 100 * sizeof(void *));
}

static void a_size_that_the_patch_does_not_divide_is_refused(void **state)
{
	_cleanup_(base_freep) struct base *base = random_base(&small, SEED);
	_cleanup_(vit_freep) struct vit *vit = random_vit(base);
	struct vit_plan *plan;

	(void)state;
	assert_int_equal(vit_plan_new(&plan, vit, 1, 33, PRECISION_F32), -EINVAL);
	assert_int_equal(vit_plan_new(&plan, vit, 1, 0, PRECISION_F32), -EINVAL);
	assert_int_equal(vit_plan_new(&plan, vit, 0, 32, PRECISION_F32), -EINVAL);
	assert_int_equal(vit_plan_new(&plan, vit, UINT32_MAX, 32, PRECISION_F32), -EINVAL);
	assert_int_equal(vit_plan_new(&plan, vit, 1, UINT32_MAX - 7, PRECISION_F32), -EINVAL);
}

/* A copy of the base's tensors with one of them changed, dropped (n_dims 0) or added. */
static struct base *base_but(
	const struct base *base, const struct tensor_out *change, const char *const *metadata)
{
	const struct safetensors *st = base_tensors(base);
	struct tensor_out tensors[64];
	_cleanup_(freep) void *data = NULL;
	bool found = false;
	struct base *changed;
	size_t n = 0, n_bytes;

	for (size_t i = 0; i < safetensors_count(st); i++) {
		const struct tensor *t = safetensors_at(st, i);

		if (change && strcmp(t->name, change->name) == 0) {
			found = true;
			if (change->n_dims)
				tensors[n++] = *change;
			continue;
		}
		tensors[n] = (struct tensor_out){ t->name, t->n_dims, { 0 }, t->data };
		memcpy(tensors[n++].dims, t->dims, sizeof(t->dims));
	}
	if (change && !found)
		tensors[n++] = *change;
	assert_int_equal(safetensors_encode(tensors, n, metadata, &data, &n_bytes), 0);
	assert_int_equal(base_from_fd(&changed, sealed_memfd(data, n_bytes), NULL), 0);
	return changed;
}

static void what_is_not_this_vit_is_refused_by_name(void **state)
{
	static const float values[32 * 192];
	static const struct {
		struct tensor_out change;
		int error;
		const char *text;
	} wrong[] = {
		{ { "blocks.1.norm2.bias", 0, { 0 }, NULL }, -EBADMSG,
			"tensor blocks.1.norm2.bias: missing" },
		{ { "blocks.0.attn.qkv.weight", 2, { 32, 32 }, values }, -EBADMSG,
			"tensor blocks.0.attn.qkv.weight: shape (32, 32), expected (96, 32)" },
		{ { "pos_embed", 3, { 1, 16, 32 }, values }, -EBADMSG,
			"tensor pos_embed: not 1 + a square of tokens" },
		{ { "patch_embed.proj.weight", 2, { 32, 192 }, values }, -EBADMSG,
			"tensor patch_embed.proj.weight: shape" },
		{ { "dist_token", 3, { 1, 1, 32 }, values }, -EOPNOTSUPP,
			"tensor dist_token: not part of a plain ViT" },
		{ { "cls_token", 0, { 0 }, NULL }, -EOPNOTSUPP,
			"no known family: not the tensors of a ViT" },
		{ { "head.bias", 1, { 4 }, values }, -EBADMSG,
			"tensor head.bias: shape (4), expected (5)" },
	};
	_cleanup_(base_freep) struct base *base = random_base(&small, SEED);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		_cleanup_(base_freep) struct base *changed = base_but(
			base, &wrong[i].change, (const char *[]){ "num_heads", "2", NULL });
		struct diag diag = { "" };
		struct vit *vit = NULL;

		assert_int_equal(vit_new(&vit, changed, NULL, &diag), wrong[i].error);
		assert_string_equal(diag.text, wrong[i].text);
	}
}

static void heads_that_do_not_divide_the_width_are_refused(void **state)
{
	static const char *const bad[] = { "3", "0", "-2", "x", "2x", "" };
	_cleanup_(base_freep) struct base *base = random_base(&small, SEED);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_(base_freep) struct base *changed =
			base_but(base, NULL, (const char *[]){ "num_heads", bad[i], NULL });
		struct vit *vit;

		assert_int_equal(vit_new(&vit, changed, "vit", NULL), -EBADMSG);
	}
	assert_int_equal(vit_new(&(struct vit *){ NULL }, base, "resnet", NULL), -EOPNOTSUPP);
}

static void preprocessing_comes_from_the_file_where_it_makes_sense(void **state)
{
	static const char *const metadata[] = { "num_heads", "2", "input_size", "48", "crop_pct",
		"0.75", "crop_mode", "squash", "mean", "[0.485, 0.456, 0.406]", "std", "0.2 0 0.2",
		NULL };
	_cleanup_(base_freep) struct base *base = random_base(&small, SEED);
	_cleanup_(base_freep) struct base *changed = base_but(base, NULL, metadata);
	_cleanup_(vit_freep) struct vit *plain = random_vit(base);
	_cleanup_(vit_freep) struct vit *vit = random_vit(changed);
	struct prep prep = vit_native_prep(plain);

	(void)state;
	assert_int_equal(prep.input_px, 32);
	assert_int_equal(prep.resize, PREP_CROP);
	assert_true(prep.crop == 224.F / 248.F && prep.mean[2] == .5F && prep.std[0] == .5F);
	prep = vit_native_prep(vit);
	assert_int_equal(prep.input_px, 48);
	assert_int_equal(prep.resize, PREP_SQUASH);
	assert_true(prep.crop == .75F && prep.mean[1] == .456F);
	assert_true(prep.std[0] == .5F);
}

static void the_layout_lists_every_maskable_tensor_in_order(void **state)
{
	static const char *const names[] = { "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight",
		"attn.proj.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight",
		"mlp.fc2.bias" };
	_cleanup_(base_freep) struct base *base = random_base(&small, SEED);
	_cleanup_(vit_freep) struct vit *vit = random_vit(base);
	const struct mask_layout *layout = vit_layout(vit);
	char name[64];

	(void)state;
	assert_int_equal(layout->n_tensors, 16);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct tensor *tensor;

		(void)snprintf(name, sizeof(name), "blocks.%u.%s", t / 8, names[t % 8]);
		assert_string_equal(layout->tensors[t].name, name);
		tensor = safetensors_find(base_tensors(base), name);
		assert_int_equal(layout->tensors[t].n, tensor->n_elements);
		assert_memory_equal(vit_weights(vit)[t], tensor->data, tensor->n_bytes);
	}
}

static void the_self_test_passes(void **state)
{
	_cleanup_(base_freep) struct base *base = random_base(&small, SEED);
	_cleanup_(vit_freep) struct vit *vit = random_vit(base);

	(void)state;
	assert_int_equal(vit_selftest(vit, PRECISION_F32, NULL), 0);
	for (enum precision p = PRECISION_F32 + 1; p < N_PRECISIONS; p++)
		if (vit_has(vit, p))
			assert_int_equal(vit_selftest(vit, p, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_plan_agrees_with_the_reference),
		cmocka_unit_test(no_slow_implementation_is_chosen_for_a_real_model),
		cmocka_unit_test(a_forward_keeps_no_memory),
		cmocka_unit_test(a_size_that_the_patch_does_not_divide_is_refused),
		cmocka_unit_test(what_is_not_this_vit_is_refused_by_name),
		cmocka_unit_test(heads_that_do_not_divide_the_width_are_refused),
		cmocka_unit_test(preprocessing_comes_from_the_file_where_it_makes_sense),
		cmocka_unit_test(the_layout_lists_every_maskable_tensor_in_order),
		cmocka_unit_test(the_self_test_passes),
	};

	print_message("seed %d\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
