/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "fake_daemon.h"
#include "kamen/kamen.h"

#define N_SLOTS 4u
#define SLOT_BYTES 10000u
#define MS UINT64_C(1000000)

struct session {
	struct fake *fake;
	struct kamen_client *client;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static struct session begin(void)
{
	struct kamen_options options = { .size = sizeof(options),
		.n_slots = N_SLOTS,
		.slot_bytes = SLOT_BYTES,
		.flags = KAMEN_NO_RECONNECT };
	struct session s = { .fake = fake_start(FAKE_HONEST) };

	assert_int_equal(kamen_client_connect(&s.client, fake_path(s.fake), &options), 0);
	return s;
}

static void end(struct session *s)
{
	s->client = kamen_client_free(s->client);
	assert_null(s->client);
	fake_stop(s->fake);
}

static uint64_t ask(struct kamen_client *client, uint64_t part_id, uint64_t deadline_ns)
{
	struct kamen_request request = { .size = sizeof(request),
		.verb = KAMEN_INFER,
		.format = KAMEN_MONO8,
		.site = "line-1",
		.n_bytes = 100,
		.width = 10,
		.height = 10,
		.deadline_ns = deadline_ns,
		.trigger_id = 7,
		.part_id = part_id,
		.version = 3,
		.flags = KAMEN_WANT_EMBEDDING | KAMEN_WANT_HARDNESS };
	struct kamen_frame frame;
	uint64_t id = 0;

	assert_int_equal(kamen_frame_acquire(client, 100, &frame), 0);
	memset(frame.data, 1, 100);
	assert_int_equal(kamen_submit(client, &frame, &request, &id), 0);
	return id;
}

static void an_answer_carries_what_was_asked(void **state)
{
	struct session s = begin();
	struct kamen_result result;
	uint64_t id = ask(s.client, PART_ANSWER, UINT64_MAX - 1);

	(void)state;
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	assert_true(result.id == id);
	assert_true(result.deadline_ns == UINT64_MAX - 1);
	assert_int_equal(result.code, 0);
	assert_int_equal(result.verdict, KAMEN_OK);
	assert_int_equal(result.checksum, 100);
	assert_int_equal(result.trigger_id, 7);
	assert_int_equal(result.version, 3);
	assert_string_equal(result.label, "line-1");
	assert_true(result.score == .75f && result.unknown == .25f);
	assert_string_equal(result.reason, "");
	assert_int_equal(result.n_embedding, 3);
	assert_true(result.embedding[2] == 1.0f);
	assert_int_equal(result.hardness_side, 2);
	assert_int_equal(result.n_hardness, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_true(result.hardness[i] == 10 + (float)i);
	kamen_release(s.client, &result);
	end(&s);
}

static void slots_run_out_and_come_back(void **state)
{
	struct session s = begin();
	struct kamen_frame frame;
	struct kamen_result result;

	(void)state;
	for (unsigned round = 0; round < 50; round++) {
		uint64_t seen = 0, first = 0;

		for (unsigned i = 0; i < N_SLOTS; i++) {
			uint64_t id = ask(s.client, PART_ANSWER, 0);

			first = i == 0 ? id : first;
		}
		assert_int_equal(kamen_frame_acquire(s.client, 1, &frame), -EBUSY);
		for (unsigned i = 0; i < N_SLOTS; i++) {
			assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
			seen |= UINT64_C(1) << (result.id - first);
			assert_int_equal(kamen_frame_acquire(s.client, 1, &frame), -EBUSY);
			kamen_release(s.client, &result);
			assert_int_equal(kamen_frame_acquire(s.client, 1, &frame), 0);
			if (i < N_SLOTS - 1)
				continue;
			kamen_frame_discard(s.client, &frame);
			break;
		}
		assert_true(seen == (1u << N_SLOTS) - 1);
		for (uint32_t i = 0; i < N_SLOTS; i++)
			kamen_frame_discard(s.client, &(struct kamen_frame){ .slot = i });
	}
	assert_int_equal(kamen_frame_acquire(s.client, SLOT_BYTES + 1, &frame), -EFBIG);
	end(&s);
}

/* Several may come while one is waited for, and no bell tells of the others. */
static void what_is_ready_leaves_no_time_to_sleep(void **state)
{
	struct session s = begin();
	struct kamen_result results[N_SLOTS];
	uint64_t until = 0;

	(void)state;
	for (unsigned i = 0; i < N_SLOTS; i++)
		(void)ask(s.client, PART_ANSWER, 0);
	for (unsigned i = 0; i < N_SLOTS; i++) {
		while (kamen_process(s.client) < (int)(N_SLOTS - i))
			;
		assert_int_equal(kamen_client_get_timeout(s.client, &until), 0);
		assert_true(until == 0);
		assert_int_equal(kamen_next(s.client, &results[i]), 1);
	}
	assert_int_equal(kamen_client_get_timeout(s.client, &until), 0);
	assert_true(until == UINT64_MAX);
	end(&s);
}

static void a_request_that_contradicts_itself_is_not_sent(void **state)
{
	const struct kamen_request good = { .size = sizeof(good),
		.verb = KAMEN_INFER,
		.format = KAMEN_RGB8,
		.site = "a",
		.n_bytes = 300,
		.width = 10,
		.height = 10 };
	struct session s = begin();
	struct kamen_request bad[15];
	struct kamen_frame frame;
	struct kamen_result result;

	(void)state;
	for (unsigned i = 0; i < 15; i++)
		bad[i] = good;
	bad[0].size = 8;
	bad[1].verb = (enum kamen_verb)9;
	bad[2].format = (enum kamen_format)9;
	bad[3].site = NULL;
	bad[4].site = "../etc";
	bad[5].n_bytes = 0;
	bad[6].n_bytes = SLOT_BYTES + 1;
	bad[7].n_bytes = 299;
	bad[8].stride = 29;
	bad[9].stride = 31;
	bad[10].height = 0;
	bad[11].mask = (enum kamen_mask)2;
	bad[12].flags = 16;
	bad[13].width = UINT32_MAX;
	bad[13].height = UINT32_MAX;
	bad[14].flags = KAMEN_WANT_FEATURE | KAMEN_WANT_HARDNESS;
	assert_int_equal(kamen_frame_acquire(s.client, 300, &frame), 0);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(kamen_submit(s.client, &frame, &bad[i], NULL), -EINVAL);
	assert_int_equal(kamen_submit(s.client, &frame, &good, NULL), 0);
	assert_int_equal(kamen_submit(s.client, &frame, &good, NULL), -EINVAL);
	frame.slot = 1000;
	assert_int_equal(kamen_submit(s.client, &frame, &good, NULL), -EINVAL);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	end(&s);
}

static void silence_becomes_an_answer_at_the_deadline(void **state)
{
	struct session s = begin();
	struct kamen_result result;
	uint64_t begin_ns = now_ns(), id = ask(s.client, PART_SILENT, begin_ns + 100 * MS),
		 until = 0;
	struct kamen_frame frames[N_SLOTS];

	(void)state;
	assert_int_equal(kamen_client_get_timeout(s.client, &until), 0);
	assert_in_range(until, begin_ns + 100 * MS, begin_ns + 120 * MS);
	assert_int_equal(kamen_wait(s.client, 1 * MS, &result), -ETIMEDOUT);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	assert_true(now_ns() >= begin_ns + 100 * MS);
	assert_true(result.id == id);
	assert_int_equal(result.code, -ETIMEDOUT);
	assert_int_equal(result.verdict, KAMEN_NO_VERDICT);
	assert_string_equal(result.reason, "deadline");
	assert_int_equal(result.trigger_id, 7);
	assert_true(isnan(result.novelty));
	assert_true(isnan(result.score) && isnan(result.unknown));
	kamen_release(s.client, &result);

	/* The daemon still owes an answer to that slot: it is not handed out. */
	for (unsigned i = 0; i < N_SLOTS - 1; i++)
		assert_int_equal(kamen_frame_acquire(s.client, 1, &frames[i]), 0);
	assert_int_equal(kamen_frame_acquire(s.client, 1, &frames[N_SLOTS - 1]), -EBUSY);
	kamen_frame_discard(s.client, &frames[0]);

	/* Its late answer is nobody's; the next one's own is given. */
	id = ask(s.client, PART_ANSWER, 0);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	assert_true(result.id == id);
	assert_int_equal(kamen_next(s.client, &result), 0);
	assert_int_equal(kamen_frame_acquire(s.client, 1, &frames[0]), 0);
	end(&s);
}

static void waiting_ends_when_only_late_answers_are_left(void **state)
{
	struct session s = begin();
	struct kamen_frame frame;
	struct kamen_result result;
	uint64_t deadline = now_ns() + 20 * MS;

	(void)state;
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), -EAGAIN);
	for (unsigned i = 0; i < N_SLOTS; i++)
		(void)ask(s.client, PART_HELD, deadline);
	for (unsigned i = 0; i < N_SLOTS; i++) {
		assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
		assert_int_equal(result.code, -ETIMEDOUT);
		kamen_release(s.client, &result);
	}
	/* Every slot is the daemon's still: there is something to wait for, and it comes. */
	assert_int_equal(kamen_frame_acquire(s.client, 1, &frame), -EBUSY);
	assert_int_equal(kamen_wait(s.client, 1 * MS, &result), -ETIMEDOUT);
	fake_release(s.fake);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), -EAGAIN);
	assert_int_equal(kamen_frame_acquire(s.client, 1, &frame), 0);
	end(&s);
}

