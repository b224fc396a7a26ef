/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/live.h"

#include <math.h>

#include "ops/log.h"
#include "serve/promotion.h"
#include "serve/serve.h"

#define WITHDRAW_RETRY_NS (10 * NS_PER_S)

void live_champion(struct site *site, const struct serving *serving)
{
	uint32_t n_held = serving->reference ? serving->reference->n_held : 0;
	struct live *live = &site->live;

	if (live->is_set && live->version == serving->version && live->drift.n_held == n_held)
		return;
	watch_stop(&live->watch);
	if (live->promoted > 0 && live->promoted == serving->version &&
		site->settings.watch_answers > 0)
		watch_begin(&live->watch, serving->version, site->settings.watch_answers, n_held,
			site->settings.novelty_threshold, &live->counts);
	live->promoted = 0;
	live->is_set = true;
	live->withdraw_ns = 0;
	live->version = serving->version;
	live->counts = (struct watch_counts){ 0 };
	drift_reset(&live->drift, n_held);
}

static void raise_alarm(struct site *site)
{
	const struct drift *drift = &site->live.drift;

	site->live.n_alarms++;
	log_warning(
		"site %s: drift (%s) after %llu answers of version %u: mean novelty %.3f, .5 is "
		"what held-out images have; what counts as normal stays as it is",
		site->name, drift_name(drift->alarm), (unsigned long long)drift->alarm_n,
		site->live.version, drift->mean);
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

void live_answer(struct serve *serve, const struct request *request, const struct answer *answer)
{
	struct site *site = request->site;
	struct live *live = &site->live;
	char reason[128];

	/* Answers of other versions and sizes say nothing about the champion. */
	if (request->wire.verb != SHM_INFER || site->gone || answer->version != live->version ||
		(request->serving && request->wire.mask != SHM_MASK_CHAMPION) ||
		(request->wire.px != SHM_PX_SITE && request->wire.px != site->prep.input_px) ||
		(answer->code < 0 && !answer->is_broken))
		return;
	watch_count(&live->counts, (double)answer->novelty, site->settings.novelty_threshold,
		answer->is_broken);
	forget_half(&live->counts);
	if (!answer->is_broken && drift_add(&live->drift, (double)answer->novelty))
		raise_alarm(site);
	if (!watch_add(&live->watch, (double)answer->novelty, answer->is_broken, reason,
		    sizeof(reason)) ||
		clock_now_ns() < live->withdraw_ns)
		return;
	live->withdraw_ns = clock_now_ns() + WITHDRAW_RETRY_NS;
	promotion_withdraw(serve, site, live->version, reason);
}
