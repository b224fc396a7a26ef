/* SPDX-License-Identifier: Apache-2.0 */
/* libkamen over daemons that go and come. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "fake_daemon.h"
#include "kamen/kamen.h"

#define N_SLOTS 4u
#define SLOT_BYTES 10000u
#define N_BYTES 100u
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

static struct session begin(enum fake_mode mode, unsigned n_sessions, uint64_t reconnect_ns)
{
	struct kamen_options options = { .size = sizeof(options),
		.n_slots = N_SLOTS,
		.slot_bytes = SLOT_BYTES,
		.reconnect_ns = reconnect_ns };
	struct session s = { .fake = fake_start_sessions(mode, n_sessions) };

	assert_int_equal(kamen_client_connect(&s.client, fake_path(s.fake), &options), 0);
	return s;
}

static void end(struct session *s)
{
	s->client = kamen_client_free(s->client);
	fake_stop(s->fake);
}

static struct kamen_frame frame_of(struct kamen_client *client, uint8_t fill)
{
	struct kamen_frame frame;

	assert_int_equal(kamen_frame_acquire(client, N_BYTES, &frame), 0);
	memset(frame.data, fill, N_BYTES);
	return frame;
}

static int try_submit(struct kamen_client *client, const struct kamen_frame *frame,
	uint64_t part_id, uint32_t version, uint64_t deadline_ns, uint64_t *ret_id)
{
	struct kamen_request request = { .size = sizeof(request),
		.verb = KAMEN_INFER,
		.format = KAMEN_MONO8,
		.site = "line-1",
		.n_bytes = N_BYTES,
		.width = 10,
		.height = 10,
		.deadline_ns = deadline_ns,
		.part_id = part_id,
		.version = version,
		.flags = KAMEN_WANT_EMBEDDING };

	return kamen_submit(client, frame, &request, ret_id);
}

static uint64_t submit(struct kamen_client *client, const struct kamen_frame *frame,
	uint64_t part_id, uint32_t version, uint64_t deadline_ns)
{
	uint64_t id = 0;

	assert_int_equal(try_submit(client, frame, part_id, version, deadline_ns, &id), 0);
	return id;
}

/* A request whose frame is full of that byte. */
static uint64_t ask(
	struct kamen_client *client, uint8_t fill, uint64_t part_id, uint64_t deadline_ns)
{
	struct kamen_frame frame = frame_of(client, fill);

	return submit(client, &frame, part_id, 0, deadline_ns);
}

static void expect(struct kamen_client *client, uint64_t id, uint8_t fill)
{
	struct kamen_result result;

	assert_int_equal(kamen_wait(client, UINT64_MAX, &result), 0);
	assert_true(result.id == id);
	assert_int_equal(result.code, 0);
	assert_int_equal(result.checksum, fill * N_BYTES);
	assert_true(result.embedding[1] == (float)fill);
	kamen_release(client, &result);
}

static void expect_own(struct kamen_client *client, uint64_t id, int code, const char *reason)
{
	struct kamen_result result;

	assert_int_equal(kamen_wait(client, UINT64_MAX, &result), 0);
	assert_true(result.id == id);
	assert_int_equal(result.code, code);
	assert_int_equal(result.verdict, KAMEN_NO_VERDICT);
	assert_string_equal(result.reason, reason);
	kamen_release(client, &result);
}

static void expect_silence(struct kamen_client *client)
{
	struct kamen_result result;

	assert_int_equal(kamen_wait(client, 0, &result), -EAGAIN);
	assert_int_equal(kamen_process(client), 0);
}

static void what_is_in_flight_is_sent_to_the_next_daemon(void **state)
{
	struct session s = begin(FAKE_HONEST, 2, 0);
	uint64_t ids[N_SLOTS];

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		ids[0] = ask(s.client, 10, PART_ANSWER, 0);
		expect(s.client, ids[0], 10);
		for (unsigned i = 0; i < N_SLOTS; i++)
			ids[i] = ask(s.client, (uint8_t)(i + 1), PART_DIE_ONCE, 0);
		for (unsigned i = 0; i < N_SLOTS; i++)
			expect(s.client, ids[i], (uint8_t)(i + 1));
		expect_silence(s.client);
	}
	end(&s);
}

static void what_was_answered_is_not_asked_again(void **state)
{
	struct session s = begin(FAKE_HONEST, 2, 0);
	uint64_t one = ask(s.client, 1, PART_ANSWER_DIE, 0), two = ask(s.client, 2, PART_ANSWER, 0);

	(void)state;
	/* Were it sent again, the second daemon would go too, and there is no third. */
	expect(s.client, one, 1);
	expect(s.client, two, 2);
	expect_silence(s.client);
	end(&s);
}

