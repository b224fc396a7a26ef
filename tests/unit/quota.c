/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <cmocka.h>

#include "serve/limits.h"
#include "serve/quota.h"

#define MS NS_PER_MS

static struct quota_user *enter(struct quota_table *table, uid_t uid)
{
	struct quota_user *user;

	assert_int_equal(quota_enter(table, uid, 0, &user), 0);
	return user;
}

static int open_one(
	struct quota_table *table, struct quota_user *user, const struct config *c, uint64_t n)
{
	struct diag diag = { .text = "" };
	int r = quota_open(table, user, c, n, &diag);

	assert_int_equal(r < 0, diag.text[0] != 0);
	return r;
}

static int ask(struct quota_table *table, struct quota_user *user, const struct config *c,
	uint64_t now, const char *named)
{
	struct diag diag = { .text = "" };
	int r = quota_ask(table, user, c, now, &diag);

	if (r < 0)
		assert_non_null(strstr(diag.text, named));
	return r;
}

static void one_user_has_so_many_sessions_and_another_its_own(void **state)
{
	const struct config config = { .uid_clients = 2 };
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *b = enter(&table, 2);

	(void)state;
	assert_ptr_equal(enter(&table, 1), a);
	assert_int_equal(open_one(&table, a, &config, 1), 0);
	assert_int_equal(open_one(&table, a, &config, 1), 0);
	assert_int_equal(open_one(&table, a, &config, 1), -EUSERS);
	assert_int_equal(open_one(&table, b, &config, 1), 0);
	quota_close(a);
	assert_int_equal(open_one(&table, a, &config, 1), 0);
	assert_int_equal(table.n_refused[QUOTA_CLIENTS], 1);
	quota_done(&table);
}

static void bytes_count_until_their_memory_is_gone(void **state)
{
	const struct config config = { .uid_bytes = 100 };
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *b = enter(&table, 2);

	(void)state;
	assert_int_equal(open_one(&table, a, &config, 60), 0);
	assert_int_equal(open_one(&table, a, &config, 41), -EDQUOT);
	assert_int_equal(open_one(&table, a, &config, UINT64_MAX), -EDQUOT);
	assert_int_equal(open_one(&table, b, &config, 100), 0);
	quota_close(a);
	assert_int_equal(open_one(&table, a, &config, 41), -EDQUOT);
	quota_free_bytes(a, 60);
	assert_int_equal(open_one(&table, a, &config, 100), 0);
	assert_int_equal(table.n_refused[QUOTA_BYTES], 3);
	quota_done(&table);
}

static void requests_in_flight_are_counted_over_all_sessions(void **state)
{
	const struct config config = { .uid_depth = 3 };
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *b = enter(&table, 2);

	(void)state;
	a->n_requests = 3;
	b->n_requests = 1;
	assert_int_equal(ask(&table, a, &config, 0, NULL), 0);
	a->n_requests = 4;
	assert_int_equal(ask(&table, a, &config, 0, "uid_depth"), -EDQUOT);
	assert_int_equal(ask(&table, b, &config, 0, NULL), 0);
	assert_int_equal(table.n_refused[QUOTA_DEPTH], 1);
	quota_done(&table);
}

static void a_rate_lets_a_burst_through_and_then_its_own_pace(void **state)
{
	const struct config config = { .uid_rate = 100, .uid_burst = 5 };
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *b = enter(&table, 2);
	uint64_t now = 7 * NS_PER_S;
	unsigned n = 0;

	(void)state;
	for (int i = 0; i < 20; i++)
		n += ask(&table, a, &config, now, "uid_rate") == 0;
	assert_int_equal(n, 5);
	assert_int_equal(ask(&table, b, &config, now, NULL), 0);
	/* Who is refused is not punished: the allowance fills at its pace all the same. */
	assert_int_equal(ask(&table, a, &config, now + 9 * MS, "uid_rate"), -EDQUOT);
	assert_int_equal(ask(&table, a, &config, now + 10 * MS, NULL), 0);
	assert_int_equal(ask(&table, a, &config, now + 10 * MS, "uid_rate"), -EDQUOT);
	n = 0;
	for (uint64_t t = 1; t <= 1000; t++)
		n += ask(&table, a, &config, now + 10 * MS + t * MS, "uid_rate") == 0;
	assert_int_equal(n, 100);
	n = 0;
	for (int i = 0; i < 20; i++)
		n += ask(&table, a, &config, now + 60 * NS_PER_S, "uid_rate") == 0;
	assert_int_equal(n, 5);
	quota_done(&table);
}

static void without_a_burst_a_second_is_one(void **state)
{
	const struct config config = { .uid_rate = 30 };
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1);
	unsigned n = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		n += ask(&table, a, &config, 1, "uid_rate") == 0;
	assert_int_equal(n, 30);
	quota_done(&table);
}

