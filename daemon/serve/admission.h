/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_ADMISSION_H
#define KAMEN_SERVE_ADMISSION_H

#include <systemd/sd-event.h>

#include "kamen.pb-c.h"
#include "serve/limits.h"
#include "serve/request.h"

/** Who waits for the commit of a row. */
struct admitted {
	uint64_t id;
	Kamen__Outcome outcome;
	struct site *site; /* referenced */
};

/** The group commit: rows that ingest asked to accept and that are not durable yet. */
struct admission {
	struct admitted rows[SERVE_COMMIT_ROWS];
	uint32_t n;
	sd_event_source *timer;
	uint64_t n_accepted, n_duplicates, n_rejected, n_gaps, n_commits, n_failed;
};

void admission_admit(struct serve *serve, const Kamen__Admit *admit);
void admission_refused(struct serve *serve, const Kamen__Refused *refused);
void admission_gap(struct serve *serve, const Kamen__Gap *gap);
/** Commits what is open and tells everybody who waits. */
void admission_commit(struct serve *serve);
/** Brings a site's replay store under its bound; NULL and a site that is gone are fine. */
void admission_trim(struct serve *serve, struct site *site);
/** The whole table of sites to ingest, after every change of it. */
void admission_send_sites(struct serve *serve);
/** How many of n rows go into one message; at least one. */
uint32_t admission_fit(Kamen__IngestSite *const *rows, uint32_t n);
void admission_done(struct serve *serve);

#endif