static void poll_wakes_for_an_answer(void **state)
{
	struct session s = begin();
	struct pollfd poller = { .fd = kamen_client_get_fd(s.client),
		.events = (short)kamen_client_get_events(s.client) };
	struct kamen_result result;

	(void)state;
	assert_int_equal(poll(&poller, 1, 0), 0);
	(void)ask(s.client, PART_ANSWER, 0);
	assert_int_equal(poll(&poller, 1, 10000), 1);
	assert_int_equal(kamen_process(s.client), 1);
	assert_int_equal(kamen_next(s.client, &result), 1);
	kamen_release(s.client, &result);
	assert_int_equal(kamen_next(s.client, &result), 0);
	assert_int_equal(kamen_process(s.client), 0);
	assert_int_equal(poll(&poller, 1, 0), 0);
	end(&s);
}

/* The one request that is in flight is answered, and there is no more. */
static void expect_end(struct session *s, int error, const char *reason)
{
	struct kamen_request request = {
		.size = sizeof(request), .verb = KAMEN_ECHO, .n_bytes = 1
	};
	struct kamen_frame frame = { .slot = 0 };
	struct kamen_result result;
	uint64_t until = UINT64_MAX;

	assert_int_equal(kamen_wait(s->client, UINT64_MAX, &result), 0);
	assert_int_equal(result.code, error);
	assert_int_equal(result.verdict, KAMEN_NO_VERDICT);
	assert_string_equal(result.reason, reason);
	assert_int_equal(result.trigger_id, 7);
	kamen_release(s->client, &result);
	assert_int_equal(kamen_wait(s->client, UINT64_MAX, &result), error);
	assert_int_equal(kamen_process(s->client), error);
	assert_int_equal(kamen_next(s->client, &result), error);
	assert_int_equal(kamen_frame_acquire(s->client, 1, &frame), error);
	assert_int_equal(kamen_submit(s->client, &frame, &request, NULL), error);
	assert_int_equal(kamen_client_get_timeout(s->client, &until), 0);
	assert_true(until == 0);
	end(s);
}

