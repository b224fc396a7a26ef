/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_WATCH_H
#define KAMEN_SITE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Counts of live answers under one champion. */
struct watch_counts {
	uint32_t n;        /* answers with a novelty */
	uint32_t n_ng;     /* at or above the site's threshold */
	uint32_t n_far;    /* among the most novel tenth of the held-out images */
	uint32_t n_failed; /* forward passes that failed, however many answers each cost */
};

/**
 * A new champion's first answers. What held-out images said of it (percentiles, so that a share of
 * 1 - threshold is NG) and what the champion before said of the same line just now bound how many
 * may be NG; more than twice that, by a binomial bound, and the promotion was a mistake. A plain
 * value.
 */
struct watch {
	uint32_t version; /* 0: nothing is watched */
	uint32_t n_answers, n_held;
	double threshold;
	struct watch_counts before, now;
};

/** At a promotion; before: the counts of the champion until now, zeros where there are none. */
void watch_begin(struct watch *watch, uint32_t version, uint32_t n_answers, uint32_t n_held,
	double threshold, const struct watch_counts *before);
void watch_stop(struct watch *watch);
bool watch_is_on(const struct watch *watch);
/** Answers until its end. */
uint32_t watch_left(const struct watch *watch);

/** One more into the counts. Failed: a forward pass did, novelty is not asked. */
void watch_count(struct watch_counts *counts, double novelty, double threshold, bool failed);
/**
 * One answer of the version that is watched, or a failed pass of it; the watch ends by itself after n_answers.
 *
 * @param ret_reason  why the version has to go, with figure and limit
 * @return true: it has to go, and so again until watch_stop(): a rollback may fail
 */
bool watch_add(struct watch *watch, double novelty, bool failed, char *ret_reason, size_t n_bytes);

#endif
