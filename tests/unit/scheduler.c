/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <time.h>
#include <cmocka.h>

#include "serve/limits.h"
#include "serve/scheduler.h"
#include "serve/session.h"

#define PX 32u
#define MAX_BATCH 8u

struct bench {
	struct scheduler *scheduler;
	struct site sites[3];
	struct serving servings[3];
	struct request *requests; /* (N_REQUESTS) */
	unsigned n;
};
#define N_REQUESTS 600u

static int setup(void **state)
{
	const struct scheduler_options options = { .max_batch = MAX_BATCH, .px = PX };
	struct bench *bench = calloc(1, sizeof(*bench));

	if (!bench)
		return -1;
	bench->requests = calloc(N_REQUESTS, sizeof(*bench->requests));
	if (!bench->requests || scheduler_new(&bench->scheduler, &options) < 0)
		return -1;
	for (unsigned i = 0; i < 3; i++) {
		bench->servings[i].n_refs = 1;
		bench->servings[i].version = i;
		bench->servings[i].prep.input_px = PX;
		bench->servings[i].n_forwards = 1;
		bench->sites[i].queue.champion = &bench->servings[i];
	}
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	scheduler_free(bench->scheduler);
	free(bench->requests);
	free(bench);
	return 0;
}

static struct request *push(struct bench *bench, unsigned site, uint64_t deadline_ns)
{
	struct request *request = &bench->requests[bench->n++];

	request->site = &bench->sites[site];
	request->wire.deadline_ns = deadline_ns;
	request->received_ns = clock_now_ns();
	assert_int_equal(scheduler_push(bench->scheduler, request), 0);
	return request;
}

/* Takes a batch that must be of one site. */
static uint32_t take(struct bench *bench, struct request **batch, unsigned *ret_site)
{
	struct serving *serving;
	uint32_t n = scheduler_take(bench->scheduler, true, batch, &serving);

	assert_in_range(n, 1, MAX_BATCH);
	assert_int_equal(n & (n - 1), 0);
	for (uint32_t i = 0; i < n; i++)
		assert_ptr_equal(batch[i]->site, batch[0]->site);
	serving_unref(serving);
	*ret_site = (unsigned)(batch[0]->site - bench->sites);
	return n;
}

static void no_site_starves_beside_a_busy_one(void **state)
{
	struct request *batch[64];
	struct bench *bench = *state;
	unsigned site, seen_other = 0;

	for (unsigned i = 0; i < 400; i++)
		push(bench, 0, 0);
	for (unsigned i = 0; i < 4; i++)
		push(bench, 1, 0);
	/* Its turn comes in the first round, not after four hundred. */
	for (unsigned i = 0; i < 2; i++) {
		uint32_t n = take(bench, batch, &site);

		seen_other += site == 1 ? n : 0;
	}
	assert_int_equal(seen_other, 4);
	while (scheduler_n_waiting(bench->scheduler) > 0)
		(void)take(bench, batch, &site);
}

/* A flood of one user's at a site, deadlines and all, before which nobody else's request stands. */
static void users_of_a_site_take_turns(void **state)
{
	struct quota_user users[2] = { { .uid = 1 }, { .uid = 2 } };
	struct session sessions[2] = { { .user = &users[0] }, { .user = &users[1] } };
	const uint64_t soon = clock_now_ns() + 3600 * NS_PER_S;
	struct request *batch[64], *quiet;
	struct bench *bench = *state;
	unsigned site, n_of_flood = 0;

	for (unsigned i = 0; i < 100; i++) {
		bench->requests[bench->n].session = &sessions[0];
		push(bench, 0, soon);
	}
	(void)take(bench, batch, &site);
	for (unsigned i = 0; i < 4; i++) {
		bench->requests[bench->n].session = &sessions[1];
		quiet = push(bench, 0, 0);
		assert_in_range(take(bench, batch, &site), 1, MAX_BATCH);
		assert_ptr_equal(batch[0], quiet);
	}
	/* And the flood is not shut out by who asks again and again. */
	for (unsigned i = 0; i < 40; i++) {
		bench->requests[bench->n].session = &sessions[1];
		(void)push(bench, 0, 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		uint32_t n = take(bench, batch, &site);

		for (uint32_t k = 0; k < n; k++)
			n_of_flood += batch[k]->session == &sessions[0];
	}
	assert_true(n_of_flood >= 20);
	while (scheduler_n_waiting(bench->scheduler) > 0)
		(void)take(bench, batch, &site);
}

static void push_as(struct bench *bench, struct session *session, unsigned site, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		bench->requests[bench->n].session = session;
		(void)push(bench, site, 0);
	}
}

