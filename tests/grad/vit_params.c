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
#include "model/vit_internal.h"
#include "model/vit_params.h"

/*
 * A model that is learnt: gradients of a weighted sum of the outputs for every value, against central
 * differences of the plain C twin in double, along a random direction of each tensor, and against
 * PyTorch's.
 */
#define SEED 915
#define TOLERANCE 1e-4 /* of the tensor's gradient, or a hundredth of the largest one */
#define STEP 1e-3

enum { BATCH = 3, WIDTH = 24, MAX_PATCHES = 16, MAX_PX = 32, N_KEPT = 4 };

static const struct vit_shape shape = {
	.width = WIDTH,
	.depth = 2,
	.n_heads = 3,
	.mlp = 40,
	.patch = 8,
	.grid = 4,
};

/* The class token enters before the second of three. */
static const struct vit_shape late_shape = {
	.width = WIDTH,
	.depth = 3,
	.n_heads = 3,
	.mlp = 40,
	.patch = 8,
	.grid = 4,
	.class_block = 1,
};

struct way {
	const char *name;
	uint32_t px;
	bool kept, replaced, all_out;
};

static const struct way ways[] = {
	{ "class token", 32, false, false, false },
	{ "all out", 32, false, false, true },
	{ "another size", 24, false, false, true },
	{ "kept", 32, true, false, true },
	{ "replaced", 32, false, true, true },
	{ "kept and replaced", 24, true, true, false },
};

struct model {
	struct params *params;
	struct vit *vit;
	struct slot *slot;
	float *values, *grad;
	float pixels[BATCH * 3 * MAX_PX * MAX_PX];
	float weight[BATCH * (1 + MAX_PATCHES) * WIDTH];
	uint32_t kept[BATCH * N_KEPT];
	bool replaced[BATCH * MAX_PATCHES];
	float vector[WIDTH];
};

static struct model *model_of(const struct vit_shape *model_shape)
{
	struct model *model = calloc(1, sizeof(*model));
	struct rng rng = rng_stream(SEED, 0, 0, 0);
	struct diag diag = { "" };

	assert_int_equal(vit_params_new(&model->params, model_shape, false), 0);
	model->values = calloc(model->params->n_values, sizeof(float));
	model->grad = calloc(model->params->n_values, sizeof(float));
	vit_params_start(model->params, model_shape, model->values, VIT_START_XAVIER, SEED);
	for (size_t i = 0; i < model->params->n_values; i++)
		model->values[i] += .05f * rng_normal(&rng);
	random_pixels(model->pixels, ARRAY_SIZE(model->pixels), SEED);
	random_pixels(model->weight, ARRAY_SIZE(model->weight), SEED + 1);
	random_pixels(model->vector, ARRAY_SIZE(model->vector), SEED + 2);
	for (int i = 0; i < BATCH; i++) {
		uint32_t order[9];

		rng_permutation(&rng, order, 9);
		memcpy(model->kept + i * N_KEPT, order, N_KEPT * sizeof(*order));
	}
	for (int i = 0; i < BATCH * MAX_PATCHES; i++)
		model->replaced[i] = rng_below(&rng, 2);
	assert_int_equal(vit_over(&model->vit, model_shape, false, model->values, &diag), 0);
	assert_int_equal(vit_slot_new(&model->slot, model->vit, SLOT_LEARN), 0);
	return model;
}

static int setup(void **state)
{
	*state = model_of(&shape);
	return 0;
}

static void model_free(struct model *model)
{
	slot_free(model->slot);
	vit_free(model->vit);
	params_free(model->params);
	free(model->values);
	free(model->grad);
	free(model);
}

static int teardown(void **state)
{
	model_free(*state);
	return 0;
}

static uint32_t n_patches(const struct way *way)
{
	return (way->px / shape.patch) * (way->px / shape.patch);
}

static uint32_t n_tokens(const struct way *way)
{
	return 1 + (way->kept ? N_KEPT : n_patches(way));
}

