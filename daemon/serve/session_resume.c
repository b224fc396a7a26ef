/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/session_resume.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "ops/log.h"
#include "serve/serve.h"

/* A session's descriptors go by "NUMBER-PART"; results by their generation as well. */
enum part { STATE, SOCKET, FRAMES, DOORBELL, RESULTS, N_PARTS };

/* Of sessions that go into the store: a burst, and after that one each. */
#define STORE_BURST 64u
#define STORE_EVERY_NS (50 * NS_PER_MS)
/* Who asks for nothing is stored after so long: who only comes and goes never is. */
#define STORE_IDLE_NS NS_PER_S
#define STORE_LOOK_NS (100 * NS_PER_MS)

static const char *const parts[N_PARTS] = { "state", "socket", "frames", "bell", "results" };

static void write_name(
	char name[HANDOVER_NAME_BYTES], uint64_t number, enum part part, uint32_t generation)
{
	if (part == RESULTS)
		(void)snprintf(name, HANDOVER_NAME_BYTES, "%" PRIu64 "-results-%" PRIu32, number,
			generation);
	else
		(void)snprintf(name, HANDOVER_NAME_BYTES, "%" PRIu64 "-%s", number, parts[part]);
}

static int part_fd(const struct session *session, enum part part)
{
	const int fds[N_PARTS] = { session->shm.state_fd, session->fd, session->shm.frames_fd,
		session->shm.doorbell, session->shm.results_fd };

	return fds[part];
}

/* ---- to systemd, and to the program that takes our place */

static int store_part(struct session *session, enum part part)
{
	char name[HANDOVER_NAME_BYTES];

	write_name(name, session->number, part, session->shm.state->generation);
	return handover_try_store(&session->serve->handover, name, part_fd(session, part));
}

/* As far as systemd keeps up; goes on there. */
static void store_all(struct session *session)
{
	struct handover *handover = &session->serve->handover;

	/* One more: while it is resumed it has two regions of results. */
	if (session->n_stored == 0 && !handover_has_room(handover, N_PARTS + 1)) {
		session->waits_for_store = false;
		log_notice("systemd's store is full (%" PRIu32
			   "): a session more ends if kamend is "
			   "killed",
			handover->max_stored);
		return;
	}
	for (; session->n_stored < N_PARTS; session->n_stored++)
		if (store_part(session, (enum part)session->n_stored) < 0)
			return;
	session->waits_for_store = false;
	session->shm.state->is_stored = 1;
}

/* ---- who is stored when */

/* A bucket of STORE_BURST sessions, told by the time at which it is full again. */
static bool may_store(struct session_list *list, uint64_t now)
{
	uint64_t full_ns = (list->store_full_ns > now ? list->store_full_ns : now) + STORE_EVERY_NS;

	if (full_ns - now > STORE_BURST * STORE_EVERY_NS)
		return false;
	list->store_full_ns = full_ns;
	return true;
}

/* Oldest first: those who come and go at once are gone before it is their turn. */
static struct session *next_to_store(const struct session_list *list, uint64_t now)
{
	struct session *next = NULL;

	for (struct session *s = list->head; s; s = s->next)
		if (s->waits_for_store && (s->has_asked || now - s->since_ns >= STORE_IDLE_NS) &&
			(!next || s->number < next->number))
			next = s;
	return next;
}

static bool is_any_waiting(const struct session_list *list)
{
	for (const struct session *s = list->head; s; s = s->next)
		if (s->waits_for_store)
			return true;
	return false;
}