static uint32_t n_of(struct request *const *batch, uint32_t n, const struct session *session)
{
	uint32_t n_of_session = 0;

	for (uint32_t i = 0; i < n; i++)
		n_of_session += batch[i]->session == session;
	return n_of_session;
}

/* One image at a time beside a flood, at the same site or another: no whole batch of it is before it. */
static void a_flood_has_small_batches_while_others_are_about(void **state)
{
	struct quota_user users[2] = { { .uid = 1 }, { .uid = 2 } };
	struct session flood = { .user = &users[0] }, quiet = { .user = &users[1] };
	struct request *batch[64];
	struct bench *bench = *state;
	unsigned site, n_taken = 0;

	push_as(bench, &flood, 0, 150);
	push_as(bench, &flood, 1, 150);
	for (unsigned i = 0; i < 20; i++) {
		const uint64_t begin = clock_now_ns();
		uint32_t n, n_before = 0, n_flood;
		bool is_answered = false;

		push_as(bench, &quiet, 0, 1);
		while (!is_answered) {
			n = take(bench, batch, &site);
			n_flood = n_of(batch, n, &flood);
			is_answered = n_flood < n;
			n_before += n_flood;
			/* A machine that stood still says nothing. */
			if (i > 0 && clock_now_ns() - begin < SERVE_ABOUT_NS / 2)
				assert_true(n_flood <= 1);
		}
		n_taken += n_before;
	}
	assert_true(n_taken < 150);
	/* And it has whole batches again, by and by: what credit is left is used first. */
	(void)nanosleep(&(const struct timespec){ 0, SERVE_ABOUT_NS + NS_PER_MS }, NULL);
	for (unsigned i = 0; i < 5; i++)
		(void)take(bench, batch, &site);
	assert_int_equal(take(bench, batch, &site), MAX_BATCH);
}

static void two_floods_have_whole_batches(void **state)
{
	struct quota_user users[2] = { { .uid = 1 }, { .uid = 2 } };
	struct session sessions[2] = { { .user = &users[0] }, { .user = &users[1] } };
	struct request *batch[64];
	struct bench *bench = *state;
	unsigned site, n_small = 0;

	for (unsigned i = 0; i < 2; i++)
		push_as(bench, &sessions[i], 0, 1);
	(void)take(bench, batch, &site);
	for (unsigned i = 0; i < 2; i++)
		push_as(bench, &sessions[i], i, 200);
	while (bench->sites[0].queue.n > 8 && bench->sites[1].queue.n > 8)
		n_small += take(bench, batch, &site) < MAX_BATCH;
	assert_true(n_small < 10);
	while (scheduler_n_waiting(bench->scheduler) > 0)
		(void)take(bench, batch, &site);
}

static void large_inputs_pay_for_their_pixels(void **state)
{
	unsigned site, images[2] = { 0, 0 };
	struct request *batch[64];
	struct bench *bench = *state;

	bench->servings[0].prep.input_px = 2 * PX;
	for (unsigned i = 0; i < 200; i++) {
		push(bench, 0, 0);
		push(bench, 1, 0);
	}
	/* While both wait, each gets the same share of pixels: four small ones for a large one. */
	for (unsigned i = 0; i < 30; i++) {
		uint32_t n = take(bench, batch, &site);

		images[site] += n;
	}
	assert_in_range(images[1], 3 * images[0], 5 * images[0]);
}