static void frames_and_results_outlive_their_daemon(void **state)
{
	struct session s = begin(FAKE_HONEST, 3, 0);
	struct kamen_frame frame = frame_of(s.client, 5);
	struct kamen_result old;
	uint64_t id = ask(s.client, 6, PART_ANSWER, 0);

	(void)state;
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &old), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t dies = ask(s.client, 7, i ? PART_ANSWER_DIE : PART_DIE_ONCE, 0);

		expect(s.client, dies, 7);
		dies = ask(s.client, 8, PART_ANSWER, 0);
		expect(s.client, dies, 8);
		memset((uint8_t *)frame.data + N_BYTES / 2, 5, N_BYTES / 2);
		assert_true(old.embedding[0] == 6.0f);
		assert_string_equal(old.label, "line-1");
	}
	assert_true(old.id == id);
	kamen_release(s.client, &old);
	expect(s.client, submit(s.client, &frame, PART_ANSWER, 0, 0), 5);
	end(&s);
}

/* As a program with a loop of its own does it. */
static void one_descriptor_serves_every_session(void **state)
{
	struct session s = begin(FAKE_HONEST, 4, 0);
	struct pollfd poller = { .fd = kamen_client_get_fd(s.client),
		.events = (short)kamen_client_get_events(s.client) };
	struct kamen_result result;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		uint64_t id = ask(s.client, 3, i < 3 ? PART_ANSWER_DIE : PART_ANSWER, 0), until = 0;
		int r;

		while ((r = kamen_next(s.client, &result)) == 0) {
			uint64_t now = now_ns();

			assert_int_equal(kamen_client_get_timeout(s.client, &until), 0);
			r = until == UINT64_MAX ? -1
			    : until > now       ? (int)((until - now) / MS + 1)
						: 0;
			assert_true(poll(&poller, 1, r) >= 0);
			assert_true(kamen_process(s.client) >= 0);
		}
		assert_int_equal(r, 1);
		assert_true(result.id == id);
		kamen_release(s.client, &result);
		assert_int_equal(kamen_client_get_fd(s.client), poller.fd);
	}
	end(&s);
}

static void a_deadline_holds_without_a_daemon(void **state)
{
	struct session s = begin(FAKE_HONEST, 1, 0);
	uint64_t begin_ns = now_ns(), one, two, until = 0;

	(void)state;
	two = ask(s.client, 1, PART_HELD, begin_ns + 40 * MS);
	one = ask(s.client, 1, PART_DIE, begin_ns + 80 * MS);
	fake_stop(s.fake);
	assert_int_equal(kamen_process(s.client), 0);
	assert_int_equal(kamen_client_get_timeout(s.client, &until), 0);
	assert_in_range(until, begin_ns, begin_ns + 40 * MS);
	expect_own(s.client, two, -ETIMEDOUT, "the daemon is gone");
	assert_true(now_ns() >= begin_ns + 40 * MS);
	expect_own(s.client, one, -ETIMEDOUT, "the daemon is gone");
	assert_true(now_ns() >= begin_ns + 80 * MS);
	/* One that is asked now, too. */
	one = ask(s.client, 1, PART_ANSWER, now_ns() + 5 * MS);
	expect_own(s.client, one, -ETIMEDOUT, "the daemon is gone");
	s.client = kamen_client_free(s.client);
}

static void nobody_waits_for_ever_and_the_daemon_is_found_later(void **state)
{
	struct session s = begin(FAKE_HONEST, 2, 50 * MS);
	char away[128];
	uint64_t id, until = 0;
	struct kamen_frame frame = frame_of(s.client, 9), other;
	struct kamen_result result;
	struct kamen_request request = {
		.size = sizeof(request), .verb = KAMEN_ECHO, .n_bytes = 1
	};

	(void)state;
	/* Nothing is there that could be connected to. */
	(void)snprintf(away, sizeof(away), "%s.away", fake_path(s.fake));
	assert_int_equal(rename(fake_path(s.fake), away), 0);
	id = ask(s.client, 1, PART_DIE, 0);
	expect_own(s.client, id, -ENOTCONN, "the daemon is gone");
	assert_int_equal(kamen_process(s.client), -ENOTCONN);
	assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), -ENOTCONN);
	assert_int_equal(kamen_frame_acquire(s.client, 1, &other), -ENOTCONN);
	assert_int_equal(kamen_submit(s.client, &frame, &request, NULL), -ENOTCONN);
	assert_int_equal(kamen_client_get_timeout(s.client, &until), 0);
	assert_in_range(until, now_ns() - 1000 * MS, now_ns() + 1000 * MS);

	assert_int_equal(rename(away, fake_path(s.fake)), 0);
	while (kamen_frame_acquire(s.client, 1, &other) == -ENOTCONN)
		(void)poll(NULL, 0, 1);
	kamen_frame_discard(s.client, &other);
	/* What was filled meanwhile is still good. */
	id = submit(s.client, &frame, PART_ANSWER, 0, 0);
	expect(s.client, id, 9);
	end(&s);
}

