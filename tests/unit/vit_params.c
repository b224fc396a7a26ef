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
#include "model/sincos.h"
#include "model/vit_internal.h"
#include "model/vit_params.h"

#define SEED 77u

enum { BATCH = 2, PX = 32, WIDTH = 24 };

static const struct vit_shape shape = {
	.width = WIDTH,
	.depth = 2,
	.n_heads = 3,
	.mlp = 40,
	.patch = 8,
	.grid = 4,
};

/* Values that no tensor has by itself. */
static float *random_values(const struct params *params, uint64_t seed)
{
	float *values = malloc(params->n_values * sizeof(*values));
	struct rng rng = rng_stream(seed, 0, 0, 0);

	assert_non_null(values);
	for (size_t i = 0; i < params->n_values; i++)
		values[i] = .2f * rng_normal(&rng);
	return values;
}

static void embed(struct vit *vit, struct slot *slot, float *embeddings)
{
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;

	assert_int_equal(vit_plan_new(&plan, vit, BATCH, PX, PRECISION_F32), 0);
	random_pixels(vit_plan_input(plan), (size_t)BATCH * 3 * PX * PX, SEED);
	assert_int_equal(vit_forward(plan, slot, embeddings), 0);
}

static struct vit *vit_of_file(struct base **ret_base, const struct params *params,
	const float *values, const struct prep *prep)
{
	_cleanup_(freep) void *data = NULL;
	struct diag diag = { "" };
	size_t n_bytes;

	assert_int_equal(vit_params_encode(params, &shape, values, prep, &data, &n_bytes), 0);
	if (base_from_fd(ret_base, sealed_memfd(data, n_bytes), &diag) < 0)
		fail_msg("%s", diag.text);
	return random_vit(*ret_base);
}

static void what_is_written_is_read_as_the_same_model(void **state)
{
	const struct prep prep = {
		.input_px = 40,
		.resize = PREP_SQUASH,
		.crop = .7f,
		.mean = { .1f, .2f, .3f },
		.std = { .4f, .5f, .6f },
	};
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *values = NULL;
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL, *read = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL, *read_slot = NULL;
	float got[BATCH * WIDTH], want[BATCH * WIDTH];
	struct prep native;
	struct diag diag = { "" };

	(void)state;
	assert_int_equal(vit_params_new(&params, &shape, false), 0);
	values = random_values(params, SEED);
	assert_int_equal(vit_over(&vit, &shape, false, values, &diag), 0);
	assert_ptr_not_equal(vit_params(vit), NULL);
	read = vit_of_file(&base, params, values, &prep);
	assert_null(vit_params(read));
	assert_int_equal(vit_load(read, values), -EINVAL);
	assert_int_equal(vit_slot_new(&slot, vit, SLOT_INFER), 0);
	assert_int_equal(vit_slot_new(&read_slot, read, SLOT_INFER), 0);
	embed(vit, slot, got);
	embed(read, read_slot, want);
	assert_memory_equal(got, want, sizeof(got));
	native = vit_native_prep(read);
	assert_true(native.input_px == 40 && native.resize == PREP_SQUASH && native.crop == .7f);
	assert_memory_equal(native.mean, prep.mean, sizeof(prep.mean));
	assert_memory_equal(native.std, prep.std, sizeof(prep.std));
}

static void a_frozen_model_gives_its_values_to_go_on_from(void **state)
{
	_cleanup_(params_freep) struct params *params = NULL, *others = NULL;
	_cleanup_(freep) float *values = NULL, *taken = NULL;
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	const struct prep prep = { .input_px = PX, .crop = 1, .std = { 1, 1, 1 } };
	struct vit_shape deeper = shape;

	(void)state;
	deeper.depth++;
	assert_int_equal(vit_params_new(&params, &shape, false), 0);
	assert_int_equal(vit_params_new(&others, &deeper, false), 0);
	values = random_values(params, SEED);
	taken = calloc(others->n_values, sizeof(*taken));
	vit = vit_of_file(&base, params, values, &prep);
	assert_int_equal(vit_params_take(params, vit, taken), 0);
	assert_memory_equal(taken, values, params->n_values * sizeof(*values));
	assert_int_equal(vit_params_take(others, vit, taken), -EINVAL);
}

