/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stddef.h>

#include "site/drift.h"

#define MIN_HELD 16u
#define TAIL .05
/* Standard errors of a percentile of n_held images that a bet gives away: that many images may lie
 * so far off by chance. */
#define ROOM 3.
#define MEMORY 256. /* answers that the mean looks back */

/* Small stakes see small shifts, large ones see large shifts soon. stake * (x - what is expected):
 * a fortune never falls below zero. */
static const struct bet {
	enum drift_kind kind;
	double stake;
} bets[] = {
	{ DRIFT_NOVEL, .1 },
	{ DRIFT_NOVEL, .25 },
	{ DRIFT_NOVEL, .5 },
	{ DRIFT_NOVEL, 1 },
	{ DRIFT_NOVEL, 1.6 },
	{ DRIFT_TAIL, .5 },
	{ DRIFT_TAIL, 1 },
	{ DRIFT_TAIL, 2 },
	{ DRIFT_TAIL, 4 },
	{ DRIFT_ALIKE, .1 },
	{ DRIFT_ALIKE, .25 },
	{ DRIFT_ALIKE, .5 },
	{ DRIFT_ALIKE, 1 },
	{ DRIFT_ALIKE, 1.6 },
};

#define N_BETS (sizeof(bets) / sizeof(bets[0]))
_Static_assert(N_BETS <= DRIFT_BETS, "a fortune each");

/* What a bet is on, and the most that it is on average while nothing drifts. */
static double outcome(enum drift_kind kind, double novelty)
{
	if (kind == DRIFT_TAIL)
		return novelty >= 1 - TAIL ? 1 : 0;
	return kind == DRIFT_NOVEL ? novelty : 1 - novelty;
}

static double expected(enum drift_kind kind, uint32_t n_held)
{
	double step = 1. / (n_held + 1.); /* percentiles come in steps */

	if (kind == DRIFT_TAIL)
		return TAIL + step + ROOM * sqrt(TAIL * (1 - TAIL) / n_held);
	return .5 + step + ROOM * sqrt(1. / 12 / n_held);
}

void drift_reset(struct drift *drift, uint32_t n_held)
{
	*drift = (struct drift){ .n_held = n_held, .mean = .5 };
}

bool drift_add(struct drift *drift, double novelty)
{
	enum drift_kind leader = DRIFT_NONE;
	double sum = 0, most = 0;

	if (!(novelty >= 0 && novelty <= 1) || drift->n_held < MIN_HELD)
		return false;
	drift->n++;
	drift->mean += (novelty - drift->mean) / fmin((double)drift->n, MEMORY);
	if (drift->alarm != DRIFT_NONE)
		return false;
	for (unsigned i = 0; i < N_BETS; i++) {
		const struct bet *bet = &bets[i];
		double gain = outcome(bet->kind, novelty) - expected(bet->kind, drift->n_held);
		double fortune = (drift->fortunes[i] + 1) * fmax(1 + bet->stake * gain, 0);

		drift->fortunes[i] = fortune;
		sum += fortune;
		if (fortune > most) {
			most = fortune;
			leader = bet->kind;
		}
	}
	if (sum / N_BETS < DRIFT_ANSWERS)
		return false;
	drift->alarm = leader;
	drift->alarm_n = drift->n;
	return true;
}

const char *drift_name(enum drift_kind kind)
{
	static const char *const names[] = {
		[DRIFT_NONE] = "none",
		[DRIFT_NOVEL] = "novel",
		[DRIFT_TAIL] = "tail",
		[DRIFT_ALIKE] = "alike",
	};

	return (size_t)kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}