static int on_store(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct serve *serve = userdata;
	struct session_list *list = &serve->sessions;
	uint64_t now = clock_now_ns();
	bool is_quiet = handover_say(&serve->handover);
	struct session *session;

	(void)usec;
	while (is_quiet && (session = next_to_store(list, now)) != NULL) {
		if (session->n_stored == 0 && !may_store(list, now))
			break;
		store_all(session);
		is_quiet = !session->waits_for_store;
	}
	if (is_quiet && !is_any_waiting(list))
		return 0;
	if (sd_event_source_set_time_relative(source, STORE_LOOK_NS / NS_PER_US) < 0)
		return 0;
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static void look_later(struct serve *serve)
{
	struct session_list *list = &serve->sessions;
	int enabled = SD_EVENT_OFF, r;

	if (!list->store) {
		r = sd_event_add_time_relative(serve->event, &list->store, CLOCK_MONOTONIC,
			STORE_LOOK_NS / NS_PER_US, 0, on_store, serve);
		if (r < 0)
			log_warning("sessions are not stored: %s", strerror(-r));
		return;
	}
	if (sd_event_source_get_enabled(list->store, &enabled) > 0)
		return;
	if (sd_event_source_set_time_relative(list->store, STORE_LOOK_NS / NS_PER_US) >= 0)
		(void)sd_event_source_set_enabled(list->store, SD_EVENT_ONESHOT);
}

static void wait_for_store(struct session *session)
{
	if (session->serve->handover.max_stored == 0)
		return;
	session->waits_for_store = true;
	session->since_ns = clock_now_ns();
	look_later(session->serve);
}

void session_store(struct session *session)
{
	session->number = ++session->serve->sessions.last_number;
	wait_for_store(session);
}

void session_asks(struct session *session)
{
	struct serve *serve = session->serve;
	uint64_t now = clock_now_ns();

	session->has_asked = true;
	if (next_to_store(&serve->sessions, now) == session && handover_say(&serve->handover) &&
		may_store(&serve->sessions, now))
		store_all(session);
}

static void forget_part(struct serve *serve, uint64_t number, enum part part, uint32_t generation)
{
	char name[HANDOVER_NAME_BYTES];

	write_name(name, number, part, generation);
	handover_forget(&serve->handover, name);
}

void session_forget(struct session *session)
{
	for (uint32_t part = 0; part < session->n_stored; part++)
		forget_part(session->serve, session->number, (enum part)part,
			session->shm.state->generation);
	if (session->serve->handover.n_unsaid > 0)
		look_later(session->serve);
}

int sessions_list(struct serve *serve, struct handed **ret_items, uint32_t *ret_n)
{
	struct handed *items;
	uint32_t n = 0;

	/* Two more for those that listen. */
	items = calloc((size_t)serve->sessions.n * N_PARTS + 2, sizeof(*items));
	if (!items)
		return -ENOMEM;
	for (struct session *s = serve->sessions.head; s; s = s->next) {
		if (s->number == 0)
			continue;
		for (enum part part = 0; part < N_PARTS; part++, n++) {
			write_name(items[n].name, s->number, part, s->shm.state->generation);
			items[n].fd = part_fd(s, part);
		}
	}
	*ret_items = items;
	*ret_n = n;
	return 0;
}

/* ---- from the process before */

static int take_part(struct serve *serve, uint64_t number, enum part part, uint32_t generation)
{
	char name[HANDOVER_NAME_BYTES];

	write_name(name, number, part, generation);
	return handover_take(&serve->handover, name);
}

bool session_tell(struct session *session)
{
	Kamen__Resumed resumed = KAMEN__RESUMED__INIT;
	int r;

	resumed.generation = session->shm.state->generation;
	resumed.results_bytes = session->shm.results_bytes;
	r = wire_send(session->fd, &resumed.base, &session->shm.results_fd, 1);
	session->owes_word = r == -EAGAIN;
	/* One that is gone is seen on the same socket. */
	if (r == 0 || r == -EAGAIN || r == -EPIPE || r == -ECONNRESET)
		r = sd_event_source_set_io_events(
			session->io, session->owes_word ? EPOLLIN | EPOLLOUT : EPOLLIN);
	if (r < 0)
		session_drop(session, strerror(-r));
	return r >= 0;
}

/* The new region is in the store before the state speaks of it, and the old one until after. */
static void change_region(struct session *session, const struct session_recovery *recovery)
{
	struct session_state *state = session->shm.state;
	struct serve *serve = session->serve;
	uint32_t old = state->generation;
	char name[HANDOVER_NAME_BYTES];
	int stale;

	if (state->is_stored) {
		write_name(name, session->number, RESULTS, old + 1);
		stale = handover_take(&serve->handover, name);
		if (stale >= 0)
			handover_forget(&serve->handover, name);
		closep(&stale);
		handover_store(&serve->handover, name, session->shm.results_fd);
	}
	session_state_resume(state, recovery, old + 1);
	if (state->is_stored) {
		session->n_stored = N_PARTS;
		forget_part(serve, session->number, RESULTS, old);
	} else {
		handover_uncount(&serve->handover, N_PARTS);
		wait_for_store(session);
	}
}

/* What sock and shm hold is the session's, or the caller's as before. */
static int resume_with(struct serve *serve, uint64_t number, int sock, struct session_shm *shm,
	struct session_recovery *recovery, struct session **ret_session)
{
	_cleanup_(closep) int old_results = -1;
	struct session *session;
	struct peer peer;
	int r;

	shm->frames_fd = take_part(serve, number, FRAMES, 0);
	shm->doorbell = take_part(serve, number, DOORBELL, 0);
	old_results = take_part(serve, number, RESULTS, shm->state->generation);
	/* systemd lets go whose peer has hung up. */
	if (sock < 0)
		return -ENOTCONN;
	if (shm->frames_fd < 0 || shm->doorbell < 0 || old_results < 0)
		return -ENODATA;
	r = session_shm_resume(shm, old_results, recovery);
	if (r < 0)
		return r;
	/* Who may use the daemon may have changed, too. */
	r = peer_read(&peer, sock, &serve->policy);
	if (r < 0)
		return r;
	if (!peer.may_data)
		return -EACCES;
	r = session_adopt(&session, serve, sock, &peer, shm);
	if (r < 0)
		return r;
	session->number = number;
	*ret_session = session;
	return 0;
}

static const char *reason_of(int r)
{
	switch (r) {
	case -ENODATA:
		return "not all of its descriptors are there";
	case -EBADMSG:
		return "it was left by a kamend of another kind";
	default:
		return strerror(-r);
	}
}

static void resume(struct serve *serve, uint64_t number, int state_fd)
{
	_cleanup_(closep) int sock = take_part(serve, number, SOCKET, 0);
	struct session_shm shm = SESSION_SHM_NONE;
	struct session_recovery recovery;
	struct session *session = NULL;
	uint32_t generation = 0;
	int r;

	shm.state_fd = state_fd;
	r = session_state_map(&shm.state, state_fd);
	if (r >= 0) {
		generation = shm.state->generation;
		r = resume_with(serve, number, sock, &shm, &recovery, &session);
	}
	if (r < 0) {
		/* Its client sees the end, whoever has a copy of the socket, and connects anew. */
		if (sock >= 0)
			(void)shutdown(sock, SHUT_RDWR);
		if (r == -ENOTCONN)
			log_debug("session %" PRIu64 ": its client is gone", number);
		else
			log_warning(
				"session %" PRIu64 " cannot be resumed: %s", number, reason_of(r));
		for (enum part part = 0; part < N_PARTS; part++)
			forget_part(serve, number, part, generation);
		session_shm_done(&shm);
		return;
	}
	(void)TAKE_FD(sock);
	change_region(session, &recovery);
	serve->sessions.n_resumed++;
	serve->sessions.n_run_again += recovery.n;
	if (session_tell(session))
		session_run_again(session, &recovery);
}

/* "NUMBER-state"; 0: something else. */
static uint64_t number_of(const char *name)
{
	char wanted[HANDOVER_NAME_BYTES];
	uint64_t number;

	if (sscanf(name, "%" SCNu64, &number) != 1)
		return 0;
	write_name(wanted, number, STATE, 0);
	return strcmp(name, wanted) == 0 ? number : 0;
}

void sessions_resume(struct serve *serve)
{
	struct handover *handover = &serve->handover;
	struct session_list *list = &serve->sessions;
	bool was_left = handover->n > 0;

	/* Numbers are not used again while the store may have them. */
	for (uint32_t i = 0; i < handover->n; i++) {
		uint64_t number = number_of(handover->items[i].name);

		if (number > list->last_number)
			list->last_number = number;
	}
	for (uint32_t i = 0; i < handover->n; i++) {
		uint64_t number = number_of(handover->items[i].name);

		if (number > 0 && handover->items[i].fd >= 0)
			resume(serve, number, TAKE_FD(handover->items[i].fd));
	}
	handover_done(handover);
	if (handover->n_unsaid > 0)
		look_later(serve);
	if (!was_left)
		return;
	list->gap_ns =
		clock_now_ns() - (handover->since_ns > 0 ? handover->since_ns : serve->started_ns);
	log_notice("%" PRIu64 " sessions resumed, %" PRIu64
		   " requests are run again, %.3f s after %s",
		list->n_resumed, list->n_run_again, (double)list->gap_ns / 1e9,
		handover->since_ns > 0 ? "the serve before stopped" : "this one was started");
}
