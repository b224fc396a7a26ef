/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "engine.h"
#include "ingest/outbox.h"
#include "ingest/packet.h"

enum { MAX_NOTICES = 512 };

struct letter {
	STAILQ_ENTRY(letter) next;
	void *data;
	size_t n_bytes;
	int fd;
};

/* What could not be told one by one, of a site. */
struct untold {
	SLIST_ENTRY(untold) next;
	char site[64];
	uint64_t n_refused, n_lost;
};

struct outbox {
	int sock;
	sd_event_source *writable;
	STAILQ_HEAD(, letter) letters;
	unsigned n_letters;
	SLIST_HEAD(, untold) untold;
};

static void letter_free(struct letter *letter)
{
	closep(&letter->fd);
	free(letter->data);
	free(letter);
}

/* ETOOMANYREFS: too many descriptors are on their way to serve. They arrive; a letter that is
 * dropped does not, and a job would stay open. */
static bool is_passing(int r)
{
	return r == -EAGAIN || r == -ETOOMANYREFS || r == -ENOBUFS || r == -ENOMEM;
}

/* @return 0: empty, -EAGAIN, or the socket's end, which the loop sees by itself */
static int flush(struct outbox *outbox)
{
	struct letter *letter;

	while ((letter = STAILQ_FIRST(&outbox->letters))) {
		int r = packet_send(outbox->sock, letter->data, letter->n_bytes, letter->fd);

		if (is_passing(r))
			return -EAGAIN;
		STAILQ_REMOVE_HEAD(&outbox->letters, next);
		outbox->n_letters--;
		letter_free(letter);
	}
	return 0;
}

static void tell_sums(struct outbox *outbox);

static int on_writable(sd_event_source *source, int fd, uint32_t events, void *user)
{
	struct outbox *outbox = user;

	(void)fd;
	(void)events;
	if (flush(outbox) != 0)
		return 0;
	(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	tell_sums(outbox);
	return 0;
}

int outbox_new(struct outbox **ret_outbox, sd_event *event, int sock)
{
	struct outbox *outbox = calloc(1, sizeof(*outbox));
	int r;

	if (!outbox)
		return -ENOMEM;
	STAILQ_INIT(&outbox->letters);
	SLIST_INIT(&outbox->untold);
	/* epoll takes a description once only for a number: the loop reads by another one. */
	outbox->sock = dup(sock);
	r = outbox->sock < 0 ? -errno
			     : sd_event_add_io(event, &outbox->writable, outbox->sock, EPOLLOUT,
				       on_writable, outbox);
	if (r >= 0)
		r = sd_event_source_set_enabled(outbox->writable, SD_EVENT_OFF);
	if (r < 0) {
		outbox_free(outbox);
		return r;
	}
	*ret_outbox = outbox;
	return 0;
}

void outbox_free(struct outbox *outbox)
{
	struct letter *letter;
	struct untold *untold;

	if (!outbox)
		return;
	(void)sd_event_source_disable_unref(outbox->writable);
	while ((letter = STAILQ_FIRST(&outbox->letters))) {
		STAILQ_REMOVE_HEAD(&outbox->letters, next);
		letter_free(letter);
	}
	while ((untold = SLIST_FIRST(&outbox->untold))) {
		SLIST_REMOVE_HEAD(&outbox->untold, next);
		free(untold);
	}
	closep(&outbox->sock);
	free(outbox);
}

int outbox_put(struct outbox *outbox, const Kamen__RoleMessage *message, int fd)
{
	struct letter *letter = calloc(1, sizeof(*letter));
	int r;

	if (!letter) {
		closep(&fd);
		return -ENOMEM;
	}
	letter->fd = fd;
	r = wire_encode(&message->base, &letter->data, &letter->n_bytes);
	if (r < 0) {
		letter_free(letter);
		return r;
	}
	STAILQ_INSERT_TAIL(&outbox->letters, letter, next);
	outbox->n_letters++;
	if (flush(outbox) == -EAGAIN)
		(void)sd_event_source_set_enabled(outbox->writable, SD_EVENT_ON);
	return 0;
}

static void keep_count(struct outbox *outbox, const char *site, uint64_t n_refused, uint64_t n_lost)
{
	struct untold *untold;

	SLIST_FOREACH(untold, &outbox->untold, next)
	if (strcmp(untold->site, site) == 0)
		break;
	if (!untold) {
		untold = calloc(1, sizeof(*untold));
		if (!untold)
			return;
		(void)snprintf(untold->site, sizeof(untold->site), "%s", site);
		SLIST_INSERT_HEAD(&outbox->untold, untold, next);
	}
	untold->n_refused += n_refused;
	untold->n_lost += n_lost;
}

static int put_refused(struct outbox *outbox, Kamen__Refused *refused)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;

	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_REFUSED;
	message.refused = refused;
	return outbox_put(outbox, &message, -1);
}

static int put_gap(struct outbox *outbox, const char *site, const char *sender, uint64_t n_lost)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Gap gap = KAMEN__GAP__INIT;

	gap.site = (char *)(uintptr_t)site;
	gap.sender = (char *)(uintptr_t)sender;
	gap.n_lost = n_lost;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_GAP;
	message.gap = &gap;
	return outbox_put(outbox, &message, -1);
}

static void tell_sums(struct outbox *outbox)
{
	struct untold *untold;

	while ((untold = SLIST_FIRST(&outbox->untold))) {
		Kamen__Refused refused = KAMEN__REFUSED__INIT;
		char what[48];

		(void)snprintf(
			what, sizeof(what), "%llu images", (unsigned long long)untold->n_refused);
		refused.what = what;
		SLIST_REMOVE_HEAD(&outbox->untold, next);
		refused.site = untold->site;
		refused.source = (char *)(uintptr_t) "several";
		refused.reason = (char *)(uintptr_t) "too many at once to be told one by one";
		refused.has_n = true;
		refused.n = untold->n_refused;
		if (untold->n_refused > 0)
			(void)put_refused(outbox, &refused);
		if (untold->n_lost > 0)
			(void)put_gap(outbox, untold->site, "(several)", untold->n_lost);
		free(untold);
	}
}

int outbox_put_refused(struct outbox *outbox, const char *site, const char *source,
	const char *what, const char *reason, uint64_t job_id)
{
	Kamen__Refused refused = KAMEN__REFUSED__INIT;

	/* A job's refusal is its answer. */
	if (job_id == 0 && outbox->n_letters >= MAX_NOTICES) {
		keep_count(outbox, site, 1, 0);
		return 0;
	}
	refused.site = (char *)(uintptr_t)site;
	refused.source = (char *)(uintptr_t)source;
	refused.what = (char *)(uintptr_t)what;
	refused.reason = (char *)(uintptr_t)reason;
	refused.has_id = job_id != 0;
	refused.id = job_id;
	return put_refused(outbox, &refused);
}

int outbox_put_gap(struct outbox *outbox, const char *site, const char *sender, uint64_t n_lost)
{
	if (outbox->n_letters >= MAX_NOTICES) {
		keep_count(outbox, site, 0, n_lost);
		return 0;
	}
	return put_gap(outbox, site, sender, n_lost);
}
