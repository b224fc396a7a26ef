/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/session.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "ops/log.h"
#include "serve/limits.h"
#include "serve/listen.h"
#include "serve/serve.h"
#include "serve/session_resume.h"
#include "serve/submission.h"

/* ---- life */

static void session_free(struct session *session)
{
	for (uint32_t i = 0; i < session->n_requests; i++)
		sd_event_source_disable_unref(session->requests[i].timer);
	sd_event_source_disable_unref(session->io);
	sd_event_source_disable_unref(session->doorbell);
	sd_event_source_disable_unref(session->hello);
	closep(&session->fd);
	free(session->requests);
	free(session->values);
	session_leave(session);
}

static void session_link(struct session *session)
{
	struct session_list *list = &session->serve->sessions;

	session->next = list->head;
	if (session->next)
		session->next->previous = session;
	list->head = session;
	list->n++;
}

static void session_unlink(struct session *session)
{
	struct session_list *list = &session->serve->sessions;

	if (session->next)
		session->next->previous = session->previous;
	if (session->previous)
		session->previous->next = session->next;
	else
		list->head = session->next;
	list->n--;
	list->n_welcome -= session->said_hello;
	if (session->is_open)
		quota_close(session->user);
}

/* The socket goes at once, so that the client knows; the memory when nobody reads it any more. */
static void session_close(struct session *session)
{
	struct serve *serve = session->serve;

	if (session->closed)
		return;
	session->closed = true;
	spin_forget(session);
	session->io = sd_event_source_disable_unref(session->io);
	session->doorbell = sd_event_source_disable_unref(session->doorbell);
	session->hello = sd_event_source_disable_unref(session->hello);
	later_forget(&serve->later, &session->turn);
	session_forget(session);
	/* systemd may have a copy, with which it would stay open; a next serve takes that over. */
	if (!serve->handover.is_leaving)
		(void)shutdown(session->fd, SHUT_RDWR);
	closep(&session->fd);
	session->fd = -1;
	session_unlink(session);
	/* Held while its requests go, so that the last one does not free it under the loop. */
	session->n_busy++;
	for (uint32_t i = 0; i < session->shm.n_slots; i++)
		if (session->in_slot[i])
			request_abandon(serve, session->in_slot[i]);
	session->n_busy--;
	if (session->n_busy == 0)
		session_free(session);
}

void session_drop(struct session *session, const char *reason)
{
	log_warning("client of uid %u, pid %d: session ended: %s", session->peer.uid,
		(int)session->peer.pid, reason);
	session->serve->sessions.n_dropped++;
	quota_offended(session->user, clock_now_ns());
	session_close(session);
}

void session_put(struct session *session, struct request *request)
{
	atomic_store(&request->state, REQUEST_FREE);
	request->next = session->free;
	session->free = request;
	session->n_busy--;
	if (session->user)
		session->user->n_requests--;
	if (session->closed && session->n_busy == 0)
		session_free(session);
}

/* ---- submissions */

static struct request *take_request(struct session *session, const struct shm_request *wire)
{
	struct request *request = session->free;

	session->free = request->next;
	session->n_busy++;
	if (session->user)
		session->user->n_requests++;
	request->wire = *wire;
	submission_complete(&request->wire);
	request_reset(request);
	session->in_slot[wire->slot] = request;
	return request;
}

/* False: the session is gone. */
static bool submit(struct session *session, const struct shm_request *wire)
{
	struct request *request;

	if (wire->slot >= session->shm.n_slots) {
		session_drop(session, "a submission names a slot that it does not have");
		return false;
	}
	if (session->in_slot[wire->slot]) {
		session_drop(session, "a slot was submitted again before it was answered");
		return false;
	}
	/* At most one late forward a slot is still running in each worker; the others only wait to be
	 * reaped. */
	if (!session->free)
		request_reap(session->serve);
	if (!session->free) {
		session_drop(session, "more late requests than slots");
		return false;
	}
	request = take_request(session, wire);
	/* Room in the ring before the answer: the client may submit as soon as it has that. */
	session_shm_taken(&session->shm, &request->wire, request->received_ns);
	if (session->waits_for_store && !session->has_asked)
		session_asks(session);
	request_start(session->serve, request);
	return !session->closed;
}

