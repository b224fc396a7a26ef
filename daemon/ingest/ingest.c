/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "ingest/admission.h"
#include "ingest/publisher.h"
#include "ingest/router.h"
#include "ingest/spool.h"
#include "ingest/zap.h"
#include "ingest/zmq_pull.h"
#include "ops/log.h"
#include "ops/slice.h"
#include "role.h"

enum {
	MAX_MESSAGES = 64,  /* of serve's before the loop turns to others */
	COUNT_US = 1000000, /* how often counts are told */
	NICENESS = 5,
};

bool ingest_has_room(const struct ingest *ingest, uint64_t n_bytes)
{
	/* The first one always has: a file may be larger than all the room. */
	return ingest->n_jobs == 0 ||
	       (ingest->n_jobs < INGEST_MAX_JOBS && ingest->n_bytes + n_bytes <= INGEST_MAX_BYTES);
}

void ingest_kick(struct ingest *ingest)
{
	(void)sd_event_source_set_enabled(ingest->kick, SD_EVENT_ONESHOT);
}

static int on_kick(sd_event_source *source, void *user)
{
	struct ingest *ingest = user;
	struct ingest_site *site, *first = LIST_FIRST(&ingest->sites);

	(void)source;
	admission_feed(ingest);
	LIST_FOREACH(site, &ingest->sites, link)
	{
		if (site->is_gone)
			continue;
		if (site->pull)
			zmq_pull_pump(site->pull);
		if (site->spool)
			spool_pump(site->spool);
	}
	/* Another one is asked first the next time, or a flood would shut the others out. */
	if (first && LIST_NEXT(first, link)) {
		struct ingest_site *last = first;

		while (LIST_NEXT(last, link))
			last = LIST_NEXT(last, link);
		LIST_REMOVE(first, link);
		LIST_INSERT_AFTER(last, first, link);
	}
	admission_feed(ingest);
	return 0;
}

static void on_message(struct ingest *ingest, const Kamen__RoleMessage *message)
{
	switch (message->kind_case) {
	case KAMEN__ROLE_MESSAGE__KIND_SITES:
		ingest_set_sites(ingest, message->sites);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_DECODE:
		admission_ask(ingest, message->decode, wire_take_fd(ingest->role_wire, 0));
		break;
	case KAMEN__ROLE_MESSAGE__KIND_ADMITTED:
		admission_reply(ingest, message->admitted);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_PUBLICATION:
		if (ingest->publisher)
			publisher_send(ingest->publisher, message->publication->topic,
				message->publication->published.data,
				message->publication->published.len);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_PEERS:
		zmq_context_reload(&ingest->zmq);
		break;
	default:
		log_warning(
			"a message of kind %d, which is none of ingest's", (int)message->kind_case);
		break;
	}
}

static int on_socket(sd_event_source *source, int sock, uint32_t events, void *user)
{
	struct ingest *ingest = user;

	(void)source;
	(void)events;
	for (int i = 0; i < MAX_MESSAGES; i++) {
		ProtobufCMessage *message;
		int r = wire_recv(
			ingest->role_wire, sock, &kamen__role_message__descriptor, &message);

		if (r == -EAGAIN)
			return 0;
		if (r == -EBADMSG) {
			log_error("a damaged message from serve");
			continue;
		}
		if (r <= 0) /* serve has gone, and so do we */
			return sd_event_exit(ingest->event, 0);
		on_message(ingest, (const Kamen__RoleMessage *)message);
	}
	return 0;
}

static int say_ready(struct ingest *ingest)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__RoleReady ready = KAMEN__ROLE_READY__INIT;

	ready.role = (char *)(uintptr_t) "ingest";
	ready.has_major = ready.has_minor = true;
	ready.major = WIRE_MAJOR;
	ready.minor = WIRE_MINOR;
	ready.backend = (char *)(uintptr_t)ingest->reader->backend;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_READY;
	message.ready = &ready;
	return outbox_put(ingest->outbox, &message, -1);
}

static int start_reader(struct ingest *ingest)
{
	struct diag diag = { "" };
	int r = spool_reader_new(&ingest->reader, ingest->config->ingest_backend, ingest->event,
		spool_read_done, &diag);

	if (r < 0)
		log_error("spool backend %s: %s", ingest->config->ingest_backend, diag.text);
	else if (diag.text[0])
		log_notice("spool backend: threads; %s", diag.text);
	else
		log_info("spool backend: %s", ingest->reader->backend);
	return r;
}

static void tell_counts(struct ingest *ingest)
{
	struct router_counts counts = router_counts(ingest->router);
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__ZmqCounts zmq = KAMEN__ZMQ_COUNTS__INIT;
	uint64_t sum;

	zmq.has_requests = zmq.has_malformed = zmq.has_denied = true;
	zmq.has_busy = zmq.has_dropped = zmq.has_published = true;
	zmq.requests = counts.n_requests;
	zmq.malformed = counts.n_malformed;
	zmq.denied = counts.n_denied + zap_n_denied(ingest->zmq.zap);
	zmq.busy = counts.n_busy;
	zmq.dropped = counts.n_dropped;
	zmq.published = publisher_n_sent(ingest->publisher);
	/* None of them ever falls. */
	sum = zmq.requests + zmq.malformed + zmq.denied + zmq.busy + zmq.dropped + zmq.published;
	if (sum == ingest->counts_sum)
		return;
	ingest->counts_sum = sum;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_ZMQ;
	message.zmq = &zmq;
	(void)outbox_put(ingest->outbox, &message, -1);
}

