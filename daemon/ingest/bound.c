/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <zmq.h>

#include "ingest/bound.h"
#include "ingest/zap.h"
#include "ops/endpoint.h"
#include "ops/log.h"

enum {
	RETRY_US = 2000000,
	HEARTBEAT_MS = 2000,
	HEARTBEAT_PATIENCE_MS = 6000,
	LEAST_BYTES_PER_MS = 250, /* of a link that works: behind a frame a PONG waits so long */
	KEEPALIVE_S = 30,
	KEEPALIVE_PROBE_S = 10,
	KEEPALIVE_PROBES = 3,
	HANDSHAKE_MS = 5000,
	GONE_STEP_US = 200,
	GONE_STEPS = 1000,
};

struct bound {
	struct zmq_context *context;
	struct bound_options options;
	char endpoint[ENDPOINT_CHARS], name[96];
	void *socket; /* NULL: not bound yet */
	sd_event_source *io, *retry, *more;
	bool is_bound, is_failure_told;
};

void *bound_socket(const struct bound *bound)
{
	return bound->socket;
}

bool bound_is_readable(const struct bound *bound)
{
	int events = 0;
	size_t n = sizeof(events);

	return bound->socket && zmq_getsockopt(bound->socket, ZMQ_EVENTS, &events, &n) == 0 &&
	       (events & ZMQ_POLLIN);
}

void bound_kick(struct bound *bound)
{
	(void)sd_event_source_set_enabled(bound->more, SD_EVENT_ONESHOT);
}

const char *bound_peer(void *message)
{
	const char *peer = zmq_msg_gets(message, "User-Id");

	return peer ? peer : "";
}

uint64_t bound_connection(void *message)
{
	const char *number = zmq_msg_gets(message, ZAP_CONNECTION);

	return number ? strtoull(number, NULL, 10) : 0;
}

/* ---- options */

static int set_option(void *socket, int option, int value)
{
	return zmq_setsockopt(socket, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_limits(const struct bound *bound)
{
	/* Whose frames wait for us is not read from, and its PONG neither. */
	bool is_held_back = bound->options.type == ZMQ_PULL;
	int patience_ms =
		HEARTBEAT_PATIENCE_MS + (int)(bound->options.max_bytes / LEAST_BYTES_PER_MS);
	const struct {
		int option, value;
	} rows[] = {
		{ ZMQ_LINGER, bound->options.linger_ms },
		{ ZMQ_RCVHWM, bound->options.receive_water },
		{ ZMQ_SNDHWM, bound->options.send_water },
		/* Who is gone without a word is let go of, as is who never says hello. */
		{ ZMQ_HEARTBEAT_IVL, is_held_back ? 0 : HEARTBEAT_MS },
		{ ZMQ_HEARTBEAT_TIMEOUT, is_held_back ? 0 : patience_ms },
		{ ZMQ_HEARTBEAT_TTL, is_held_back ? 0 : HEARTBEAT_PATIENCE_MS },
		{ ZMQ_TCP_KEEPALIVE, 1 },
		{ ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_S },
		{ ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_PROBE_S },
		{ ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES },
		{ ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS },
	};
	int64_t max_bytes = (int64_t)bound->options.max_bytes;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows) && r == 0; i++)
		r = set_option(bound->socket, rows[i].option, rows[i].value);
	if (r == 0 &&
		zmq_setsockopt(bound->socket, ZMQ_MAXMSGSIZE, &max_bytes, sizeof(max_bytes)) < 0)
		r = -errno;
	if (r == 0 && bound->options.flag)
		r = set_option(bound->socket, bound->options.flag, 1);
	if (r == 0 && strchr(bound->endpoint, '['))
		r = set_option(bound->socket, ZMQ_IPV6, 1);
	return r;
}

/* With a domain libzmq asks about every connection, also of the mechanism NULL. */
static int set_security(const struct bound *bound)
{
	const char *key = bound->context->secret_key;
	bool is_ipc = endpoint_place(bound->endpoint) == ENDPOINT_IPC;
	bool is_curve = key[0] && !is_ipc;
	const char *domain = is_ipc ? ZAP_IPC : is_curve ? ZAP_CURVE : ZAP_PLAIN;

	if (zmq_setsockopt(bound->socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) < 0)
		return -errno;
	if (!is_curve)
		return 0;
	if (set_option(bound->socket, ZMQ_CURVE_SERVER, 1) < 0 ||
		zmq_setsockopt(bound->socket, ZMQ_CURVE_SECRETKEY, key, strlen(key)) < 0)
		return -errno;
	return 0;
}

/* ---- binding */

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *user)
{
	struct bound *bound = user;

	(void)source;
	(void)fd;
	(void)events;
	bound->options.on_ready(bound->options.user);
	return 0;
}

static int on_more(sd_event_source *source, void *user)
{
	struct bound *bound = user;

	(void)source;
	if (bound->socket)
		bound->options.on_ready(bound->options.user);
	return 0;
}

static int watch(struct bound *bound)
{
	int fd = -1, r;
	size_t n = sizeof(fd);

	if (zmq_getsockopt(bound->socket, ZMQ_FD, &fd, &n) < 0)
		return -errno;
	/* Edge-triggered, or the loop would spin while there is no room. */
	r = sd_event_add_io(
		bound->context->event, &bound->io, fd, EPOLLIN | EPOLLET, on_readable, bound);
	return r < 0 ? r : 0;
}

