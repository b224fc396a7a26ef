/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/turns.h"

#include <stdlib.h>
#include <time.h>

#define US_PER_S 1000000u

const char *due_name(enum due due)
{
	static const char *const names[] = {
		[DUE_IMAGES] = "images",
		[DUE_SCHEDULE] = "schedule",
		[DUE_DRIFT] = "drift",
	};

	return (size_t)due < ARRAY_SIZE(names) ? names[due] : NULL;
}

/* When local clocks show HH:MM, so many days from the one of now; 0: nobody knows. */
static uint64_t time_at(const char *clock, uint64_t now_us, int n_days)
{
	time_t now = (time_t)(now_us / US_PER_S), at;
	struct tm tm;

	if (!localtime_r(&now, &tm))
		return 0;
	tm.tm_hour = 10 * (clock[0] - '0') + clock[1] - '0';
	tm.tm_min = 10 * (clock[3] - '0') + clock[4] - '0';
	tm.tm_sec = 0;
	/* Days are not all of 24 hours: the calendar moves, not the seconds. */
	tm.tm_mday += n_days;
	tm.tm_isdst = -1;
	at = mktime(&tm);
	return at > 0 ? (uint64_t)at * US_PER_S : 0;
}

/* The last time that local clocks showed HH:MM; 0: nobody knows. */
static uint64_t last_time_at(const char *clock, uint64_t now_us)
{
	uint64_t at = time_at(clock, now_us, 0);

	if (at > now_us)
		at = time_at(clock, now_us, -1);
	return at <= now_us ? at : 0;
}

static bool is_scheduled(
	const struct site_settings *settings, const struct site_need *need, uint64_t now_us)
{
	/* A clock that was set back must not put a round off for years. */
	if (now_us < need->round_us)
		return settings->learn_every > 0 || settings->learn_at[0];
	if (settings->learn_every > 0 &&
		now_us - need->round_us >= (uint64_t)settings->learn_every * US_PER_S)
		return true;
	return settings->learn_at[0] && need->round_us < last_time_at(settings->learn_at, now_us);
}

enum due turns_due(const struct site_settings *settings, const struct site_need *need, bool drifts,
	uint64_t now_us)
{
	/* The same images give the same mask: nothing new, nothing to learn. */
	if (need->hold != SITE_ACTIVE || need->n_images < settings->learn_min_images ||
		need->n_new == 0)
		return DUE_NOT;
	if (drifts && settings->learn_on_drift)
		return DUE_DRIFT;
	if (settings->learn_after > 0 && need->n_new >= settings->learn_after)
		return DUE_IMAGES;
	return is_scheduled(settings, need, now_us) ? DUE_SCHEDULE : DUE_NOT;
}

uint64_t turns_wait_us(
	const struct site_settings *settings, const struct site_need *need, uint64_t now_us)
{
	uint64_t wait_us = UINT64_MAX, at;

	if (need->hold != SITE_ACTIVE || need->n_images < settings->learn_min_images ||
		need->n_new == 0)
		return UINT64_MAX;
	if (settings->learn_every > 0) {
		at = need->round_us + (uint64_t)settings->learn_every * US_PER_S;
		wait_us = at > now_us ? at - now_us : 0;
	}
	if (settings->learn_at[0]) {
		at = time_at(settings->learn_at, now_us, 0);
		if (at <= now_us)
			at = time_at(settings->learn_at, now_us, 1);
		if (at > now_us && at - now_us < wait_us)
			wait_us = at - now_us;
	}
	return wait_us;
}

static double need_of(const struct turn *turn)
{
	if (turn->due == DUE_DRIFT || turn->n_new >= turn->n_images)
		return 1;
	return (double)turn->n_new / (double)turn->n_images;
}

uint32_t turns_choose(const struct turn *turns, uint32_t n)
{
	uint32_t best = n;
	double least = 0;

	for (uint32_t i = 0; i < n; i++) {
		double key = (double)turns[i].since - TURNS_HEAD_START * need_of(&turns[i]);

		if (turns[i].due == DUE_NOT || (best < n && key >= least))
			continue;
		best = i;
		least = key;
	}
	return best;
}
