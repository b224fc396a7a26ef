/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "part.h"

enum { PX = 192, N_PARTS = 96 };

/*
 * The renderer is frozen: figures are measured on these very pixels. A wrong checksum here means
 * that they changed, never that the line below is to be updated.
 */
static const uint64_t frozen_rgb = UINT64_C(0x381be2ccc7b0284f);
static const uint64_t frozen_grey = UINT64_C(0x51ae3ce24843d111);

static uint64_t checksum_of(uint32_t px, uint32_t n_channels, uint32_t defects_ppm)
{
	size_t n_bytes = (size_t)px * px * n_channels;
	_cleanup_(freep) uint8_t *pixels = malloc(n_bytes);
	uint64_t sums[N_PARTS];

	assert_non_null(pixels);
	for (uint32_t i = 0; i < N_PARTS; i++) {
		struct part part;

		part_render(&part, pixels, px, n_channels, 20, i, defects_ppm);
		sums[i] = digest_checksum(pixels, n_bytes) ^ (uint64_t)part.defect << 60 ^
			  (uint64_t)part.kind << 50 ^ (uint64_t)part.box.x << 30 ^
			  (uint64_t)part.box.y << 20 ^ (uint64_t)part.box.width << 10 ^
			  part.box.height;
	}
	return digest_checksum(sums, sizeof(sums));
}

static void the_rendered_pixels_are_the_frozen_ones(void **state)
{
	(void)state;
	assert_int_equal(checksum_of(PX, 3, 500000), frozen_rgb);
	assert_int_equal(checksum_of(PART_MIN_PX, 1, 500000), frozen_grey);
}

static void every_kind_and_every_defect_turns_up(void **state)
{
	_cleanup_(freep) uint8_t *pixels = malloc(PX * PX);
	unsigned kinds[PART_KINDS] = { 0 }, defects[PART_DEFECTS] = { 0 };

	(void)state;
	for (uint32_t i = 0; i < N_PARTS; i++) {
		struct part part;

		part_render(&part, pixels, PX, 1, 3, i, 800000);
		kinds[part.kind]++;
		defects[part.defect]++;
	}
	for (unsigned i = 0; i < PART_KINDS; i++)
		assert_in_range(kinds[i], 1, N_PARTS / 3);
	for (unsigned i = 0; i < PART_DEFECTS; i++)
		assert_in_range(defects[i], 1, N_PARTS / 2);
}

/* A defect changes the part where the truth says, and nowhere else. */
static void a_defect_lies_in_its_box(void **state)
{
	_cleanup_(freep) uint8_t *good = malloc(PX * PX), *bad = malloc(PX * PX);

	(void)state;
	for (uint32_t i = 0; i < N_PARTS; i++) {
		struct part with, without;
		unsigned n_inside = 0;

		part_render(&without, good, PX, 1, 4, i, 0);
		part_render(&with, bad, PX, 1, 4, i, 1000000);
		assert_int_equal(without.defect, PART_GOOD);
		assert_int_equal(without.box.width, 0);
		assert_int_equal(with.kind, without.kind);
		assert_int_not_equal(with.defect, PART_GOOD);
		for (uint32_t y = 0; y < PX; y++)
			for (uint32_t x = 0; x < PX; x++) {
				int d = abs(good[y * PX + x] - bad[y * PX + x]);
				bool is_inside = x - with.box.x < with.box.width &&
						 y - with.box.y < with.box.height;

				n_inside += d >= 8 && is_inside;
				if (d >= 16 && !is_inside)
					fail_msg("part %u, %s: %d levels at %u, %u", i,
						part_defect_names[with.defect], d, x, y);
			}
		if (n_inside < 12)
			fail_msg("part %u, %s: not to be seen", i, part_defect_names[with.defect]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rendered_pixels_are_the_frozen_ones),
		cmocka_unit_test(every_kind_and_every_defect_turns_up),
		cmocka_unit_test(a_defect_lies_in_its_box),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
