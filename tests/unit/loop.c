/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
/* cmocka wants the four above */
#include <cmocka.h>

#include "serve/limits.h"
#include "serve/listen.h"
#include "serve/serve.h"

#define FOR_EVER_NS (20 * NS_PER_S)

/* A serve with no more of it than the loop needs, and sessions that nobody is at the other end of. */
static struct serve *make_serve(void)
{
	struct serve *serve = calloc(1, sizeof(*serve));

	assert_non_null(serve);
	assert_true(sd_event_new(&serve->event) >= 0);
	later_init(&serve->later, LATER_LOOP);
	reading_init(&serve->reading);
	assert_int_equal(hand_new(&serve->hand, serve->event, "hand", 0), 0);
	return serve;
}

static void free_serve(struct serve *serve)
{
	hand_free(serve->hand);
	sd_event_unref(serve->event);
	free(serve);
}

static struct session *make_session(
	struct serve *serve, struct quota_user *user, uint64_t slot_bytes)
{
	struct session *session = calloc(1, sizeof(*session));

	assert_non_null(session);
	session->serve = serve;
	session->user = user;
	session->fd = -1;
	session->shm = SESSION_SHM_NONE;
	assert_int_equal(session_shm_make(&session->shm, 1, slot_bytes), 0);
	session->requests = session->free = calloc(1, sizeof(*session->requests));
	assert_non_null(session->requests);
	session->requests->session = session;
	session->requests->job_fd = -1;
	return session;
}

static void free_session(struct session *session)
{
	later_forget(&session->serve->later, &session->turn);
	session_shm_done(&session->shm);
	free(session->requests);
	free(session);
}

/* As its client would, through the descriptor. */
static void submit(struct session *session, const struct shm_request *wire)
{
	const uint32_t head = session->shm.submissions.cursor + 1;
	int fd = session->shm.frames_fd;

	assert_int_equal(
		pwrite(fd, wire, sizeof(*wire), (off_t)shm_submissions_offset()), sizeof(*wire));
	assert_int_equal(pwrite(fd, &head, sizeof(head),
				 offsetof(struct shm_frames_header, submission_head)),
		sizeof(head));
}

struct ringer {
	struct session *session;
	unsigned n_events;
	uint64_t end_ns;
};

/* There is always one more event; ends the loop when the session has its answer. */
static int on_event(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct ringer *ringer = userdata;
	bool is_answered = ringer->session->shm.completions.cursor > 0;

	(void)fd;
	(void)revents;
	ringer->n_events++;
	if (is_answered || clock_now_ns() > ringer->end_ns)
		return sd_event_exit(sd_event_source_get_event(source), is_answered);
	return 0;
}

static unsigned run_beside_events(struct serve *serve, struct session *session)
{
	struct ringer ringer = { .session = session, .end_ns = clock_now_ns() + FOR_EVER_NS };
	int fd = eventfd(1, EFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_true(sd_event_add_io(serve->event, NULL, fd, EPOLLIN, on_event, &ringer) >= 0);
	assert_int_equal(spin_loop(serve), 1);
	(void)close(fd);
	return ringer.n_events;
}

static void who_comes_back_is_served_beside_events_without_end(void **state)
{
	const struct shm_request wrong = { .id = 7, .verb = SHM_ECHO, .n_bytes = UINT64_MAX };
	struct serve *serve = make_serve();
	struct session *session = make_session(serve, NULL, 4096);

	(void)state;
	submit(session, &wrong);
	session_comes_back(session);
	assert_true(run_beside_events(serve, session) < 100);
	free_session(session);
	free_serve(serve);
}

static void what_is_read_in_parts_is_read_beside_events_without_end(void **state)
{
	const struct shm_request large = {
		.id = 7, .verb = SHM_ECHO, .n_bytes = SERVE_READ_AT_ONCE + 1
	};
	struct serve *serve = make_serve();
	struct session *session = make_session(serve, NULL, 1u << 20);

	(void)state;
	submit(session, &large);
	assert_true(session_look(session));
	assert_ptr_equal(serve->reading.request, session->requests);
	(void)run_beside_events(serve, session);
	assert_false(later_waits(&serve->reading.waiting));
	free_session(session);
	free_serve(serve);
}

/* (3): ingest, and two users */
static void whose_frames_are_read_in_parts_take_turns(void **state)
{
	const struct shm_request large = { .id = 7, .verb = SHM_ECHO, .n_bytes = 4u << 20 };
	struct quota_user a = { .uid = 1 }, b = { .uid = 2 };
	struct quota_user *const users[] = { NULL, &a, &b };
	struct serve *serve = make_serve();
	struct session *sessions[3];
	unsigned n_parts[3] = { 0 };

	(void)state;
	for (unsigned n = 1; n <= 3; n++) {
		sessions[n - 1] = make_session(serve, users[n - 1], large.n_bytes);
		submit(sessions[n - 1], &large);
		assert_true(session_look(sessions[n - 1]));
		/* Whoever comes later is not before those who have read for long, nor behind. */
		for (unsigned i = 0; i < 4 * n; i++) {
			for (unsigned k = 0; k < n; k++)
				n_parts[k] += serve->reading.request == sessions[k]->requests;
			assert_true(sd_event_run(serve->event, UINT64_MAX) > 0);
		}
		/* One part is being read while somebody comes. */
		for (unsigned i = 0; i < n; i++)
			assert_in_range(n_parts[i], 4 * (n - i) - 1, 4 * (n - i) + 1);
	}
	hand_settle(serve->hand);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(sessions[i]->shm.completions.cursor, 1);
		free_session(sessions[i]);
	}
	free_serve(serve);
}

