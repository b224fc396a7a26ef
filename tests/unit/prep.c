/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "image/prep.h"

static const struct prep native = {
	.input_px = 224,
	.resize = PREP_CROP,
	.crop = 224.f / 248.f,
	.mean = { 0.5f, 0.25f, 0.125f },
	.std = { 0.5f, 0.25f, 2.f },
};

/* Stored with versions: it may never change. */
static void the_digest_is_the_same_for_ever(void **state)
{
	char hex[DIGEST_HEX_CHARS + 1];
	struct digest digest = prep_digest(&native);

	(void)state;
	digest_to_hex(&digest, hex);
	assert_string_equal(
		hex, "94d519eb53c0b0a27b7a478863d4e415e786ac7ab1a40f12783638969e864895");
}

static void every_field_changes_the_digest(void **state)
{
	struct prep other[16];
	struct digest digests[17];

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		other[i] = native;
	other[0].input_px = 112;
	other[1].resize = PREP_SQUASH;
	other[2].crop = 0.9f;
	for (unsigned c = 0; c < 3; c++) {
		other[3 + c].mean[c] += 0.0625f;
		other[6 + c].std[c] += 0.0625f;
	}
	for (unsigned i = 0; i < 4; i++)
		other[9 + i].roi[i] = 1;
	other[13].tiles[0] = 1;
	other[14].tiles[1] = 1;
	other[15].mean[0] = other[15].mean[1];
	for (unsigned i = 0; i < 16; i++)
		digests[i] = prep_digest(&other[i]);
	digests[16] = prep_digest(&native);
	for (unsigned i = 0; i <= 16; i++)
		for (unsigned j = 0; j < i; j++)
			assert_false(digest_equal(&digests[i], &digests[j]));
}

static void minus_zero_is_zero(void **state)
{
	struct prep a = native, b = native;
	struct digest x, y;

	(void)state;
	a.mean[0] = 0.f;
	b.mean[0] = -0.f;
	x = prep_digest(&a);
	y = prep_digest(&b);
	assert_true(digest_equal(&x, &y));
}

static void expect_refused(const struct prep *prep, const char *field)
{
	struct diag diag = { "" };

	if (prep_check(prep, 16, &diag) != -EINVAL || !strstr(diag.text, field))
		fail_msg("'%s' does not refuse %s", diag.text, field);
}

static void a_field_out_of_range_is_named(void **state)
{
	struct prep prep;

	(void)state;
	assert_int_equal(prep_check(&native, 16, NULL), 0);
	assert_int_equal(prep_check(&native, 14, NULL), 0);
	assert_int_equal(prep_check(&native, 15, NULL), -EINVAL);
#define REFUSE(member, value, name) \
	do { \
		prep = native; \
		prep.member = (value); \
		expect_refused(&prep, name); \
	} while (0)
	REFUSE(input_px, 0, "input_px");
	REFUSE(input_px, 225, "input_px");
	REFUSE(input_px, 4096, "input_px");
	REFUSE(resize, (enum prep_resize)2, "resize");
	REFUSE(crop, 0.f, "crop");
	REFUSE(crop, 1.01f, "crop");
	REFUSE(crop, NAN, "crop");
	REFUSE(mean[2], 1.5f, "mean");
	REFUSE(mean[0], NAN, "mean");
	REFUSE(std[1], 0.f, "std");
	REFUSE(std[1], INFINITY, "std");
	REFUSE(roi[3], 1, "roi");
	REFUSE(tiles[0], 2, "tiles");
}

