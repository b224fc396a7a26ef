/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "serve/session.h"

#define N_SLOTS 4u
#define SLOT_BYTES 4096u

/* A session as serve has it, and the client's side of its ring. */
struct fixture {
	struct session_shm shm;
	struct shm_frames_header *client;
	struct shm_ring submissions;
};

static void fixture_make(struct fixture *f)
{
	*f = (struct fixture){ .shm = SESSION_SHM_NONE };
	assert_int_equal(session_shm_make(&f->shm, N_SLOTS, SLOT_BYTES), 0);
	assert_int_equal(session_shm_keep(&f->shm), 0);
	f->client = mmap(
		NULL, f->shm.frames_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->shm.frames_fd, 0);
	assert_ptr_not_equal(f->client, MAP_FAILED);
	f->submissions = (struct shm_ring){ (uint8_t *)f->client + shm_submissions_offset(),
		sizeof(struct shm_request), N_SLOTS, 0 };
}

static void fixture_free(struct fixture *f)
{
	(void)munmap(f->client, f->shm.frames_bytes);
	session_shm_done(&f->shm);
}

static void submit(struct fixture *f, uint64_t id, uint32_t slot)
{
	const struct shm_request request = {
		.id = id, .slot = slot, .verb = SHM_ECHO, .n_bytes = 1000 + id
	};

	shm_ring_put(&f->submissions, &request);
	shm_ring_publish(&f->submissions, &f->client->submission_head);
}

/* ---- what serve does */

static void take(struct session_shm *shm)
{
	struct shm_request request;

	if (session_shm_take(shm, &request) != 1)
		_exit(2);
	session_shm_taken(shm, &request, 5);
}

static void answer(struct session_shm *shm, uint32_t slot, uint64_t id)
{
	session_shm_result(shm, slot)->id = id;
	session_shm_result(shm, slot)->checksum = ~id;
	session_shm_complete(shm, slot, id);
}

/* Answers come in another order than requests, and slots are used again. */
static void work(struct fixture *f, unsigned step)
{
	struct session_shm *shm = &f->shm;

	switch (step) {
	case 0:
		take(shm);
		take(shm);
		answer(shm, 2, 101);
		take(shm);
		answer(shm, 0, 100);
		break;
	default:
		take(shm);
		answer(shm, 2, 103);
		answer(shm, 1, 102);
		take(shm);
		break;
	}
}

/* The client's part, before each step of work. */
static void ask(struct fixture *f, unsigned step)
{
	if (step == 0) {
		submit(f, 100, 0);
		submit(f, 101, 2);
		submit(f, 102, 1);
	} else {
		submit(f, 103, 2);
		submit(f, 104, 0);
	}
}

/* ---- what the next serve finds */

struct seen {
	unsigned n_answered[8], n_owed[8], n_waiting[8]; /* of ids 100 to 107 */
};

static void look(struct fixture *f, const struct session_shm *next,
	const struct session_recovery *recovery, struct seen *ret_seen)
{
	const struct shm_results_header *header = (const void *)next->results;
	const struct shm_completion *ring =
		(const void *)(next->results + shm_completions_offset());
	uint32_t head = atomic_load(&header->completion_head);

	assert_int_equal(head, recovery->n_answered);
	assert_int_equal(atomic_load(&header->submission_tail), recovery->n_taken);
	for (uint32_t i = head > N_SLOTS ? head - N_SLOTS : 0; i < head; i++) {
		const struct shm_completion *c = &ring[i & (N_SLOTS - 1)];

		ret_seen->n_answered[c->id - 100]++;
		/* Unless the slot was used again. */
		if (session_shm_result(next, c->slot)->id == c->id)
			assert_int_equal(session_shm_result(next, c->slot)->checksum, ~c->id);
	}
	for (uint32_t i = 0; i < recovery->n; i++) {
		const struct session_state_slot *s = &next->state->slots[recovery->slots[i]];

		assert_int_equal(s->request.n_bytes, 1000 + s->request.id);
		assert_int_equal(s->received_ns, 5);
		ret_seen->n_owed[s->request.id - 100]++;
		if (i > 0)
			assert_true(s->request.id >
				    next->state->slots[recovery->slots[i - 1]].request.id);
	}
	for (uint32_t i = recovery->n_taken; i < f->submissions.cursor; i++) {
		const struct shm_request *r =
			(const void *)(f->submissions.entries +
				       (i & (N_SLOTS - 1)) * sizeof(struct shm_request));

		ret_seen->n_waiting[r->id - 100]++;
	}
}

