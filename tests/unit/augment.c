/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/blob.h"
#include "fixture/close.h"
#include "image/augment_draw.h"
#include "image/blur.h"
#include "image/colour.h"

#define PX 17u
#define N ((size_t)PX * PX)

static const float half[3] = { 0.5f, 0.5f, 0.5f };
static const float zero[3] = { 0, 0, 0 };
static const float one[3] = { 1, 1, 1 };

/* The twin of source() in golden/augment.py. */
static void fill_source(float *rgb)
{
	uint32_t state = 2024;

	for (size_t i = 0; i < 3 * N; i++) {
		state = state * 1664525u + 1013904223u;
		rgb[i] = (float)(state >> 24) / 255.f;
	}
	for (size_t x = 0; x < PX; x++) {
		rgb[N + x] = rgb[2 * N + x] = rgb[x];
		for (size_t c = 0; c < 3; c++) {
			rgb[c * N + PX + x] = 0;
			rgb[c * N + 2 * PX + x] = 1;
		}
		rgb[N + 3 * PX + x] = rgb[3 * PX + x];
	}
}

static void run_step(uint32_t step, float amount, float *rgb)
{
	float scratch[N + PX + BLUR_MAX_TAPS];

	switch (step) {
	case 0:
		colour_brightness(rgb, N, amount);
		break;
	case 1:
		colour_contrast(rgb, N, amount);
		break;
	case 2:
		colour_saturation(rgb, N, amount);
		break;
	case 3:
		colour_hue(rgb, N, amount);
		break;
	case 4:
		colour_grey(rgb, N);
		break;
	default:
		blur_planes(rgb, PX, step == 5 ? 5 : 9, amount, scratch);
	}
}

/* Tolerance 5e-6: a few roundings of float apart. */
static void every_step_agrees_with_torchvision(void **state)
{
	_cleanup_(freep) uint8_t *file = NULL;
	size_t n_bytes;
	unsigned n_records = 0;

	(void)state;
	assert_int_equal(blob_read(AT_FDCWD, "tests/unit/golden/augment.bin", 1 << 20,
				 (void **)&file, &n_bytes),
		0);
	for (size_t at = 0; at < n_bytes; at += 8 + 12 * N, n_records++) {
		float got[3 * N], want[3 * N], amount;
		uint32_t step;

		memcpy(&step, file + at, 4);
		memcpy(&amount, file + at + 4, 4);
		memcpy(want, file + at + 8, sizeof(want));
		fill_source(got);
		run_step(step, amount, got);
		for (size_t i = 0; i < 3 * N; i++)
			if (!(fabsf(got[i] - want[i]) <= 5e-6f))
				fail_msg("step %u by %g, value %zu: %.7f, not %.7f", step,
					(double)amount, i, (double)got[i], (double)want[i]);
	}
	assert_int_equal(n_records, 23);
}

/* A stored version is a function of these draws: neither their order nor their values may change. */
static void the_draws_of_a_seed_are_the_same_for_ever(void **state)
{
	const struct augment augment = augment_default(112, 0.14f, 1.f, half, half);
	struct rng rng = rng_stream(42, 1, 2, 3);
	struct augment_draw draw = augment_draw(&augment, 200, 160, &rng);
	static const uint32_t order[N_JITTER] = { JITTER_HUE, JITTER_BRIGHTNESS, JITTER_SATURATION,
		JITTER_CONTRAST };
	static const float amount[N_JITTER] = { 1.034240f, 1.557311f, 0.483254f, -0.001078f };

	(void)state;
	assert_int_equal(draw.x, 92);
	assert_int_equal(draw.y, 22);
	assert_int_equal(draw.width, 86);
	assert_int_equal(draw.height, 70);
	assert_true(!draw.flip && draw.jitter && !draw.grey && !draw.blur);
	assert_memory_equal(draw.order, order, sizeof(order));
	for (unsigned i = 0; i < N_JITTER; i++)
		assert_true(fabsf(draw.amount[i] - amount[i]) < 2e-6f);
	assert_true(fabsf(draw.sigma - 0.793379f) < 2e-6f);
}

struct counts {
	unsigned flip, jitter, grey, blur, first[N_JITTER];
	double area;
};

static void count_draw(struct counts *counts, const struct augment_draw *draw)
{
	double area = (double)draw->width * draw->height / (200. * 160);
	double aspect = (double)draw->width / draw->height;
	unsigned seen = 0;

	assert_true(draw->width > 0 && draw->x + draw->width <= 200);
	assert_true(draw->height > 0 && draw->y + draw->height <= 160);
	assert_true(area > 0.138 && area <= 1.);
	assert_true(aspect > 0.73 && aspect < 1.36);
	for (unsigned i = 0; i < N_JITTER; i++)
		seen |= 1u << draw->order[i];
	assert_int_equal(seen, 15);
	for (unsigned i = 0; i < JITTER_HUE; i++)
		assert_true(draw->amount[i] >= 0.2f && draw->amount[i] < 1.8f);
	assert_true(fabsf(draw->amount[JITTER_HUE]) <= 0.2f);
	assert_true(draw->sigma >= 0.1f && draw->sigma < 2.f);
	counts->flip += draw->flip;
	counts->jitter += draw->jitter;
	counts->grey += draw->grey;
	counts->blur += draw->blur;
	counts->first[draw->order[0]]++;
	counts->area += area;
}

