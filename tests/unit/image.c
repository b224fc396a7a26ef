/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <cmocka.h>

#include "base/blob.h"
#include "image/image.h"

#define GOLDEN "tests/unit/golden/image"

static void *read_golden(const char *name, const char *suffix, size_t *ret_n_bytes)
{
	char path[256];
	void *data;

	(void)snprintf(path, sizeof(path), GOLDEN "/%s%s", name, suffix);
	if (blob_read(AT_FDCWD, path, 1 << 20, &data, ret_n_bytes) < 0)
		fail_msg("%s: not readable", path);
	return data;
}

static int is_file(const struct dirent *entry)
{
	return entry->d_name[0] != '.' && !strstr(entry->d_name, ".raw");
}

/* Calls check() for every golden, in the order of the names. */
static void for_each_golden(void (*check)(const char *name, const uint8_t *file, size_t n_file))
{
	struct dirent **entries;
	int n = scandir(GOLDEN, &entries, is_file, alphasort);

	assert_true(n > 20);
	for (int i = 0; i < n; i++) {
		size_t n_file;
		_cleanup_(freep) uint8_t *file = read_golden(entries[i]->d_name, "", &n_file);

		check(entries[i]->d_name, file, n_file);
		free(entries[i]);
	}
	free(entries);
}

static void check_golden(const char *name, const uint8_t *file, size_t n_file)
{
	size_t n_raw;
	_cleanup_(freep) uint8_t *raw = read_golden(name, ".raw", &n_raw);
	_cleanup_(image_freep) struct image *image = NULL;
	struct diag diag = { "" };
	uint32_t head[4]; /* width, height, channels, tolerance */
	int r = image_decode(&image, file, n_file, &diag);

	if (r < 0)
		fail_msg("%s: %d, %s", name, r, diag.text);
	memcpy(head, raw, sizeof(head));
	assert_int_equal(image->width, head[0]);
	assert_int_equal(image->height, head[1]);
	assert_int_equal(image->n_channels, head[2]);
	for (size_t i = 0; i < n_raw - sizeof(head); i++) {
		int apart = abs(image->pixels[i] - raw[sizeof(head) + i]);

		if (apart > (int)head[3])
			fail_msg("%s: byte %zu is %d, not %d", name, i, image->pixels[i],
				raw[sizeof(head) + i]);
	}
}

static void every_kind_of_file_decodes_as_elsewhere(void **state)
{
	(void)state;
	for_each_golden(check_golden);
}

static void check_truncated(const char *name, const uint8_t *file, size_t n_file)
{
	/* A PNG ends with the checksum of an empty chunk, which spng does not miss. */
	size_t n_needed = strstr(name, ".png") ? n_file - 4 : n_file;

	for (size_t n = 0; n < n_needed; n++) {
		_cleanup_(freep) uint8_t *part = malloc(n + 1); /* exact: see the byte too far */
		_cleanup_(image_freep) struct image *image = NULL;
		struct diag diag = { "" };
		int r;

		memcpy(part, file, n);
		part = realloc(part, n > 0 ? n : 1);
		r = image_decode(&image, part, n, &diag);
		if (r != -EBADMSG || image || diag.text[0] == 0)
			fail_msg("%s: %zu of %zu bytes: %d, '%s'", name, n, n_file, r, diag.text);
	}
}

static void no_truncated_file_gives_an_image(void **state)
{
	(void)state;
	for_each_golden(check_truncated);
}

/* Whatever a flipped byte does, it does not harm us; the sanitizers look on. */
static void check_flipped(const char *name, const uint8_t *file, size_t n_file)
{
	_cleanup_(freep) uint8_t *copy = malloc(n_file);

	(void)name;
	for (size_t i = 0; i < n_file; i++) {
		_cleanup_(image_freep) struct image *image = NULL;
		struct diag diag;
		int r;

		memcpy(copy, file, n_file);
		copy[i] ^= (uint8_t)(1u << i % 8);
		r = image_decode(&image, copy, n_file, &diag);
		assert_true(r == 0 ? !!image : r == -EBADMSG || r == -EFBIG);
	}
}

static void a_flipped_bit_harms_nobody(void **state)
{
	(void)state;
	for_each_golden(check_flipped);
}

static void expect(const void *file, size_t n_file, int error, const char *word)
{
	_cleanup_(image_freep) struct image *image = NULL;
	struct diag diag = { "" };
	int r = image_decode(&image, file, n_file, &diag);

	if (r != error || !strstr(diag.text, word))
		fail_msg("%d, '%s' without '%s'", r, diag.text, word);
}