static void a_refusal_that_will_not_change_ends_the_client(void **state)
{
	static const struct {
		enum fake_mode mode;
		int error;
		const char *reason;
	} cases[] = {
		{ FAKE_THEN_DENIES, -EACCES, "the daemon takes no session any more" },
		{ FAKE_THEN_FEWER, -EMSGSIZE, "the daemon has fewer or smaller slots now" },
		{ FAKE_THEN_SMALLER, -EMSGSIZE, "the daemon has fewer or smaller slots now" },
		{ FAKE_THEN_OTHER_MAJOR, -EPROTO, "the daemon breaks the protocol" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct session s = begin(cases[i].mode, 2, 0);
		uint64_t id = ask(s.client, 1, PART_DIE_ONCE, 0);
		struct kamen_frame frame;

		expect_own(s.client, id, cases[i].error, cases[i].reason);
		assert_int_equal(kamen_process(s.client), cases[i].error);
		assert_int_equal(kamen_frame_acquire(s.client, 1, &frame), cases[i].error);
		end(&s);
	}
}

static void a_refusal_for_the_moment_does_not(void **state)
{
	static const enum fake_mode modes[] = { FAKE_THEN_FULL, FAKE_THEN_LARGER };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct session s = begin(modes[i], 3 - i, 0);
		uint64_t id = ask(s.client, 1, PART_DIE_ONCE, 0);

		expect(s.client, id, 1);
		/* Twice round the slots: they are as many as before. */
		for (unsigned j = 0; j < 2 * N_SLOTS; j++)
			expect(s.client, ask(s.client, (uint8_t)j, PART_ANSWER, 0), (uint8_t)j);
		end(&s);
	}
}

static void what_daemons_die_of_is_not_sent_for_ever(void **state)
{
	struct session s = begin(FAKE_HONEST, 9, 0);
	uint64_t bad = ask(s.client, 1, PART_DIE, 0), good = ask(s.client, 2, PART_ANSWER, 0);

	(void)state;
	expect_own(s.client, bad, -ENOTCONN, "the daemon went each time it had this");
	/* It came after the other one each time, and nobody knows that it is harmless. */
	expect_own(s.client, good, -ENOTCONN, "the daemon went each time it had this");
	expect(s.client, ask(s.client, 3, PART_ANSWER, 0), 3);
	end(&s);
}

static unsigned n_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static void another_process_goes_on_with_the_session(void **state)
{
	struct session s = begin(FAKE_HONEST, 1, 0);
	unsigned n = 0;

	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		static const enum fake_part parts[] = { PART_ANSWER, PART_ANSWER_RESUME,
			PART_RESUME, PART_BELL_FDS };
		uint64_t ids[N_SLOTS];
		struct kamen_result results[N_SLOTS];

		for (unsigned i = 0; i < N_SLOTS; i++) {
			struct kamen_frame frame = frame_of(s.client, (uint8_t)(10 * round + i));

			ids[i] = submit(s.client, &frame, parts[(i + round) % N_SLOTS],
				round % 2 ? RESUME_WELL : RESUME_MORE_FDS, 0);
		}
		/* Held all at once, of regions old and new. */
		for (unsigned i = 0; i < N_SLOTS; i++)
			assert_int_equal(kamen_wait(s.client, UINT64_MAX, &results[i]), 0);
		for (unsigned i = 0; i < N_SLOTS; i++) {
			assert_true(results[i].id == ids[i]);
			assert_int_equal(results[i].code, 0);
			assert_true(results[i].embedding[2] == (float)(10 * round + i));
			kamen_release(s.client, &results[i]);
		}
		/* By this answer the daemon, a thread of this process, has closed its own of them. */
		expect(s.client, ask(s.client, (uint8_t)round, PART_ANSWER, 0), (float)round);
		expect_silence(s.client);
		n = n ? n : n_open();
		assert_int_equal(n_open(), n);
	}
	end(&s);
}