static int resume(struct fixture *f, struct session_shm *next, struct session_recovery *recovery)
{
	*next = SESSION_SHM_NONE;
	next->frames_fd = fcntl(f->shm.frames_fd, F_DUPFD_CLOEXEC, 3);
	next->doorbell = fcntl(f->shm.doorbell, F_DUPFD_CLOEXEC, 3);
	next->state_fd = fcntl(f->shm.state_fd, F_DUPFD_CLOEXEC, 3);
	assert_int_equal(session_state_map(&next->state, next->state_fd), 0);
	return session_shm_resume(next, f->shm.results_fd, recovery);
}

/* first_id: answers before it may have left the ring. */
static void check(struct fixture *f, uint64_t first_id)
{
	struct session_recovery recovery;
	struct seen seen = { .n_owed = { 0 } };
	struct session_shm next;

	assert_int_equal(resume(f, &next, &recovery), 0);
	look(f, &next, &recovery, &seen);
	for (uint64_t id = first_id; id < 100 + f->submissions.cursor; id++) {
		unsigned at = (unsigned)(id - 100);

		if (seen.n_answered[at] + seen.n_owed[at] + seen.n_waiting[at] != 1)
			fail_msg("request %u: answered %u times, owed %u, waiting %u", (unsigned)id,
				seen.n_answered[at], seen.n_owed[at], seen.n_waiting[at]);
	}
	session_shm_done(&next);
}

/* ---- tests */

/* One instruction of the child. False: it has ended. */
static bool step_on(pid_t pid)
{
	int status;

	assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status)) {
		assert_int_equal(WEXITSTATUS(status), 0);
		return false;
	}
	assert_true(WIFSTOPPED(status));
	return true;
}

static pid_t begin(struct fixture *f, unsigned step)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(77);
		(void)raise(SIGSTOP);
		work(f, step);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSTOPPED(status) ? pid : -1;
}

static void whoever_is_killed_at_any_instruction_answers_once(void **unused)
{
	static uint8_t state[sizeof(struct session_state)], results[1 << 17];
	unsigned n_steps = 0, n_points = 0;
	struct fixture f;

	(void)unused;
	fixture_make(&f);
	assert_true(f.shm.results_bytes <= sizeof(results));
	for (unsigned step = 0; step < 2; step++) {
		pid_t pid;

		ask(&f, step);
		pid = begin(&f, step);
		if (pid < 0) {
			print_message("this machine does not let us trace a process\n");
			skip();
		}
		for (; step_on(pid); n_steps++) {
			if (memcmp(state, f.shm.state, sizeof(state)) == 0 &&
				memcmp(results, f.shm.results, f.shm.results_bytes) == 0)
				continue;
			memcpy(state, f.shm.state, sizeof(state));
			memcpy(results, f.shm.results, f.shm.results_bytes);
			check(&f, step == 0 ? 100 : 102);
			n_points++;
		}
		/* What the child has done to its own copies. */
		work(&f, step);
		check(&f, step == 0 ? 100 : 102);
	}
	print_message("%u instructions, %u of them wrote\n", n_steps, n_points);
	assert_true(n_points > 40);
	fixture_free(&f);
}

static void cursors_go_on_beyond_their_wrap(void **unused)
{
	struct session_recovery recovery;
	struct session_shm next;
	struct fixture f;

	(void)unused;
	fixture_make(&f);
	f.submissions.cursor = f.shm.submissions.cursor = f.shm.completions.cursor = UINT32_MAX - 1;
	((struct shm_results_header *)f.shm.results)->completion_head = UINT32_MAX - 1;
	f.shm.state->n_taken = UINT32_MAX - 1;
	for (uint32_t slot = N_SLOTS; slot-- > 0;)
		submit(&f, 100 + slot, slot);
	for (uint32_t slot = 0; slot < N_SLOTS; slot++)
		take(&f.shm);
	answer(&f.shm, 2, 102);
	assert_int_equal(resume(&f, &next, &recovery), 0);
	assert_int_equal(recovery.n_taken, N_SLOTS - 2);
	assert_int_equal(recovery.n_answered, UINT32_MAX);
	assert_int_equal(recovery.n, 3);
	assert_int_equal(recovery.slots[0], 3);
	assert_int_equal(recovery.slots[1], 1);
	assert_int_equal(recovery.slots[2], 0);
	session_shm_done(&next);
	fixture_free(&f);
}