static void nothing_is_limited_where_nothing_is_set_or_nobody_counts(void **state)
{
	const struct config none = { 0 };
	const struct config tight = {
		.uid_clients = 1, .uid_bytes = 1, .uid_depth = 1, .uid_rate = 1
	};
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1);

	(void)state;
	a->n_requests = UINT32_MAX;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(open_one(&table, a, &none, 1u << 30), 0);
		assert_int_equal(ask(&table, a, &none, 0, NULL), 0);
		assert_int_equal(open_one(&table, NULL, &tight, 1u << 30), 0);
		assert_int_equal(ask(&table, NULL, &tight, 0, NULL), 0);
	}
	quota_close(NULL);
	quota_free_bytes(NULL, 1);
	quota_leave(&table, NULL, 0);
	quota_done(&table);
}

/* Whoever asks for the loop all the time, while others do as well. (nanoseconds of a turn) */
static double share_of(uint64_t turn_ns)
{
	struct quota_user user = { .uid = 1 };
	struct quota_table table = { 0 };
	uint64_t now = 7 * NS_PER_S, begin = now, spent = 0;

	while (now < begin + 20 * NS_PER_S) {
		if (!quota_has_turn(&user, now)) {
			now += 10 * NS_PER_US;
			continue;
		}
		now += turn_ns;
		spent += turn_ns;
		quota_took_turn(&table, NULL, now, 0);
		quota_took_turn(&table, &user, now, turn_ns);
	}
	return (double)spent / (double)(now - begin);
}

static void half_of_the_loop_is_half_however_long_a_turn_is(void **state)
{
	const uint64_t turns_us[] = { 5, 100, 400, 1000, 20000, 90000 };
	struct quota_table table = { 0 };

	(void)state;
	for (unsigned i = 0; i < sizeof(turns_us) / sizeof(turns_us[0]); i++) {
		double share = share_of(turns_us[i] * NS_PER_US);

		assert_true(share > 0.3 && share < 0.52);
	}
	assert_true(quota_has_turn(NULL, 0));
	quota_took_turn(&table, NULL, 1, 1);
}

static void a_user_is_forgotten_once_its_allowance_is_whole(void **state)
{
	const struct config config = { .uid_rate = 1, .uid_burst = 2 };
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *again;

	(void)state;
	quota_leave(&table, a, 0);
	assert_int_equal(table.n, 0);
	a = enter(&table, 1);
	assert_int_equal(ask(&table, a, &config, 0, NULL), 0);
	assert_int_equal(ask(&table, a, &config, 0, NULL), 0);
	quota_leave(&table, a, 0);
	/* A new connection is no new allowance. */
	assert_int_equal(quota_enter(&table, 1, 0, &again), 0);
	assert_int_equal(ask(&table, again, &config, 0, "uid_rate"), -EDQUOT);
	quota_leave(&table, again, 0);
	assert_int_equal(table.n, 1);
	assert_int_equal(quota_enter(&table, 2, 3 * NS_PER_S, &again), 0);
	assert_int_equal(table.n, 1);
	quota_done(&table);
}

static void the_table_of_users_has_a_bound(void **state)
{
	const struct config config = { .uid_rate = 1 };
	struct quota_table table = { 0 };
	struct quota_user *stays = enter(&table, 99999);

	(void)state;
	for (uid_t uid = 0; uid < 3 * SERVE_MAX_USERS; uid++) {
		struct quota_user *user = enter(&table, uid);

		assert_int_equal(ask(&table, user, &config, 0, NULL), 0);
		quota_leave(&table, user, 0);
		assert_true(table.n <= SERVE_MAX_USERS);
	}
	assert_ptr_equal(enter(&table, 99999), stays);
	quota_done(&table);
}

static void whoever_has_had_half_of_the_loop_waits(void **state)
{
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *b = enter(&table, 2);
	uint64_t now = NS_PER_S, spent = 0;

	(void)state;
	/* Wants the loop always: gets half of a second, and what it had saved. */
	for (int i = 0; i < 1000000 / 10; i++) {
		now += 10 * NS_PER_US;
		if (!quota_has_turn(a, now))
			continue;
		quota_took_turn(&table, a, now, 10 * NS_PER_US);
		spent += 10 * NS_PER_US;
	}
	assert_in_range(spent, NS_PER_S / 2, NS_PER_S / 2 + 2 * SERVE_CREDIT_NS);
	assert_true(quota_has_turn(b, now));
	assert_true(quota_has_turn(NULL, now));
	/* What it did while nobody else wanted the loop is soon forgotten. */
	quota_took_turn(&table, a, now, 60 * NS_PER_S);
	assert_false(quota_has_turn(a, now));
	assert_true(quota_has_turn(a, now + 2 * SERVE_DEBT_NS + 2 * NS_PER_US));
	quota_done(&table);
}