static void unread_answers_of_the_old_region_are_given(void **state)
{
	struct session s = begin(FAKE_HONEST, 1, 0);
	struct pollfd poller = { .fd = kamen_client_get_fd(s.client), .events = POLLIN };
	uint64_t id = ask(s.client, 4, PART_ANSWER_RESUME, 0);

	(void)state;
	/* The first that is heard of it comes after the change. */
	assert_int_equal(poll(&poller, 1, -1), 1);
	assert_int_equal(kamen_process(s.client), 1);
	expect(s.client, id, 4);
	expect(s.client, ask(s.client, 5, PART_ANSWER, 0), 5);
	end(&s);
}

static void a_resumption_that_makes_no_sense_ends_the_client(void **state)
{
	unsigned n = n_open();

	(void)state;
	for (unsigned how = RESUME_SHORT_FILE; how < RESUME_GARBAGE + 50; how++) {
		struct session s;
		struct kamen_frame frame;
		uint64_t id;

		if (how == RESUME_NO_FD)
			continue;
		s = begin(FAKE_HONEST, 1, 0);
		frame = frame_of(s.client, 1);
		id = submit(s.client, &frame, PART_RESUME, how, 0);
		expect_own(s.client, id, -EPROTO, "the daemon breaks the protocol");
		assert_int_equal(kamen_process(s.client), -EPROTO);
		end(&s);
		assert_int_equal(n_open(), n);
	}
}

/* The kernel leaves out what a process may not have open: that is no fault of the daemon's. */
static void a_resumption_without_its_descriptor_is_a_new_session(void **state)
{
	struct session s = begin(FAKE_HONEST, 9, 0);
	struct kamen_frame frame = frame_of(s.client, 1);
	uint64_t id = submit(s.client, &frame, PART_RESUME, RESUME_NO_FD, 0);

	(void)state;
	expect_own(s.client, id, -ENOTCONN, "the daemon went each time it had this");
	expect(s.client, ask(s.client, 6, PART_ANSWER, 0), 6);
	end(&s);
}

/* One who cannot be believed: whatever it writes, there is an answer or an end. */
static void a_daemon_that_scribbles_is_survived(void **state)
{
	unsigned n_ended = 0;

	(void)state;
	for (unsigned seed = 0; seed < 64; seed++) {
		struct session s = begin(FAKE_HONEST, 1, 0);

		for (unsigned i = 0; i < 6; i++) {
			struct kamen_result result;
			struct kamen_frame frame;
			int r = kamen_frame_acquire(s.client, N_BYTES, &frame);

			/* What is owed for ever keeps its slot. */
			if (r == -EBUSY || r == -EPROTO)
				break;
			assert_int_equal(r, 0);
			r = try_submit(s.client, &frame, PART_SCRIBBLE, seed + 64 * i,
				now_ns() + MS, NULL);
			if (r == -EPROTO)
				break;
			assert_int_equal(r, 0);
			assert_int_equal(kamen_wait(s.client, UINT64_MAX, &result), 0);
			assert_true(strlen(result.reason) < 160 && strlen(result.label) < 64);
			assert_true(result.embedding || result.n_embedding == 0);
			for (unsigned j = 0; j < result.n_embedding; j++)
				(void)*(const volatile float *)&result.embedding[j];
			kamen_release(s.client, &result);
		}
		n_ended += kamen_process(s.client) == -EPROTO;
		end(&s);
	}
	assert_in_range(n_ended, 1, 63);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_in_flight_is_sent_to_the_next_daemon),
		cmocka_unit_test(what_was_answered_is_not_asked_again),
		cmocka_unit_test(frames_and_results_outlive_their_daemon),
		cmocka_unit_test(one_descriptor_serves_every_session),
		cmocka_unit_test(a_deadline_holds_without_a_daemon),
		cmocka_unit_test(nobody_waits_for_ever_and_the_daemon_is_found_later),
		cmocka_unit_test(a_refusal_that_will_not_change_ends_the_client),
		cmocka_unit_test(a_refusal_for_the_moment_does_not),
		cmocka_unit_test(what_daemons_die_of_is_not_sent_for_ever),
		cmocka_unit_test(another_process_goes_on_with_the_session),
		cmocka_unit_test(unread_answers_of_the_old_region_are_given),
		cmocka_unit_test(a_resumption_that_makes_no_sense_ends_the_client),
		cmocka_unit_test(a_resumption_without_its_descriptor_is_a_new_session),
		cmocka_unit_test(a_daemon_that_scribbles_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