static void a_site_gets_by_its_priority_while_others_wait(void **state)
{
	unsigned site, images[3] = { 0 };
	struct request *batch[64];
	struct bench *bench = *state;

	scheduler_set_priority(bench->scheduler, &bench->sites[0].queue, 16);
	scheduler_set_priority(bench->scheduler, &bench->sites[1].queue, 1);
	for (unsigned i = 0; i < 200; i++)
		for (unsigned s = 0; s < 3; s++)
			push(bench, s, 0);
	while (bench->sites[0].queue.n > 8) {
		uint32_t n = take(bench, batch, &site);

		images[site] += n;
	}
	/* Site 2 has the priority of one that nobody favours: 4. They take turns while all have credit,
	 * so the last round, which ends early, is better for the small ones than the whole is. */
	assert_in_range(images[0], 2 * images[2], 5 * images[2]);
	assert_in_range(images[2], 2 * images[1], 5 * images[1]);
	/* Alone it need not share: its batches are as large as any. */
	while (bench->sites[0].queue.n > 0 || bench->sites[2].queue.n > 0)
		(void)take(bench, batch, &site);
	assert_true(bench->sites[1].queue.n >= 2 * MAX_BATCH);
	assert_int_equal(take(bench, batch, &site), MAX_BATCH);
	assert_int_equal(take(bench, batch, &site), MAX_BATCH);
	while (scheduler_n_waiting(bench->scheduler) > 0)
		(void)take(bench, batch, &site);
}

static void cascades_pay_for_their_forwards(void **state)
{
	unsigned site, images[2] = { 0, 0 };
	struct request *batch[64];
	struct bench *bench = *state;

	bench->servings[0].n_forwards = 3;
	for (unsigned i = 0; i < 200; i++) {
		push(bench, 0, 0);
		push(bench, 1, 0);
	}
	for (unsigned i = 0; i < 30; i++) {
		uint32_t n = take(bench, batch, &site);

		images[site] += n;
	}
	assert_in_range(images[1], 2 * images[0], 4 * images[0]);
}

static void the_earliest_deadline_goes_first(void **state)
{
	struct request *batch[64], *urgent;
	struct bench *bench = *state;
	uint64_t soon = clock_now_ns() + 3600 * NS_PER_S;
	unsigned site;

	for (unsigned i = 0; i < 20; i++) {
		push(bench, 0, 0);
		push(bench, 1, soon + 2000);
	}
	urgent = push(bench, 2, soon + 1000);
	(void)take(bench, batch, &site);
	assert_int_equal(site, 2);
	assert_ptr_equal(batch[0], urgent);
	(void)take(bench, batch, &site);
	assert_int_equal(site, 1);
}

/* What a batch of each size takes, here and always. */
static void learn(struct bench *bench, uint64_t ns_of_one)
{
	for (uint32_t n = 1; n <= MAX_BATCH; n *= 2)
		for (unsigned i = 0; i < 100; i++)
			scheduler_learn(bench->scheduler, &bench->servings[0], n, n * ns_of_one);
}

static void a_batch_is_no_larger_than_its_first_deadline_allows(void **state)
{
	struct request *batch[64];
	struct bench *bench = *state;
	unsigned site;

	learn(bench, 600 * NS_PER_S);
	/* Three forwards' time: two at once end before it, four do not. */
	for (unsigned i = 0; i < MAX_BATCH; i++)
		push(bench, 0, clock_now_ns() + 1800 * NS_PER_S);
	assert_int_equal(take(bench, batch, &site), 2);
	assert_int_equal(take(bench, batch, &site), 2);
	/* Without deadlines they share as ever. */
	for (unsigned i = 0; i < MAX_BATCH; i++)
		push(bench, 1, 0);
	while (take(bench, batch, &site) < MAX_BATCH)
		assert_int_equal(site, 0);
	assert_int_equal(site, 1);
}

