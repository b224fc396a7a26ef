/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "engine.h"
#include "ingest/upstream.h"
#include "ops/log.h"
#include "shm_layout.h"

enum { RETRY_US = 100000, LONGEST_RETRY_US = 3200000 };

/* The thread's until it has rung, the loop's afterwards. */
struct connecting {
	pthread_t thread;
	const char *path;
	struct kamen_options options;
	struct kamen_client *client;
	int bell, r;
};

struct upstream {
	sd_event *event;
	char path[256];
	struct upstream_calls calls;
	struct kamen_client *client; /* NULL: not connected */
	sd_event_source *io, *time, *bell, *retry;
	struct connecting connecting;
	bool is_connecting, is_failure_told, is_pausing;
	uint64_t pause_us;           /* grows while serve cannot be reached */
	int refusal;                 /* 0, or why serve lets nobody in */
	void *tokens[SHM_MAX_SLOTS]; /* by slot */
};

/* ---- connecting */

static void *connect_thread(void *user)
{
	struct connecting *connecting = user;
	const uint64_t one = 1;

	connecting->r =
		kamen_client_connect(&connecting->client, connecting->path, &connecting->options);
	(void)!write(connecting->bell, &one, sizeof(one));
	return NULL;
}

static int start_thread(struct upstream *upstream)
{
	int r = -pthread_create(
		&upstream->connecting.thread, NULL, connect_thread, &upstream->connecting);

	upstream->is_connecting = r == 0;
	return r;
}

static void retry_later(struct upstream *upstream)
{
	upstream->is_pausing = true;
	(void)sd_event_source_set_time_relative(upstream->retry, upstream->pause_us);
	upstream->pause_us = upstream->pause_us * 2 < LONGEST_RETRY_US ? upstream->pause_us * 2
								       : LONGEST_RETRY_US;
	(void)sd_event_source_set_enabled(upstream->retry, SD_EVENT_ONESHOT);
}

static void connect_soon(struct upstream *upstream)
{
	if (!upstream->client && !upstream->is_connecting && !upstream->is_pausing &&
		start_thread(upstream) < 0)
		retry_later(upstream);
}

static void disconnect(struct upstream *upstream, int code)
{
	upstream->io = sd_event_source_disable_unref(upstream->io);
	(void)sd_event_source_set_enabled(upstream->time, SD_EVENT_OFF);
	upstream->client = kamen_client_free(upstream->client);
	for (uint32_t i = 0; i < SHM_MAX_SLOTS; i++) {
		void *token = upstream->tokens[i];

		upstream->tokens[i] = NULL;
		if (token)
			upstream->calls.lost(upstream->calls.user, token, code);
	}
}

/* ---- answers */

static void arm(struct upstream *upstream)
{
	uint64_t until_ns = UINT64_MAX;

	if (upstream->client)
		(void)kamen_client_get_timeout(upstream->client, &until_ns);
	if (until_ns == UINT64_MAX) {
		(void)sd_event_source_set_enabled(upstream->time, SD_EVENT_OFF);
		return;
	}
	(void)sd_event_source_set_time(upstream->time, until_ns / 1000 + 1);
	(void)sd_event_source_set_enabled(upstream->time, SD_EVENT_ONESHOT);
}

static void take_results(struct upstream *upstream)
{
	struct kamen_result result;
	int r = kamen_process(upstream->client);

	while (r >= 0 && (r = kamen_next(upstream->client, &result)) > 0) {
		void *token = upstream->tokens[result.slot];

		upstream->tokens[result.slot] = NULL;
		if (token)
			upstream->calls.answered(upstream->calls.user, token, &result);
		kamen_release(upstream->client, &result);
	}
	if (r < 0) {
		log_notice("serve has ended the session of the ROUTER: %s", strerror(-r));
		disconnect(upstream, -ENOTCONN);
		retry_later(upstream);
	}
	arm(upstream);
	upstream->calls.ready(upstream->calls.user);
}

static int on_client(sd_event_source *source, int fd, uint32_t events, void *user)
{
	(void)source;
	(void)fd;
	(void)events;
	take_results(user);
	return 0;
}

static int on_time(sd_event_source *source, uint64_t usec, void *user)
{
	struct upstream *upstream = user;

	(void)source;
	(void)usec;
	if (upstream->client)
		take_results(upstream);
	return 0;
}