static void a_daemon_that_goes_is_noticed(void **state)
{
	struct session s = begin();

	(void)state;
	(void)ask(s.client, PART_DIE, 0);
	expect_end(&s, -ENOTCONN, "the daemon is gone");
}

static void what_was_answered_before_the_end_is_still_given(void **state)
{
	struct session s = begin();
	struct kamen_result result;
	uint64_t id = ask(s.client, PART_ANSWER_DIE, 0);

	(void)state;
	fake_stop(s.fake);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	assert_true(result.id == id);
	kamen_release(s.client, &result);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), -ENOTCONN);
	s.client = kamen_client_free(s.client);
}

static void a_cursor_from_nowhere_ends_the_session(void **state)
{
	struct session s = begin();

	(void)state;
	(void)ask(s.client, PART_LIE, 0);
	expect_end(&s, -EPROTO, "the daemon breaks the protocol");
}

static void completions_nobody_asked_for_are_ignored(void **state)
{
	struct session s = begin();
	struct kamen_result result;
	uint64_t id = ask(s.client, PART_STRANGER, 0);

	(void)state;
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	assert_true(result.id == id);
	assert_int_equal(result.checksum, 100);
	assert_int_equal(kamen_next(s.client, &result), 0);
	end(&s);
}

static void an_answer_that_comes_twice_is_given_once(void **state)
{
	struct session s = begin();
	struct kamen_result result;
	uint64_t id = ask(s.client, PART_TWICE, 0);

	(void)state;
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	assert_true(result.id == id);
	kamen_release(s.client, &result);
	id = ask(s.client, PART_ANSWER, 0);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	assert_true(result.id == id);
	assert_int_equal(kamen_wait(s.client, 0, &result), -EAGAIN);
	end(&s);
}