static void what_comes_too_late_holds_nobody_up(void **state)
{
	struct request *batch[64], *vain, *nearly, *good;
	struct bench *bench = *state;
	uint64_t now = clock_now_ns();
	unsigned site;

	vain = push(bench, 0, now + 100 * NS_PER_S);
	nearly = push(bench, 0, now + 200 * NS_PER_S);
	good = push(bench, 0, now + 1000 * NS_PER_S);
	learn(bench, 600 * NS_PER_S);
	assert_int_equal(take(bench, batch, &site), 1);
	assert_ptr_equal(batch[0], good);
	/* Where all is in vain the best of it, so that it can turn out to be wrong. */
	assert_int_equal(take(bench, batch, &site), 1);
	assert_ptr_equal(batch[0], nearly);
	assert_int_equal(take(bench, batch, &site), 1);
	assert_ptr_equal(batch[0], vain);
}

static void a_bad_moment_does_not_make_batches_small_for_ever(void **state)
{
	struct request *batch[64];
	struct bench *bench = *state;
	unsigned site, n = 0, n_batches = 0;

	for (uint32_t size = 1; size < MAX_BATCH; size *= 2)
		scheduler_learn(bench->scheduler, &bench->servings[0], size, 1000);
	scheduler_learn(bench->scheduler, &bench->servings[0], MAX_BATCH, 3600 * NS_PER_S);
	while (n < MAX_BATCH) {
		assert_true(n_batches++ < 3000);
		bench->n = 0;
		for (unsigned i = 0; i < MAX_BATCH; i++)
			push(bench, 0, clock_now_ns() + 600 * NS_PER_S);
		n = take(bench, batch, &site);
		for (unsigned left = MAX_BATCH - n; left > 0;)
			left -= take(bench, batch, &site);
	}
	assert_true(n_batches > 50);
}

static void a_batch_is_of_one_snapshot_and_size(void **state)
{
	struct serving other = { .n_refs = 1, .version = 9, .n_forwards = 1, .prep.input_px = 16 };
	struct request *batch[64];
	struct bench *bench = *state;
	struct serving *serving;
	unsigned n_other = 0;

	for (unsigned i = 0; i < 12; i++) {
		struct request *request = &bench->requests[bench->n];

		request->serving = i % 3 == 0 ? &other : NULL;
		push(bench, 0, 0);
	}
	while (scheduler_n_waiting(bench->scheduler) > 0) {
		uint32_t n = scheduler_take(bench->scheduler, true, batch, &serving);

		for (uint32_t i = 0; i < n; i++)
			assert_ptr_equal(
				batch[i]->serving ? batch[i]->serving : &bench->servings[0],
				serving);
		n_other += serving == &other ? n : 0;
		serving_unref(serving);
	}
	assert_int_equal(n_other, 4);
}

static void a_new_champion_serves_the_next_batch(void **state)
{
	struct request *batch[64];
	struct bench *bench = *state;
	struct serving *serving;

	for (unsigned i = 0; i < 2 * MAX_BATCH; i++)
		push(bench, 0, 0);
	assert_int_equal(scheduler_take(bench->scheduler, true, batch, &serving), MAX_BATCH);
	assert_ptr_equal(serving, &bench->servings[0]);
	bench->servings[0].n_refs++; /* the test's own, or it would be freed */
	scheduler_publish(bench->scheduler, &bench->sites[0].queue, &bench->servings[1]);
	serving_unref(serving);
	assert_int_equal(scheduler_take(bench->scheduler, true, batch, &serving), MAX_BATCH);
	assert_ptr_equal(serving, &bench->servings[1]);
	serving_unref(serving);
}

