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
#include "image/resize.h"

/* The twin of source() in golden/image.py. */
static void fill_source(struct image *image)
{
	uint32_t state = 12345;
	uint8_t *p = image->pixels;

	for (uint32_t y = 0; y < image->height; y++)
		for (uint32_t x = 0; x < image->width; x++)
			for (uint32_t c = 0; c < image->n_channels; c++) {
				state = state * 1664525u + 1013904223u;
				*p++ = x > 2 * y ? 255
						 : (uint8_t)((x * (c + 3) * 7 + y * 11) % 200 +
							     (state >> 27));
			}
}

struct golden {
	uint32_t width, height, n_channels, dst_width, dst_height, filter;
	struct resize_box box;
};

static void check_case(
	unsigned n, const struct golden *g, const uint8_t *want, struct resize_scratch *scratch)
{
	size_t n_bytes = (size_t)g->dst_width * g->dst_height * g->n_channels;
	_cleanup_(freep) uint8_t *got = malloc(n_bytes);
	_cleanup_(image_freep) struct image *image = NULL;
	struct image_view view;

	assert_int_equal(image_new(&image, g->width, g->height, g->n_channels), 0);
	fill_source(image);
	view = image_view(image);
	assert_int_equal(resize_u8(got, g->dst_width, g->dst_height, &view, &g->box,
				 (enum resize_filter)g->filter, scratch),
		0);
	for (size_t i = 0; i < n_bytes; i++)
		if (abs(got[i] - want[i]) > 1)
			fail_msg("case %u, byte %zu: %d, not %d", n, i, got[i], want[i]);
}

static void every_size_comes_out_as_from_pil(void **state)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	_cleanup_(freep) uint8_t *file = NULL;
	size_t n_bytes, at = 0;
	unsigned n = 0;

	(void)state;
	assert_int_equal(resize_scratch_new(&scratch), 0);
	assert_int_equal(blob_read(AT_FDCWD, "tests/unit/golden/resize.bin", 1 << 20,
				 (void **)&file, &n_bytes),
		0);
	for (; at < n_bytes; n++) {
		struct golden g;

		memcpy(&g, file + at, sizeof(g));
		check_case(n, &g, file + at + sizeof(g), scratch);
		at += sizeof(g) + (size_t)g.dst_width * g.dst_height * g.n_channels;
	}
	assert_int_equal(at, n_bytes);
	assert_true(n >= 18);
}

static void a_flat_image_stays_flat(void **state)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	static uint8_t src[50 * 41], dst[70 * 70];
	const struct image_view view = { src, 50, 41, 1, 50 };

	(void)state;
	assert_int_equal(resize_scratch_new(&scratch), 0);
	memset(src, 255, sizeof(src));
	for (uint32_t px = 1; px <= 70; px += 3)
		for (int filter = RESIZE_BILINEAR; filter <= RESIZE_BICUBIC; filter++) {
			const struct resize_box box = { 0.3f, 0.7f, 49.5f, 40.1f };

			memset(dst, 0, sizeof(dst));
			assert_int_equal(resize_u8(dst, px, px, &view, &box,
						 (enum resize_filter)filter, scratch),
				0);
			for (size_t i = 0; i < (size_t)px * px; i++)
				assert_int_equal(dst[i], 255);
		}
}

static void a_box_outside_is_refused(void **state)
{
	static const struct resize_box boxes[] = {
		{ -1, 0, 5, 5 },
		{ 0, -0.5f, 5, 5 },
		{ 6, 0, 5, 5 },
		{ 0, 6, 5, 5 },
		{ 0, 0, 0, 5 },
		{ 0, 0, 5, -1 },
		{ 0, NAN, 5, 5 },
		{ 0, 0, NAN, 5 },
		{ 0, 0, INFINITY, 5 },
	};
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	uint8_t src[100] = { 0 }, dst[100];
	const struct image_view view = { src, 10, 10, 1, 10 };

	(void)state;
	assert_int_equal(resize_scratch_new(&scratch), 0);
	for (size_t i = 0; i < ARRAY_SIZE(boxes); i++)
		assert_int_equal(
			resize_u8(dst, 4, 4, &view, &boxes[i], RESIZE_BICUBIC, scratch), -EINVAL);
	assert_int_equal(resize_u8(dst, 0, 4, &view, &(struct resize_box){ 0, 0, 5, 5 },
				 RESIZE_BICUBIC, scratch),
		-EINVAL);
	resize_scratch_free(NULL);
}

static void shrinking_keeps_the_aspect_and_never_enlarges(void **state)
{
	_cleanup_(image_freep) struct image *image = NULL, *small = NULL, *same = NULL;
	struct image_view view;

	(void)state;
	assert_int_equal(image_new(&image, 90, 60, 3), 0);
	fill_source(image);
	view = image_view(image);
	assert_int_equal(image_shrink(&small, &view, 20), 0);
	assert_int_equal(small->width, 30);
	assert_int_equal(small->height, 20);
	view.width -= 2; /* now a strided view */
	assert_int_equal(image_shrink(&same, &view, 60), 0);
	assert_int_equal(same->width, 88);
	assert_int_equal(same->height, 60);
	for (unsigned y = 0; y < 60; y++)
		assert_memory_equal(same->pixels + y * 88 * 3, image->pixels + y * 90 * 3, 88 * 3);
	assert_int_equal(image_shrink(&same, &view, 0), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size_comes_out_as_from_pil),
		cmocka_unit_test(a_flat_image_stays_flat),
		cmocka_unit_test(a_box_outside_is_refused),
		cmocka_unit_test(shrinking_keeps_the_aspect_and_never_enlarges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