static void options_grow_with_the_library(void **state)
{
	struct {
		struct kamen_options known;
		uint64_t later;
	} options = { { .size = sizeof(options) }, 1 };
	struct kamen_options first = { .size = offsetof(struct kamen_options, reconnect_ns),
		.reconnect_ns = 1,
		.flags = UINT32_MAX };
	struct fake *fake = fake_start(FAKE_HONEST);
	struct kamen_client *client = NULL;

	(void)state;
	/* What this library does not know cannot be what the program wants. */
	assert_int_equal(kamen_client_connect(&client, "/nonexistent", &options.known), -EINVAL);
	options.later = 0;
	assert_int_equal(kamen_client_connect(&client, "/nonexistent", &options.known), -ENOENT);
	assert_int_equal(kamen_client_connect(&client, fake_path(fake), &first), 0);
	client = kamen_client_free(client);
	fake_stop(fake);
}

static void what_the_daemon_writes_stays_inside_its_bounds(void **state)
{
	struct session s = begin();
	struct kamen_result result;

	(void)state;
	(void)ask(s.client, PART_OVERFULL, 0);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
	assert_int_equal(strlen(result.label), 63);
	assert_int_equal(strlen(result.reason), 159);
	assert_int_equal(result.verdict, KAMEN_NO_VERDICT);
	assert_null(result.embedding);
	assert_int_equal(result.n_embedding, 0);
	assert_null(result.hardness);
	assert_int_equal(result.n_hardness, 0);
	assert_int_equal(result.hardness_side, 0);
	end(&s);
}

static void a_bad_welcome_is_refused(void **state)
{
	static const struct {
		enum fake_mode mode;
		int r;
	} cases[] = {
		{ FAKE_HANGS_UP, -ECONNREFUSED },
		{ FAKE_FULL, -EUSERS },
		{ FAKE_OTHER_MAJOR, -EPROTO },
		{ FAKE_SHORT_FILE, -EPROTO },
		{ FAKE_WRONG_SIZE, -EPROTO },
		{ FAKE_NO_FDS, -EMFILE },
		{ FAKE_OLD_LAYOUT, -EPROTO },
	};
	struct kamen_client *client = NULL;
	struct kamen_options options = { .size = 1 };

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fake *fake = fake_start(cases[i].mode);

		assert_int_equal(kamen_client_connect(&client, fake_path(fake), NULL), cases[i].r);
		assert_null(client);
		fake_stop(fake);
	}
	assert_int_equal(kamen_client_connect(&client, "/nonexistent/data.sock", NULL), -ENOENT);
	assert_int_equal(kamen_client_connect(&client, "/nonexistent", &options), -EINVAL);
	assert_null(kamen_client_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_carries_what_was_asked),
		cmocka_unit_test(slots_run_out_and_come_back),
		cmocka_unit_test(what_is_ready_leaves_no_time_to_sleep),
		cmocka_unit_test(a_request_that_contradicts_itself_is_not_sent),
		cmocka_unit_test(silence_becomes_an_answer_at_the_deadline),
		cmocka_unit_test(waiting_ends_when_only_late_answers_are_left),
		cmocka_unit_test(poll_wakes_for_an_answer),
		cmocka_unit_test(a_daemon_that_goes_is_noticed),
		cmocka_unit_test(what_was_answered_before_the_end_is_still_given),
		cmocka_unit_test(a_cursor_from_nowhere_ends_the_session),
		cmocka_unit_test(completions_nobody_asked_for_are_ignored),
		cmocka_unit_test(an_answer_that_comes_twice_is_given_once),
		cmocka_unit_test(options_grow_with_the_library),
		cmocka_unit_test(what_the_daemon_writes_stays_inside_its_bounds),
		cmocka_unit_test(a_bad_welcome_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
