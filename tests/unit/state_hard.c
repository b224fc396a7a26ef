/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "site/hard_list.h"
#include "site/state.h"
#include "state_fixture.h"

/* ---- the list */

static void a_list_comes_back_to_the_bit(void **state)
{
	static const float numbers[] = { 0, -1.5f, 1e-38f, 3.40282347e38f, .1f };
	_cleanup_(hard_list_done) struct hard_list list = { 0 }, back = { 0 };
	_cleanup_(freep) char *text = NULL;
	size_t n;

	(void)state;
	for (uint32_t i = 0; i < 5; i++) {
		const struct digest hash = digest_of(&i, sizeof(i));

		assert_int_equal(hard_list_add(&list, &hash, numbers[i]), 0);
	}
	assert_int_equal(hard_list_add(&list, &list.images[0].hash, NAN), -EINVAL);
	assert_int_equal(hard_list_write(&list, &text, &n), 0);
	assert_int_equal(hard_list_read(&back, text, n), 0);
	assert_int_equal(back.n, 5);
	for (uint32_t i = 0; i < 5; i++) {
		assert_true(digest_equal(&back.images[i].hash, &list.images[i].hash));
		assert_memory_equal(&back.images[i].hardness, &numbers[i], sizeof(float));
	}
}

static void a_damaged_list_is_refused_whole(void **state)
{
	static const char *const ends[] = { "", " \n", " 1", " x\n", " 1 \n", "  1\n", " inf\n",
		" nan\n", " 1e99\n", "-1\n", " 0.00000000000000000000000000000001\n", " 1\n\n" };
	_cleanup_(hard_list_done) struct hard_list list = { 0 };
	const struct digest hash = digest_of("x", 1);
	char text[256], hex[DIGEST_HEX_CHARS + 1];

	(void)state;
	digest_to_hex(&hash, hex);
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		(void)snprintf(text, sizeof(text), "%s 2\n%s%s", hex, hex, ends[i]);
		assert_int_equal(hard_list_read(&list, text, strlen(text)), -EBADMSG);
	}
	hex[3] = 'g';
	(void)snprintf(text, sizeof(text), "%s 2\n", hex);
	assert_int_equal(hard_list_read(&list, text, strlen(text)), -EBADMSG);
	assert_int_equal(hard_list_read(&list, text, 0), 0);
	assert_int_equal(list.n, 0);
}

/* ---- in state.db */

/* Images [from, to): number i has hardness i, or to - i. */
static void put(struct fixture *fixture, uint32_t from, uint32_t to, bool falls)
{
	_cleanup_(hard_list_done) struct hard_list list = { 0 };
	_cleanup_(freep) struct hard_row *known = NULL;
	uint32_t n_known = 0, n_forgotten = 0;
	int r;

	assert_int_equal(state_hardest(fixture->state, "a", 1000, &known, &n_known), 0);
	for (uint32_t i = from; i < to; i++) {
		const struct digest hash = fixture_hash(i);

		assert_int_equal(
			hard_list_add(&list, &hash, (float)(falls ? (double)to - i : i)), 0);
	}
	while ((r = state_hardness_forget(fixture->state, "a", 7)) == 7)
		n_forgotten += 7;
	assert_true(r >= 0);
	assert_int_equal(n_forgotten + r, n_known);
	assert_int_equal(state_hardness_put(fixture->state, "a", list.images, list.n / 2), 0);
	assert_int_equal(state_hardness_put(fixture->state, "a", list.images + list.n / 2,
				 list.n - list.n / 2),
		0);
	assert_int_equal(state_commit(fixture->state), 0);
}

static void the_hardest_come_first_and_go_with_the_next_version(void **state)
{
	struct fixture *fixture = *state;
	const struct label label = { fixture_hash(39), "scratch" };
	_cleanup_(freep) struct hard_row *rows = NULL;
	struct label_counts counts;
	bool is_unknown;
	uint32_t n;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	assert_int_equal(state_hardest(fixture->state, "a", 5, &rows, &n), 0);
	assert_int_equal(n, 0);
	free(TAKE_PTR(rows));
	assert_int_equal(
		state_label_set(fixture->state, "a", &label, 1, "me", &is_unknown, &counts), 0);
	/* Of 60 in the list 20 are gone. */
	put(fixture, 0, 60, false);
	fixture_reopen(fixture);
	assert_int_equal(state_hardest(fixture->state, "a", 5, &rows, &n), 0);
	assert_int_equal(n, 5);
	for (uint32_t i = 0; i < 5; i++) {
		const struct digest hash = fixture_hash(39 - i);

		assert_true(digest_equal(&rows[i].hash, &hash));
		assert_close(rows[i].hardness, 39 - i, 0);
		assert_string_equal(rows[i].label, i == 0 ? "scratch" : "");
		assert_true(rows[i].arrived_us > 0);
	}
	free(TAKE_PTR(rows));
	/* What the next version says nothing of is not to be compared with what it says. */
	put(fixture, 0, 3, false);
	assert_int_equal(state_hardest(fixture->state, "a", 5, &rows, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(state_hardest(fixture->state, "b", 5, &rows, &n), -ENOENT);
}

/* How many of the hard and of the easy fourth of images [0, 320) are left of 400. */
static void evict(
	struct fixture *fixture, bool prefers_hard, uint32_t *ret_hard, uint32_t *ret_easy)
{
	char path[512];

	*ret_hard = *ret_easy = 0;
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 400);
	put(fixture, 0, 400, true);
	assert_int_equal(
		state_evict(fixture->state, "a", 160 * FIXTURE_BLOB_BYTES, prefers_hard), 0);
	for (uint32_t i = 0; i < 320; i++) {
		struct image_row row = fixture_image(fixture, "other", i);
		bool is_there;

		assert_int_equal(state_path(fixture->state, path, "a", "replay/"), 0);
		(void)snprintf(path + strlen(path), sizeof(path) - strlen(path), "%s", row.blob);
		is_there = access(path, F_OK) == 0;
		*ret_hard += is_there && i < 80;
		*ret_easy += is_there && i >= 240;
	}
	assert_int_equal(state_site_delete(fixture->state, "a", "me"), 0);
}

static void eviction_prefers_hard_images_where_it_is_told_to(void **state)
{
	struct fixture *fixture = *state;
	uint32_t hard, easy;

	assert_int_equal(state_site_create(fixture->state, "other", &fixture->defaults), 0);
	/* Some 76 of 320 stay: 19 of each fourth, with a spread of 4. */
	evict(fixture, false, &hard, &easy);
	assert_in_range(hard, 9, 29);
	assert_in_range(easy, 9, 29);
	evict(fixture, true, &hard, &easy);
	assert_in_range(hard, 30, 80);
	assert_in_range(easy, 1, 13);
}

#define with_state(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_comes_back_to_the_bit),
		cmocka_unit_test(a_damaged_list_is_refused_whole),
		with_state(the_hardest_come_first_and_go_with_the_next_version),
		with_state(eviction_prefers_hard_images_where_it_is_told_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
