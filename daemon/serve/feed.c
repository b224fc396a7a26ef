/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/feed.h"

#include <errno.h>

#include "ops/log.h"
#include "serve/serve.h"

/* Bytes of a publication; a detail is cut so that it fits. */
enum { MAX_DETAIL = 2000, MAX_PUBLISHED = 3072, MAX_PACKET = 3328 };

_Static_assert(N_ZMQ_COUNTS == 6, "feed_counts() has them all");

/* ---- sending */

static void offer(
	struct serve *serve, const char *site, const char *kind, const Kamen__Published *published)
{
	uint8_t body[MAX_PUBLISHED], packet[MAX_PACKET];
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Publication publication = KAMEN__PUBLICATION__INIT;
	char topic[96];
	size_t n;
	int r;

	r = wire_pack(&published->base, body, sizeof(body), &n);
	if (r == 0) {
		(void)snprintf(topic, sizeof(topic), "%s/%s", site, kind);
		publication.topic = topic;
		publication.published = (ProtobufCBinaryData){ n, body };
		message.kind_case = KAMEN__ROLE_MESSAGE__KIND_PUBLICATION;
		message.publication = &publication;
		r = wire_pack(&message.base, packet, sizeof(packet), &n);
	}
	if (r == 0)
		r = role_offer(&serve->roles[ROLE_INGEST], packet, n);
	serve->feed.n_dropped += r < 0;
}

static void begin(const struct serve *serve, Kamen__Published *published, uint64_t sequence)
{
	kamen__published__init(published);
	published->major = WIRE_MAJOR;
	published->sequence = sequence;
	published->since_us = serve->feed.since_us;
}

/* ---- results */

static void fill_request(Kamen__PublishedResult *result, const struct shm_request *wire)
{
	result->has_trigger_id = result->has_part_id = true;
	result->has_capture_us = result->has_encoder = true;
	result->trigger_id = wire->trigger_id;
	result->part_id = wire->part_id;
	result->capture_us = wire->capture_us;
	result->encoder = wire->encoder;
}

void feed_result(struct serve *serve, const struct request *request, const struct answer *answer)
{
	Kamen__PublishedResult result = KAMEN__PUBLISHED_RESULT__INIT;
	struct site *site = request->site;
	Kamen__Published published;
	struct digest space = answer->space;

	/* An image whose client is gone was not inspected. */
	if (!serve->feed.on || !site || request->wire.verb != SHM_INFER ||
		answer->code == -ENOTCONN)
		return;
	begin(serve, &published, site->numbers.results++);
	result.site = site->name;
	result.code = answer->code;
	result.verdict = answer->code < 0 ? SHM_NO_VERDICT : answer->verdict;
	result.reason = (char *)answer->reason;
	wire_put_float(&result.has_novelty, &result.novelty, answer->novelty);
	wire_put_float(&result.has_distance, &result.distance, answer->distance);
	wire_put_float(&result.has_score, &result.score, answer->score);
	wire_put_float(&result.has_unknown, &result.unknown, answer->unknown);
	if (answer->label[0])
		result.label = (char *)(uintptr_t)answer->label;
	result.has_version = result.has_queue_ns = result.has_compute_ns = true;
	result.version = answer->version;
	result.queue_ns = answer->queue_ns;
	result.compute_ns = answer->compute_ns;
	fill_request(&result, &request->wire);
	result.has_space = result.has_time_us = true;
	result.space = (ProtobufCBinaryData){ DIGEST_BYTES, space.bytes };
	result.time_us = clock_wall_us();
	published.result = &result;
	offer(serve, site->name, "result", &published);
}

/* ---- events */

/* Not in the middle of a character: readers refuse what is no UTF-8. */
static void cut(char *text)
{
	size_t n = strlen(text);

	if (n < MAX_DETAIL - 1)
		return;
	while (n > 0 && ((unsigned char)text[n - 1] & 0xc0) == 0x80)
		n--;
	if (n > 0 && (unsigned char)text[n - 1] >= 0xc0)
		n--;
	text[n] = '\0';
}

static void tell(
	struct serve *serve, struct site *site, Kamen__PublishedEvent *event, const char *detail)
{
	Kamen__Published published;
	char text[MAX_DETAIL];

	begin(serve, &published, site->numbers.events++);
	(void)snprintf(text, sizeof(text), "%s", detail);
	cut(text);
	event->site = site->name;
	event->detail = text;
	published.event = event;
	offer(serve, site->name, "event", &published);
}

void feed_event(struct serve *serve, struct site *site, const char *what, const char *detail)
{
	Kamen__PublishedEvent event = KAMEN__PUBLISHED_EVENT__INIT;

	if (!serve->feed.on)
		return;
	event.what = (char *)what;
	event.has_time_us = true;
	event.time_us = clock_wall_us();
	tell(serve, site, &event, detail);
}

static void tell_row(void *data, const struct chain_row *row)
{
	struct serve *serve = data;
	struct site *site = sites_find(&serve->sites, row->site);
	Kamen__PublishedEvent event = KAMEN__PUBLISHED_EVENT__INIT;

	serve->feed.audit = row->seq;
	/* A row of none: that is kamend's own. */
	if (!site)
		return;
	event.what = (char *)row->what;
	event.has_time_us = event.has_audit = true;
	event.time_us = row->time_us;
	event.audit = row->seq;
	tell(serve, site, &event, row->detail);
}

void feed_audit(struct serve *serve)
{
	enum { ROWS = 64 };
	int r;

	if (!serve->feed.on)
		return;
	do
		r = state_audit_walk(serve->state, "", serve->feed.audit, ROWS, tell_row, serve);
	while (r == ROWS);
	if (r < 0)
		log_error("the audit's news are not published: %s", strerror(-r));
}

/* ---- ingest */

void feed_set(struct serve *serve, bool on)
{
	struct feed *feed = &serve->feed;
	struct digest head;

	if (on && !feed->on && state_audit_head(serve->state, &feed->audit, &head) < 0)
		return;
	if (feed->since_us == 0)
		feed->since_us = clock_wall_us();
	feed->on = on;
}

void feed_lost(struct serve *serve)
{
	struct feed *feed = &serve->feed;

	feed->on = false;
	for (unsigned i = 0; i < N_ZMQ_COUNTS; i++) {
		feed->before[i] += feed->now[i];
		feed->now[i] = 0;
	}
}

void feed_counts(struct serve *serve, const Kamen__ZmqCounts *counts)
{
	const uint64_t now[N_ZMQ_COUNTS] = { counts->requests, counts->malformed, counts->denied,
		counts->busy, counts->dropped, counts->published };

	memcpy(serve->feed.now, now, sizeof(now));
}