static void pixels_are_normalised_plane_by_plane(void **state)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	static uint8_t rgb[40 * 30 * 3], grey[40 * 30];
	static float out[3 * 16 * 16], same[3 * 16 * 16];
	struct image_view view = { rgb, 40, 30, 3, 120 };
	struct prep prep = native;

	(void)state;
	prep.input_px = 16;
	for (size_t i = 0; i < sizeof(grey); i++) {
		rgb[3 * i] = 255;
		rgb[3 * i + 1] = 51;
		rgb[3 * i + 2] = 0;
		grey[i] = (uint8_t)(i * 7);
	}
	assert_int_equal(resize_scratch_new(&scratch), 0);
	assert_int_equal(prep_apply(&prep, &view, out, scratch), 0);
	for (unsigned i = 0; i < 256; i++) {
		assert_true(fabsf(out[i] - 1.f) < 1e-6f);
		assert_true(fabsf(out[256 + i] - (0.2f - 0.25f) / 0.25f) < 1e-6f);
		assert_true(fabsf(out[512 + i] + 0.0625f) < 1e-6f);
	}
	for (size_t i = 0; i < sizeof(grey); i++)
		memset(rgb + 3 * i, grey[i], 3);
	assert_int_equal(prep_apply(&prep, &view, out, scratch), 0);
	view = (struct image_view){ grey, 40, 30, 1, 40 };
	assert_int_equal(prep_apply(&prep, &view, same, scratch), 0);
	assert_memory_equal(out, same, sizeof(out));
}

/* Resizing a box of the source must equal resizing all of it and cropping then. */
static void a_centre_crop_is_a_resize_and_a_cut(void **state)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	_cleanup_(image_freep) struct image *image = NULL, *whole = NULL;
	static float out[3 * 48 * 48];
	struct prep prep = { .input_px = 48, .crop = 48.f / 53.f, .std = { 1, 1, 1 } };
	struct image_view view;

	(void)state;
	assert_int_equal(resize_scratch_new(&scratch), 0);
	assert_int_equal(image_new(&image, 171, 100, 1), 0);
	for (size_t i = 0; i < 17100; i++)
		image->pixels[i] = (uint8_t)(i * i / 77 + i % 171 * 3);
	view = image_view(image);
	assert_int_equal(prep_apply(&prep, &view, out, scratch), 0);
	assert_int_equal(image_shrink(&whole, &view, 53), 0);
	assert_int_equal(whole->width, 90); /* 90.63 cut off, as torchvision does */
	assert_int_equal(whole->height, 53);
	for (unsigned y = 0; y < 48; y++)
		for (unsigned x = 0; x < 48; x++) {
			/* (53 - 48) / 2 = 2.5 rounds to the even 2 */
			int want = whole->pixels[(y + 2) * 90 + x + 21];
			int got = (int)lroundf(out[y * 48 + x] * 255);

			if (abs(got - want) > 1)
				fail_msg("(%u, %u): %d, not %d", y, x, got, want);
		}
}

static void a_squash_sees_every_edge(void **state)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	static uint8_t src[64 * 8];
	static float out[3 * 16 * 16];
	const struct image_view view = { src, 64, 8, 1, 64 };
	struct prep prep = { .input_px = 16, .resize = PREP_SQUASH, .crop = 1, .std = { 1, 1, 1 } };

	(void)state;
	assert_int_equal(resize_scratch_new(&scratch), 0);
	for (unsigned y = 0; y < 8; y++)
		memset(src + 64 * y + 60, 255, 4);
	assert_int_equal(prep_apply(&prep, &view, out, scratch), 0);
	for (unsigned y = 0; y < 16; y++) {
		assert_true(out[16 * y] < 0.01f);
		assert_true(out[16 * y + 15] > 0.8f);
	}
	prep.resize = PREP_CROP;
	assert_int_equal(prep_apply(&prep, &view, out, scratch), 0);
	assert_true(out[15] < 0.01f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_digest_is_the_same_for_ever),
		cmocka_unit_test(every_field_changes_the_digest),
		cmocka_unit_test(minus_zero_is_zero),
		cmocka_unit_test(a_field_out_of_range_is_named),
		cmocka_unit_test(pixels_are_normalised_plane_by_plane),
		cmocka_unit_test(a_centre_crop_is_a_resize_and_a_cut),
		cmocka_unit_test(a_squash_sees_every_edge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
