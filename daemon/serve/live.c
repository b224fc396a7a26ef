/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/live.h"

#include <math.h>

#include "ops/log.h"
#include "serve/need.h"
#include "serve/serve.h"

#define WITHDRAW_RETRY_NS (10 * NS_PER_S)
/* What a kill may cost of the counts: a transaction on the loop is not free. */
#define STORE_NS (60 * NS_PER_S)
#define STORE_TRIAL_NS (5 * NS_PER_S)
/* Failures of a trial that are stored as they come. */
#define N_AT_ONCE 3u

static uint64_t space_of(const struct serving *serving)
{
	uint64_t space;

	memcpy(&space, serving->space.bytes, sizeof(space));
	return space & ((UINT64_C(1) << 48) - 1);
}

void live_store(struct serve *serve, struct site *site)
{
	struct live *live = &site->live;
	int r;

	live->stored_ns = clock_now_ns();
	r = state_live_store(serve->state, site->name, &live->row);
	live->is_stored = r >= 0;
	if (r < 0)
		log_error("site %s: what version %u has shown so far is not stored: %s", site->name,
			live->row.version, strerror(-r));
}

void live_close(struct serve *serve, struct site *site)
{
	if (site->live.is_set && !site->live.is_stored)
		live_store(serve, site);
}

/* @return whether something is known of a champion before this start */
static bool restore(struct serve *serve, struct site *site, const struct serving *serving)
{
	struct live *live = &site->live;
	struct live_row row;
	int r = state_live_get(serve->state, site->name, &row);

	live->is_stored = true;
	live->stored_ns = clock_now_ns();
	if (r < 0)
		log_error("site %s: what its champion has shown before is not known: %s",
			site->name, strerror(-r));
	if (r <= 0)
		return false;
	live->row = row;
	/* The last process ended between a promotion and its first answer. */
	if (row.version != serving->version && row.watch.version == serving->version)
		live->promoted = serving->version;
	return true;
}

static void begin(struct site *site, const struct serving *serving, uint32_t n_held)
{
	struct live *live = &site->live;
	struct live_row row = {
		.version = serving->version,
		.space = space_of(serving),
		.threshold = site->settings.novelty_threshold,
	};

	if (live->promoted > 0 && live->promoted == serving->version &&
		site->settings.watch_answers > 0)
		watch_begin(&row.watch, serving->version, site->settings.watch_answers, n_held,
			row.threshold, &live->row.counts);
	drift_reset(&row.drift, n_held);
	live->row = row;
	live->promoted = 0;
	live->withdraw_ns = 0;
}

void live_champion(struct serve *serve, struct site *site, const struct serving *serving)
{
	uint32_t n_held = serving->reference ? serving->reference->n_held : 0;
	struct live *live = &site->live;
	struct live_row *row = &live->row;
	bool is_known = live->is_set || restore(serve, site, serving);

	live->is_set = true;
	if (!is_known || row->version != serving->version || row->space != space_of(serving)) {
		begin(site, serving, n_held);
		if (is_known)
			live_store(serve, site);
		return;
	}
	/* Every round writes new references of the base. It is the same champion: what it has shown,
	 * an alarm too, is not undone by having learnt. */
	row->drift.n_held = n_held;
	if (row->threshold < site->settings.novelty_threshold ||
		row->threshold > site->settings.novelty_threshold)
		row->counts = (struct watch_counts){ 0 };
	row->threshold = site->settings.novelty_threshold;
}

static void raise_alarm(struct serve *serve, struct site *site)
{
	const struct drift *drift = &site->live.row.drift;

	site->live.n_alarms++;
	feed_event(serve, site, "drift", drift_name(drift->alarm));
	log_warning(
		"site %s: drift (%s) after %llu answers of version %u: mean novelty %.3f, .5 is "
		"what held-out images have; what counts as normal stays as it is",
		site->name, drift_name(drift->alarm), (unsigned long long)drift->alarm_n,
		site->live.row.version, drift->mean);
}

/* Counts of long ago say little about the line of today. */
static void forget_half(struct watch_counts *counts)
{
	enum { MEMORY = 2000 };

	if (counts->n < MEMORY)
		return;
	counts->n /= 2;
	counts->n_ng /= 2;
	counts->n_far /= 2;
}

/* Answers of other versions and sizes say nothing about the champion. */
static bool is_of_champion(const struct request *request, const struct answer *answer)
{
	const struct site *site = request->site;

	return request->wire.verb == SHM_INFER && !site->gone &&
	       answer->version == site->live.row.version &&
	       (!request->serving || request->wire.mask == SHM_MASK_CHAMPION) &&
	       (request->wire.px == SHM_PX_SITE || request->wire.px == site->prep.input_px) &&
	       (answer->code >= 0 || answer->is_broken);
}

/* One pass that fails costs a whole batch its answers, and is one failure. */
static bool is_told_again(
	struct live *live, const struct request *request, const struct answer *answer)
{
	uint64_t begun_ns = request->received_ns + answer->queue_ns;

	if (!answer->is_broken)
		return false;
	if (live->failed_ns == begun_ns)
		return true;
	live->failed_ns = begun_ns;
	return false;
}

static void store_by_and_by(struct serve *serve, struct site *site, bool at_once)
{
	struct live *live = &site->live;
	uint64_t pause_ns = watch_is_on(&live->row.watch) ? STORE_TRIAL_NS : STORE_NS;

	live->is_stored = false;
	if (at_once || clock_now_ns() - live->stored_ns >= pause_ns)
		live_store(serve, site);
}

void live_answer(struct serve *serve, const struct request *request, const struct answer *answer)
{
	struct site *site = request->site;
	struct live *live = &site->live;
	struct live_row *row = &live->row;
	bool was_watched = watch_is_on(&row->watch), rings = false, falls;
	char reason[128];

	if (!is_of_champion(request, answer) || is_told_again(live, request, answer))
		return;
	watch_count(&row->counts, (double)answer->novelty, site->settings.novelty_threshold,
		answer->is_broken);
	forget_half(&row->counts);
	if (!answer->is_broken)
		rings = drift_add(&row->drift, (double)answer->novelty);
	if (rings) {
		raise_alarm(serve, site);
		need_soon(serve);
	}
	falls = watch_add(
		&row->watch, (double)answer->novelty, answer->is_broken, reason, sizeof(reason));
	/* A trial's first failures at once: they may be the last that is heard of it. */
	store_by_and_by(serve, site,
		rings || (was_watched && (!watch_is_on(&row->watch) ||
						 (answer->is_broken &&
							 row->watch.now.n_failed <= N_AT_ONCE))));
	if (!falls || clock_now_ns() < live->withdraw_ns)
		return;
	live->withdraw_ns = clock_now_ns() + WITHDRAW_RETRY_NS;
	changes_withdraw(serve, site, row->version, reason);
}
