/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_LIVE_H
#define KAMEN_SERVE_LIVE_H

#include "serve/serving.h"
#include "site/drift.h"
#include "site/state.h"
#include "site/watch.h"

struct answer;
struct request;
struct serve;
struct site;

/** What a site's champion shows on the line. Loop thread only. */
struct live {
	struct live_row row; /* what outlives a restart */
	bool is_set, is_stored;
	uint64_t stored_ns;
	uint32_t promoted;    /* the version that a promotion is just bringing in, 0: none */
	uint64_t failed_ns;   /* when the last batch began that failed */
	uint64_t withdraw_ns; /* not before: a rollback that failed is tried again after a while */
	uint64_t n_alarms, n_rollbacks;

	/* The version that runs beside the champion (shadow.h); NULL: none. */
	struct serving *shadow;
	struct shadow_row shadow_sum;
	uint32_t shadow_champion;                             /* whom its figures compare it with */
	double shadow_turn;                                   /* one sample at 1 */
	uint64_t n_shadow, n_shadow_agreed, n_shadow_dropped; /* since start */
	uint32_t n_shadow_unstored;
};

/**
 * Another snapshot serves from now on, or the first since the start: counts begin anew where the
 * version or the space of its references is another.
 */
void live_champion(struct serve *serve, struct site *site, const struct serving *serving);
/** An answer on its way to its client; may roll the champion back. */
void live_answer(struct serve *serve, const struct request *request, const struct answer *answer);
/** Now, rather than a while after the last time. */
void live_store(struct serve *serve, struct site *site);
/** What is not stored yet is. */
void live_close(struct serve *serve, struct site *site);

#endif