static void take_submissions(struct session *session, uint64_t budget_ns)
{
	uint64_t begin = clock_now_ns(), end;
	struct shm_request wire;
	bool more = false;
	int r;

	/* A client that submits while we read may keep us here for one ring's worth, not more. */
	for (uint32_t i = 0; i < session->shm.n_slots; i++) {
		more = i > 0 && clock_now_ns() - begin >= budget_ns;
		if (more)
			break;
		r = session_shm_take(&session->shm, &wire);
		if (r < 0) {
			session_drop(session, "its submission cursor is a lie");
			return;
		}
		if (r == 0)
			break;
		spin_touch(session);
		if (!submit(session, &wire))
			return;
	}
	end = clock_now_ns();
	quota_took_turn(&session->serve->quotas, session->user, end,
		end - begin > SERVE_LOOK_NS ? end - begin : SERVE_LOOK_NS);
	if (more)
		session_comes_back(session);
}

static void take_turn(void *owner)
{
	struct session *session = owner;

	(void)sd_event_source_set_enabled(session->doorbell, SD_EVENT_ON);
	take_submissions(session, SERVE_TURN_NS);
}

void session_comes_back(struct session *session)
{
	if (session->turn.waits)
		return;
	session->turn = (struct later_item){
		.user = session->user,
		.run = take_turn,
		.owner = session,
	};
	later_add(&session->serve->later, &session->turn);
}

/* Whoever has had its share of the loop waits until others have had theirs. */
bool session_look(struct session *session)
{
	if (session->turn.waits || !quota_has_turn(session->user, clock_now_ns())) {
		session_comes_back(session);
		/* Nor do its bells cost anything until then. */
		(void)sd_event_source_set_enabled(session->doorbell, SD_EVENT_OFF);
		return false;
	}
	take_submissions(session, SERVE_TURN_NS);
	return true;
}

static int on_doorbell(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	(void)source;
	(void)fd;
	(void)revents;
	(void)session_look(userdata);
	return 0;
}

/* ---- hello */

static uint32_t round_slots(uint32_t wanted)
{
	uint32_t n = 1;

	if (wanted == 0)
		wanted = 8;
	while (n < wanted && n < SHM_MAX_SLOTS)
		n *= 2;
	return n;
}

static uint64_t round_slot_bytes(const struct config *config, uint64_t wanted)
{
	uint64_t limit = config->max_frame_bytes;

	if (limit > SHM_MAX_SLOT_BYTES)
		limit = SHM_MAX_SLOT_BYTES;
	if (wanted == 0)
		wanted = 4u << 20;
	if (wanted > limit)
		wanted = limit;
	return shm_page_round(wanted);
}

static int make_requests(struct session *session)
{
	uint32_t n = (1 + session->serve->boot->n_workers) * session->shm.n_slots;

	session->requests = calloc(n, sizeof(*session->requests));
	/* Not cleared: of a session that asks little it costs no page. */
	session->values = malloc((size_t)n * SHM_MAX_VALUES * sizeof(float));
	if (!session->requests || !session->values)
		return -ENOMEM;
	session->n_requests = n;
	for (uint32_t i = 0; i < session->n_requests; i++) {
		struct request *request = &session->requests[i];

		request->session = session;
		request->values = session->values + (size_t)i * SHM_MAX_VALUES;
		request->job_fd = -1;
		request->next = session->free;
		session->free = request;
	}
	/* Edge-triggered and never read: a client cannot make us wait on its description. */
	return sd_event_add_io(session->serve->event, &session->doorbell, session->shm.doorbell,
		EPOLLIN | EPOLLET, on_doorbell, session);
}