static void draws_keep_their_ranges_and_odds(void **state)
{
	const struct augment augment = augment_default(112, 0.14f, 1.f, half, half);
	struct counts counts = { 0 };

	(void)state;
	for (uint32_t i = 0; i < 10000; i++) {
		struct rng rng = rng_stream(5, 0, i, 0);
		struct augment_draw draw = augment_draw(&augment, 200, 160, &rng);

		count_draw(&counts, &draw);
	}
	/* Four standard deviations are 200 of 10000 at most. */
	assert_in_range(counts.flip, 4800, 5200);
	assert_in_range(counts.jitter, 7800, 8200);
	assert_in_range(counts.grey, 1800, 2200);
	assert_in_range(counts.blur, 4800, 5200);
	for (unsigned i = 0; i < N_JITTER; i++)
		assert_in_range(counts.first[i], 2300, 2700);
	/* Large crops fit less often, so a little under the mean of U(0.14, 1). */
	assert_true(counts.area / 10000 > 0.45 && counts.area / 10000 < 0.57);
}

static void what_a_supervised_round_looks_at_is_whole(void **state)
{
	struct augment augment = augment_default(112, 1.f, 1.f, half, half);
	uint32_t n_solarized = 0;

	(void)state;
	augment.solarize_p = .2f;
	for (uint32_t i = 0; i < 10000; i++) {
		struct rng rng = rng_stream(5, 0, i, 0);
		struct augment_draw draw = augment_draw(&augment, 200, 160, &rng);

		/* An aspect so near the image's own that it fits costs a pixel. */
		assert_in_range(draw.width, 199, 200);
		assert_in_range(draw.height, 159, 160);
		n_solarized += draw.solarize;
	}
	assert_in_range(n_solarized, 1800, 2200);
}

static void solarizing_inverts_what_is_bright(void **state)
{
	float rgb[3] = { 127 / 255.f, 128 / 255.f, 1 };

	(void)state;
	colour_solarize(rgb, 1);
	assert_close(rgb[0], 127 / 255.f, 0);
	assert_close(rgb[1], 127 / 255.f, 1e-7);
	assert_close(rgb[2], 0, 0);
}

