/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_OUTBOX_H
#define KAMEN_INGEST_OUTBOX_H

#include <systemd/sd-event.h>

#include "wire.h"

/*
 * Messages to serve, in order, waiting while its socket is full: bounded by what is in flight.
 * Refusals and gaps, which foreign senders can cause without end, are only counted beyond a limit,
 * and told as one sum a site once serve has caught up.
 */
struct outbox;

int outbox_new(struct outbox **ret_outbox, sd_event *event, int sock);
void outbox_free(struct outbox *outbox);

/** @param fd  travels along and is closed here in any case; -1: none */
int outbox_put(struct outbox *outbox, const Kamen__RoleMessage *message, int fd);
int outbox_put_refused(struct outbox *outbox, const char *site, const char *source,
	const char *what, const char *reason, uint64_t job_id);
int outbox_put_gap(struct outbox *outbox, const char *site, const char *sender, uint64_t n_lost);

#endif
