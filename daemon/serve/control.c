/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/control.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "ops/log.h"
#include "serve/limits.h"
#include "serve/listen.h"
#include "serve/serve.h"

/* ---- life */

static void client_free(struct control_client *client)
{
	sd_event_source_disable_unref(client->io);
	sd_event_source_disable_unref(client->hello);
	packet_queue_clear(&client->out);
	closep(&client->fd);
	free(client);
}

static void client_close(struct control_client *client)
{
	struct control *control = &client->serve->control;

	if (client->closed)
		return;
	client->closed = true;
	client->io = sd_event_source_disable_unref(client->io);
	client->hello = sd_event_source_disable_unref(client->hello);
	packet_queue_clear(&client->out);
	closep(&client->fd);
	client->fd = -1;
	if (client->next)
		client->next->previous = client->previous;
	if (client->previous)
		client->previous->next = client->next;
	else
		control->head = client->next;
	control->n--;
	if (client->n_using == 0)
		client_free(client);
}

void control_unuse(struct control_client *client)
{
	client->n_using--;
	if (client->closed && client->n_using == 0)
		client_free(client);
}

/* ---- answers */

static void drop(struct control_client *client, int r)
{
	if (r != -EPIPE && r != -ECONNRESET)
		log_warning("control client of uid %u dropped: %s", client->peer.uid, strerror(-r));
	client_close(client);
}

/* One that does not read its answers is not asked for more requests. */
static int flush(struct control_client *client)
{
	int r = packet_queue_flush(&client->out, client->fd);

	if (r < 0)
		return r;
	if (client->out.n_bytes > SERVE_MAX_CONTROL_QUEUE)
		return -ENOBUFS;
	return sd_event_source_set_io_events(client->io, client->out.head ? EPOLLOUT : EPOLLIN);
}

void control_reply(struct control_client *client, uint64_t id, bool last, Kamen__Reply *row, int fd)
{
	int r;

	if (client->closed)
		return;
	row->id = id;
	row->last = last;
	r = packet_queue_put(&client->out, &row->base, fd);
	if (r == -EMSGSIZE) {
		control_error(client, id, r, "the answer is larger than a packet may be");
		return;
	}
	if (r == -EMFILE && fd >= 0) {
		control_error(client, id, r, "no descriptor is left for the answer");
		return;
	}
	if (r >= 0)
		r = flush(client);
	if (r < 0)
		drop(client, r);
}

bool control_has_read(const struct control_client *client)
{
	int n_bytes = 0;

	return !client->out.head && ioctl(client->fd, SIOCOUTQ, &n_bytes) == 0 && n_bytes == 0;
}

void control_who(const struct control_client *client, char ret_who[CONTROL_WHO_BYTES])
{
	(void)snprintf(ret_who, CONTROL_WHO_BYTES, "uid %u", client->peer.uid);
}

void control_done(struct control_client *client, uint64_t id)
{
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	control_reply(client, id, true, &reply, -1);
}

void control_error(struct control_client *client, uint64_t id, int code, const char *format, ...)
{
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	Kamen__Error error = KAMEN__ERROR__INIT;
	char text[512];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	error.code = code;
	error.text = text;
	reply.error = &error;
	client->serve->control.n_errors++;
	control_reply(client, id, true, &reply, -1);
}

struct site *control_find_site(struct control_client *client, uint64_t id, const char *name)
{
	struct site *site = sites_find(&client->serve->sites, name);

	if (!site)
		control_error(client, id, -ENOENT, "there is no site '%.64s'", name);
	return site;
}

/* ---- verbs */

typedef void control_verb_fn(struct control_client *client, const Kamen__Request *request);

struct control_verb {
	Kamen__Request__VerbCase verb;
	bool mutates;
	control_verb_fn *run;
};

