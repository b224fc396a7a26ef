/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <string.h>
#include <cmocka.h>

#include "ingest/kimg.h"

enum { WIDTH = 5, HEIGHT = 3, HEADER = 32 };

static uint8_t *encode(uint32_t n_channels, size_t padding, size_t *ret_n_bytes)
{
	uint8_t pixels[HEIGHT * (WIDTH * 3 + 4)];
	struct image_view view = { pixels, WIDTH, HEIGHT, n_channels,
		WIDTH * n_channels + padding };
	void *data = NULL;

	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)(i * 7);
	assert_int_equal(kimg_encode(&view, &data, ret_n_bytes), 0);
	return data;
}

static void what_was_encoded_is_decoded(void **state)
{
	(void)state;
	for (uint32_t n_channels = 1; n_channels <= 3; n_channels += 2) {
		size_t n_bytes, n_row = WIDTH * n_channels;
		_cleanup_(freep) uint8_t *data = encode(n_channels, 4, &n_bytes);
		_cleanup_(image_freep) struct image *image = NULL;

		assert_int_equal(n_bytes, HEADER + HEIGHT * n_row);
		assert_memory_equal(data, "KIMG\1\0\0\0\5\0\0\0\3\0\0\0", 16);
		assert_int_equal(kimg_decode(&image, data, n_bytes, NULL), 0);
		assert_int_equal(image->width, WIDTH);
		assert_int_equal(image->height, HEIGHT);
		assert_int_equal(image->n_channels, n_channels);
		for (size_t y = 0; y < HEIGHT; y++)
			for (size_t x = 0; x < n_row; x++)
				assert_int_equal(image->pixels[y * n_row + x],
					(uint8_t)((y * (n_row + 4) + x) * 7));
	}
}

static void every_damaged_byte_is_noticed(void **state)
{
	size_t n_bytes;
	_cleanup_(freep) uint8_t *data = encode(3, 0, &n_bytes);

	(void)state;
	for (size_t i = 0; i < n_bytes; i++) {
		struct image *image = NULL;
		struct diag diag = { "" };

		data[i] ^= 0x40;
		if (kimg_decode(&image, data, n_bytes, &diag) != -EBADMSG || image || !diag.text[0])
			fail_msg("byte %zu: damage not noticed", i);
		data[i] ^= 0x40;
	}
}

static void every_truncated_length_is_noticed(void **state)
{
	size_t n_bytes;
	_cleanup_(freep) uint8_t *data = encode(1, 0, &n_bytes);

	(void)state;
	for (size_t n = 0; n < n_bytes; n++) {
		/* A block of exactly n bytes, so that a sanitizer sees every byte too far. */
		_cleanup_(freep) uint8_t *part = malloc(n + !n);
		struct image *image = NULL;

		assert_non_null(part);
		memcpy(part, data, n);
		assert_int_equal(kimg_decode(&image, part, n, NULL), -EBADMSG);
		assert_null(image);
	}
}

static void the_field_is_named(void **state)
{
	static const struct {
		size_t at;
		const char *field;
	} cases[] = { { 0, "magic" }, { 4, "version" }, { 10, "width" }, { 14, "height" },
		{ 16, "channels" }, { 20, "reserved" }, { 24, "checksum" }, { 8, "length" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n_bytes;
		_cleanup_(freep) uint8_t *data = encode(1, 0, &n_bytes);
		struct image *image = NULL;
		struct diag diag = { "" };

		data[cases[i].at] ^= 0x80;
		assert_int_equal(kimg_decode(&image, data, n_bytes, &diag), -EBADMSG);
		if (strncmp(diag.text, cases[i].field, strlen(cases[i].field)) != 0)
			fail_msg("%s: \"%s\"", cases[i].field, diag.text);
	}
}

static void an_impossible_view_is_refused(void **state)
{
	uint8_t pixel[4] = { 0 };
	const struct image_view views[] = {
		{ pixel, 0, 1, 1, 1 },
		{ pixel, 1, 1, 2, 2 },
		{ pixel, 2, 1, 1, 1 },
		{ pixel, IMAGE_MAX_SIDE + 1, 1, 1, IMAGE_MAX_SIDE + 1 },
	};
	void *data = NULL;
	size_t n_bytes;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(views); i++)
		assert_int_equal(kimg_encode(&views[i], &data, &n_bytes), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_encoded_is_decoded),
		cmocka_unit_test(every_damaged_byte_is_noticed),
		cmocka_unit_test(every_truncated_length_is_noticed),
		cmocka_unit_test(the_field_is_named),
		cmocka_unit_test(an_impossible_view_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