/* libzmq's thread removes the file later than it says: by then it could be the next one's. */
static void wait_until_gone(const struct bound *bound)
{
	const struct timespec pause = { .tv_nsec = GONE_STEP_US * 1000L };
	struct stat st;

	for (int i = 0; i < GONE_STEPS; i++) {
		if (lstat(bound->endpoint + strlen("ipc://"), &st) < 0)
			return;
		(void)nanosleep(&pause, NULL);
	}
}

static void unbind(struct bound *bound)
{
	bool has_file = bound->is_bound && endpoint_place(bound->endpoint) == ENDPOINT_IPC;

	bound->io = sd_event_source_disable_unref(bound->io);
	if (bound->socket)
		(void)zmq_close(bound->socket);
	bound->socket = NULL;
	bound->is_bound = false;
	if (has_file)
		wait_until_gone(bound);
}

/* As data.sock: its group may send, which takes writing. */
static int open_to_group(const struct bound *bound)
{
	if (endpoint_place(bound->endpoint) != ENDPOINT_IPC)
		return 0;
	return chmod(bound->endpoint + strlen("ipc://"), 0660) < 0 ? -errno : 0;
}

static bool is_at(const struct stat *st, const char *folder, const char *name)
{
	char path[ENDPOINT_CHARS + 16];
	struct stat own;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return lstat(path, &own) == 0 && own.st_dev == st->st_dev && own.st_ino == st->st_ino;
}

/* @return 0: nobody listens there, -EADDRINUSE */
static int check_owner(const char *path)
{
	_cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 &&
		(errno == ECONNREFUSED || errno == ENOENT))
		return 0;
	return -EADDRINUSE;
}

/* libzmq removes whatever has the path: only what a socket of nobody's has left is to go. */
static int check_path(const struct bound *bound)
{
	const char *path = bound->endpoint + strlen("ipc://");
	const char *runtime = bound->context->config->runtime_dir;
	struct stat st;

	if (endpoint_place(bound->endpoint) != ENDPOINT_IPC)
		return 0;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (is_at(&st, runtime, "data.sock") || is_at(&st, runtime, "control.sock"))
		return -EADDRINUSE;
	return check_owner(path);
}

static int bind_socket(struct bound *bound)
{
	int r = zmq_context_start(bound->context);

	if (r == 0)
		r = check_path(bound);
	if (r < 0)
		return r;
	bound->socket = zmq_socket(bound->context->zmq, bound->options.type);
	if (!bound->socket)
		return -errno;
	r = set_limits(bound);
	if (r == 0)
		r = set_security(bound);
	if (r == 0 && zmq_bind(bound->socket, bound->endpoint) < 0)
		r = -errno;
	bound->is_bound = r == 0;
	if (r == 0)
		r = open_to_group(bound);
	if (r == 0)
		r = watch(bound);
	if (r < 0)
		unbind(bound);
	return r;
}

static void tell(struct bound *bound, const char *reason)
{
	if (!bound->is_failure_told) {
		log_error("%s: %s: %s", bound->name, bound->endpoint, reason);
		if (bound->options.on_failure)
			bound->options.on_failure(bound->options.user, reason);
	}
	bound->is_failure_told = true;
}

static void try_bind(struct bound *bound)
{
	int r = bind_socket(bound);

	if (r == 0) {
		if (bound->is_failure_told)
			log_notice("%s: %s is bound now", bound->name, bound->endpoint);
		bound_kick(bound);
		return;
	}
	tell(bound, strerror(-r));
	(void)sd_event_source_set_time_relative(bound->retry, RETRY_US);
	(void)sd_event_source_set_enabled(bound->retry, SD_EVENT_ONESHOT);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *user)
{
	(void)source;
	(void)usec;
	try_bind(user);
	return 0;
}

int bound_new(
	struct bound **ret_bound, struct zmq_context *context, const struct bound_options *options)
{
	struct bound *bound = calloc(1, sizeof(*bound));
	struct diag diag = { "" };
	int r;

	if (!bound)
		return -ENOMEM;
	bound->context = context;
	bound->options = *options;
	(void)snprintf(bound->endpoint, sizeof(bound->endpoint), "%s", options->endpoint);
	(void)snprintf(bound->name, sizeof(bound->name), "%s", options->name);
	bound->options.endpoint = bound->endpoint;
	bound->options.name = bound->name;
	r = sd_event_add_time(
		context->event, &bound->retry, CLOCK_MONOTONIC, UINT64_MAX, 0, on_retry, bound);
	if (r >= 0)
		r = sd_event_add_defer(context->event, &bound->more, on_more, bound);
	if (r < 0) {
		bound_free(bound);
		return r;
	}
	(void)sd_event_source_set_enabled(bound->more, SD_EVENT_OFF);
	/* A key that cannot be read is as none: nothing is open to the network then. */
	if (endpoint_check(bound->endpoint, context->secret_key[0],
		    context->config->zmq_plain_tcp && !context->config->zmq_server_key[0],
		    &diag) < 0)
		tell(bound, diag.text);
	else
		try_bind(bound);
	*ret_bound = bound;
	return 0;
}

void bound_remake(struct bound *bound)
{
	unbind(bound);
	(void)sd_event_source_set_time_relative(bound->retry, 0);
	(void)sd_event_source_set_enabled(bound->retry, SD_EVENT_ONESHOT);
}

void bound_free(struct bound *bound)
{
	if (!bound)
		return;
	unbind(bound);
	(void)sd_event_source_disable_unref(bound->retry);
	(void)sd_event_source_disable_unref(bound->more);
	free(bound);
}