/* The twin's entry of one image: (T', D). */
static void enter(const struct model *model, const struct way *way, uint32_t image, double *tokens)
{
	const size_t n_pixels = (size_t)3 * way->px * way->px, row = WIDTH * sizeof(double);
	double all[(1 + MAX_PATCHES) * WIDTH];
	float positions[(1 + MAX_PATCHES) * WIDTH];
	uint32_t n;

	assert_int_equal(
		vit_reference_enter(model->vit, model->pixels + image * n_pixels, way->px, all, &n),
		0);
	vit_positions(model->vit, way->px / shape.patch, positions);
	for (uint32_t t = 0; way->replaced && t < n_patches(way); t++)
		for (uint32_t d = 0; model->replaced[image * n_patches(way) + t] && d < WIDTH; d++)
			all[(1 + t) * WIDTH + d] =
				(double)model->vector[d] + positions[(1 + t) * WIDTH + d];
	memcpy(tokens, all, way->kept ? row : n * row);
	for (uint32_t t = 0; way->kept && t < N_KEPT; t++)
		memcpy(tokens + (1 + t) * WIDTH,
			all + (1 + model->kept[image * N_KEPT + t]) * WIDTH, row);
}

/* Of `values` moved by STEP along direction, in one tensor; what it was moved by in fact to moved. */
static double loss(const struct model *model, const struct way *way, const struct param *param,
	const float *direction, double step, double *moved)
{
	_cleanup_(freep) float *values = malloc(model->params->n_values * sizeof(*values));
	const uint32_t n = n_tokens(way), n_out = way->all_out ? n : 1;
	double tokens[(1 + MAX_PATCHES) * WIDTH], sum = 0;

	memcpy(values, model->values, model->params->n_values * sizeof(*values));
	for (size_t i = 0; i < param->n; i++) {
		values[param->offset + i] += (float)step * direction[i];
		moved[i] = values[param->offset + i];
	}
	assert_int_equal(vit_load(model->vit, values), 0);
	for (uint32_t image = 0; image < BATCH; image++) {
		enter(model, way, image, tokens);
		assert_int_equal(vit_reference_run(model->vit, NULL, NULL, tokens, n), 0);
		for (uint32_t i = 0; i < n_out * WIDTH; i++)
			sum += tokens[i] * model->weight[image * n_out * WIDTH + i];
	}
	return sum;
}

static void learn(struct model *model, const struct way *way)
{
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	float out[BATCH * (1 + MAX_PATCHES) * WIDTH];

	assert_int_equal(vit_load(model->vit, model->values), 0);
	assert_int_equal(slot_reload(model->slot, NULL), 0);
	assert_int_equal(vit_tape_open(&tape, model->vit,
				 &(struct vit_tape_options){
					 .batch = BATCH,
					 .px = way->px,
					 .n_kept = way->kept ? N_KEPT : 0,
					 .all_out = way->all_out,
				 }),
		0);
	memcpy(vit_tape_input(tape), model->pixels,
		(size_t)BATCH * 3 * way->px * way->px * sizeof(float));
	if (way->kept)
		memcpy(vit_tape_kept(tape), model->kept, sizeof(model->kept));
	if (way->replaced)
		vit_tape_replace(tape, model->replaced, model->vector);
	memset(model->grad, 0, model->params->n_values * sizeof(float));
	assert_int_equal(vit_tape_forward(tape, model->slot, out), 0);
	assert_int_equal(vit_tape_backward(tape, model->slot, model->weight, model->grad, NULL), 0);
}

static double check_tensor(
	const struct model *model, const struct way *way, const struct param *param, double largest)
{
	_cleanup_(freep) float *direction = malloc(param->n * sizeof(*direction));
	_cleanup_(freep) double *up = malloc(param->n * sizeof(*up));
	_cleanup_(freep) double *down = malloc(param->n * sizeof(*down));
	struct rng rng = rng_stream(SEED, (uint32_t)param->offset, 7, 0);
	const float *grad = model->grad + param->offset;
	double got = 0, norm = 0, want, error;

	for (size_t i = 0; i < param->n; i++) {
		direction[i] = rng_normal(&rng) / sqrtf((float)param->n);
		norm += (double)grad[i] * grad[i];
	}
	want = loss(model, way, param, direction, STEP, up);
	want -= loss(model, way, param, direction, -STEP, down);
	for (size_t i = 0; i < param->n; i++)
		got += grad[i] * (up[i] - down[i]);
	/* A direction of length 1 sees about norm / sqrt(n) of it. */
	error = fabs(got - want) / (2 * STEP) / fmax(sqrt(norm / (double)param->n), largest / 100);
	if (!(error < TOLERANCE))
		fail_msg("%s, %s: off by %g: %g, %g", way->name, param->name, error, got, want);
	return error;
}

