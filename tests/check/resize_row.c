/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/cleanup.h"
#include "base/rng.h"
#include "image/resize_row.h"

#define SEED 20261122u
#define N_MAX 261
#define N_ROWS 23
#define N_PLANE (N_MAX + 3 * RESIZE_BLOCK)

static const struct kern_resize_impl *reference(void)
{
	const struct kern_resize_impl *impl = kern_resize_impls;

	while (impl->cpu)
		impl++;
	return impl;
}

static void random_bytes(uint8_t *bytes, size_t n, struct rng *rng)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)rng_u32(rng);
}

/* Of which no 24 with a byte each overflow 31 bits. */
static void random_weights(int16_t *weights, size_t n, struct rng *rng)
{
	for (size_t i = 0; i < n; i++)
		weights[i] = (int16_t)rng_u32(rng);
}

static void check_split(const struct kern_resize_impl *impl, uint32_t n, struct rng *rng)
{
	static uint8_t src[3 * N_MAX];
	static int16_t want[3 * N_PLANE], got[3 * N_PLANE];

	random_bytes(src, sizeof(src), rng);
	for (unsigned n_channels = 1; n_channels <= 3; n_channels += 2) {
		memset(want, 0x55, sizeof(want));
		memset(got, 0x55, sizeof(got));
		reference()->split(want, N_PLANE, src, n, n_channels);
		impl->split(got, N_PLANE, src, n, n_channels);
		assert_memory_equal(want, got, sizeof(want));
	}
}

static void check_across(const struct kern_resize_impl *impl, uint32_t n, struct rng *rng)
{
	static int16_t plane[N_PLANE], weights[3 * RESIZE_BLOCK * N_MAX];
	static struct resize_span spans[N_MAX];
	uint8_t want[N_MAX], got[N_MAX];

	for (size_t i = 0; i < N_PLANE; i++)
		plane[i] = (int16_t)(rng_u32(rng) & 255);
	for (uint32_t n_blocks = 1; n_blocks <= 3; n_blocks++) {
		const struct resize_axis axis = { .spans = spans,
			.weights = weights,
			.n_dst = n,
			.n_blocks = n_blocks,
			.fraction_bits = 12 + 2 * n_blocks };

		random_weights(weights, ARRAY_SIZE(weights), rng);
		for (uint32_t i = 0; i < n; i++)
			spans[i].begin = 7 + rng_u32(rng) % N_MAX;
		memset(want, 0, sizeof(want));
		memset(got, 0, sizeof(got));
		reference()->across(want, plane, 7, &axis);
		impl->across(got, plane, 7, &axis);
		assert_memory_equal(want, got, sizeof(want));
	}
}

static void check_down(const struct kern_resize_impl *impl, uint32_t n, struct rng *rng)
{
	static uint8_t rows[N_ROWS * N_MAX];
	uint8_t want[N_MAX] = { 0 }, got[N_MAX] = { 0 };
	float wide[N_MAX] = { 0 }, same[N_MAX] = { 0 };
	const uint32_t n_rows = 1 + n % N_ROWS;
	int16_t weights[N_ROWS];

	random_bytes(rows, sizeof(rows), rng);
	random_weights(weights, N_ROWS, rng);
	reference()->down(want, rows, n, weights, n_rows, 15);
	impl->down(got, rows, n, weights, n_rows, 15);
	assert_memory_equal(want, got, sizeof(want));
	reference()->level(wide, rows, n, .0171F, 2.1F);
	impl->level(same, rows, n, .0171F, 2.1F);
	assert_memory_equal(wide, same, sizeof(wide));
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	(void)state;
	for (const struct kern_resize_impl *impl = kern_resize_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (uint32_t n = 1; n <= N_MAX; n++) {
			check_split(impl, n, &rng);
			check_across(impl, n, &rng);
			check_down(impl, n, &rng);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