/* Counted first: what is there goes with the session, also of a half-made one. */
static int admit(struct session *session, uint32_t n_slots, uint64_t slot_bytes, struct diag *diag)
{
	uint64_t n_bytes = shm_results_bytes(n_slots) + shm_frames_bytes(n_slots, slot_bytes);
	struct serve *serve = session->serve;
	int r;

	if (serve->sessions.n_bytes + n_bytes > SERVE_MAX_SHARED_BYTES)
		return diag_set(diag, ENOMEM, "no memory for a session: all have 4 GiB together");
	r = quota_open(&serve->quotas, session->user, &serve->config, n_bytes, diag);
	if (r < 0)
		return r;
	session->is_open = true;
	session->n_bytes = n_bytes;
	serve->sessions.n_bytes += n_bytes;
	return 0;
}

static int make_shared(struct session *session, const Kamen__Hello *hello, struct diag *diag)
{
	struct serve *serve = session->serve;
	uint32_t n_slots = round_slots(hello->has_n_slots ? hello->n_slots : 0);
	uint64_t slot_bytes =
		round_slot_bytes(&serve->config, hello->has_slot_bytes ? hello->slot_bytes : 0);
	int r;

	r = admit(session, n_slots, slot_bytes, diag);
	if (r < 0)
		return r;
	r = session_shm_make(&session->shm, n_slots, slot_bytes);
	if (r >= 0 && hello->has_features && hello->features & WIRE_RESUME)
		r = session_shm_keep(&session->shm);
	return r < 0 ? r : make_requests(session);
}

static int send_welcome(struct session *session)
{
	const struct session_shm *shm = &session->shm;
	const int fds[WIRE_MAX_FDS] = { shm->results_fd, shm->frames_fd, shm->doorbell };
	Kamen__Welcome welcome = KAMEN__WELCOME__INIT;

	serve_fill_welcome(&welcome);
	welcome.has_n_slots = welcome.has_slot_bytes = true;
	welcome.has_results_bytes = welcome.has_frames_bytes = true;
	welcome.n_slots = shm->n_slots;
	welcome.slot_bytes = shm->slot_bytes;
	welcome.results_bytes = shm->results_bytes;
	welcome.frames_bytes = shm->frames_bytes;
	welcome.features = shm->state ? WIRE_RESUME : 0;
	return wire_send(session->fd, &welcome.base, fds, WIRE_MAX_FDS);
}

static const char *refusal_text(int code)
{
	switch (code) {
	case -EACCES:
		return "only root, the daemon's user and group kamen may use this";
	case -EUSERS:
		return "too many clients";
	case -EPROTO:
		return "this daemon speaks another major version";
	default:
		return "no memory for a session";
	}
}

/* text: NULL: that of the code */
static void refuse(int fd, int code, const char *text)
{
	Kamen__Welcome welcome = KAMEN__WELCOME__INIT;
	Kamen__Error error = KAMEN__ERROR__INIT;

	serve_fill_welcome(&welcome);
	error.code = code;
	error.text = (char *)(text ? text : refusal_text(code));
	welcome.error = &error;
	(void)wire_send(fd, &welcome.base, NULL, 0);
}

/* No fault of the client's. */
static void turn_away(struct session *session, int code, const struct diag *diag)
{
	const char *text = diag->text[0] ? diag->text : refusal_text(code);

	log_warning("client of uid %u, pid %d: refused: %s", session->peer.uid,
		(int)session->peer.pid, text);
	session->serve->sessions.n_refused++;
	refuse(session->fd, code, text);
	session_close(session);
}

static void say_welcome(struct session *session, const Kamen__Hello *hello)
{
	struct diag diag = { .text = "" };
	int r;

	if (session->refusal < 0) {
		refuse(session->fd, session->refusal, NULL);
		session_close(session);
		return;
	}
	if (hello->major != WIRE_MAJOR) {
		refuse(session->fd, -EPROTO, NULL);
		session_drop(session, "it speaks another major version of the protocol");
		return;
	}
	if (hello->layout != SHM_LAYOUT_VERSION) {
		(void)diag_set(&diag, EPROTO,
			"shared memory has layout %u here, the client knows layout %u: it "
			"needs the libkamen of this kamend",
			SHM_LAYOUT_VERSION, hello->layout);
		turn_away(session, -EPROTO, &diag);
		return;
	}
	/* Others may have said theirs since this one came. */
	if (session->serve->sessions.n_welcome >= session->serve->config.max_clients) {
		turn_away(session, -EUSERS, &diag);
		return;
	}
	r = make_shared(session, hello, &diag);
	if (r < 0) {
		turn_away(session, r, &diag);
		return;
	}
	r = send_welcome(session);
	if (r < 0) {
		session_drop(session, strerror(-r));
		return;
	}
	if (session->shm.state)
		session_store(session);
	else
		session_shm_private(&session->shm);
	session->said_hello = true;
	session->serve->sessions.n_welcome++;
	session->hello = sd_event_source_disable_unref(session->hello);
}