static void other_values_make_another_model(void **state)
{
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *first = NULL, *second = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL, *other = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL, *other_slot = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	float got[BATCH * WIDTH], want[BATCH * WIDTH];
	struct diag diag = { "" };

	(void)state;
	assert_int_equal(vit_params_new(&params, &shape, false), 0);
	first = random_values(params, SEED);
	second = random_values(params, SEED + 1);
	assert_int_equal(vit_over(&vit, &shape, false, first, &diag), 0);
	assert_int_equal(vit_over(&other, &shape, false, second, &diag), 0);
	assert_false(digest_equal(vit_digest(vit), vit_digest(other)));
	mask = random_mask(vit_layout(vit), SEED, .9f);
	assert_int_equal(vit_slot_new(&slot, vit, SLOT_LEARN), 0);
	assert_int_equal(slot_apply(slot, mask), 0);
	assert_int_equal(vit_load(vit, second), 0);
	assert_int_equal(slot_reload(slot, NULL), 0);
	assert_int_equal(vit_slot_new(&other_slot, other, SLOT_LEARN), 0);
	embed(vit, slot, got);
	embed(other, other_slot, want);
	assert_memory_equal(got, want, sizeof(got));
	/* With the mask, too, and in place from there on. */
	assert_int_equal(slot_reload(slot, mask), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	embed(vit, slot, got);
	assert_memory_equal(got, want, sizeof(got));
}

static void the_list_begins_as_the_mask_layout(void **state)
{
	const char *const fixed[] = { "cls_token", "pos_embed", "blocks.1.norm2.weight",
		"norm.bias", "blocks.0.mlp.fc1.bias" };
	_cleanup_(freep) float *values = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(params_freep) struct params *params = NULL, *bare = NULL;
	struct vit_shape blocks = shape;
	const struct mask_layout *layout;
	struct diag diag = { "" };

	(void)state;
	assert_int_equal(vit_params_new(&params, &shape, true), 0);
	values = random_values(params, SEED);
	assert_int_equal(vit_over(&vit, &shape, true, values, &diag), 0);
	layout = vit_layout(vit);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		assert_string_equal(layout->tensors[t].name, params->tensors[t].name);
		assert_int_equal(layout->tensors[t].offset, params->tensors[t].offset);
		assert_int_equal(layout->tensors[t].n, params->tensors[t].n);
	}
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		assert_false(params_find(params, fixed[i])->decays);
	assert_true(params_find(params, "patch_embed.proj.weight")->decays);
	assert_true(params_find(params, "pos_embed")->is_fixed);
	blocks.patch = 0;
	assert_int_equal(vit_params_new(&bare, &blocks, false), 0);
	assert_null(params_find(bare, "cls_token"));
	assert_non_null(params_find(bare, "norm.weight"));
	blocks.n_heads = 5;
	assert_int_equal(vit_params_new(&bare, &blocks, false), -EINVAL);
}

static void starts_are_what_they_say(void **state)
{
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *values = NULL, *positions = NULL;
	const struct param *qkv, *pos;

	(void)state;
	assert_int_equal(vit_params_new(&params, &shape, true), 0);
	values = random_values(params, SEED);
	positions = malloc((size_t)17 * WIDTH * sizeof(*positions));
	vit_params_start(params, &shape, values, VIT_START_XAVIER, SEED);
	assert_true(values[params_find(params, "norm.weight")->offset + 3] == 1);
	assert_true(values[params_find(params, "blocks.1.norm1.weight")->offset] == 1);
	assert_true(values[params_find(params, "norm.bias")->offset] == 0);
	assert_true(values[params_find(params, "blocks.0.attn.qkv.bias")->offset] == 0);
	assert_true(fabsf(values[params_find(params, "cls_token")->offset]) <= .04f);
	qkv = params_find(params, "blocks.0.attn.qkv.weight");
	for (size_t i = 0; i < qkv->n; i++)
		assert_true(fabsf(values[qkv->offset + i]) <= .25f);
	pos = params_find(params, "pos_embed");
	sincos_positions(positions, WIDTH, 4);
	assert_memory_equal(values + pos->offset, positions, pos->n * sizeof(float));
}

/* The formula once more in numpy: tests/golden/sincos.py. */
static void fixed_positions_equal_the_golden(void **state)
{
	struct golden golden = { 0 };
	float positions[17 * WIDTH];
	const float *want;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/sincos.f32"), 0);
	sincos_positions(positions, WIDTH, 4);
	want = golden_take(&golden, ARRAY_SIZE(positions));
	assert_non_null(want);
	for (size_t i = 0; i < ARRAY_SIZE(positions); i++)
		assert_true(fabsf(positions[i] - want[i]) < 1e-6f);
	golden_done(&golden);
}

/* A model of a file, its class token behind the first block. */
static struct vit *late_vit(struct base **ret_base)
{
	const struct prep prep = { .input_px = PX, .crop = 1, .std = { 1, 1, 1 } };
	struct vit_shape late = shape;
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *values = NULL;
	_cleanup_(freep) void *data = NULL;
	struct diag diag = { "" };
	size_t n_bytes;

	late.class_block = 1;
	assert_int_equal(vit_params_new(&params, &late, false), 0);
	values = random_values(params, SEED);
	assert_int_equal(vit_params_encode(params, &late, values, &prep, &data, &n_bytes), 0);
	if (base_from_fd(ret_base, sealed_memfd(data, n_bytes), &diag) < 0)
		fail_msg("%s", diag.text);
	return random_vit(*ret_base);
}

static double cosine(const float *a, const float *b, size_t n)
{
	double dot = 0, aa = 0, bb = 0;

	for (size_t i = 0; i < n; i++) {
		dot += (double)a[i] * b[i];
		aa += (double)a[i] * a[i];
		bb += (double)b[i] * b[i];
	}
	return dot / sqrt(aa * bb);
}

