/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "fixture/tiny_vit.h"
#include "golden/golden.h"
#include "learn/micm_head.h"
#include "learn/micm_loss.h"
#include "learn/micm_mask.h"

#define SEED 7u
#define TOLERANCE 1e-4
enum { ROWS = 140, D = 10, HIDDEN = 12, DIM = 6, K = 9, BATCH = 5, VIEWS = 4 };
enum { MASKED = 13, PIXELS = 40, PIXELS_ALL = 200 };

static const struct micm_head_shape head_shape = { D, HIDDEN, DIM, K };
static const struct micm_shape shape = { BATCH, VIEWS, K, .1f };

/* Largest difference, relative to the golden array's largest value; NaN counts. */
static double worst(const float *got, const float *want, size_t n)
{
	double difference = 0, scale = 1e-30;

	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)got[i] - want[i]);

		if (!(d <= difference))
			difference = d;
		scale = fmax(scale, fabs((double)want[i]));
	}
	return difference / scale;
}

static const float *take(struct golden *golden, size_t n)
{
	const float *values = golden_take(golden, n);

	assert_non_null(values);
	return values;
}

static void check_array(struct golden *golden, const char *what, const float *got, size_t n)
{
	double error = worst(got, take(golden, n), n);

	print_message("%-24s %.1e\n", what, error);
	assert_true(error < TOLERANCE);
}

static void check_head(struct golden *golden)
{
	struct tiny_vit tiny;
	_cleanup_(micm_head_freep) struct micm_head *head = NULL;
	const size_t n = micm_head_size(&head_shape);
	_cleanup_(freep) float *values = malloc(n * sizeof(*values));
	_cleanup_(freep) float *grad = malloc(n * sizeof(*grad));

	assert_non_null(values);
	assert_non_null(grad);
	assert_int_equal(tiny_vit_new(&tiny, SEED), 0);
	assert_int_equal(micm_head_new(&head, tiny.vit, &head_shape, ROWS), 0);
	/* What a longer run before left behind has no say. */
	for (size_t i = 0; i < (size_t)ROWS * D; i++)
		micm_head_input(head)[i] = 3;
	for (size_t i = 0; i < (size_t)ROWS * K; i++)
		micm_head_d_outputs(head)[i] = 3;
	memcpy(micm_head_input(head), take(golden, ROWS * D), sizeof(float) * ROWS * D);
	memcpy(values, take(golden, n), n * sizeof(*values));
	assert_int_equal(micm_head_forward(head, values, ROWS), 0);
	check_array(golden, "head", micm_head_outputs(head), ROWS * K);
	memcpy(micm_head_d_outputs(head), take(golden, ROWS * K), sizeof(float) * ROWS * K);
	/* Twice: nothing is left in it from the last time. */
	assert_int_equal(micm_head_backward(head, values, ROWS, grad), 0);
	assert_int_equal(micm_head_backward(head, values, ROWS, grad), 0);
	check_array(golden, "head, input", micm_head_d_input(head), ROWS * D);
	check_array(golden, "head, values", grad, n);
	micm_head_free(TAKE_PTR(head));
	tiny_vit_done(&tiny);
}

static void check_pseudo(struct golden *golden, const float *raw, const float *t)
{
	const float *o = take(golden, 2 * BATCH * K), *want = take(golden, 2 * BATCH);
	uint32_t nearest[2 * BATCH];
	float d_o[2 * BATCH * K], loss;

	loss = (float)micm_pseudo_loss(&shape, o, raw, t, nearest, d_o);
	for (unsigned i = 0; i < 2 * BATCH; i++)
		assert_int_equal(nearest[i], (uint32_t)want[i]);
	check_array(golden, "pseudo-label loss", &loss, 1);
	check_array(golden, "pseudo-label gradient", d_o, ARRAY_SIZE(d_o));
}

static void check_patches(struct golden *golden)
{
	const float *samples = take(golden, MASKED), *o = take(golden, MASKED * K);
	const float *t = take(golden, MASKED * K);
	uint32_t rows[MASKED];
	float d_o[MASKED * K], loss;

	for (unsigned i = 0; i < MASKED; i++)
		rows[i] = (uint32_t)samples[i];
	loss = (float)micm_patch_loss(&shape, rows, o, t, MASKED, d_o);
	check_array(golden, "patch loss", &loss, 1);
	check_array(golden, "patch gradient", d_o, ARRAY_SIZE(d_o));
}

