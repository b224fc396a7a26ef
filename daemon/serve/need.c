/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/need.h"

#include <errno.h>

#include "ops/log.h"
#include "serve/serve.h"
#include "serve/wish.h"

#define LOOK_NS NS_PER_S
/* Schedules go by the wall clock, which may be set meanwhile. */
#define LONGEST_NS (3600 * NS_PER_S)
#define RETRY_NS (60 * NS_PER_S)

/* Not later than that. */
static void arm(struct serve *serve, uint64_t wait_ns)
{
	struct rounds *rounds = &serve->rounds;
	uint64_t at_ns;

	if (!rounds->look)
		return;
	wait_ns = wait_ns < LOOK_NS ? LOOK_NS : wait_ns > LONGEST_NS ? LONGEST_NS : wait_ns;
	at_ns = clock_now_ns() + wait_ns;
	if (rounds->look_ns > 0 && rounds->look_ns <= at_ns)
		return;
	if (sd_event_source_set_time_relative(rounds->look, wait_ns / NS_PER_US) >= 0 &&
		sd_event_source_set_enabled(rounds->look, SD_EVENT_ONESHOT) >= 0)
		rounds->look_ns = at_ns;
}

void need_soon(struct serve *serve)
{
	arm(serve, LOOK_NS);
}

static bool may_begin_by_itself(const struct site *site)
{
	const struct site_settings *s = &site->settings;

	return s->learn_after > 0 || s->learn_every > 0 || s->learn_at[0] || s->learn_on_drift;
}

static void look_at(
	struct serve *serve, struct site *site, const struct site_need *need, uint64_t now_us)
{
	struct live_row *live = &site->live.row;
	bool drifts = live->drift.alarm != DRIFT_NONE;
	uint64_t now_ns = clock_now_ns(), wait_us;

	if (!drifts)
		live->drift_learnt = false;

	/* Whose round waits, by command, has its turn already. */
	site->due = rounds_find(serve, site->name) ? DUE_NOT
						   : turns_due(&site->settings, need,
							     drifts && !live->drift_learnt, now_us);
	if (site->due == DUE_NOT)
		site->due_since = 0;
	else if (site->due_since == 0)
		site->due_since = serve->rounds.turn + 1;
	site->n_new = need->n_new;
	site->n_images = need->n_images;
	/* Who is due waits for the learner, which has events of its own, or for another try. */
	wait_us = site->due == DUE_NOT ? turns_wait_us(&site->settings, need, now_us) : UINT64_MAX;
	if (site->due != DUE_NOT && site->retry_ns > now_ns)
		arm(serve, site->retry_ns - now_ns);
	if (wait_us < UINT64_MAX)
		arm(serve, wait_us < LONGEST_NS / NS_PER_US ? wait_us * NS_PER_US : LONGEST_NS);
}

/* Marks the sites that are due. */
static int look(struct serve *serve)
{
	_cleanup_(freep) struct site_need *needs = NULL;
	uint64_t now_us = clock_wall_us();
	uint32_t n = 0;
	bool any = false;
	int r;

	for (uint32_t i = 0; i < serve->sites.n; i++) {
		serve->sites.sites[i]->due = DUE_NOT;
		any = any || may_begin_by_itself(serve->sites.sites[i]);
	}
	if (!any || !serve->config.learner_on)
		return 0;
	r = state_need_list(serve->state, &needs, &n);
	for (uint32_t i = 0; i < n && r >= 0; i++) {
		struct site *site = sites_find(&serve->sites, needs[i].site);

		if (site)
			look_at(serve, site, &needs[i], now_us);
	}
	/* Nothing else would look again at a site that only waits for its hour. */
	if (r < 0)
		arm(serve, RETRY_NS);
	return r;
}

/* @return which site, n: none, or -ENOMEM */
static int64_t choose(struct serve *serve)
{
	_cleanup_(freep) struct turn *turns = calloc(serve->sites.n + 1, sizeof(*turns));
	uint64_t now_ns = clock_now_ns();

	if (!turns) {
		arm(serve, RETRY_NS);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < serve->sites.n; i++) {
		const struct site *site = serve->sites.sites[i];

		turns[i] = (struct turn){ site->retry_ns > now_ns ? DUE_NOT : site->due,
			site->due_since, site->n_new, site->n_images };
	}
	return turns_choose(turns, serve->sites.n);
}

static int begin(struct serve *serve, struct site *site, struct diag *diag)
{
	struct round_wish wish;
	uint32_t version;
	char why[96];
	int r;

	(void)snprintf(why, sizeof(why), "%s, %llu new images", due_name(site->due),
		(unsigned long long)site->n_new);
	r = wish_make(&wish, site, NULL, why, diag);
	if (r < 0)
		return r;
	/* Whatever it was due for, it is made of what the alarm is about. */
	wish.drifted = site->live.row.drift.alarm != DRIFT_NONE;
	admission_commit(serve);
	r = state_round_begin(serve->state, site->name, &wish, &version, diag);
	if (r < 0)
		return r;
	log_notice("site %s: version %u is due (%s)", site->name, version, why);
	serve_log_audit(serve);
	return rounds_put_first(serve, site, version, &wish);
}

/* @return whether the site's round has begun; if not, it is not tried again for a while */
static bool try_site(struct serve *serve, struct site *site)
{
	struct diag diag = { .text = "" };
	int r = begin(serve, site, &diag);

	site->due = DUE_NOT;
	site->due_since = 0;
	if (r >= 0) {
		site->live.row.drift_learnt = site->live.row.drift.alarm != DRIFT_NONE;
		if (site->live.row.drift_learnt)
			live_store(serve, site);
		return true;
	}
	site->retry_ns = clock_now_ns() + RETRY_NS;
	arm(serve, RETRY_NS);
	log_error("site %s: its round could not begin: %s", site->name,
		diag.text[0] ? diag.text : strerror(-r));
	return false;
}

bool need_begin(struct serve *serve)
{
	int64_t at;
	int r;

	r = look(serve);
	if (r < 0) {
		log_error("cannot see which site should learn: %s", strerror(-r));
		return false;
	}
	/* Who cannot begin does not keep the others waiting; each is tried once. */
	while ((at = choose(serve)) >= 0 && at < serve->sites.n)
		if (try_site(serve, serve->sites.sites[at]))
			return true;
	return false;
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct serve *serve = userdata;

	(void)source;
	(void)usec;
	serve->rounds.look_ns = 0;
	/* Who becomes due while another learns has waited since then. */
	(void)look(serve);
	if (!serve->rounds.sent && !serve->draining)
		rounds_kick(serve);
	return 0;
}

int need_open(struct serve *serve)
{
	int r;

	if (!serve->config.learner_on)
		return 0;
	r = sd_event_add_time_relative(serve->event, &serve->rounds.look, CLOCK_MONOTONIC,
		LOOK_NS / NS_PER_US, 0, on_look, serve);
	if (r >= 0)
		serve->rounds.look_ns = clock_now_ns() + LOOK_NS;
	return r;
}

void need_close(struct serve *serve)
{
	serve->rounds.look = sd_event_source_disable_unref(serve->rounds.look);
}