static const struct control_verb verbs[] = {
	{ KAMEN__REQUEST__VERB_STATUS, false, control_status },
	{ KAMEN__REQUEST__VERB_SITE_CREATE, true, control_site_create },
	{ KAMEN__REQUEST__VERB_SITE_LIST, false, control_site_list },
	{ KAMEN__REQUEST__VERB_SITE_SHOW, false, control_site_show },
	{ KAMEN__REQUEST__VERB_SITE_DELETE, true, control_site_delete },
	{ KAMEN__REQUEST__VERB_LEARN, true, control_learn },
	{ KAMEN__REQUEST__VERB_MASK_LIST, false, control_mask_list },
	{ KAMEN__REQUEST__VERB_MASK_SHOW, false, control_mask_show },
	{ KAMEN__REQUEST__VERB_MASK_PROMOTE, true, control_mask_promote },
	{ KAMEN__REQUEST__VERB_MASK_ROLLBACK, true, control_mask_rollback },
	{ KAMEN__REQUEST__VERB_MASK_EXPORT, false, control_mask_export },
	{ KAMEN__REQUEST__VERB_MASK_IMPORT, true, control_mask_import },
	{ KAMEN__REQUEST__VERB_AUDIT_SHOW, false, control_audit_show },
	{ KAMEN__REQUEST__VERB_METRICS, false, control_metrics },
	{ KAMEN__REQUEST__VERB_SITE_HOLD, true, control_site_hold },
	{ KAMEN__REQUEST__VERB_SITE_RESET, true, control_site_reset },
	{ KAMEN__REQUEST__VERB_MASK_PIN, true, control_mask_pin },
	{ KAMEN__REQUEST__VERB_MASK_UNPIN, true, control_mask_unpin },
	{ KAMEN__REQUEST__VERB_MASK_REPRODUCE, true, control_mask_reproduce },
	{ KAMEN__REQUEST__VERB_TOP, false, control_top },
	{ KAMEN__REQUEST__VERB_LABEL_SET, true, control_label_set },
	{ KAMEN__REQUEST__VERB_LABEL_LIST, false, control_label_list },
	{ KAMEN__REQUEST__VERB_SITE_HARDEST, false, control_site_hardest },
	{ KAMEN__REQUEST__VERB_RESTART, true, control_restart },
	{ KAMEN__REQUEST__VERB_CLASS_ADD, true, control_class_add },
	{ KAMEN__REQUEST__VERB_CLASS_LIST, false, control_class_list },
	{ KAMEN__REQUEST__VERB_CLASS_REMOVE, true, control_class_remove },
	{ KAMEN__REQUEST__VERB_CLASS_DROP, true, control_class_drop },
	{ KAMEN__REQUEST__VERB_CLASS_PROTOTYPES, false, control_class_prototypes },
};

static void hello(struct control_client *client, const Kamen__Request *request)
{
	Kamen__Welcome welcome = KAMEN__WELCOME__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	if (request->hello->major != WIRE_MAJOR) {
		control_error(client, request->id, -EPROTO,
			"this daemon speaks major version %d of the protocol, not %u", WIRE_MAJOR,
			request->hello->major);
		client_close(client);
		return;
	}
	client->said_hello = true;
	client->hello = sd_event_source_disable_unref(client->hello);
	serve_fill_welcome(&welcome);
	reply.row_case = KAMEN__REPLY__ROW_WELCOME;
	reply.welcome = &welcome;
	control_reply(client, request->id, true, &reply, -1);
}

static void dispatch(struct control_client *client, const Kamen__Request *request)
{
	client->serve->control.n_requests++;
	if (client->refusal < 0) {
		control_error(client, request->id, client->refusal, "%s",
			client->refusal == -EACCES ? "you may not use the control socket"
						   : "too many control connections");
		client_close(client);
		return;
	}
	if (request->verb_case == KAMEN__REQUEST__VERB_HELLO) {
		hello(client, request);
		return;
	}
	if (!client->said_hello) {
		control_error(client, request->id, -EPROTO, "a connection begins with hello");
		client_close(client);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (verbs[i].verb != request->verb_case)
			continue;
		if (verbs[i].mutates && !client->peer.may_admin)
			control_error(client, request->id, -EACCES,
				"uid %u may not change anything: only root, the daemon's user and "
				"group kamen-admin",
				client->peer.uid);
		else if (verbs[i].mutates && client->serve->draining)
			control_error(client, request->id, -ESHUTDOWN, "the daemon is stopping");
		else
			verbs[i].run(client, request);
		return;
	}
	control_error(client, request->id, -EOPNOTSUPP, "verb %d is not known here",
		(int)request->verb_case);
}

/* ---- sockets */