static void what_is_taken_out_is_not_served(void **state)
{
	struct request *batch[64], *late, *dropped;
	struct bench *bench = *state;
	unsigned site, n = 0;

	push(bench, 0, 0);
	late = push(bench, 0, 0);
	push(bench, 1, 0);
	push(bench, 1, 0);
	assert_true(scheduler_remove(bench->scheduler, late));
	assert_false(scheduler_remove(bench->scheduler, late));
	for (dropped = scheduler_drop(bench->scheduler, &bench->sites[1].queue); dropped;
		dropped = dropped->next)
		n++;
	assert_int_equal(n, 2);
	assert_int_equal(take(bench, batch, &site), 1);
	assert_int_equal(site, 0);
	assert_int_equal(scheduler_n_waiting(bench->scheduler), 0);
	scheduler_stop(bench->scheduler);
	assert_int_equal(
		scheduler_take(bench->scheduler, true, batch, &(struct serving *){ NULL }), 0);
}

static void what_no_forward_can_meet_is_refused(void **state)
{
	struct bench *bench = *state;
	struct request *request = &bench->requests[0];
	const struct serving *serving = &bench->servings[0];
	const struct serving larger = { .n_forwards = 1, .prep.input_px = 2 * PX };

	request->site = &bench->sites[0];
	request->wire.deadline_ns = clock_now_ns() + NS_PER_S;
	assert_int_equal(scheduler_push(bench->scheduler, request), 0);
	assert_true(scheduler_remove(bench->scheduler, request));
	scheduler_learn(bench->scheduler, serving, 1, 3600 * NS_PER_S);
	scheduler_learn(bench->scheduler, &larger, 1, 1);
	assert_int_equal(scheduler_push(bench->scheduler, request), -ETIMEDOUT);
	/* One slow batch is no proof: the fastest counts. */
	scheduler_learn(bench->scheduler, serving, 1, NS_PER_MS);
	scheduler_learn(bench->scheduler, serving, 1, 3600 * NS_PER_S);
	assert_int_equal(scheduler_push(bench->scheduler, request), 0);
}

/* Who asks for the impossible again and again does not make everybody's refusals end. */
static void refusals_do_not_add_up(void **state)
{
	struct bench *bench = *state;
	struct request *request = &bench->requests[0];
	const struct serving *serving = &bench->servings[0];
	unsigned n_refused = 0;
	int r;

	request->site = &bench->sites[0];
	scheduler_learn(bench->scheduler, serving, 1, 3600 * NS_PER_S);
	request->wire.deadline_ns = clock_now_ns() + NS_PER_S;
	do
		r = scheduler_push(bench->scheduler, request);
	while (r == -ETIMEDOUT && ++n_refused < 10000);
	/* A bad moment is unlearnt so. */
	assert_int_equal(r, 0);
	assert_true(scheduler_remove(bench->scheduler, request));
	for (unsigned i = 0; i < 100; i++)
		scheduler_learn(bench->scheduler, serving, 1, 3600 * NS_PER_S);
	request->wire.deadline_ns = clock_now_ns() + 3000 * NS_PER_S;
	assert_int_equal(scheduler_push(bench->scheduler, request), -ETIMEDOUT);
}

static void a_cascade_needs_the_time_of_all_its_forwards(void **state)
{
	struct bench *bench = *state;
	struct request *request = &bench->requests[0];
	struct serving cascade = { .n_forwards = 4, .prep.input_px = PX };

	request->site = &bench->sites[0];
	request->wire.deadline_ns = clock_now_ns() + 2 * 3600 * NS_PER_S;
	/* What its batches take says nothing against one mask's. */
	scheduler_learn(bench->scheduler, &cascade, 1, 4 * 3600 * NS_PER_S);
	assert_int_equal(scheduler_push(bench->scheduler, request), 0);
	assert_true(scheduler_remove(bench->scheduler, request));
	request->serving = &cascade;
	assert_int_equal(scheduler_push(bench->scheduler, request), -ETIMEDOUT);
	request->wire.deadline_ns += 3 * 3600 * NS_PER_S;
	assert_int_equal(scheduler_push(bench->scheduler, request), 0);
}