/* Nothing was there to be heard. */
static void expect_hello(struct session *session)
{
	session->opens_ns = 0;
	(void)sd_event_source_set_time_relative(session->hello, SERVE_HELLO_NS / NS_PER_US);
	(void)sd_event_source_set_enabled(session->hello, SD_EVENT_ONESHOT);
}

static void hear(struct session *session)
{
	ProtobufCMessage *message;
	int r;

	r = wire_recv(session->serve->wire, session->fd, &kamen__hello__descriptor, &message);
	if (r == -EAGAIN && !session->said_hello)
		expect_hello(session);
	if (r == -EAGAIN)
		return;
	if (r == 0)
		session_close(session);
	else if (session->said_hello)
		session_drop(session, "a packet after its hello");
	else if (r < 0)
		session_drop(session, "its first packet is no hello");
	else
		say_welcome(session, (const Kamen__Hello *)message);
}

static void hear_at_last(void *owner)
{
	struct session *session = owner;

	(void)sd_event_source_set_io_events(session->io, EPOLLIN);
	hear(session);
}

/* To open sessions is the dearest that a client can ask of the loop: one user's wait for others'
 * requests once it has had its share. */
static void hear_in_turn(struct session *session)
{
	const uint64_t now = clock_now_ns();

	if (session->turn.waits)
		return;
	/* It has been said in time, whenever it is heard. */
	(void)sd_event_source_set_enabled(session->hello, SD_EVENT_OFF);
	if (quota_has_turn(session->user, now)) {
		/* Before: it may be gone with its user afterwards. */
		quota_took_turn(&session->serve->quotas, session->user, now, SERVE_WELCOME_NS);
		hear_at_last(session);
		return;
	}
	session->turn = (struct later_item){
		.user = session->user,
		.run = hear_at_last,
		.owner = session,
	};
	/* Its end is told all the same. */
	(void)sd_event_source_set_io_events(session->io, 0);
	later_add(&session->serve->later, &session->turn);
}

/* At its user's pace. */
static void hear_hello(struct session *session)
{
	const uint64_t now = clock_now_ns();

	session->opens_ns = quota_open_at(session->user, now);
	if (session->opens_ns > now && sd_event_source_set_time_accuracy(session->hello, 1) >= 0 &&
		sd_event_source_set_time(session->hello, session->opens_ns / NS_PER_US) >= 0 &&
		sd_event_source_set_io_events(session->io, 0) >= 0)
		return;
	hear_in_turn(session);
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct session *session = userdata;

	(void)source;
	(void)fd;
	if (revents & (EPOLLHUP | EPOLLERR)) {
		session_close(session);
		return 0;
	}
	if (session->owes_word && !session_tell(session))
		return 0;
	if (session->said_hello)
		hear(session);
	else
		hear_hello(session);
	return 0;
}

/* Or, where its hello had to wait, its time. */
static int on_hello_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct session *session = userdata;

	(void)source;
	(void)usec;
	if (session->opens_ns > 0)
		hear_in_turn(session);
	else
		session_drop(session, "no hello in time");
	return 0;
}

/* ---- those that are new */

/* Alive and not reaped, or it would have no pid here: nobody else can have that. */
static bool is_ingest(const struct serve *serve, const struct peer *peer)
{
	const struct role *ingest = &serve->roles[ROLE_INGEST];

	return ingest->pid > 0 && peer->pid == ingest->pid && peer->uid == serve->policy.own;
}