static void check_way(struct model *model, const struct way *way)
{
	double worst = 0, largest = 0;

	learn(model, way);
	for (size_t i = 0; i < model->params->n_values; i++)
		largest = fmax(largest, fabs((double)model->grad[i]));
	for (unsigned t = 0; t < model->params->n_tensors; t++) {
		const struct param *param = &model->params->tensors[t];

		worst = fmax(worst, check_tensor(model, way, param, largest));
	}
	print_message("%s: %g\n", way->name, worst);
}

static void every_value_has_its_gradient(void **state)
{
	for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
		check_way(*state, &ways[w]);
}

static void so_it_has_where_the_class_token_is_late(void **state)
{
	struct model *model = model_of(&late_shape);

	(void)state;
	/* The twin knows no places of patches that are left out. */
	for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
		if (!ways[w].kept)
			check_way(model, &ways[w]);
	model_free(model);
}

/* Every patch kept is no patch left out. */
static void a_late_class_token_finds_the_places_of_what_is_kept(void **state)
{
	const struct vit_tape_options options[] = {
		{ .batch = BATCH, .px = 32 },
		{ .batch = BATCH, .px = 32, .n_kept = 16 },
		{ .batch = BATCH, .px = 32, .n_kept = 16, .forward_only = true },
	};
	struct model *model = model_of(&late_shape);
	float out[3][BATCH * WIDTH];

	(void)state;
	for (int i = 0; i < 3; i++) {
		_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;

		assert_int_equal(vit_tape_open(&tape, model->vit, &options[i]), 0);
		memcpy(vit_tape_input(tape), model->pixels, sizeof(model->pixels));
		for (uint32_t k = 0; i > 0 && k < BATCH * 16; k++)
			vit_tape_kept(tape)[k] = (k * 5 + k / 16) % 16;
		assert_int_equal(vit_tape_forward(tape, model->slot, out[i]), 0);
		assert_true(relative_difference(out[i], out[0], BATCH * WIDTH) < 1e-5);
	}
	model_free(model);
}

static void what_entered_by_a_vector_teaches_no_patches(void **state)
{
	const struct way way = { "all replaced", 32, false, true, true };
	struct model *model = *state;
	const struct param *weight = params_find(model->params, "patch_embed.proj.weight");
	const struct param *positions = params_find(model->params, "pos_embed");
	bool kept[BATCH * MAX_PATCHES];

	memcpy(kept, model->replaced, sizeof(kept));
	memset(model->replaced, true, sizeof(model->replaced));
	learn(model, &way);
	memcpy(model->replaced, kept, sizeof(kept));
	for (size_t i = 0; i < weight->n; i++)
		assert_true(model->grad[weight->offset + i] == 0);
	assert_true(model->grad[positions->offset + WIDTH] != 0);
}

static void the_way_back_ends_where_it_is_told(void **state)
{
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	struct model *model = *state;
	const struct params *params = model->params;
	float out[BATCH * WIDTH];

	learn(model, &ways[0]);
	assert_int_equal(vit_tape_open(&tape, model->vit,
				 &(struct vit_tape_options){ .batch = BATCH, .px = 32 }),
		0);
	memcpy(vit_tape_input(tape), model->pixels, sizeof(model->pixels));
	vit_tape_end_at(tape, 1);
	memset(model->grad, 0, params->n_values * sizeof(float));
	assert_int_equal(vit_tape_forward(tape, model->slot, out), 0);
	assert_int_equal(vit_tape_backward(tape, model->slot, model->weight, model->grad, NULL), 0);
	for (unsigned t = 0; t < params->n_tensors; t++) {
		const struct param *param = &params->tensors[t];
		bool above = strncmp(param->name, "blocks.1.", 9) == 0 ||
			     strncmp(param->name, "norm.", 5) == 0;

		assert_true((model->grad[param->offset] != 0) == above);
	}
}

