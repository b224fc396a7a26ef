/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "golden/golden.h"
#include "learn/adamw.h"
#include "learn/optimiser.h"
#include "model/safetensors.h"

enum { N_MATRIX = 5 * 7, N_BIAS = 11, N = N_MATRIX + N_BIAS };

static struct params *two_tensors(void)
{
	struct params *params = NULL;

	assert_int_equal(params_new(&params), 0);
	assert_int_equal(params_add(params, "matrix", 2, (uint64_t[]){ 5, 7 }), 0);
	assert_int_equal(params_add(params, "bias", 1, (uint64_t[]){ N_BIAS }), 0);
	assert_int_equal(params->n_values, N);
	return params;
}

static void assert_close(const float *got, const float *want, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_true(fabsf(got[i] - want[i]) <= 1e-6f * (1 + fabsf(want[i])));
}

static void five_clipped_steps_equal_the_golden(void **state)
{
	_cleanup_(params_freep) struct params *params = two_tensors();
	struct golden golden = { 0 };
	float values[N], grad[N], first[N] = { 0 }, second[N] = { 0 };

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/adamw.f32"), 0);
	memcpy(values, golden_take(&golden, N), sizeof(values));
	for (uint32_t s = 1; s <= 5; s++) {
		const struct adamw adamw = { .9, .95, 1e-8, .02f, .3f, s };
		float length;

		memcpy(grad, golden_take(&golden, N), sizeof(grad));
		length = (float)adamw_clip(params, grad, 3);
		assert_close(&length, golden_take(&golden, 1), 1);
		adamw_step(&adamw, params, values, first, second, grad);
		assert_close(values, golden_take(&golden, N), N);
	}
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

static void what_is_fixed_stays_and_has_no_say(void **state)
{
	const struct adamw adamw = { .9, .999, 1e-8, .1f, .5f, 1 };
	_cleanup_(params_freep) struct params *params = two_tensors();
	float values[N], grad[N], first[N] = { 0 }, second[N] = { 0 };

	(void)state;
	params_find(params, "matrix")->is_fixed = true;
	for (unsigned i = 0; i < N; i++) {
		values[i] = 2;
		grad[i] = i < N_MATRIX ? 1e6f : .1f;
	}
	assert_true(fabs(adamw_clip(params, grad, 1) - .1 * sqrt(N_BIAS)) < 1e-6);
	assert_true(grad[N - 1] == .1f);
	adamw_step(&adamw, params, values, first, second, grad);
	assert_true(values[0] == 2 && values[N_MATRIX - 1] == 2);
	assert_true(fabsf(values[N_MATRIX] - 1.9f) < 1e-6f && fabsf(values[N - 1] - 1.9f) < 1e-6f);
}

static void a_teacher_moves_by_its_decay(void **state)
{
	float teacher[3] = { 1, 0, -4 };
	const float student[3] = { 2, 0, 4 };

	(void)state;
	ema_move(teacher, student, 3, .75f);
	assert_true(teacher[0] == 1.25f && teacher[1] == 0 && teacher[2] == -2);
	ema_move(teacher, student, 3, 1);
	assert_true(teacher[0] == 1.25f && teacher[2] == -2);
}

static void schedules_begin_and_end_where_they_say(void **state)
{
	(void)state;
	assert_true(fabsf(schedule_between(.04f, .4f, 0, 100) - .04f) < 1e-7f);
	assert_true(fabsf(schedule_between(.04f, .4f, 50, 100) - .22f) < 1e-7f);
	assert_true(fabsf(schedule_between(.04f, .4f, 100, 100) - .4f) < 1e-7f);
	assert_true(schedule_between(.996f, 1, 3, 8) > schedule_between(.996f, 1, 2, 8));
	assert_true(schedule_warm_to(1, .1f, 0, 100, 9) == .1f);
	assert_true(fabsf(schedule_warm_to(1, .1f, 9, 100, 9) - 1) < 1e-6f);
	assert_true(fabsf(schedule_warm_to(1, .1f, 100, 100, 9) - .1f) < 1e-6f);
	for (uint32_t s = 0; s < 100; s++)
		assert_true(fabsf(schedule_warm_to(1, 0, s, 100, 9) - schedule_warm(1, s, 100, 9)) <
			    1e-6f);
}

static void a_list_knows_names_and_places(void **state)
{
	_cleanup_(params_freep) struct params *params = two_tensors(), *outer = NULL;

	(void)state;
	assert_int_equal(params_add(params, "bias", 1, (uint64_t[]){ 3 }), -EEXIST);
	assert_int_equal(params_add(params, "none", 1, (uint64_t[]){ 0 }), -EINVAL);
	assert_int_equal(params_add(params, "far", 2, (uint64_t[]){ SIZE_MAX, 2 }), -EINVAL);
	params_find(params, "bias")->is_fixed = true;
	assert_int_equal(params_new(&outer), 0);
	assert_int_equal(params_add_norm(outer, "norm", 4), 0);
	assert_int_equal(params_append(outer, "inner", params), 0);
	assert_int_equal(outer->n_values, 8 + N);
	assert_null(params_find(outer, "matrix"));
	assert_int_equal(params_find(outer, "inner.matrix")->offset, 8);
	assert_true(params_find(outer, "inner.matrix")->decays);
	assert_false(params_find(outer, "norm.weight")->decays);
	assert_true(params_find(outer, "inner.bias")->is_fixed);
}

static void a_file_of_them_reads_back(void **state)
{
	_cleanup_(params_freep) struct params *params = two_tensors();
	_cleanup_(safetensors_freep) struct safetensors *st = NULL;
	_cleanup_(freep) void *data = NULL;
	float values[N], back[N_MATRIX];
	struct diag diag = { "" };
	size_t n_bytes;

	(void)state;
	for (unsigned i = 0; i < N; i++)
		values[i] = (float)i - 3;
	assert_int_equal(params_encode(params, values, (const char *[]){ "key", "value", NULL },
				 &data, &n_bytes),
		0);
	assert_int_equal(safetensors_open(&st, data, n_bytes, &diag), 0);
	assert_int_equal(safetensors_count(st), 2);
	assert_string_equal(safetensors_metadata(st, "key"), "value");
	assert_int_equal(safetensors_find(st, "matrix")->dims[1], 7);
	tensor_to_f32(back, safetensors_find(st, "matrix"));
	assert_memory_equal(back, values, sizeof(back));
}

static void starts_have_their_spread(void **state)
{
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *values = NULL;
	double sum = 0;

	(void)state;
	assert_int_equal(params_new(&params), 0);
	assert_int_equal(params_add_linear(params, "layer", 100, 200), 0);
	values = calloc(params->n_values, sizeof(*values));
	assert_non_null(values);
	param_start_xavier(&params->tensors[0], values, 1);
	for (unsigned i = 0; i < 20000; i++) {
		assert_true(fabsf(values[i]) <= sqrtf(6.f / 300));
		sum += (double)values[i] * values[i];
	}
	assert_true(fabs(sum / 20000 / (2. / 300) - 1) < .05);
	assert_true(values[20000] == 0);
	param_start_normal(&params->tensors[0], values, .02f, 1);
	sum = 0;
	for (unsigned i = 0; i < 20000; i++) {
		assert_true(fabsf(values[i]) <= .04f);
		sum += (double)values[i] * values[i];
	}
	/* Of a normal cut off at two deviations: .7737 of its variance. */
	assert_true(fabs(sum / 20000 / (.0004 * .7737) - 1) < .05);
}

/* An encoder and a decoder are two lists, and both have a first matrix. */
static void tensors_of_two_lists_begin_differently(void **state)
{
	static const char *const names[] = { "blocks.0.attn.qkv", "entry", "blocks.0.attn.qkv" };
	float values[ARRAY_SIZE(names)][12];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_(params_freep) struct params *params = NULL;
		float all[40];

		assert_int_equal(params_new(&params), 0);
		/* Where it lies has no say. */
		assert_int_equal(params_add(params, "first", 1, (uint64_t[]){ 1 + i }), 0);
		assert_int_equal(params_add_linear(params, names[i], 3, 4), 0);
		param_start_xavier(&params->tensors[1], all, 1);
		memcpy(values[i], all + params->tensors[1].offset, sizeof(values[i]));
	}
	assert_memory_equal(values[0], values[2], sizeof(values[0]));
	for (unsigned i = 0; i < 12; i++)
		assert_true(values[0][i] != values[1][i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(five_clipped_steps_equal_the_golden),
		cmocka_unit_test(what_is_fixed_stays_and_has_no_say),
		cmocka_unit_test(a_teacher_moves_by_its_decay),
		cmocka_unit_test(schedules_begin_and_end_where_they_say),
		cmocka_unit_test(a_list_knows_names_and_places),
		cmocka_unit_test(a_file_of_them_reads_back),
		cmocka_unit_test(starts_have_their_spread),
		cmocka_unit_test(tensors_of_two_lists_begin_differently),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