static void a_batch_that_fills_holds_nobody_up(void **state)
{
	struct request *batch[64], *lonely;
	struct bench *bench = *state;
	unsigned site;

	scheduler_set_delay(bench->scheduler, 60 * NS_PER_S);
	lonely = push(bench, 0, 0);
	for (unsigned i = 0; i < MAX_BATCH; i++)
		push(bench, 1, 0);
	/* The full one goes at once, though the other came first. */
	assert_int_equal(take(bench, batch, &site), MAX_BATCH);
	assert_int_equal(site, 1);
	/* Who has a deadline within the delay does not wait either. */
	push(bench, 2, clock_now_ns() + 70 * NS_PER_S);
	assert_int_equal(take(bench, batch, &site), 1);
	assert_int_equal(site, 2);
	assert_true(clock_now_ns() < lonely->received_ns + 60 * NS_PER_S);
	/* Nobody else is there: it waits, but no longer than it may. */
	lonely->received_ns = clock_now_ns();
	scheduler_set_delay(bench->scheduler, 5 * NS_PER_MS);
	assert_int_equal(take(bench, batch, &site), 1);
	assert_ptr_equal(batch[0], lonely);
	assert_true(clock_now_ns() >= lonely->received_ns + 5 * NS_PER_MS);
}

/* ---- the two threads, for ThreadSanitizer as well */

static void *work(void *arg)
{
	struct bench *bench = arg;
	struct request *batch[64];
	struct serving *serving;
	uint32_t n;

	while ((n = scheduler_take(bench->scheduler, true, batch, &serving)) > 0) {
		for (uint32_t i = 0; i < n; i++) {
			int pending = REQUEST_PENDING;

			batch[i]->answer.version = serving->version;
			(void)atomic_compare_exchange_strong(
				&batch[i]->state, &pending, REQUEST_DONE);
		}
		scheduler_give(bench->scheduler, batch, n);
		serving_unref(serving);
	}
	return NULL;
}

static void every_request_comes_back_exactly_once(void **state)
{
	struct bench *bench = *state;
	unsigned n_back = 0, n_late = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, work, bench), 0);
	for (unsigned i = 0; i < N_REQUESTS; i++) {
		struct request *request = &bench->requests[i];
		int pending = REQUEST_PENDING;

		atomic_store(&request->state, REQUEST_PENDING);
		push(bench, i % 3, 0);
		/* Every seventh meets its deadline at once, wherever it is by now. */
		if (i % 7 == 0 &&
			atomic_compare_exchange_strong(&request->state, &pending, REQUEST_LATE)) {
			n_late++;
			n_back += scheduler_remove(bench->scheduler, request);
		}
	}
	while (n_back < N_REQUESTS)
		for (struct request *q = scheduler_reap(bench->scheduler); q; q = q->next) {
			n_back++;
			if (atomic_load(&q->state) == REQUEST_DONE)
				assert_int_equal(q->answer.version, q->site - bench->sites);
		}
	scheduler_stop(bench->scheduler);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(n_back, N_REQUESTS);
	print_message("%u late\n", n_late);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(users_of_a_site_take_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_flood_has_small_batches_while_others_are_about, setup, teardown),
		cmocka_unit_test_setup_teardown(two_floods_have_whole_batches, setup, teardown),
		cmocka_unit_test_setup_teardown(no_site_starves_beside_a_busy_one, setup, teardown),
		cmocka_unit_test_setup_teardown(large_inputs_pay_for_their_pixels, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_site_gets_by_its_priority_while_others_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(cascades_pay_for_their_forwards, setup, teardown),
		cmocka_unit_test_setup_teardown(the_earliest_deadline_goes_first, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_batch_is_no_larger_than_its_first_deadline_allows, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_comes_too_late_holds_nobody_up, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_bad_moment_does_not_make_batches_small_for_ever, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_batch_is_of_one_snapshot_and_size, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_new_champion_serves_the_next_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_taken_out_is_not_served, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_no_forward_can_meet_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_do_not_add_up, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_cascade_needs_the_time_of_all_its_forwards, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_batch_that_fills_holds_nobody_up, setup, teardown),
		cmocka_unit_test_setup_teardown(
			every_request_comes_back_exactly_once, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
