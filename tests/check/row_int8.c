/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/cleanup.h"
#include "base/rng.h"
#include "model/row_bf16.h"
#include "model/row_int8.h"

#define SEED 20261122u

enum { N_MAX = 261, CANARY = 8 };

/* A row of sums as a product of u8 and s8 gives them, and what they are worth. */
struct row {
	int32_t acc[N_MAX];
	float steps[N_MAX], offsets[N_MAX], bias[N_MAX], weight[N_MAX], x[N_MAX];
	bf16 rounded[N_MAX];
	struct int8_layer layer;
	struct row_steps read;
	struct row_norm norm;
};

static void fill(struct row *row, size_t n, struct rng *rng)
{
	const float spread = powf(10, rng_range(rng, -3, 2));

	for (size_t i = 0; i < n; i++) {
		row->acc[i] = (int32_t)rng_u32(rng) / 4096;
		row->steps[i] = rng_range(rng, 0, 1e-3F);
		row->offsets[i] = row->steps[i] * (float)((int32_t)rng_u32(rng) / 65536);
		row->bias[i] = rng_normal(rng);
		row->weight[i] = 1 + rng_normal(rng) / 4;
		row->x[i] = spread * (rng_normal(rng) + 1);
		row->rounded[i] = bf16_narrow(row->x[i]);
	}
	row->read =
		(struct row_steps){ rng_range(rng, 0, .05F), 1 + (int32_t)(rng_u32(rng) % 254) };
	row->layer = (struct int8_layer){ row->steps, row->offsets, row->bias, 1.0625F, n };
	row->norm = (struct row_norm){ row->weight, row->bias, 1e-6F, n };
}

static double worth(const struct row *row, size_t i)
{
	double sum = (double)row->acc[i] * row->steps[i] - (double)row->read.zero * row->offsets[i];

	return sum * row->read.step * row->layer.scale + row->bias[i];
}

/* Where the parts of a sum take each other away. */
static double largest_part(const struct row *row, size_t i)
{
	double most = fmax(fabs((double)row->acc[i]) * row->steps[i],
		row->read.zero * fabs((double)row->offsets[i]));

	return most * row->read.step * row->layer.scale + fabs((double)row->bias[i]);
}

/* Within half a step, what floats round to on the way there, and what is known to be off before. */
static void assert_quantised(
	const uint8_t *got, struct row_steps steps, const double *want, size_t n, double off)
{
	double low = 0, high = 0;

	for (size_t i = 0; i < n; i++) {
		low = fmin(low, want[i]);
		high = fmax(high, want[i]);
	}
	assert_in_range(steps.zero, 1, 254);
	assert_true(fabs(steps.step - (high - low) / 253) <= 1e-5 * (high - low) + off / 100);
	for (size_t i = 0; i < n; i++) {
		double x = (double)steps.step * (got[i] - steps.zero);

		if (!(fabs(x - want[i]) <= .51 * steps.step + 1e-5 * (high - low) + off))
			fail_msg("%zu of %zu: %g, wanted %g in steps of %g", i, n, x, want[i],
				(double)steps.step);
	}
}

static void a_norm_is_exact_but_for_half_a_step(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);
	struct row row;

	(void)state;
	for (size_t n = 2; n <= N_MAX; n++) {
		double want[N_MAX], mean = 0, variance = 0;
		struct row_steps steps;
		uint8_t got[N_MAX];

		fill(&row, n, &rng);
		row_int8_norm(&(struct row_int8_norm){ .x = row.x,
			.norm = &row.norm,
			.dst = got,
			.steps = &steps,
			.rows = 1,
			.width = n });
		for (size_t i = 0; i < n; i++)
			mean += (double)row.x[i] / (double)n;
		for (size_t i = 0; i < n; i++)
			variance += (row.x[i] - mean) * (row.x[i] - mean) / (double)n;
		for (size_t i = 0; i < n; i++)
			want[i] = (row.x[i] - mean) / sqrt(variance + 1e-6) * row.weight[i] +
				  row.bias[i];
		assert_quantised(got, steps, want, n, 0);
	}
}

static void a_gelu_is_exact_but_for_half_a_step(void **state)
{
	struct rng rng = rng_stream(SEED, 1, 0, 0);
	struct row row;

	(void)state;
	for (size_t n = 1; n <= N_MAX; n++) {
		struct row_steps steps;
		uint8_t got[N_MAX];
		double want[N_MAX];

		fill(&row, n, &rng);
		for (size_t i = 0; i < n; i++) {
			double x = worth(&row, i);

			want[i] = x * .5 * erfc(-x / sqrt(2));
		}
		steps = row.read;
		row_int8_gelu(got, row.acc, &row.layer, &steps, 1);
		assert_quantised(got, steps, want, n, 1e-4);
	}
}

