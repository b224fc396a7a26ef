/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "image/heatmap.h"

static const uint8_t *pixel(const struct image *image, uint32_t x, uint32_t y)
{
	return image->pixels + 3 * ((size_t)y * image->width + x);
}

static unsigned brightness(const struct image *image, uint32_t x, uint32_t y)
{
	const uint8_t *p = pixel(image, x, y);

	return (unsigned)p[0] + p[1] + p[2];
}

static struct image *grey(uint32_t width, uint32_t height, uint32_t n_channels)
{
	struct image *image;

	assert_int_equal(image_new(&image, width, height, n_channels), 0);
	memset(image->pixels, 128, (size_t)width * height * n_channels);
	return image;
}

static struct image *draw(
	const struct image *image, struct resize_box box, const float *map, uint32_t side)
{
	const struct image_view view = image_view(image);
	struct image *out = NULL;

	assert_int_equal(heatmap_draw(&out, &view, &box, map, side), 0);
	return out;
}

static void the_hard_cell_is_the_bright_one(void **state)
{
	static const float map[4] = { 1, 2, 9, 3 }; /* below left */

	(void)state;
	for (uint32_t n_channels = 1; n_channels <= 3; n_channels += 2) {
		_cleanup_(image_freep) struct image *image = grey(100, 50, n_channels);
		_cleanup_(image_freep) struct image *out =
			draw(image, (struct resize_box){ 0, 0, 100, 50 }, map, 2);

		assert_int_equal(out->width, HEATMAP_MIN_PX);
		assert_int_equal(out->height, HEATMAP_MIN_PX / 2);
		assert_true(brightness(out, 10, 200) > brightness(out, 440, 200) + 100);
		assert_true(brightness(out, 440, 200) > brightness(out, 10, 10));
		/* Cells run into each other. */
		assert_true(brightness(out, 10, 112) < brightness(out, 10, 200));
		assert_true(brightness(out, 10, 112) > brightness(out, 10, 10));
	}
}

static void the_image_is_seen_below(void **state)
{
	_cleanup_(image_freep) struct image *image = grey(64, 64, 3);
	_cleanup_(image_freep) struct image *out = NULL;
	const float flat = 7;

	(void)state;
	memset(image->pixels, 250, (size_t)32 * 64 * 3); /* the upper half */
	out = draw(image, (struct resize_box){ 0, 0, 64, 64 }, &flat, 1);
	assert_true(brightness(out, 200, 50) > brightness(out, 200, 400) + 100);
	/* The same below one map cell: from left to right nothing changes. */
	assert_memory_equal(pixel(out, 5, 50), pixel(out, 400, 50), 3);
}

static void a_part_of_a_large_image_is_drawn_smaller(void **state)
{
	_cleanup_(image_freep) struct image *image = grey(3000, 2000, 1);
	_cleanup_(image_freep) struct image *out = NULL;
	static const float map[9] = { 0, 0, 0, 0, NAN, 0, 0, 0, 1 };

	(void)state;
	out = draw(image, (struct resize_box){ 500, 0, 2000, 2000 }, map, 3);
	assert_int_equal(out->width, HEATMAP_MAX_PX);
	assert_int_equal(out->height, HEATMAP_MAX_PX);
	assert_true(brightness(out, 1020, 1020) > brightness(out, 512, 512));
	assert_true(brightness(out, 512, 512) == brightness(out, 5, 5));
}

static void what_cannot_be_drawn_is_refused(void **state)
{
	_cleanup_(image_freep) struct image *image = grey(10, 10, 3);
	const struct image_view view = image_view(image);
	struct image *out = NULL;
	const float map = 1;

	(void)state;
	assert_int_equal(
		heatmap_draw(&out, &view, &(struct resize_box){ 0, 0, 10, 10 }, &map, 0), -EINVAL);
	assert_int_equal(
		heatmap_draw(&out, &view, &(struct resize_box){ 5, 5, 10, 10 }, &map, 1), -EINVAL);
	assert_int_equal(
		heatmap_draw(&out, &view, &(struct resize_box){ 0, 0, 0, 0 }, &map, 1), -EINVAL);
	assert_null(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_hard_cell_is_the_bright_one),
		cmocka_unit_test(the_image_is_seen_below),
		cmocka_unit_test(a_part_of_a_large_image_is_drawn_smaller),
		cmocka_unit_test(what_cannot_be_drawn_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
