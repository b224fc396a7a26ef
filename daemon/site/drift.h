/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_DRIFT_H
#define KAMEN_SITE_DRIFT_H

#include <stdbool.h>
#include <stdint.h>

#define DRIFT_BETS 16u
/** Answers between two false alarms, on average and at least, as long as nothing drifts. */
#define DRIFT_ANSWERS 1e7

enum drift_kind {
	DRIFT_NONE,
	DRIFT_NOVEL, /* images lie further away than the held-out ones did */
	DRIFT_TAIL,  /* too many of them lie among the most novel twentieth */
	DRIFT_ALIKE, /* images lie closer: always the same one? */
};

/**
 * Is what a site sees still what its champion was judged on? A novelty is a percentile among
 * held-out images, so as long as nothing changes it is uniform. Bets against that, each with an
 * expected gain of at most nothing while it holds (Shiryaev-Roberts on test martingales): their
 * fortune reaches DRIFT_ANSWERS at the earliest after as many answers on average, however long one
 * looks. Percentiles of few held-out images are themselves uncertain; the bets leave that much room.
 * Answers are taken as they come: each may depend on those before, but images that all come twice
 * count twice.
 *
 * A plain value; says what it sees and changes nothing else: drift never widens what is normal.
 */
struct drift {
	double fortunes[DRIFT_BETS];
	uint64_t n;
	uint32_t n_held;
	double mean; /* of the last few hundred novelties */
	enum drift_kind alarm;
	uint64_t alarm_n; /* answers until it */
};

/** At a promotion. n_held: images that the percentiles are of; fewer than 16: never an alarm. */
void drift_reset(struct drift *drift, uint32_t n_held);
/** One answer's novelty. @return true: this one raised the alarm, which then stays */
bool drift_add(struct drift *drift, double novelty);
/** "none", "novel", "tail" or "alike". */
const char *drift_name(enum drift_kind kind);

#endif
