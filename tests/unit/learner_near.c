/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "learner/near.h"

#define N 60u
#define DIM 37u /* no multiple of a vector */
#define GROUP 3u

/* Groups of three along their own axes: 0, 3, 6.. stand for themselves. */
static void fill(float rows[N][DIM], float noise)
{
	memset(rows, 0, N * sizeof(rows[0]));
	for (uint32_t i = 0; i < N; i++) {
		rows[i][i / GROUP] = 1 + (float)(i % GROUP); /* length is no likeness */
		rows[i][DIM - 1 - i % GROUP] = noise * rows[i][i / GROUP];
	}
}

static void one_of_each_group_stands_for_it(void **state)
{
	float rows[N][DIM];
	uint32_t pairs[N];

	(void)state;
	fill(rows, .02f);
	cosine_normalise(&rows[0][0], &rows[0][0], N, DIM);
	assert_int_equal(near_find(pairs, &rows[0][0], N, DIM, .999, NULL), 0);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(pairs[i], i % GROUP == 0 ? N : i - i % GROUP);
}

static void what_differs_enough_is_near_nothing(void **state)
{
	float rows[N][DIM];
	uint32_t pairs[N];

	(void)state;
	fill(rows, .2f);
	cosine_normalise(&rows[0][0], &rows[0][0], N, DIM);
	assert_int_equal(near_find(pairs, &rows[0][0], N, DIM, .999, NULL), 0);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(pairs[i], N);
}

/* A chain in which each is near the next: nothing leans on what goes itself. */
static void nothing_leans_on_what_goes(void **state)
{
	float rows[N][DIM] = { { 0 } };
	uint32_t pairs[N], n_kept = 0;

	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		rows[i][0] = 1;
		rows[i][1] = .03f * (float)i;
	}
	cosine_normalise(&rows[0][0], &rows[0][0], N, DIM);
	assert_int_equal(near_find(pairs, &rows[0][0], N, DIM, .999, NULL), 0);
	for (uint32_t i = 0; i < N; i++) {
		if (pairs[i] == N)
			n_kept++;
		else
			assert_int_equal(pairs[pairs[i]], N);
	}
	assert_in_range(n_kept, 2, N - 1);
	assert_int_equal(pairs[0], N);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_of_each_group_stands_for_it),
		cmocka_unit_test(what_differs_enough_is_near_nothing),
		cmocka_unit_test(nothing_leans_on_what_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