static int on_counting(sd_event_source *source, uint64_t usec, void *user)
{
	(void)usec;
	tell_counts(user);
	(void)sd_event_source_set_time_relative(source, COUNT_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int ingest_count(struct ingest *ingest)
{
	if (ingest->counting)
		return 0;
	return sd_event_add_time_relative(ingest->event, &ingest->counting, CLOCK_MONOTONIC,
		COUNT_US, COUNT_US / 4, on_counting, ingest);
}

static void on_heard(void *user, bool is_heard)
{
	struct ingest *ingest = user;
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Feed feed = KAMEN__FEED__INIT;

	feed.on = is_heard;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_FEED;
	message.feed = &feed;
	(void)outbox_put(ingest->outbox, &message, -1);
}

static int start_zmq(struct ingest *ingest)
{
	int r = zmq_context_init(&ingest->zmq, ingest->event, ingest->config);

	if (r >= 0)
		r = router_new(&ingest->router, &ingest->zmq);
	if (r >= 0)
		r = publisher_new(&ingest->publisher, &ingest->zmq, on_heard, ingest);
	if (r >= 0 && (ingest->router || ingest->publisher))
		r = ingest_count(ingest);
	if (r < 0)
		log_error("ZeroMQ: %s", strerror(-r));
	return r;
}

static int start(struct ingest *ingest, decoder_image_fn *decode)
{
	struct diag diag = { "" };
	int r;

	/* First, while there is one thread: libzmq and the reader bring more. */
	r = decoder_new(&ingest->decoder, decode, ingest->config->decode_timeout_ms, &diag);
	if (r < 0) {
		log_error("%s", diag.text);
		return r;
	}
	r = sd_event_new(&ingest->event);
	if (r >= 0)
		r = decoder_attach(ingest->decoder, ingest->event);
	if (r >= 0)
		r = hand_new(&ingest->hand, ingest->event, "ingest-disk", 0);
	if (r >= 0)
		r = sd_event_add_defer(ingest->event, &ingest->kick, on_kick, ingest);
	if (r >= 0)
		r = outbox_new(&ingest->outbox, ingest->event, ROLE_SOCKET);
	if (r >= 0)
		r = wire_new(&ingest->role_wire);
	if (r >= 0)
		r = wire_new(&ingest->stream_wire);
	if (r >= 0)
		r = sd_event_add_io(ingest->event, NULL, ROLE_SOCKET, EPOLLIN, on_socket, ingest);
	if (r < 0) {
		log_error("ingest does not start: %s", strerror(-r));
		return r;
	}
	r = start_reader(ingest);
	if (r >= 0)
		r = start_zmq(ingest);
	/* Behind the others' start: they keep the niceness. */
	(void)slice_first();
	return r < 0 ? r : say_ready(ingest);
}

static void stop(struct ingest *ingest)
{
	hand_free(TAKE_PTR(ingest->hand));
	spool_reader_free(ingest->reader);
	/* Jobs go with the process: files stay in their spool, blobs without a row are swept. */
	while (!TAILQ_EMPTY(&ingest->jobs)) {
		struct arrival *job = TAILQ_FIRST(&ingest->jobs);

		free(job->source_data);
		arrival_free(job);
	}
	ingest_free_sites(ingest);
	(void)sd_event_source_disable_unref(ingest->counting);
	router_free(ingest->router);
	publisher_free(ingest->publisher);
	zmq_context_done(&ingest->zmq);
	decoder_free(ingest->decoder);
	wire_free(ingest->role_wire);
	wire_free(ingest->stream_wire);
	outbox_free(ingest->outbox);
	(void)sd_event_source_disable_unref(ingest->kick);
	(void)sd_event_unref(ingest->event);
}

/* A role ends when serve does, not when a terminal or a service manager signals them all. */
static void ignore_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		(void)signal(signals[i], SIG_IGN);
}

int ingest_run(const struct config *config, decoder_image_fn *decode)
{
	struct ingest ingest = { .config = config };
	int r;

	TAILQ_INIT(&ingest.jobs);
	LIST_INIT(&ingest.sites);
	ignore_signals();
	/* The decoders' too: a flood of images does not take the CPUs from inference; what a request
	 * waits for is begun at once all the same. */
	(void)setpriority(PRIO_PROCESS, 0, NICENESS);
	(void)slice_shorten();
	r = start(&ingest, decode);
	if (r >= 0)
		r = sd_event_loop(ingest.event);
	if (r < 0)
		log_error("ingest ends: %s", strerror(-r));
	stop(&ingest);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int ingest_main(const struct config *config)
{
	return ingest_run(config, image_decode);
}