/* One user's silent connections must not take every place of those that are about to say hello. */
static bool is_flood(const struct serve *serve, const struct peer *peer)
{
	uint32_t n = 0;

	if (serve->sessions.n >= serve->config.max_clients + SERVE_MAX_STRANGERS)
		return true;
	for (const struct session *s = serve->sessions.head; s; s = s->next)
		n += !s->said_hello && s->peer.uid == peer->uid;
	return n >= SERVE_STRANGERS_OF_UID;
}

static struct session *session_alloc(struct serve *serve, const struct peer *peer)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return NULL;
	session->serve = serve;
	session->peer = *peer;
	session->fd = -1;
	session->shm = SESSION_SHM_NONE;
	return session;
}

static int session_new(struct serve *serve, int fd, const struct peer *peer, int refusal)
{
	struct session *session;
	int r = 0;

	session = session_alloc(serve, peer);
	if (!session)
		return -ENOMEM;
	session->refusal = refusal;
	if (!is_ingest(serve, peer))
		r = quota_enter(&serve->quotas, peer->uid, clock_now_ns(), &session->user);
	if (r >= 0)
		r = sd_event_add_io(serve->event, &session->io, fd, EPOLLIN, on_socket, session);
	if (r >= 0)
		r = sd_event_add_time_relative(serve->event, &session->hello, CLOCK_MONOTONIC,
			SERVE_HELLO_NS / NS_PER_US, 0, on_hello_late, session);
	if (r < 0) {
		session_free(session);
		return r;
	}
	session->fd = fd;
	session_link(session);
	serve->sessions.n_accepted++;
	return 0;
}

/* ---- left by an earlier process */

static int make_resumed(struct session *session, int fd, const struct session_shm *shm)
{
	struct serve *serve = session->serve;
	struct diag diag = { .text = "" };
	int r;

	r = quota_enter(&serve->quotas, session->peer.uid, clock_now_ns(), &session->user);
	if (r >= 0)
		r = admit(session, shm->n_slots, shm->slot_bytes, &diag);
	if (r < 0)
		return r;
	session->shm = *shm;
	r = make_requests(session);
	if (r < 0)
		return r;
	return sd_event_add_io(serve->event, &session->io, fd, EPOLLIN, on_socket, session);
}

int session_adopt(struct session **ret_session, struct serve *serve, int fd,
	const struct peer *peer, struct session_shm *shm)
{
	struct session *session = session_alloc(serve, peer);
	int r;

	if (!session)
		return -ENOMEM;
	r = make_resumed(session, fd, shm);
	if (r < 0) {
		if (session->is_open)
			quota_close(session->user);
		session->shm = SESSION_SHM_NONE;
		session_free(session);
		return r;
	}
	*shm = SESSION_SHM_NONE;
	session->fd = fd;
	session->said_hello = true;
	session_link(session);
	serve->sessions.n_welcome++;
	*ret_session = session;
	return 0;
}

static void run_again(
	struct session *session, const struct session_state_slot *slot, bool is_allowed)
{
	struct request *request = take_request(session, &slot->request);

	if (!is_allowed)
		log_warning("client of uid %u, pid %d: a request for '%s' is not run again: kamend "
			    "ended %u times before its answer",
			session->peer.uid, (int)session->peer.pid, request->wire.site,
			SESSION_STATE_MOST_RUNS);
	request_start_again(session->serve, request, slot->received_ns, is_allowed);
}

void session_run_again(struct session *session, const struct session_recovery *recovery)
{
	const struct serve *serve = session->serve;

	/* Held, so that an answer does not free it under us. */
	session->n_busy++;
	for (uint32_t i = 0; i < recovery->n && !session->closed; i++) {
		const struct session_state_slot *slot =
			&session->shm.state->slots[recovery->slots[i]];

		run_again(session, slot,
			serve->handover.was_executed ||
				session_state_try(session->shm.state, recovery->slots[i]));
	}
	/* Bells that were rung for the serve before may not be rung again. */
	if (!session->closed)
		session_comes_back(session);
	session->n_busy--;
	if (session->closed && session->n_busy == 0)
		session_free(session);
}