static void check_late(struct vit *vit, enum precision precision, uint32_t px, double least)
{
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(mask_freep) struct mask *mask = random_mask(vit_layout(vit), SEED, .9f);
	float got[BATCH * WIDTH], want[WIDTH];

	assert_int_equal(vit_slot_new(&slot, vit, slot_use_in(SLOT_INFER, precision)), 0);
	assert_int_equal(slot_apply(slot, mask), 0);
	assert_int_equal(vit_plan_new(&plan, vit, BATCH, px, precision), 0);
	/* The second time finds what the first one left in every buffer. */
	for (uint64_t seed = 1; seed <= 2; seed++) {
		random_pixels(vit_plan_input(plan), (size_t)BATCH * 3 * px * px, seed);
		assert_int_equal(vit_forward(plan, slot, got), 0);
		for (uint32_t i = 0; i < BATCH; i++) {
			const float *pixels = vit_plan_input(plan) + (size_t)i * 3 * px * px;

			assert_int_equal(vit_reference(vit, mask, pixels, px, want), 0);
			assert_true(cosine(got + i * WIDTH, want, WIDTH) > least);
		}
	}
}

static void a_late_class_token_is_served_as_the_twin_says(void **state)
{
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = late_vit(&base);
	struct diag diag = { "" };

	(void)state;
	assert_int_equal(vit_shape(vit)->class_block, 1);
	for (uint32_t px = 24; px <= 48; px += 8) {
		check_late(vit, PRECISION_F32, px, 1 - 1e-9);
		if (vit_has(vit, PRECISION_BF16))
			check_late(vit, PRECISION_BF16, px, .999);
		if (vit_has(vit, PRECISION_INT8))
			check_late(vit, PRECISION_INT8, px, .99);
	}
	if (vit_selftest(vit, PRECISION_F32, &diag) < 0)
		fail_msg("%s", diag.text);
}

static void all_tokens_and_pooled_features_know_it_too(void **state)
{
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = late_vit(&base);
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	const struct vit_plan_options options = { BATCH, PX, PRECISION_F32, true, true };
	enum { T = 17 };
	float class_tokens[BATCH * WIDTH], tokens[BATCH * T * WIDTH];
	double twin[T * WIDTH];
	uint32_t n;

	(void)state;
	assert_int_equal(vit_slot_new(&slot, vit, SLOT_INFER), 0);
	assert_int_equal(vit_plan_open(&plan, vit, &options), 0);
	random_pixels(vit_plan_input(plan), (size_t)BATCH * 3 * PX * PX, SEED);
	assert_int_equal(vit_forward(plan, slot, class_tokens), 0);
	memcpy(tokens, vit_plan_tokens(plan), sizeof(tokens));
	assert_int_equal(vit_reference_enter(vit, vit_plan_input(plan), PX, twin, &n), 0);
	assert_int_equal(vit_reference_run(vit, NULL, NULL, twin, n), 0);
	for (int i = 0; i < T * WIDTH; i++)
		assert_true(fabs(tokens[i] - twin[i]) < 1e-4);
}

static void a_class_token_behind_all_blocks_is_refused(void **state)
{
	const struct {
		const char *text;
		int r;
	} cases[] = {
		{ "1", 0 },
		{ "2", -EBADMSG },
		{ "x", -EBADMSG },
		{ "", -EBADMSG },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *metadata[] = { "num_heads", "3", "class_block", cases[i].text, NULL };
		_cleanup_(params_freep) struct params *params = NULL;
		_cleanup_(freep) float *values = NULL;
		_cleanup_(freep) void *data = NULL;
		_cleanup_(base_freep) struct base *base = NULL;
		_cleanup_(vit_freep) struct vit *vit = NULL;
		struct vit_shape late = shape;
		struct diag diag = { "" };
		size_t n_bytes;

		late.class_block = 1;
		assert_int_equal(vit_params_new(&params, &late, false), 0);
		values = random_values(params, SEED);
		assert_int_equal(params_encode(params, values, metadata, &data, &n_bytes), 0);
		assert_int_equal(base_from_fd(&base, sealed_memfd(data, n_bytes), &diag), 0);
		assert_int_equal(vit_new(&vit, base, NULL, &diag), cases[i].r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_as_the_same_model),
		cmocka_unit_test(a_frozen_model_gives_its_values_to_go_on_from),
		cmocka_unit_test(other_values_make_another_model),
		cmocka_unit_test(the_list_begins_as_the_mask_layout),
		cmocka_unit_test(starts_are_what_they_say),
		cmocka_unit_test(fixed_positions_equal_the_golden),
		cmocka_unit_test(a_late_class_token_is_served_as_the_twin_says),
		cmocka_unit_test(all_tokens_and_pooled_features_know_it_too),
		cmocka_unit_test(a_class_token_behind_all_blocks_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
