/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_ADMISSION_H
#define KAMEN_SERVE_ADMISSION_H

#include <systemd/sd-event.h>

#include "kamen.pb-c.h"
#include "ops/hand.h"
#include "serve/limits.h"
#include "serve/request.h"
#include "site/state_disk.h"

/** Who waits for the commit of a row. */
struct admitted {
	uint64_t id;
	Kamen__Outcome outcome;
	struct site *site; /* referenced */
	struct digest hash;
};

/** What is committed together, and so much of the audit that its head is to be told. */
struct admission_batch {
	struct admitted rows[SERVE_COMMIT_MOST];
	uint32_t n;
	bool is_audited;
};

/**
 * The group commit: rows that ingest asked to accept and that are not durable yet. The disk is waited
 * for by a thread; meanwhile the next batch comes together.
 */
struct admission {
	struct hand *hand; /* NULL: commits wait for the disk themselves */
	struct state_disk *disk;
	struct admission_batch batches[2];
	struct admission_batch *open, *writing; /* writing->n > 0 or is_writing: on its way */
	bool is_writing, is_due;                /* the open one is to follow at once */
	struct errand sync, checkpoint;
	bool is_checking;
	int sync_r;
	sd_event_source *timer;
	uint64_t n_accepted, n_duplicates, n_rejected, n_gaps, n_commits, n_failed;
};

/** Before the first row. On an error commits wait for the disk themselves. */
void admission_init(struct admission *admission);
int admission_open(struct serve *serve, struct diag *diag);
void admission_admit(struct serve *serve, const Kamen__Admit *admit);
void admission_refused(struct serve *serve, const Kamen__Refused *refused);
void admission_gap(struct serve *serve, const Kamen__Gap *gap);
/** Commits what is open, waits for the disk, and tells everybody who waits. */
void admission_commit(struct serve *serve);
/** What has joined the open batch in state.db is committed with it. */
void admission_joined(struct serve *serve);
/** A decision that nobody waits for: durable with the open batch. */
void admission_audit(
	struct serve *serve, const struct site *site, const char *what, const char *detail);
/** Brings a site's replay store under its bound; NULL and a site that is gone are fine. */
void admission_trim(struct serve *serve, struct site *site);
/** The whole table of sites to ingest, after every change of it. */
void admission_send_sites(struct serve *serve);
/** How many of n rows go into one message; at least one. */
uint32_t admission_fit(Kamen__IngestSite *const *rows, uint32_t n);
void admission_done(struct serve *serve);

#endif