static void who_has_had_half_goes_on_at_once_where_nobody_else_is_about(void **state)
{
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *b = enter(&table, 2);
	uint64_t now = NS_PER_S, at;

	(void)state;
	assert_true(quota_has_turn(a, now));
	quota_took_turn(&table, a, now, 5 * MS);
	assert_false(quota_has_turn(a, now));
	assert_int_equal(quota_turn_at(&table, a, now), now);
	/* What it did alone is not held against it. */
	quota_took_turn(&table, b, now, 0);
	assert_in_range(quota_turn_at(&table, a, now), now + 1, now + 3 * SERVE_CREDIT_NS);
	quota_took_turn(&table, a, now, 5 * MS);
	at = quota_turn_at(&table, a, now);
	assert_in_range(at, now + 10 * MS, now + 11 * MS);
	assert_false(quota_has_turn(a, at - 2));
	assert_true(quota_has_turn(a, at));
	assert_int_equal(quota_turn_at(&table, b, now), now);
	quota_took_turn(&table, a, now + SERVE_ABOUT_NS, 50 * MS);
	assert_false(quota_has_turn(a, now + SERVE_ABOUT_NS + 1));
	assert_int_equal(
		quota_turn_at(&table, a, now + SERVE_ABOUT_NS + 1), now + SERVE_ABOUT_NS + 1);
	quota_done(&table);
}

static void sessions_open_at_a_pace_and_after_an_offence_later(void **state)
{
	const unsigned n_at_once = SERVE_OPEN_BURST_NS / SERVE_OPEN_NS;
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *b = enter(&table, 2), *again;
	uint64_t now = NS_PER_S;

	(void)state;
	for (unsigned i = 0; i < n_at_once; i++)
		assert_int_equal(quota_open_at(a, now), now);
	assert_int_equal(quota_open_at(a, now), now + SERVE_OPEN_NS);
	assert_int_equal(quota_open_at(a, now), now + 2 * SERVE_OPEN_NS);
	quota_offended(a, now);
	assert_int_equal(quota_open_at(a, now), now + SERVE_OFFENCE_NS + 3 * SERVE_OPEN_NS);
	assert_int_equal(quota_open_at(b, now), now);
	assert_int_equal(quota_open_at(NULL, now), now);
	for (unsigned i = 0; i < 1000; i++)
		quota_offended(a, now);
	quota_offended(NULL, now);
	assert_int_equal(quota_open_at(a, now), now + SERVE_MAX_OPEN_NS - SERVE_OPEN_BURST_NS);
	/* Who leaves and comes back waits all the same; in the end it is forgiven. */
	quota_leave(&table, a, now);
	assert_int_equal(quota_enter(&table, 1, now, &again), 0);
	assert_true(quota_open_at(again, now) > now);
	quota_leave(&table, again, now + SERVE_MAX_OPEN_NS);
	assert_int_equal(table.n, 1);
	quota_done(&table);
}

static void count_run(void *owner)
{
	++*(unsigned *)owner;
}

static void what_waits_is_due_when_its_user_may_go_on(void **state)
{
	struct quota_table table = { 0 };
	struct quota_user *a = enter(&table, 1), *b = enter(&table, 2);
	unsigned n_a = 0, n_b = 0;
	struct later_item of_a = { .user = a, .run = count_run, .owner = &n_a };
	struct later_item of_b = { .user = b, .run = count_run, .owner = &n_b };
	uint64_t now = NS_PER_S, due;
	struct later later;

	(void)state;
	later_init(&later, LATER_LOOP);
	assert_true(later_due(&later, &table, now) == UINT64_MAX);
	assert_true(quota_has_turn(a, now));
	quota_took_turn(&table, b, now, 0);
	quota_took_turn(&table, a, now, 10 * MS);
	later_add(&later, &of_a);
	due = later_due(&later, &table, now);
	assert_true(due > now);
	later_run(&later, &table, now, false);
	assert_int_equal(n_a, 0);
	later_add(&later, &of_b);
	assert_int_equal(later_due(&later, &table, now), now);
	later_run(&later, &table, now, false);
	assert_int_equal(n_b, 1);
	later_run(&later, &table, due, false);
	assert_int_equal(n_a, 1);
	assert_false(later_waits(&later));
	quota_done(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_user_has_so_many_sessions_and_another_its_own),
		cmocka_unit_test(bytes_count_until_their_memory_is_gone),
		cmocka_unit_test(requests_in_flight_are_counted_over_all_sessions),
		cmocka_unit_test(a_rate_lets_a_burst_through_and_then_its_own_pace),
		cmocka_unit_test(without_a_burst_a_second_is_one),
		cmocka_unit_test(nothing_is_limited_where_nothing_is_set_or_nobody_counts),
		cmocka_unit_test(half_of_the_loop_is_half_however_long_a_turn_is),
		cmocka_unit_test(a_user_is_forgotten_once_its_allowance_is_whole),
		cmocka_unit_test(the_table_of_users_has_a_bound),
		cmocka_unit_test(whoever_has_had_half_of_the_loop_waits),
		cmocka_unit_test(who_has_had_half_goes_on_at_once_where_nobody_else_is_about),
		cmocka_unit_test(sessions_open_at_a_pace_and_after_an_offence_later),
		cmocka_unit_test(what_waits_is_due_when_its_user_may_go_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