static void a_crop_that_never_fits_is_taken_from_the_centre(void **state)
{
	const struct augment augment = augment_default(32, 0.9f, 1.f, half, half);
	static const uint32_t cases[][6] = {
		/* width, height -> x, y, width, height */
		{ 1000, 10, 493, 0, 13, 10 },
		{ 10, 1000, 0, 493, 10, 13 },
		{ 16384, 1, 8191, 0, 1, 1 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rng rng = rng_stream(1, 2, 3, i);
		struct augment_draw draw = augment_draw(&augment, cases[i][0], cases[i][1], &rng);

		assert_int_equal(draw.x, cases[i][2]);
		assert_int_equal(draw.y, cases[i][3]);
		assert_int_equal(draw.width, cases[i][4]);
		assert_int_equal(draw.height, cases[i][5]);
	}
}

static struct image *new_source(uint32_t n_channels)
{
	struct image *image;

	assert_int_equal(image_new(&image, 90, 70, n_channels), 0);
	for (size_t i = 0; i < (size_t)90 * 70; i++)
		for (uint32_t c = 0; c < n_channels; c++)
			image->pixels[i * n_channels + c] =
				(uint8_t)(i * i / 91 + i % 90 * 2 + c * (n_channels == 3) * i / 70);
	return image;
}

static void the_same_stream_gives_the_same_view(void **state)
{
	const struct augment augment = augment_default(48, 0.14f, 1.f, half, half);
	_cleanup_(augment_scratch_freep) struct augment_scratch *scratch = NULL, *other = NULL;
	_cleanup_(image_freep) struct image *image = new_source(3);
	const struct image_view view = image_view(image);
	static float a[3 * 48 * 48], b[3 * 48 * 48];

	(void)state;
	assert_int_equal(augment_scratch_new(&scratch, 64), 0);
	assert_int_equal(augment_scratch_new(&other, 48), 0);
	for (uint32_t i = 0; i < 50; i++) {
		struct rng rng = rng_stream(9, 0, i, 0), again = rng, next = rng_stream(9, 0, i, 1);

		assert_int_equal(augment_apply(&augment, &view, &rng, a, scratch), 0);
		assert_int_equal(augment_apply(&augment, &view, &again, b, other), 0);
		assert_memory_equal(a, b, sizeof(a));
		for (size_t k = 0; k < ARRAY_SIZE(a); k++)
			assert_true(a[k] >= -1.00001f && a[k] <= 1.00001f);
		assert_int_equal(augment_apply(&augment, &view, &next, b, other), 0);
		assert_memory_not_equal(a, b, sizeof(a));
	}
}

static void a_view_is_its_steps_in_the_drawn_order(void **state)
{
	const struct augment augment = augment_default(PX, 0.14f, 1.f, zero, one);
	_cleanup_(augment_scratch_freep) struct augment_scratch *scratch = NULL;
	_cleanup_(image_freep) struct image *image = new_source(3);
	const struct image_view view = image_view(image);
	struct augment plain = augment;

	(void)state;
	plain.flip_p = plain.jitter_p = plain.grey_p = plain.blur_p = 0;
	assert_int_equal(augment_scratch_new(&scratch, PX), 0);
	for (uint32_t i = 0; i < 100; i++) {
		struct rng rng = rng_stream(3, 1, i, 0), same = rng, third = rng;
		struct augment_draw draw = augment_draw(&augment, 90, 70, &rng);
		float want[3 * N], got[3 * N], crop[3 * N];

		assert_int_equal(augment_apply(&plain, &view, &same, crop, scratch), 0);
		for (size_t k = 0; k < 3 * N; k++)
			want[k] = draw.flip ? crop[k - k % PX + (PX - 1 - k % PX)] : crop[k];
		for (unsigned k = 0; k < N_JITTER && draw.jitter; k++)
			run_step(draw.order[k], draw.amount[draw.order[k]], want);
		if (draw.grey)
			run_step(4, 0, want);
		if (draw.blur)
			run_step(5, draw.sigma, want);
		assert_int_equal(augment_apply(&augment, &view, &third, got, scratch), 0);
		assert_memory_equal(got, want, sizeof(got));
	}
}

static void grey_pixels_are_three_equal_planes(void **state)
{
	struct augment augment = augment_default(32, 0.14f, 1.f, half, half);
	_cleanup_(augment_scratch_freep) struct augment_scratch *scratch = NULL;
	_cleanup_(image_freep) struct image *grey = new_source(1), *rgb = NULL;
	struct image_view view = image_view(grey), same;
	static float a[3 * 32 * 32], b[3 * 32 * 32];

	(void)state;
	assert_int_equal(image_new(&rgb, 90, 70, 3), 0);
	for (size_t i = 0; i < (size_t)90 * 70; i++)
		memset(rgb->pixels + 3 * i, grey->pixels[i], 3);
	same = image_view(rgb);
	assert_int_equal(augment_scratch_new(&scratch, 32), 0);
	for (uint32_t i = 0; i < 20; i++) {
		struct rng rng = rng_stream(4, 0, i, 0), again = rng;

		assert_int_equal(augment_apply(&augment, &view, &rng, a, scratch), 0);
		assert_int_equal(augment_apply(&augment, &same, &again, b, scratch), 0);
		assert_memory_equal(a, b, sizeof(a));
		assert_memory_equal(a, a + 32 * 32, 32 * 32 * sizeof(float));
		assert_memory_equal(a, a + 2 * 32 * 32, 32 * 32 * sizeof(float));
	}
}

static void a_crop_that_the_scratch_cannot_hold_is_refused(void **state)
{
	struct augment augment = augment_default(33, 0.14f, 1.f, half, half);
	_cleanup_(augment_scratch_freep) struct augment_scratch *scratch = NULL;
	_cleanup_(image_freep) struct image *image = new_source(1);
	const struct image_view view = image_view(image);
	struct rng rng = rng_stream(0, 0, 0, 0);
	float dst[3 * 33 * 33];

	(void)state;
	assert_int_equal(augment_scratch_new(&scratch, 32), 0);
	assert_int_equal(augment_apply(&augment, &view, &rng, dst, scratch), -EINVAL);
	augment.px = 4;
	assert_int_equal(augment_apply(&augment, &view, &rng, dst, scratch), -EINVAL);
	augment_scratch_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_step_agrees_with_torchvision),
		cmocka_unit_test(the_draws_of_a_seed_are_the_same_for_ever),
		cmocka_unit_test(draws_keep_their_ranges_and_odds),
		cmocka_unit_test(what_a_supervised_round_looks_at_is_whole),
		cmocka_unit_test(solarizing_inverts_what_is_bright),
		cmocka_unit_test(a_crop_that_never_fits_is_taken_from_the_centre),
		cmocka_unit_test(the_same_stream_gives_the_same_view),
		cmocka_unit_test(a_view_is_its_steps_in_the_drawn_order),
		cmocka_unit_test(grey_pixels_are_three_equal_planes),
		cmocka_unit_test(a_crop_that_the_scratch_cannot_hold_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
