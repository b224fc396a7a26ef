/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_CRASH_LIFE_H
#define KAMEN_TESTS_CRASH_LIFE_H

#include "unit/state_fixture.h"

enum { LIFE_SITES = 2, LIFE_SPACES = 2 };

/** What a caller may know of a site. */
struct site_model {
	bool is_there;
	uint64_t images; /* bit i: image number i */
	uint32_t champion, predecessor, running, n_versions;
	uint32_t classes, n_supports;  /* bit i: class number i */
	uint32_t n_known[LIFE_SPACES]; /* supports whose features are known there */
};

struct model {
	struct site_model sites[LIFE_SITES];
};

/**
 * What the one who lives has been told, in memory that outlives it. A cut leaves either now or next,
 * whole: every verb is one transaction.
 */
struct ledger {
	struct model now, next;
	uint64_t n_audit;
	bool is_evicting; /* then next has fewer images than now, who knows which */
	bool is_over;
};

extern const char *const life_sites[LIFE_SITES];

/**
 * Creates, admits, learns, shows classes, imports, promotes, evicts, deletes; state is closed and
 * opened on the way.
 */
void life_lead(struct fixture *fixture, struct ledger *ledger);
/** Reads what the state says, with every file that it names. */
void life_observe(struct fixture *fixture, struct model *ret_model);
/** What is there now is what ledger allows, the chain verifies, the champion can be served, and
 * life goes on. */
void life_check(struct fixture *fixture, const struct ledger *ledger);

#endif