/* The next serve is killed as well. */
static void resuming_may_be_cut_short(void **unused)
{
	struct session_recovery recovery, again;
	struct session_shm next, third;
	struct fixture f;

	(void)unused;
	fixture_make(&f);
	ask(&f, 0);
	work(&f, 0);
	/* Killed before the last answer was published. */
	session_state_answer(f.shm.state, 1, 3);
	assert_int_equal(resume(&f, &next, &recovery), 0);
	assert_int_equal(recovery.n_answered, 3);
	session_shm_done(&next);
	assert_int_equal(resume(&f, &next, &recovery), 0);
	assert_int_equal(recovery.n_answered, 3);
	assert_int_equal(recovery.n, 0);
	session_state_resume(next.state, &recovery, 1);
	assert_int_equal(next.state->generation, 1);

	(void)close(f.shm.results_fd);
	f.shm.results_fd = dup(next.results_fd);
	assert_int_equal(resume(&f, &third, &again), 0);
	assert_memory_equal(&again.n_taken, &recovery.n_taken, 3 * sizeof(uint32_t));
	session_shm_done(&third);
	session_shm_done(&next);
	fixture_free(&f);
}

static void a_request_is_run_three_times_at_most(void **unused)
{
	struct fixture f;

	(void)unused;
	fixture_make(&f);
	/* A client's word about it is none. */
	((struct shm_request *)(void *)f.submissions.entries)->reserved[0] = 9;
	ask(&f, 0);
	take(&f.shm);
	assert_true(session_state_try(f.shm.state, 0));
	assert_true(session_state_try(f.shm.state, 0));
	assert_false(session_state_try(f.shm.state, 0));
	assert_false(session_state_try(f.shm.state, 0));
	answer(&f.shm, 0, 100);
	take(&f.shm);
	assert_true(session_state_try(f.shm.state, 2));
	fixture_free(&f);
}

static void nobody_maps_the_new_results_for_writing(void **unused)
{
	struct session_recovery recovery;
	struct session_shm next;
	struct fixture f;

	(void)unused;
	fixture_make(&f);
	assert_int_equal(resume(&f, &next, &recovery), 0);
	assert_ptr_equal(mmap(NULL, next.results_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
				 next.results_fd, 0),
		MAP_FAILED);
	assert_int_equal(ftruncate(next.state_fd, 0), -1);
	session_shm_done(&next);
	fixture_free(&f);
}

static void what_no_serve_has_left_is_refused(void **unused)
{
	struct session_recovery recovery;
	struct session_state *other;
	struct session_shm next;
	struct fixture f;
	int fd;

	(void)unused;
	fixture_make(&f);
	ask(&f, 0);
	take(&f.shm);

	f.shm.state->slots[0].request.slot = 1;
	assert_int_equal(resume(&f, &next, &recovery), -EBADMSG);
	session_shm_done(&next);
	f.shm.state->slots[0].request.slot = 0;

	f.shm.state->slots[3].mark = (uint64_t)SESSION_ANSWERED << 32 | 7;
	assert_int_equal(resume(&f, &next, &recovery), -EBADMSG);
	session_shm_done(&next);
	f.shm.state->slots[3].mark = UINT64_C(9) << 32;
	assert_int_equal(resume(&f, &next, &recovery), -EBADMSG);
	session_shm_done(&next);
	f.shm.state->slots[3].mark = 0;

	/* Sizes of another session's regions. */
	f.shm.state->n_slots = 8;
	assert_int_equal(resume(&f, &next, &recovery), -EBADMSG);
	session_shm_done(&next);
	f.shm.state->n_slots = 5;
	assert_int_equal(session_state_map(&other, f.shm.state_fd), -EBADMSG);
	f.shm.state->n_slots = N_SLOTS;
	f.shm.state->version++;
	assert_int_equal(session_state_map(&other, f.shm.state_fd), -EBADMSG);
	f.shm.state->version--;
	assert_int_equal(session_state_map(&other, f.shm.frames_fd), -EBADMSG);

	/* It could be cut short under us. */
	fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(
		write(fd, f.shm.state, sizeof(*f.shm.state)), (ssize_t)sizeof(*f.shm.state));
	assert_int_equal(session_state_map(&other, fd), -EBADMSG);
	(void)close(fd);
	assert_int_equal(resume(&f, &next, &recovery), 0);
	session_shm_done(&next);
	fixture_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whoever_is_killed_at_any_instruction_answers_once),
		cmocka_unit_test(cursors_go_on_beyond_their_wrap),
		cmocka_unit_test(resuming_may_be_cut_short),
		cmocka_unit_test(a_request_is_run_three_times_at_most),
		cmocka_unit_test(nobody_maps_the_new_results_for_writing),
		cmocka_unit_test(what_no_serve_has_left_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
