/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "serve/heat.h"

static void a_map_that_fits_stays_as_it_is(void **state)
{
	static float map[SHM_MAX_HARDNESS_SIDE * SHM_MAX_HARDNESS_SIDE];
	static float out[SHM_MAX_HARDNESS_SIDE * SHM_MAX_HARDNESS_SIDE];

	(void)state;
	for (uint32_t side = 1; side <= SHM_MAX_HARDNESS_SIDE; side++) {
		for (uint32_t i = 0; i < side * side; i++)
			map[i] = (float)i * .1f;
		assert_int_equal(heat_shrink(out, map, side), side);
		assert_memory_equal(out, map, side * side * sizeof(*map));
	}
}

static void a_larger_one_is_averaged_in_squares(void **state)
{
	static float map[HARDNESS_MAX_GRID * HARDNESS_MAX_GRID];

	(void)state;
	for (uint32_t side = SHM_MAX_HARDNESS_SIDE + 1; side <= HARDNESS_MAX_GRID; side++) {
		const uint32_t n = (side + 1) / 2;

		for (uint32_t i = 0; i < side * side; i++)
			map[i] = (float)(i / side + 100 * (i % side));
		/* In place. */
		assert_int_equal(heat_shrink(map, map, side), n);
		assert_true(n <= SHM_MAX_HARDNESS_SIDE);
		for (uint32_t y = 0; y < n; y++)
			for (uint32_t x = 0; x < n; x++) {
				/* What is left of a row or column at an odd side is alone. */
				double mid_y = 2 * y + 1 < side ? 2 * y + .5 : 2 * y;
				double mid_x = 2 * x + 1 < side ? 2 * x + .5 : 2 * x;

				assert_close(map[y * n + x], mid_y + 100 * mid_x, 1e-3);
			}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_map_that_fits_stays_as_it_is),
		cmocka_unit_test(a_larger_one_is_averaged_in_squares),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
