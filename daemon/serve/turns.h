/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_TURNS_H
#define KAMEN_SERVE_TURNS_H

#include "ops/config.h"
#include "site/state.h"

/*
 * Whose round is next: pure functions, so that a hundred sites can be tried without a daemon. The
 * learner does one round at a time; a turn is one round, and time is counted in turns.
 */

/** Why a round should begin by itself. */
enum due {
	DUE_NOT,
	DUE_IMAGES,   /* enough new ones */
	DUE_SCHEDULE, /* learn_every or learn_at, and there are new ones */
	DUE_DRIFT,    /* the alarm is up, and there are new ones */
};
/** NULL: not due. */
const char *due_name(enum due due);

/** @param now_us  wall clock */
enum due turns_due(const struct site_settings *settings, const struct site_need *need, bool drifts,
	uint64_t now_us);

/** How long until the clock may make a site due that is not, if nothing else happens; UINT64_MAX: it
 * will not. */
uint64_t turns_wait_us(
	const struct site_settings *settings, const struct site_need *need, uint64_t now_us);

/** One site that is due. */
struct turn {
	enum due due;
	uint64_t since; /* the turn in which it became due */
	uint64_t n_new, n_images;
};

/** What the greatest need is worth: a site overtakes those that came so many turns before. */
#define TURNS_HEAD_START 8.0

/**
 * The site that has waited longest, need counted as up to TURNS_HEAD_START turns of waiting: the share
 * of images that is new, or drift. So of n sites none waits longer than n + TURNS_HEAD_START
 * automatic rounds; rounds by command come on top, TURNS_COMMANDS to one while a site is due.
 *
 * @return its index, or n where none is due
 */
uint32_t turns_choose(const struct turn *turns, uint32_t n);

/** Rounds that an operator asked for come first, but not more than so many while a site is due. */
#define TURNS_COMMANDS 3u

#endif
