/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SITES_H
#define KAMEN_SERVE_SITES_H

#include "ops/config.h"
#include "ops/metrics.h"
#include "serve/feed.h"
#include "serve/live.h"
#include "serve/serving.h"
#include "serve/turns.h"
#include "site/state.h"

struct request;
struct serve;

#define SITE_PINNED 8 /* snapshots kept beside the champion: other versions, other sizes */

/** Guarded by the scheduler's lock. */
struct site_queue {
	struct request *head, **tail;
	uint32_t n;
	uint64_t deficit;  /* pixels of forwards that the site may still take in this round */
	uint32_t priority; /* what its credit grows by, in quanta; 0: SITE_PRIORITY */
	bool active;
	struct site_queue *next;
	struct serving *champion; /* what the site's next batch is served with */
};

/** A site as serve runs it. Loop thread only, but for its queue. */
struct site {
	char name[64];
	struct site_settings settings; /* in force: file over state.db over defaults */
	const struct site_file *file;  /* of sites.d, or NULL */
	struct prep prep;
	uint32_t champion, predecessor; /* versions */
	enum site_hold hold;
	struct site_queue queue;
	struct serving *pinned[SITE_PINNED];
	uint64_t pinned_used[SITE_PINNED];
	unsigned n_refs; /* the table's and one a request */
	bool gone;

	/* Whether a round should begin by itself, as need.c last saw it. */
	enum due due;
	uint64_t due_since; /* turn + 1, 0: not due */
	uint64_t n_new, n_images, retry_ns;

	uint32_t n_classes;
	uint64_t n_labelled, n_unlike; /* answers with a class, and of none */
	struct feed_numbers numbers;
	uint64_t n_requests, n_failed, n_late, n_verdicts[4];
	struct histogram latency;
	struct live live;
};

struct site_table {
	struct site **sites; /* (n), sorted by name */
	uint32_t n;
	uint64_t clock; /* of the use of pinned snapshots */
};

/** Sites of state.db, and those of sites.d that are not there yet. */
int sites_open(struct serve *serve);
void sites_close(struct serve *serve);
/** Stores what sites_close() would. */
void sites_save(struct serve *serve);
struct site *sites_find(const struct site_table *table, const char *name);
/** Can every site of the files be preprocessed for this model? -EINVAL with FILE:LINE in diag. */
int sites_check_files(const struct serve *serve, const struct config *config, struct diag *diag);
/** A new site in state.db and in the table; diag says why not. keys: see state_site_create_with().
 */
int sites_create(struct serve *serve, const char *name, const struct site_settings *settings,
	uint32_t keys, const char *who, struct diag *diag);
int sites_delete(struct serve *serve, struct site *site, const char *who);
struct site *site_ref(struct site *site);
void site_unref(struct site *site);

/** Settings and files anew, after a reload. */
void sites_refresh(struct serve *serve);
/**
 * Reads what state.db says and, where that differs, swaps the champion's snapshot in. What cannot be
 * read changes nothing and is logged; only a site that is not served yet falls back to the base.
 */
int site_publish(struct serve *serve, struct site *site);
/** The same after a round, which has written new references of the base. */
int site_renew(struct serve *serve, struct site *site);
/** After a change of classes, or of what is known of their supports: snapshots that differ by no more.
 */
void site_renew_classes(struct serve *serve, struct site *site);
/** Before state.db is changed: is it there and whole? What was read is what site_publish() takes. */
int site_check_servable(
	struct serve *serve, struct site *site, uint32_t version, struct diag *diag);
/** That, and -EXDEV: it was judged under another preprocessing than the site's. */
int site_check_promotion(
	struct serve *serve, struct site *site, uint32_t version, struct diag *diag);
/**
 * The snapshot of a version at an input size, from the site's cache or from disk; referenced.
 *
 * @param px  SHM_PX_SITE, SHM_PX_NATIVE or a size
 */
int site_serving(struct serve *serve, struct site *site, uint32_t version, uint32_t px,
	struct serving **ret_serving, struct diag *diag);
/** Whether a snapshot, or NULL, is what loading this version for the site would make again. */
bool site_has_snapshot(const struct site *site, const struct serving *serving, uint32_t version);
/** FILE:LINE that owns a key, or false. */
bool site_key_owner(const struct site *site, const char *key, char *ret_text, size_t n_bytes);

#endif