static void huge_promises_are_refused_before_memory_is_taken(void **state)
{
	size_t n_png, n_jpeg;
	_cleanup_(freep) uint8_t *png = read_golden("rgb8.png", "", &n_png);
	_cleanup_(freep) uint8_t *jpeg = read_golden("rgb_444.jpg", "", &n_jpeg);
	uint8_t *frame = memmem(jpeg, n_jpeg, "\xff\xc0", 2);
	/* IHDR of 16384 x 16384, with its checksum. */
	static const uint8_t many[] = { 0, 0, 0x40, 0, 0, 0, 0x40, 0, 8, 2, 0, 0, 0, 0x26, 0xaa,
		0x87, 0xd3 };

	(void)state;
	expect("P6 16385 1 255 ", 15, -EFBIG, "16385");
	expect("P5 8193 8193 255 ", 17, -EFBIG, "in all");
	expect("P5 999999 999999 255 ", 21, -EFBIG, "999999");
	expect("P5 1000000 1 255 ", 17, -EBADMSG, "header");
	expect("P5 0 5 255 ", 11, -EBADMSG, "without pixels");
	assert_non_null(frame);
	frame[5] = 0x9c;
	frame[6] = 0x40;
	expect(jpeg, n_jpeg, -EFBIG, "x 40000");
	memcpy(png + 16, many, sizeof(many));
	expect(png, n_png, -EFBIG, "16384");
}

static void other_damage_has_its_message(void **state)
{
	(void)state;
	expect("", 0, -EBADMSG, "neither");
	expect("GIF89a", 6, -EBADMSG, "neither");
	expect("P4 8 1 \xff", 8, -EBADMSG, "neither");
	expect("P5 2 1 65535 \1\1\1\1", 17, -EBADMSG, "maximum");
	expect("P5 2 1 0 \1\1\1\1", 13, -EBADMSG, "maximum");
	expect("P5 2 1 9 \1\12", 11, -EBADMSG, "above the maximum");
	expect("P5 2 1 255 \1", 12, -EBADMSG, "truncated");
	expect("P5 2 x 255 \1\1", 13, -EBADMSG, "header");
	expect("P5 2 -1 255 \1\1", 14, -EBADMSG, "header");
	expect("P5 2 1 255", 10, -EBADMSG, "header");
	expect("\xff\xd8\xff\xd9", 4, -EBADMSG, "JPEG");
	expect("\x89PNG\r\n\x1a\n", 8, -EBADMSG, "PNG");
}

/* A strided view: the bytes between the rows must not show. */
static struct image_view striped(uint8_t *pixels, uint32_t width, uint32_t height, uint32_t n)
{
	struct image_view view = { pixels, width, height, n, (size_t)width * n + 5 };

	memset(pixels, 0xee, view.stride * height);
	for (uint32_t y = 0; y < height; y++)
		for (uint32_t x = 0; x < width * n; x++)
			pixels[y * view.stride + x] = (uint8_t)(x * 5 + y * 3);
	return view;
}

static void what_is_encoded_decodes_to_itself(void **state)
{
	static uint8_t pixels[64 * 256];

	(void)state;
	for (uint32_t n_channels = 1; n_channels <= 3; n_channels += 2)
		for (int jpeg = 0; jpeg < 2; jpeg++) {
			struct image_view view = striped(pixels, 37, 23, n_channels);
			_cleanup_(image_freep) struct image *image = NULL;
			_cleanup_(freep) void *file = NULL;
			size_t n_file;

			if (jpeg)
				assert_int_equal(image_encode_jpeg(&view, 100, &file, &n_file), 0);
			else
				assert_int_equal(image_encode_png(&view, &file, &n_file), 0);
			assert_int_equal(image_decode(&image, file, n_file, NULL), 0);
			assert_int_equal(image->n_channels, n_channels);
			assert_int_equal(image->width, 37);
			assert_int_equal(image->height, 23);
			for (size_t i = 0; i < 37 * 23 * n_channels; i++) {
				size_t y = i / (37 * n_channels), x = i % (37 * n_channels);

				assert_in_range(image->pixels[i] + 3 - pixels[y * view.stride + x],
					jpeg ? 0 : 3, jpeg ? 6 : 3);
			}
		}
}

static void what_cannot_be_encoded_is_refused(void **state)
{
	uint8_t pixels[64] = { 0 };
	struct image_view view = { pixels, 4, 4, 2, 8 };
	struct image *image = NULL;
	void *file;
	size_t n_file;

	(void)state;
	assert_int_equal(image_encode_png(&view, &file, &n_file), -EINVAL);
	assert_int_equal(image_encode_jpeg(&view, 90, &file, &n_file), -EINVAL);
	view.n_channels = 1;
	assert_int_equal(image_encode_jpeg(&view, 0, &file, &n_file), -EINVAL);
	assert_int_equal(image_encode_jpeg(&view, 101, &file, &n_file), -EINVAL);
	view.height = 0;
	assert_int_equal(image_encode_png(&view, &file, &n_file), -EINVAL);
	assert_int_equal(image_new(&image, 4, 4, 4), -EINVAL);
	assert_int_equal(image_new(&image, 0, 4, 3), -EINVAL);
	assert_int_equal(image_new(&image, 16385, 4, 3), -EINVAL);
	assert_null(image);
	image_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_file_decodes_as_elsewhere),
		cmocka_unit_test(no_truncated_file_gives_an_image),
		cmocka_unit_test(a_flipped_bit_harms_nobody),
		cmocka_unit_test(huge_promises_are_refused_before_memory_is_taken),
		cmocka_unit_test(other_damage_has_its_message),
		cmocka_unit_test(what_is_encoded_decodes_to_itself),
		cmocka_unit_test(what_cannot_be_encoded_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