static int on_connected(sd_event_source *source, int fd, uint32_t events, void *user)
{
	struct upstream *upstream = user;
	struct connecting *connecting = &upstream->connecting;
	uint64_t n;
	int r;

	(void)source;
	(void)events;
	(void)!read(fd, &n, sizeof(n));
	(void)pthread_join(connecting->thread, NULL);
	upstream->is_connecting = false;
	r = connecting->r;
	if (r >= 0) {
		upstream->client = TAKE_PTR(connecting->client);
		r = sd_event_add_io(upstream->event, &upstream->io,
			kamen_client_get_fd(upstream->client), EPOLLIN, on_client, upstream);
	}
	if (r < 0) {
		if (!upstream->is_failure_told)
			log_notice(
				"the ROUTER cannot reach %s yet: %s", upstream->path, strerror(-r));
		upstream->is_failure_told = true;
		upstream->refusal = r == -EUSERS || r == -EDQUOT || r == -EACCES ? r : 0;
		disconnect(upstream, r);
		retry_later(upstream);
		return 0;
	}
	upstream->is_failure_told = false;
	upstream->refusal = 0;
	upstream->pause_us = RETRY_US;
	upstream->calls.ready(upstream->calls.user);
	return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *user)
{
	struct upstream *upstream = user;

	(void)source;
	(void)usec;
	upstream->is_pausing = false;
	/* Who still has something to ask says so, and then it is tried again. */
	upstream->calls.ready(upstream->calls.user);
	return 0;
}

/* ---- asking */

int upstream_ask(struct upstream *upstream, const struct kamen_request *request, const void *pixels,
	void *token)
{
	struct kamen_frame frame;
	int r;

	if (!upstream->client) {
		connect_soon(upstream);
		/* Who has no deadline would wait for ever. */
		return upstream->refusal < 0 ? upstream->refusal : -EBUSY;
	}
	r = kamen_frame_acquire(upstream->client, request->n_bytes, &frame);
	if (r == -ENOTCONN)
		return -EBUSY; /* its descriptor tells, too */
	if (r < 0)
		return r;
	memcpy(frame.data, pixels, request->n_bytes);
	r = kamen_submit(upstream->client, &frame, request, NULL);
	if (r < 0) {
		kamen_frame_discard(upstream->client, &frame);
		return r == -ENOTCONN ? -EBUSY : r;
	}
	upstream->tokens[frame.slot] = token;
	arm(upstream);
	return 0;
}

int upstream_new(struct upstream **ret_upstream, sd_event *event, const char *path,
	uint32_t n_slots, uint64_t slot_bytes, const struct upstream_calls *calls)
{
	struct upstream *upstream = calloc(1, sizeof(*upstream));
	int r;

	if (!upstream)
		return -ENOMEM;
	upstream->event = event;
	upstream->pause_us = RETRY_US;
	upstream->calls = *calls;
	(void)snprintf(upstream->path, sizeof(upstream->path), "%s", path);
	upstream->connecting = (struct connecting){
		.path = upstream->path,
		.options = { .size = sizeof(upstream->connecting.options),
			.n_slots = n_slots,
			.slot_bytes = slot_bytes },
		.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	r = upstream->connecting.bell < 0 ? -errno : 0;
	if (r >= 0)
		r = sd_event_add_io(event, &upstream->bell, upstream->connecting.bell, EPOLLIN,
			on_connected, upstream);
	if (r >= 0)
		r = sd_event_add_time(
			event, &upstream->time, CLOCK_MONOTONIC, UINT64_MAX, 1, on_time, upstream);
	if (r >= 0)
		r = sd_event_add_time(event, &upstream->retry, CLOCK_MONOTONIC, UINT64_MAX, 1000,
			on_retry, upstream);
	if (r < 0) {
		upstream_free(upstream);
		return r;
	}
	*ret_upstream = upstream;
	return 0;
}

void upstream_free(struct upstream *upstream)
{
	if (!upstream)
		return;
	if (upstream->is_connecting) {
		(void)pthread_join(upstream->connecting.thread, NULL);
		(void)kamen_client_free(upstream->connecting.client);
	}
	disconnect(upstream, -ENOTCONN);
	(void)sd_event_source_disable_unref(upstream->time);
	(void)sd_event_source_disable_unref(upstream->retry);
	(void)sd_event_source_disable_unref(upstream->bell);
	closep(&upstream->connecting.bell);
	free(upstream);
}
