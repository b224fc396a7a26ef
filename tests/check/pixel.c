/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/clock.h"
#include "base/rng.h"
#include "image/blur.h"
#include "image/pixel.h"

#define SEED 20261122u
#define N_MAX 131
#define PX_MAX 43
#define CANARY 16

static const struct kern_pixel_impl *reference(void)
{
	const struct kern_pixel_impl *impl = kern_pixel_impls;

	while (impl->cpu)
		impl++;
	return impl;
}

/* Some at the ends of the range, some grey. */
static void fill(float *rgb, size_t n, struct rng *rng)
{
	for (size_t i = 0; i < 3 * n; i++)
		rgb[i] = rng_below(rng, 8) ? rng_uniform(rng) : (float)rng_below(rng, 2);
	for (size_t i = 0; i < n; i++)
		if (rng_below(rng, 8) == 0)
			rgb[i] = rgb[n + i] = rgb[2 * n + i];
}

typedef void run_fn(const struct kern_pixel_impl *impl, float *rgb, size_t n, float amount);

static void run_brightness(const struct kern_pixel_impl *impl, float *rgb, size_t n, float amount)
{
	impl->brightness(rgb, n, 1 + amount);
}

static void run_contrast(const struct kern_pixel_impl *impl, float *rgb, size_t n, float amount)
{
	impl->contrast(rgb, n, 1 + amount);
}

static void run_saturation(const struct kern_pixel_impl *impl, float *rgb, size_t n, float amount)
{
	impl->saturation(rgb, n, 1 + amount);
}

static void run_hue(const struct kern_pixel_impl *impl, float *rgb, size_t n, float amount)
{
	impl->hue(rgb, n, amount / 2);
}

static void run_grey(const struct kern_pixel_impl *impl, float *rgb, size_t n, float amount)
{
	(void)amount;
	impl->grey(rgb, n);
}

static void run_solarize(const struct kern_pixel_impl *impl, float *rgb, size_t n, float amount)
{
	(void)amount;
	impl->solarize(rgb, n);
}

static run_fn *const runs[] = { run_brightness, run_contrast, run_saturation, run_hue, run_grey,
	run_solarize };
#define N_RUNS (sizeof(runs) / sizeof(runs[0]))

static void compare(const struct kern_pixel_impl *impl, struct rng *rng, size_t n)
{
	float want[3 * N_MAX + CANARY], got[3 * N_MAX + CANARY];

	for (unsigned i = 0; i < N_RUNS; i++) {
		const float amount = rng_range(rng, -.9f, .9f);

		fill(want, n, rng);
		for (size_t j = 3 * n; j < 3 * n + CANARY; j++)
			want[j] = -1;
		memcpy(got, want, (3 * n + CANARY) * sizeof(*got));
		runs[i](reference(), want, n, amount);
		runs[i](impl, got, n, amount);
		assert_memory_equal(want, got, (3 * n + CANARY) * sizeof(*got));
	}
}

static void compare_blur(const struct kern_pixel_impl *impl, struct rng *rng, uint32_t px)
{
	static const float kernel[BLUR_MAX_TAPS] = { .02f, .05f, .11f, .2f, .24f, .2f, .11f, .05f,
		.02f };
	float want[PX_MAX * PX_MAX], got[PX_MAX * PX_MAX];
	float scratch[PX_MAX * PX_MAX + PX_MAX + BLUR_MAX_TAPS];
	const size_t n = (size_t)px * px;

	for (unsigned n_taps = 5; n_taps <= 9; n_taps += 4) {
		for (size_t i = 0; i < n; i++)
			want[i] = got[i] = rng_uniform(rng);
		reference()->blur(want, px, kernel, n_taps, scratch);
		impl->blur(got, px, kernel, n_taps, scratch);
		assert_memory_equal(want, got, n * sizeof(*got));
	}
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	(void)state;
	for (const struct kern_pixel_impl *impl = kern_pixel_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 1; n <= N_MAX; n++)
			compare(impl, &rng, n);
		for (uint32_t px = BLUR_MIN_PX; px <= PX_MAX; px++)
			compare_blur(impl, &rng, px);
	}
}

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void bench(void)
{
	enum { N = 112 * 112, ROUNDS = 501 };
	static float rgb[3 * N];
	static uint64_t ns[ROUNDS];
	struct rng rng = rng_stream(SEED, 1, 0, 0);

	fill(rgb, N, &rng);
	for (const struct kern_pixel_impl *impl = kern_pixel_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu))
			continue;
		for (unsigned i = 0; i < ROUNDS; i++) {
			uint64_t start = clock_now_ns();

			for (unsigned j = 0; j < 4; j++)
				runs[j](impl, rgb, N, .1f);
			ns[i] = clock_now_ns() - start;
		}
		qsort(ns, ROUNDS, sizeof(*ns), compare_ns);
		print_message("jitter %-8s %8.1f us/image of 112 x 112\n", impl->name,
			(double)ns[ROUNDS / 2] / 1e3);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
	};

	if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
		bench();
		return 0;
	}
	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