static void who_is_gone_while_a_part_is_read_is_freed_afterwards(void **state)
{
	const struct shm_request large = { .id = 7, .verb = SHM_ECHO, .n_bytes = 4u << 20 };
	struct serve *serve = make_serve();
	struct session *session = make_session(serve, NULL, large.n_bytes);

	(void)state;
	submit(session, &large);
	assert_true(session_look(session));
	request_abandon(serve, session->requests);
	/* Held by the part; nobody is told, and nothing of it is read any more. */
	assert_int_equal(session->n_busy, 1);
	hand_settle(serve->hand);
	assert_int_equal(session->n_busy, 0);
	assert_null(session->requests->checksum);
	assert_true(session->requests->n_read <= SERVE_READ_BYTES);
	assert_int_equal(serve->n_pending, 0);
	free_session(session);
	free_serve(serve);
}

/* ---- the hand */

struct count {
	struct errand errand;
	unsigned n, n_done, *order;
};

static bool count_down(struct errand *errand)
{
	return --((struct count *)errand)->n > 0;
}

static void count_done(struct errand *errand)
{
	struct count *count = (struct count *)errand;

	count->n_done = ++*count->order;
}

static void errands_take_turns_and_all_of_them_end(void **state)
{
	unsigned order = 0;
	struct count counts[3] = { { .n = 5 }, { .n = 1 }, { .n = 2 } };
	sd_event *event = NULL;
	struct hand *hand;

	(void)state;
	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(hand_new(&hand, event, "hand", 0), 0);
	for (unsigned i = 0; i < 3; i++) {
		counts[i].errand = (struct errand){ NULL, count_down, count_done };
		counts[i].order = &order;
	}
	for (unsigned i = 0; i < 3; i++)
		hand_give(hand, &counts[i].errand);
	hand_free(hand);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(counts[i].n, 0);
	assert_int_equal(order, 3);
	assert_true(counts[1].n_done < counts[2].n_done || counts[0].n_done < counts[2].n_done);
	sd_event_unref(event);
}

static void memory_is_given_back_in_pieces_to_the_last_page(void **state)
{
	static const size_t sizes[] = { 4096, 1u << 20, (1u << 20) + 4096, (3u << 20) - 4096 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t n = sizes[i];
		void *at = mmap(NULL, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		assert_ptr_not_equal(at, MAP_FAILED);
		while (hand_unmap_piece(at, &n))
			assert_int_equal(msync(at, n, MS_ASYNC), 0);
		assert_int_equal(n, 0);
		assert_int_equal(msync(at, 4096, MS_ASYNC), -1);
	}
}

static void sessions_that_are_looked_at_take_turns(void **state)
{
	const struct shm_request echo = { .id = 7, .verb = SHM_ECHO };
	struct serve *serve = make_serve();
	struct spin *spin = &serve->spin;
	struct session *a = make_session(serve, NULL, 4096);
	struct session *b = make_session(serve, NULL, 4096);
	struct session *c = make_session(serve, NULL, 4096);

	(void)state;
	spin->sessions[spin->n++] = a;
	spin->sessions[spin->n++] = b;
	spin->sessions[spin->n++] = c;
	assert_null(spin_ready(spin));
	submit(a, &echo);
	assert_ptr_equal(spin_ready(spin), a);
	assert_ptr_equal(spin_ready(spin), a);
	submit(c, &echo);
	for (unsigned i = 0; i < 3; i++) {
		assert_ptr_equal(spin_ready(spin), c);
		assert_ptr_equal(spin_ready(spin), a);
	}
	session_comes_back(c);
	assert_ptr_equal(spin_ready(spin), a);
	session_comes_back(a);
	assert_null(spin_ready(spin));
	submit(b, &echo);
	assert_ptr_equal(spin_ready(spin), b);
	free_session(a);
	free_session(b);
	free_session(c);
	free_serve(serve);
}

/* ---- hello */

struct door {
	struct serve *serve;
	char dir[32], path[48];
	struct config boot;
};

/* A serve that lets clients of this user in. */
static void open_door(struct door *door)
{
	struct serve *serve = make_serve();

	(void)snprintf(door->dir, sizeof(door->dir), "/tmp/kamen-loop-XXXXXX");
	assert_non_null(mkdtemp(door->dir));
	(void)snprintf(door->path, sizeof(door->path), "%s/s", door->dir);
	door->serve = serve;
	door->boot.n_workers = 1;
	serve->boot = &door->boot;
	serve->policy = (struct peer_policy){ getuid(), (gid_t)-1, (gid_t)-1 };
	serve->config.max_clients = serve->config.uid_clients = 4;
	serve->config.max_frame_bytes = 1u << 20;
	assert_int_equal(wire_new(&serve->wire), 0);
	assert_return_code(sessions_open(serve, door->path), 0);
}

static void close_door(struct door *door)
{
	struct serve *serve = door->serve;

	sessions_stop(serve);
	sessions_close(serve);
	hand_settle(serve->hand);
	quota_done(&serve->quotas);
	wire_free(serve->wire);
	free_serve(serve);
	(void)unlink(door->path);
	(void)rmdir(door->dir);
}

static int come(const struct door *door)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(address.sun_path, door->path, sizeof(door->path));
	assert_return_code(connect(fd, (void *)&address, sizeof(address)), 0);
	return fd;
}

