/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_ROUNDS_H
#define KAMEN_SERVE_ROUNDS_H

#include <systemd/sd-event.h>

#include "kamen.pb-c.h"
#include "serve/sites.h"

/** A round that the learner does, or will do. */
struct round_job {
	char site[64];
	uint32_t version, steps;
	uint64_t seed;
	bool judge;   /* of an imported mask: nothing is learnt */
	bool begun;   /* the learner has had it: it goes on with it before anything else */
	bool drifted; /* begun by drift: its candidate is never promoted by itself */
	/* Not NULL: this version is learnt once more and compared, nothing is stored; owned. */
	struct version_row *again;
	struct prep prep;
	unsigned n_deaths; /* of the learner, since it last got further */
	uint32_t step;     /* the furthest */
	struct round_job *next;
};

/** Of a round that is over, which state.db could not be told yet. */
struct round_failure {
	char site[64], reason[256];
	uint32_t version;
	struct round_failure *next;
};

/** What was asked for, in order; the first one is with the learner while sent. */
struct rounds {
	struct round_job *head;
	bool sent;
	uint64_t turn;         /* rounds that the learner was given */
	unsigned n_commands;   /* of them by command, since the last that began by itself */
	sd_event_source *look; /* need.c */
	uint64_t look_ns;      /* when it rings, 0: it does not */
	uint64_t heard_ns;     /* when the learner last said something about it */
	uint64_t n_done, n_failed, n_promoted;
	uint32_t step, steps;
	float loss_ratio;
	double density, seconds_left;
	struct round_failure *unstored;
	sd_event_source *retry;
};

/** Takes up what an earlier process left running. */
int rounds_open(struct serve *serve);
void rounds_close(struct serve *serve);
/** A round that state.db knows already joins the queue. */
int rounds_add(struct serve *serve, struct site *site, uint32_t version, uint32_t steps,
	uint64_t seed, bool judge);
/** A round that begins by itself: it is the learner's next. */
int rounds_put_first(
	struct serve *serve, struct site *site, uint32_t version, const struct round_wish *wish);
/** Learns a version once more: row and prep as it was learnt; row is copied. */
int rounds_add_again(struct serve *serve, struct site *site, const struct version_row *row,
	const struct prep *prep);
/**
 * Nothing of this site is learnt any more.
 *
 * @param reason  what its rounds failed for, or NULL: the site goes, and its rows with it
 */
void rounds_cancel(struct serve *serve, const char *site, const char *reason);
/** Gives the learner its next job if it is ready and idle. */
void rounds_kick(struct serve *serve);
/** The learner died. */
void rounds_lost(struct serve *serve);

void rounds_progress(struct serve *serve, const Kamen__Progress *progress);
void rounds_done(struct serve *serve, const Kamen__LearnDone *done);
void rounds_failed(struct serve *serve, const Kamen__LearnFailed *failed);

/** "idle", "learning SITE", "starving SITE", "restarting" or "disabled". */
void rounds_describe(const struct serve *serve, char *ret_text, size_t n_bytes);
/** The job of a site, or NULL. */
const struct round_job *rounds_find(const struct serve *serve, const char *site);

#endif