/* ---- arrivals */

static int check_arrival(struct serve *serve, int fd, struct peer *ret_peer)
{
	const struct session_list *list = &serve->sessions;
	int r = peer_read(ret_peer, fd, &serve->policy);

	if (r < 0)
		return r;
	if (!ret_peer->may_data) {
		log_notice("uid %u may not use the data socket", ret_peer->uid);
		return -EACCES;
	}
	if (list->n_welcome >= serve->config.max_clients) {
		log_warning("client refused: %u are connected (max_clients)", list->n_welcome);
		return -EUSERS;
	}
	return 0;
}

static int on_arrival(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	_cleanup_(closep) int client = -1;
	struct serve *serve = userdata;
	struct peer peer = { .pid = 0 };
	int r, refusal;

	(void)revents;
	client = listen_accept(fd, source, &serve->sessions.listen_pause);
	if (client < 0)
		return 0;
	refusal = check_arrival(serve, client, &peer);
	serve->sessions.n_refused += refusal < 0;
	/* Whoever floods us with connections does not even get a reason. */
	if (is_flood(serve, &peer)) {
		if (++serve->sessions.n_flood % SERVE_FLOOD_AT_ONCE == 0)
			listen_rest(source, &serve->sessions.listen_pause, SERVE_FLOOD_PAUSE_NS);
		return 0;
	}
	r = session_new(serve, client, &peer, refusal);
	if (r < 0)
		log_error("cannot take a client: %s", strerror(-r));
	else
		(void)TAKE_FD(client);
	return 0;
}

int sessions_open(struct serve *serve, const char *path)
{
	struct session_list *list = &serve->sessions;
	int r;

	r = listen_open(&list->listen_fd, path, &serve->handover, "data");
	if (r < 0)
		return r;
	return sd_event_add_io(
		serve->event, &list->listen, list->listen_fd, EPOLLIN, on_arrival, serve);
}

void sessions_stop(struct serve *serve)
{
	struct session_list *list = &serve->sessions;
	struct session *next;

	list->listen_pause = sd_event_source_disable_unref(list->listen_pause);
	list->listen = sd_event_source_disable_unref(list->listen);
	closep(&list->listen_fd);
	list->listen_fd = -1;
	for (struct session *session = list->head; session; session = next) {
		next = session->next;
		session->doorbell = sd_event_source_disable_unref(session->doorbell);
		later_forget(&serve->later, &session->turn);
		spin_forget(session);
		if (session->said_hello)
			take_submissions(session, UINT64_MAX);
	}
}

/* Its turn may come when this process is no more. */
static void hear_now(struct session *session)
{
	later_forget(&session->serve->later, &session->turn);
	(void)sd_event_source_set_enabled(session->hello, SD_EVENT_OFF);
	hear_at_last(session);
}

void sessions_pause(struct serve *serve, bool is_paused)
{
	const int enabled = is_paused ? SD_EVENT_OFF : SD_EVENT_ON;
	struct session_list *list = &serve->sessions;
	struct session *next;

	/* A rest that ended meanwhile would let clients in whom the next program does not know. */
	list->listen_pause = sd_event_source_disable_unref(list->listen_pause);
	(void)sd_event_source_set_enabled(list->listen, enabled);
	for (struct session *session = list->head; is_paused && session; session = next) {
		next = session->next;
		if (!session->said_hello && session->opens_ns > 0)
			hear_now(session);
	}
	for (struct session *session = list->head; session; session = next) {
		next = session->next;
		if (!session->said_hello)
			continue;
		(void)sd_event_source_set_enabled(session->doorbell, enabled);
		if (is_paused) {
			spin_forget(session);
			later_forget(&serve->later, &session->turn);
		} else {
			session_comes_back(session);
		}
	}
}

void sessions_close(struct serve *serve)
{
	while (serve->sessions.head)
		session_close(serve->sessions.head);
	serve->sessions.store = sd_event_source_disable_unref(serve->sessions.store);
}