static void losses_and_gradients_equal_the_golden(void **state)
{
	struct golden golden = { 0 };
	float t[2 * BATCH * K], centre[K], sum[K] = { 0 }, d_o[VIEWS * BATCH * K], loss;
	float d_pixels[PIXELS];
	const float *raw, *o, *wanted;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/micm.f32"), 0);
	check_head(&golden);
	raw = take(&golden, 2 * BATCH * K);
	memcpy(centre, take(&golden, K), sizeof(centre));
	micm_sharpen(t, raw, centre, 2 * BATCH, K, .05f);
	check_array(&golden, "targets", t, ARRAY_SIZE(t));
	micm_add_rows(sum, raw, BATCH, K);
	micm_add_rows(sum, raw + BATCH * K, BATCH, K);
	micm_move_centre(centre, sum, 2 * BATCH, K);
	check_array(&golden, "centre", centre, K);
	o = take(&golden, VIEWS * BATCH * K);
	loss = (float)micm_class_loss(&shape, o, t, d_o);
	check_array(&golden, "class loss", &loss, 1);
	check_array(&golden, "class gradient", d_o, ARRAY_SIZE(d_o));
	check_patches(&golden);
	o = take(&golden, PIXELS);
	wanted = take(&golden, PIXELS);
	loss = (float)micm_pixel_loss(o, wanted, PIXELS, PIXELS_ALL, d_pixels);
	check_array(&golden, "pixel loss", &loss, 1);
	check_array(&golden, "pixel gradient", d_pixels, PIXELS);
	check_pseudo(&golden, raw, t);
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

static void who_agrees_with_nobody_costs_what_a_guess_does(void **state)
{
	float o[VIEWS * BATCH * K] = { 0 }, t[2 * BATCH * K] = { 0 }, d_o[VIEWS * BATCH * K];
	const uint32_t rows[2] = { 0, BATCH };

	(void)state;
	for (unsigned i = 0; i < 2 * BATCH; i++)
		t[i * K + i % K] = 1;
	/* 6 terms by 7, 2 by 3. */
	assert_close(micm_class_loss(&shape, o, t, d_o), 6. / 7 * log(K), 1e-6);
	assert_close(micm_patch_loss(&shape, rows, o, t, 2, d_o), 2. / 3 / BATCH * log(K), 1e-6);
	assert_true(micm_patch_loss(&shape, rows, o, t, 0, d_o) == 0);
	assert_true(micm_pixel_loss(o, o, 0, 100, d_o) == 0);
}

/* Outputs without a direction, and a batch in which nobody has a neighbour. */
static void pseudo_labels_survive_degenerate_outputs(void **state)
{
	const struct micm_shape alone = { 1, VIEWS, K, .1f };
	float o[2 * BATCH * K] = { 0 }, t[2 * BATCH * K], d_o[2 * BATCH * K];
	uint32_t nearest[2 * BATCH];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		t[i] = 1.f / K;
	assert_close(micm_pseudo_loss(&shape, o, o, t, nearest, d_o), .8 * log(2), 1e-6);
	for (unsigned i = 0; i < ARRAY_SIZE(d_o); i++)
		assert_true(isfinite(d_o[i]));
	/* Of equals the first other one. */
	assert_int_equal(nearest[0], 1);
	assert_int_equal(nearest[3], 0);
	assert_true(micm_pseudo_loss(&alone, o, o, t, nearest, d_o) == 0);
}

static uint32_t count(const bool *masked, uint32_t n)
{
	uint32_t n_masked = 0;

	for (uint32_t i = 0; i < n; i++)
		n_masked += masked[i];
	return n_masked;
}

static void masks_have_exactly_the_patches_that_were_asked_for(void **state)
{
	bool masked[16 * 16], again[16 * 16];

	(void)state;
	for (uint32_t grid = 2; grid <= 16; grid++)
		for (uint32_t n = 0; n < grid * grid; n++) {
			struct rng rng = rng_stream(SEED, grid, n, 0), same = rng;

			micm_mask_draw(&rng, grid, n, masked);
			assert_int_equal(count(masked, grid * grid), n);
			micm_mask_draw(&same, grid, n, again);
			assert_memory_equal(masked, again, grid * grid * sizeof(*masked));
		}
}

/* Blocks touch: more neighbours of a masked patch are masked than single ones would have. */
static void masks_are_made_of_blocks(void **state)
{
	enum { GRID = 14, COUNT = 60, N = 200 };
	double n_pairs = 0, n_masked_pairs = 0;
	bool masked[GRID * GRID];

	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		struct rng rng = rng_stream(SEED, i, 0, 1);

		micm_mask_draw(&rng, GRID, COUNT, masked);
		for (uint32_t y = 0; y < GRID; y++)
			for (uint32_t x = 0; x + 1 < GRID; x++) {
				n_pairs += masked[y * GRID + x];
				n_masked_pairs += masked[y * GRID + x] && masked[y * GRID + x + 1];
			}
	}
	print_message(
		"right neighbour masked too: %.2f, of single ones .31\n", n_masked_pairs / n_pairs);
	assert_true(n_masked_pairs / n_pairs > .6);
}

static void half_of_the_crops_have_no_mask_and_the_others_up_to_the_most(void **state)
{
	enum { N = 4000, PATCHES = 49 };
	uint32_t n_none = 0, n_most = 0, n_least = PATCHES;

	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		struct rng rng = rng_stream(SEED, i, 0, 2);
		uint32_t n = micm_mask_count(&rng, PATCHES, .5f);

		n_none += n == 0;
		n_most = n > n_most ? n : n_most;
		if (n > 0)
			n_least = n < n_least ? n : n_least;
	}
	assert_true(n_none > .46 * N && n_none < .54 * N);
	assert_int_equal(n_least, 4);
	assert_int_equal(n_most, 24);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(losses_and_gradients_equal_the_golden),
		cmocka_unit_test(who_agrees_with_nobody_costs_what_a_guess_does),
		cmocka_unit_test(pseudo_labels_survive_degenerate_outputs),
		cmocka_unit_test(masks_have_exactly_the_patches_that_were_asked_for),
		cmocka_unit_test(masks_are_made_of_blocks),
		cmocka_unit_test(half_of_the_crops_have_no_mask_and_the_others_up_to_the_most),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