static void in_bf16_it_is_the_same_but_for_rounding(void **state)
{
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct model *model = *state;
	const size_t n = model->params->n_values;
	_cleanup_(freep) float *grad = NULL;
	float out[BATCH * (1 + MAX_PATCHES) * WIDTH];
	double dot = 0, a = 0, b = 0;

	if (!vit_has(model->vit, PRECISION_BF16))
		skip();
	grad = calloc(n, sizeof(*grad));
	learn(model, &ways[1]);
	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_LEARN | SLOT_BF16), 0);
	assert_int_equal(vit_tape_open(&tape, model->vit,
				 &(struct vit_tape_options){
					 .batch = BATCH,
					 .px = 32,
					 .all_out = true,
					 .precision = PRECISION_BF16,
				 }),
		0);
	memcpy(vit_tape_input(tape), model->pixels, sizeof(model->pixels));
	assert_int_equal(vit_tape_forward(tape, slot, out), 0);
	assert_int_equal(vit_tape_backward(tape, slot, model->weight, grad, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		dot += (double)grad[i] * model->grad[i];
		a += (double)grad[i] * grad[i];
		b += (double)model->grad[i] * model->grad[i];
	}
	assert_true(dot / sqrt(a * b) > .999);
	assert_true(fabs(sqrt(a / b) - 1) < .01);
}

/* kept: (N, n_kept), as learnt.py has them, or all patches. */
static void check_golden(
	const char *path, uint32_t class_block, const uint32_t *kept, uint32_t n_kept)
{
	enum { N = 2, SMALL = 8, T = 10, SIDE = 12 };
	const struct vit_shape small = {
		.width = SMALL,
		.depth = 2,
		.n_heads = 2,
		.mlp = 12,
		.patch = 4,
		.grid = 3,
		.class_block = class_block,
	};
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *grad = NULL;
	struct golden golden = { 0 };
	const float *values, *pixels, *weight;
	struct diag diag = { "" };
	float out[N * T * SMALL];
	const size_t n_pixels = (size_t)N * 3 * SIDE * SIDE;
	const size_t n_out = (size_t)N * (kept ? 1 + n_kept : T) * SMALL;
	const struct vit_tape_options options = {
		.batch = N, .px = SIDE, .n_kept = n_kept, .all_out = true
	};

	assert_int_equal(golden_open(&golden, path), 0);
	assert_int_equal(vit_params_new(&params, &small, false), 0);
	values = golden_take(&golden, params->n_values);
	pixels = golden_take(&golden, n_pixels);
	weight = golden_take(&golden, n_out);
	grad = calloc(params->n_values, sizeof(*grad));
	assert_int_equal(vit_over(&vit, &small, false, values, &diag), 0);
	assert_int_equal(vit_slot_new(&slot, vit, SLOT_LEARN), 0);
	assert_int_equal(vit_tape_open(&tape, vit, &options), 0);
	memcpy(vit_tape_input(tape), pixels, n_pixels * sizeof(float));
	if (kept)
		memcpy(vit_tape_kept(tape), kept, N * n_kept * sizeof(*kept));
	assert_int_equal(vit_tape_forward(tape, slot, out), 0);
	assert_int_equal(vit_tape_backward(tape, slot, weight, grad, NULL), 0);
	assert_true(relative_difference(out, golden_take(&golden, n_out), n_out) < 1e-5);
	for (unsigned t = 0; t < params->n_tensors; t++)
		assert_true(relative_difference(grad + params->tensors[t].offset,
				    golden_take(&golden, params->tensors[t].n),
				    params->tensors[t].n) < 1e-4);
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

static void values_and_gradients_equal_the_golden(void **state)
{
	(void)state;
	check_golden("tests/golden/learnt_vit.f32", 0, NULL, 0);
}

static void so_they_do_where_the_class_token_is_late(void **state)
{
	(void)state;
	check_golden("tests/golden/learnt_late.f32", 1, NULL, 0);
}

static void so_they_do_where_of_its_patches_some_are_kept(void **state)
{
	static const uint32_t kept[] = { 7, 0, 4, 2, 1, 8, 3, 5 };

	(void)state;
	check_golden("tests/golden/learnt_kept.f32", 1, kept, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_value_has_its_gradient),
		cmocka_unit_test(so_it_has_where_the_class_token_is_late),
		cmocka_unit_test(a_late_class_token_finds_the_places_of_what_is_kept),
		cmocka_unit_test(what_entered_by_a_vector_teaches_no_patches),
		cmocka_unit_test(the_way_back_ends_where_it_is_told),
		cmocka_unit_test(in_bf16_it_is_the_same_but_for_rounding),
		cmocka_unit_test(values_and_gradients_equal_the_golden),
		cmocka_unit_test(so_they_do_where_the_class_token_is_late),
		cmocka_unit_test(so_they_do_where_of_its_patches_some_are_kept),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