/* Its hello is said and waits: for its user's turn, or for its user's pace. */
static int say_hello(struct door *door, bool is_paced)
{
	Kamen__Hello hello = KAMEN__HELLO__INIT;
	int fd = come(door);
	struct session *session;

	assert_true(sd_event_run(door->serve->event, UINT64_MAX) > 0);
	session = door->serve->sessions.head;
	assert_non_null(session);
	session->user->credit_ns = -(int64_t)SERVE_DEBT_NS;
	session->user->credit_at_ns = clock_now_ns();
	if (is_paced)
		session->user->opened_ns = clock_now_ns() + 5 * NS_PER_S;
	hello.major = WIRE_MAJOR;
	hello.has_layout = true;
	hello.layout = SHM_LAYOUT_VERSION;
	assert_int_equal(wire_send(fd, &hello.base, NULL, 0), 0);
	assert_true(sd_event_run(door->serve->event, UINT64_MAX) > 0);
	assert_true(session->opens_ns > 0);
	assert_false(session->said_hello);
	return fd;
}

static bool is_answered(int fd)
{
	uint8_t bytes[256];

	return recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0;
}

static void a_hello_that_waits_for_its_turn_is_heard_once(void **state)
{
	struct door door = { 0 };
	struct later *later;
	struct session *session;
	int fd;

	(void)state;
	open_door(&door);
	later = &door.serve->later;
	fd = say_hello(&door, false);
	session = door.serve->sessions.head;
	assert_true(session->turn.waits);
	/* The time for its hello is over meanwhile. */
	assert_return_code(sd_event_source_set_time(session->hello, 1), 0);
	while (sd_event_run(door.serve->event, 0) > 0)
		;
	assert_ptr_equal(later->head, &session->turn);
	assert_null(session->turn.next);
	assert_ptr_equal(later_take(later), &session->turn);
	session->turn.run(session);
	assert_true(session->said_hello);
	assert_true(is_answered(fd));
	assert_false(later_waits(later));
	(void)close(fd);
	close_door(&door);
}

static void a_pause_hears_every_hello_and_lets_nobody_in(void **state)
{
	int enabled, fds[3];
	struct door door = { 0 };
	struct serve *serve;

	(void)state;
	open_door(&door);
	serve = door.serve;
	fds[0] = say_hello(&door, false);
	fds[1] = say_hello(&door, true);
	listen_rest(serve->sessions.listen, &serve->sessions.listen_pause, 1);
	sessions_pause(serve, true);
	assert_int_equal(serve->sessions.n_welcome, 2);
	assert_true(is_answered(fds[0]));
	assert_true(is_answered(fds[1]));
	fds[2] = come(&door);
	for (unsigned i = 0; i < 5; i++)
		(void)sd_event_run(serve->event, NS_PER_MS / NS_PER_US);
	assert_return_code(sd_event_source_get_enabled(serve->sessions.listen, &enabled), 0);
	assert_int_equal(enabled, SD_EVENT_OFF);
	assert_int_equal(serve->sessions.n, 2);
	for (const struct session *s = serve->sessions.head; s; s = s->next) {
		assert_return_code(sd_event_source_get_enabled(s->doorbell, &enabled), 0);
		assert_int_equal(enabled, SD_EVENT_OFF);
	}
	sessions_pause(serve, false);
	while (serve->sessions.n < 3)
		assert_true(sd_event_run(serve->event, UINT64_MAX) > 0);
	for (unsigned i = 0; i < 3; i++)
		(void)close(fds[i]);
	close_door(&door);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_comes_back_is_served_beside_events_without_end),
		cmocka_unit_test(what_is_read_in_parts_is_read_beside_events_without_end),
		cmocka_unit_test(whose_frames_are_read_in_parts_take_turns),
		cmocka_unit_test(who_is_gone_while_a_part_is_read_is_freed_afterwards),
		cmocka_unit_test(errands_take_turns_and_all_of_them_end),
		cmocka_unit_test(memory_is_given_back_in_pieces_to_the_last_page),
		cmocka_unit_test(sessions_that_are_looked_at_take_turns),
		cmocka_unit_test(a_hello_that_waits_for_its_turn_is_heard_once),
		cmocka_unit_test(a_pause_hears_every_hello_and_lets_nobody_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