static void what_is_widened_is_what_the_sums_are_worth(void **state)
{
	struct rng rng = rng_stream(SEED, 2, 0, 0);
	struct row row;

	(void)state;
	for (size_t n = 1; n <= N_MAX; n++) {
		float got[N_MAX], added[N_MAX];
		bf16 rounded[N_MAX];

		fill(&row, n, &rng);
		row_int8_widen(got, PRECISION_F32, row.acc, &row.layer, &row.read, 1);
		row_int8_widen(rounded, PRECISION_BF16, row.acc, &row.layer, &row.read, 1);
		row_int8_norm(&(struct row_int8_norm){ .x = added,
			.residual = row.x,
			.every = 1,
			.acc = row.acc,
			.layer = &row.layer,
			.steps = &row.read,
			.rows = 1,
			.width = n });
		for (size_t i = 0; i < n; i++) {
			double want = worth(&row, i), most = largest_part(&row, i);

			assert_true(fabs(got[i] - want) <= 1e-6 * most);
			assert_int_equal(rounded[i], bf16_narrow(got[i]));
			assert_true(added[i] == row.x[i] + got[i]);
		}
	}
}

static void what_is_narrowed_is_exact_but_for_half_a_step(void **state)
{
	struct rng rng = rng_stream(SEED, 3, 0, 0);
	struct row row;

	(void)state;
	for (size_t n = 1; n <= N_MAX; n++) {
		struct row_steps steps;
		uint8_t got[N_MAX];
		double want[N_MAX];

		fill(&row, n, &rng);
		for (size_t i = 0; i < n; i++)
			want[i] = row.x[i];
		row_int8_narrow(got, row.x, PRECISION_F32, &steps, 1, n);
		assert_quantised(got, steps, want, n, 0);
		for (size_t i = 0; i < n; i++)
			want[i] = bf16_widen(row.rounded[i]);
		row_int8_narrow(got, row.rounded, PRECISION_BF16, &steps, 1, n);
		assert_quantised(got, steps, want, n, 0);
	}
}

static void rows_without_a_range_are_zeros(void **state)
{
	static const float rows[][2] = { { 0, 0 }, { 0, -0.F }, { 1e-44F, 0 }, { 0, -1e-44F } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct row_steps steps;
		uint8_t got[2];

		row_int8_narrow(got, rows[i], PRECISION_F32, &steps, 1, 2);
		assert_true(steps.step == 0 && steps.zero == 1);
		assert_true(got[0] == 1 && got[1] == 1);
	}
}

/* What one instruction set makes of a row. */
struct made {
	uint8_t norm[N_MAX + CANARY], gelu[N_MAX + CANARY], narrow[2][N_MAX + CANARY];
	float added[N_MAX + CANARY], widened[N_MAX + CANARY];
	bf16 rounded[N_MAX + CANARY];
	int32_t used[N_MAX];
	struct row_steps steps[4];
};

static void make(struct made *made, const struct kern_int8_impl *impl, const struct row *row)
{
	const size_t n = row->layer.n;

	memset(made, 0x5a, sizeof(*made));
	memcpy(made->used, row->acc, sizeof(made->used));
	impl->add(made->added, row->x, row->acc, &row->layer, row->read);
	impl->widen(made->widened, row->acc, &row->layer, row->read);
	impl->widen_bf16(made->rounded, row->acc, &row->layer, row->read);
	made->steps[0] = impl->norm(made->norm, row->x, &row->norm);
	made->steps[1] = impl->gelu(made->gelu, made->used, &row->layer, row->read);
	made->steps[2] = impl->narrow(made->narrow[0], row->x, n);
	made->steps[3] = impl->narrow_bf16(made->narrow[1], row->rounded, n);
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	const struct kern_int8_impl *reference = kern_int8_impls;
	struct rng rng = rng_stream(SEED, 4, 0, 0);
	static struct made want, got;
	static struct row row;

	(void)state;
	while (reference->cpu)
		reference++;
	for (const struct kern_int8_impl *impl = kern_int8_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 1; n <= N_MAX; n++) {
			fill(&row, n, &rng);
			make(&want, reference, &row);
			make(&got, impl, &row);
			assert_memory_equal(&want, &got, sizeof(want));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_norm_is_exact_but_for_half_a_step),
		cmocka_unit_test(a_gelu_is_exact_but_for_half_a_step),
		cmocka_unit_test(what_is_widened_is_what_the_sums_are_worth),
		cmocka_unit_test(what_is_narrowed_is_exact_but_for_half_a_step),
		cmocka_unit_test(rows_without_a_range_are_zeros),
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
