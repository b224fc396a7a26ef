/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
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

struct outbox {
	int sock;
	sd_event_source *writable;
	STAILQ_HEAD(, letter) letters;
	unsigned n_letters;
};

static void letter_free(struct letter *letter)
{
	closep(&letter->fd);
	free(letter->data);
	free(letter);
}

/* @return 0: empty, -EAGAIN, or the socket's end, which the loop sees by itself */
static int flush(struct outbox *outbox)
{
	struct letter *letter;

	while ((letter = STAILQ_FIRST(&outbox->letters))) {
		int r = packet_send(outbox->sock, letter->data, letter->n_bytes, letter->fd);

		if (r == -EAGAIN)
			return r;
		STAILQ_REMOVE_HEAD(&outbox->letters, next);
		outbox->n_letters--;
		letter_free(letter);
	}
	return 0;
}

static int on_writable(sd_event_source *source, int fd, uint32_t events, void *user)
{
	(void)fd;
	(void)events;
	if (flush(user) == 0)
		(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	return 0;
}

int outbox_new(struct outbox **ret_outbox, sd_event *event, int sock)
{
	struct outbox *outbox = calloc(1, sizeof(*outbox));
	int r;

	if (!outbox)
		return -ENOMEM;
	STAILQ_INIT(&outbox->letters);
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

	if (!outbox)
		return;
	(void)sd_event_source_disable_unref(outbox->writable);
	while ((letter = STAILQ_FIRST(&outbox->letters))) {
		STAILQ_REMOVE_HEAD(&outbox->letters, next);
		letter_free(letter);
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

int outbox_put_refused(struct outbox *outbox, const char *site, const char *source,
	const char *what, const char *reason, uint64_t job_id)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Refused refused = KAMEN__REFUSED__INIT;

	/* A job's refusal is its answer. */
	if (job_id == 0 && outbox->n_letters >= MAX_NOTICES)
		return -EBUSY;
	refused.site = (char *)(uintptr_t)site;
	refused.source = (char *)(uintptr_t)source;
	refused.what = (char *)(uintptr_t)what;
	refused.reason = (char *)(uintptr_t)reason;
	refused.has_id = job_id != 0;
	refused.id = job_id;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_REFUSED;
	message.refused = &refused;
	return outbox_put(outbox, &message, -1);
}

int outbox_put_gap(struct outbox *outbox, const char *site, const char *sender, uint64_t n_lost)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Gap gap = KAMEN__GAP__INIT;

	if (outbox->n_letters >= MAX_NOTICES)
		return -EBUSY;
	gap.site = (char *)(uintptr_t)site;
	gap.sender = (char *)(uintptr_t)sender;
	gap.n_lost = n_lost;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_GAP;
	message.gap = &gap;
	return outbox_put(outbox, &message, -1);
}
