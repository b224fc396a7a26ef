/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "mask/quantise.h"

#define SEED 20261122u

enum { N_MAX = 261, CANARY = 8 };

static void a_weight_is_off_by_half_a_step_at_most(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);
	float row[N_MAX];

	(void)state;
	for (size_t n = 1; n <= N_MAX; n++) {
		float spread = powf(10, rng_range(&rng, -6, 3)), inverse, step;

		for (size_t i = 0; i < n; i++)
			row[i] = spread * rng_normal(&rng);
		inverse = quantise_inverse(row, n);
		step = quantise_step(inverse);
		for (size_t i = 0; i < n; i++) {
			int8_t got = quantise_value(row[i], inverse);

			assert_in_range(got + 127, 0, 254);
			assert_true(fabsf((float)got * step - row[i]) <= .5001F * step);
		}
	}
}

static void a_dropped_weight_and_a_row_of_nothing_are_zero(void **state)
{
	const float small[] = { 1e-44F, -1e-44F, 0 }, some[] = { .5F, -2 };

	(void)state;
	assert_true(quantise_inverse(small, 3) == 0);
	assert_true(quantise_step(0) == 0);
	assert_int_equal(quantise_value(small[0], 0), 0);
	assert_int_equal(quantise_value(0, quantise_inverse(some, 2)), 0);
	assert_int_equal(quantise_value(-2, quantise_inverse(some, 2)), -127);
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	struct rng rng = rng_stream(SEED, 1, 0, 0);
	int8_t want[N_MAX + CANARY], got[N_MAX + CANARY];
	float row[N_MAX];

	(void)state;
	for (const struct kern_quantise_impl *impl = kern_quantise_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 0; n <= N_MAX; n++) {
			/* Larger than what the steps were made for, too. */
			for (size_t i = 0; i < n; i++)
				row[i] = 3 * rng_normal(&rng);
			memset(want, 0x5a, sizeof(want));
			memset(got, 0x5a, sizeof(got));
			assert_int_equal(kern_quantise_row_c(want, row, 63.5F, n),
				impl->row(got, row, 63.5F, n));
			assert_memory_equal(want, got, sizeof(want));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_weight_is_off_by_half_a_step_at_most),
		cmocka_unit_test(a_dropped_weight_and_a_row_of_nothing_are_zero),
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