static void on_bad_packet(struct control_client *client)
{
	/* Its id is unknown: 0 belongs to no request of a well-behaved client. */
	control_error(client, 0, -EBADMSG, "a packet that is no request, or over a limit");
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control_client *client = userdata;
	ProtobufCMessage *message;
	int r;

	(void)source;
	if (!(revents & EPOLLIN)) {
		r = revents & EPOLLOUT ? flush(client) : -ECONNRESET;
		if (r < 0)
			drop(client, r);
		return 0;
	}
	r = wire_recv(client->serve->wire, fd, &kamen__request__descriptor, &message);
	if (r == -EAGAIN)
		return 0;
	client->n_using++;
	if (r == 1)
		dispatch(client, (const Kamen__Request *)message);
	else if (r == -EBADMSG)
		on_bad_packet(client);
	else
		client_close(client);
	control_unuse(client);
	return 0;
}

static int on_hello_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	client_close(userdata);
	return 0;
}

static int client_new(struct serve *serve, int fd, const struct peer *peer, int refusal)
{
	struct control_client *client;
	int r;

	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->serve = serve;
	client->peer = *peer;
	client->refusal = refusal;
	client->fd = -1;
	packet_queue_init(&client->out);
	r = sd_event_add_io(serve->event, &client->io, fd, EPOLLIN, on_socket, client);
	if (r >= 0)
		r = sd_event_add_time_relative(serve->event, &client->hello, CLOCK_MONOTONIC,
			SERVE_HELLO_NS / NS_PER_US, 0, on_hello_late, client);
	if (r < 0) {
		client_free(client);
		return r;
	}
	client->fd = fd;
	client->next = serve->control.head;
	if (client->next)
		client->next->previous = client;
	serve->control.head = client;
	serve->control.n++;
	return 0;
}

int control_admit(const struct control *control, const struct peer *peer)
{
	uint32_t n = 0, n_plain = 0, n_own = 0;

	if (!peer->may_data && !peer->may_admin)
		return -EACCES;
	for (const struct control_client *c = control->head; c; c = c->next) {
		if (c->refusal < 0)
			continue;
		n++;
		n_plain += !c->peer.may_admin;
		n_own += c->peer.uid == peer->uid;
	}
	if (n >= SERVE_MAX_CONTROL)
		return -EUSERS;
	if (peer->may_admin)
		return 0;
	return n_own >= SERVE_CONTROL_OF_UID ||
			       n_plain >= SERVE_MAX_CONTROL - SERVE_CONTROL_RESERVED
		       ? -EUSERS
		       : 0;
}

static uint32_t n_strangers(const struct control *control)
{
	uint32_t n = 0;

	for (const struct control_client *c = control->head; c; c = c->next)
		n += c->refusal < 0;
	return n;
}

static int on_arrival(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	_cleanup_(closep) int client = -1;
	struct serve *serve = userdata;
	struct peer peer = { .pid = 0 };
	int r, refusal;

	(void)revents;
	client = listen_accept(fd, source, &serve->control.listen_pause);
	if (client < 0)
		return 0;
	r = peer_read(&peer, client, &serve->policy);
	refusal = r < 0 ? -EACCES : control_admit(&serve->control, &peer);
	if (refusal == -EACCES)
		log_notice(
			"uid %u may not use the control socket", r < 0 ? (unsigned)-1 : peer.uid);
	if (refusal < 0 && n_strangers(&serve->control) >= SERVE_MAX_STRANGERS)
		return 0;
	r = client_new(serve, client, &peer, refusal);
	if (r < 0)
		log_error("cannot take a control client: %s", strerror(-r));
	else
		(void)TAKE_FD(client);
	return 0;
}

int control_open(struct serve *serve, const char *path)
{
	struct control *control = &serve->control;
	int r;

	r = listen_open(&control->listen_fd, path, &serve->handover, "control");
	if (r < 0)
		return r;
	return sd_event_add_io(
		serve->event, &control->listen, control->listen_fd, EPOLLIN, on_arrival, serve);
}

void control_stop(struct serve *serve)
{
	serve->control.listen_pause = sd_event_source_disable_unref(serve->control.listen_pause);
	serve->control.listen = sd_event_source_disable_unref(serve->control.listen);
	closep(&serve->control.listen_fd);
	serve->control.listen_fd = -1;
}

void control_close(struct serve *serve)
{
	while (serve->control.head)
		client_close(serve->control.head);
}
