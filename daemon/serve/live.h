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
	uint32_t version;  /* whose answers these are */
	uint32_t promoted; /* the version that a promotion is just bringing in, 0: none */
	bool is_set;
	struct drift drift;
	struct watch watch;
	uint64_t withdraw_ns; /* not before: a rollback that failed is tried again after a while */
	struct watch_counts counts;
	uint64_t n_alarms, n_rollbacks;

	/* The version that runs beside the champion (shadow.h); NULL: none. */
	struct serving *shadow;
	struct shadow_row shadow_sum;
	uint32_t shadow_champion;                             /* whom its figures compare it with */
	double shadow_turn;                                   /* one sample at 1 */
	uint64_t n_shadow, n_shadow_agreed, n_shadow_dropped; /* since start */
	uint32_t n_shadow_unstored;
};

/** Another snapshot serves from now on: counts begin anew where the version is another. */
void live_champion(struct site *site, const struct serving *serving);
/** An answer on its way to its client; may roll the champion back. */
void live_answer(struct serve *serve, const struct request *request, const struct answer *answer);

#endif
