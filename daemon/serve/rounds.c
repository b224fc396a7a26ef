/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/rounds.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "ops/log.h"
#include "serve/learnt.h"
#include "serve/need.h"
#include "serve/promotion.h"
#include "serve/reproduce.h"
#include "serve/serve.h"
#include "site/gate.h"
#include "site/hard_list.h"
#include "site/twins.h"

/* Deaths of the learner at the same step before a round is given up. */
#define MAX_DEATHS 5
#define MAX_TWINS_BYTES ((size_t)TWINS_MAX * 160)
#define STARVING_NS (60 * NS_PER_S)
#define RETRY_NS (5 * NS_PER_S)

/* ---- the queue */

static void job_free(struct round_job *job)
{
	free(job->again);
	free(job);
}

/* The learner has nothing to do: batches need not keep it away. */
static void set_free(struct serve *serve)
{
	struct rounds *rounds = &serve->rounds;

	hold_let_go(&serve->hold);
	rounds->sent = false;
	rounds->step = rounds->steps = 0;
}

static void pop(struct serve *serve)
{
	struct round_job *job = serve->rounds.head;

	serve->rounds.head = job->next;
	set_free(serve);
	job_free(job);
}

const struct round_job *rounds_find(const struct serve *serve, const char *site)
{
	for (const struct round_job *job = serve->rounds.head; job; job = job->next)
		if (strcmp(job->site, site) == 0)
			return job;
	return NULL;
}

static struct round_job *job_new(
	const struct site *site, uint32_t version, uint32_t steps, uint64_t seed)
{
	struct round_job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	memcpy(job->site, site->name, sizeof(job->site));
	job->version = version;
	job->steps = steps;
	job->seed = seed;
	return job;
}

static void append(struct serve *serve, struct round_job *job)
{
	struct round_job **at = &serve->rounds.head;

	while (*at)
		at = &(*at)->next;
	*at = job;
	rounds_kick(serve);
}

int rounds_add(struct serve *serve, struct site *site, uint32_t version, uint32_t steps,
	uint64_t seed, bool judge)
{
	struct round_job *job = job_new(site, version, steps, seed);

	if (!job)
		return -ENOMEM;
	job->judge = judge;
	append(serve, job);
	return 0;
}

int rounds_put_first(
	struct serve *serve, struct site *site, uint32_t version, const struct round_wish *wish)
{
	struct round_job *job = job_new(site, version, wish->steps, wish->seed);

	if (!job)
		return -ENOMEM;
	job->drifted = wish->drifted;
	job->next = serve->rounds.head;
	serve->rounds.head = job;
	return 0;
}

int rounds_add_again(struct serve *serve, struct site *site, const struct version_row *row,
	const struct prep *prep)
{
	struct round_job *job = job_new(site, row->version, row->steps, row->seed);

	if (!job)
		return -ENOMEM;
	job->again = malloc(sizeof(*job->again));
	if (!job->again) {
		free(job);
		return -ENOMEM;
	}
	*job->again = *row;
	job->prep = *prep;
	append(serve, job);
	return 0;
}

/* A paused site's rounds keep their place and their images, and wait. */
static bool may_run(const struct serve *serve, const struct round_job *job)
{
	const struct site *site = sites_find(&serve->sites, job->site);

	return !site || job->judge || job->again || site->hold == SITE_ACTIVE;
}

/* Brings the job whose turn it is to the head. @return false: there is none */
static bool choose(struct serve *serve)
{
	struct rounds *rounds = &serve->rounds;
	struct round_job **at = &rounds->head, *job;

	if (rounds->head && rounds->head->begun)
		return true;
	while (*at && !may_run(serve, *at))
		at = &(*at)->next;
	job = *at;
	if ((!job || rounds->n_commands >= TURNS_COMMANDS) && need_begin(serve)) {
		rounds->n_commands = 0;
		return true;
	}
	if (!job)
		return false;
	rounds->n_commands++;
	*at = job->next;
	job->next = rounds->head;
	rounds->head = job;
	return true;
}

/* ---- failures that state.db had no room for: its round would block the site for ever */

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct serve *serve = userdata;
	struct rounds *rounds = &serve->rounds;

	(void)usec;
	while (rounds->unstored) {
		struct round_failure *failure = rounds->unstored;
		int r = state_round_fail(
			serve->state, failure->site, failure->version, failure->reason);

		if (r < 0 && r != -ENOENT)
			break;
		log_notice("site %s: it is stored now that version %u failed", failure->site,
			failure->version);
		rounds->unstored = failure->next;
		free(failure);
	}
	if (rounds->unstored &&
		sd_event_source_set_time_relative(source, RETRY_NS / NS_PER_US) >= 0)
		(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	else
		rounds->retry = sd_event_source_disable_unref(rounds->retry);
	return 0;
}

static int keep_failure(struct serve *serve, const struct round_job *job, const char *reason)
{
	struct rounds *rounds = &serve->rounds;
	struct round_failure *failure = calloc(1, sizeof(*failure));
	int r = 0;

	if (!failure)
		return -ENOMEM;
	memcpy(failure->site, job->site, sizeof(failure->site));
	failure->version = job->version;
	(void)snprintf(failure->reason, sizeof(failure->reason), "%s", reason);
	if (!rounds->retry)
		r = sd_event_add_time_relative(serve->event, &rounds->retry, CLOCK_MONOTONIC,
			RETRY_NS / NS_PER_US, 0, on_retry, serve);
	if (r < 0) {
		free(failure);
		return r;
	}
	failure->next = rounds->unstored;
	rounds->unstored = failure;
	return 0;
}

/* The site's next life may have a version of the same number. */
static void forget_failures(struct rounds *rounds, const char *site)
{
	for (struct round_failure **at = &rounds->unstored; *at;) {
		struct round_failure *failure = *at;

		if (site && strcmp(failure->site, site) != 0) {
			at = &failure->next;
			continue;
		}
		*at = failure->next;
		free(failure);
	}
}

/* A version that is learnt once more keeps its row, whatever comes of it. */
static int end_row(struct serve *serve, const struct round_job *job, const char *reason)
{
	return job->again ? state_reproduce_end(serve->state, job->site)
			  : state_round_fail(serve->state, job->site, job->version, reason);
}

static void fail(struct serve *serve, const char *reason)
{
	struct round_job *job = serve->rounds.head;
	int r;

	log_write(LOG_ERR, NULL, "site %s: version %u failed: %s", job->site, job->version, reason);
	serve->rounds.n_failed++;
	r = end_row(serve, job, reason);
	if (r < 0 && r != -ENOENT && !job->again) {
		log_error("site %s: cannot store that version %u failed, it is tried again: %s",
			job->site, job->version, strerror(-r));
		r = keep_failure(serve, job, reason);
		if (r < 0)
			log_error("site %s: learns nothing until kamend is started again: %s",
				job->site, strerror(-r));
	} else {
		serve_log_audit(serve);
	}
	control_learn_failed(serve, job->site, job->version, reason);
	admission_trim(serve, sites_find(&serve->sites, job->site));
	pop(serve);
	rounds_kick(serve);
}

void rounds_cancel(struct serve *serve, const char *site, const char *reason)
{
	struct rounds *rounds = &serve->rounds;

	if (!reason)
		forget_failures(rounds, site);
	for (struct round_job **at = &rounds->head; *at;) {
		struct round_job *job = *at;

		if (strcmp(job->site, site) != 0) {
			at = &job->next;
			continue;
		}
		control_learn_failed(serve, job->site, job->version, reason ? reason : "cancelled");
		if (job == rounds->head && rounds->sent) {
			Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
			Kamen__SiteName cancel = KAMEN__SITE_NAME__INIT;

			cancel.site = job->site;
			message.kind_case = KAMEN__ROLE_MESSAGE__KIND_CANCEL;
			message.cancel = &cancel;
			(void)role_post(&serve->roles[ROLE_LEARNER], &message, -1);
			set_free(serve);
		}
		*at = job->next;
		if (reason && end_row(serve, job, reason) < 0 &&
			(job->again || keep_failure(serve, job, reason) < 0))
			log_error("site %s: version %u was stopped, which is not stored", site,
				job->version);
		job_free(job);
	}
	admission_trim(serve, sites_find(&serve->sites, site));
	rounds_kick(serve);
}

/* ---- to the learner */

static void fill_prep(Kamen__Prep *out, struct prep *prep)
{
	kamen__prep__init(out);
	out->input_px = prep->input_px;
	out->resize = prep->resize == PREP_SQUASH ? (char *)"squash" : (char *)"crop";
	out->crop = prep->crop;
	out->n_mean = 3;
	out->mean = prep->mean;
	out->n_std = 3;
	out->std = prep->std;
}

/* Only where room is short: what is deleted, no version can be learnt from again. */
static double thin_above(struct serve *serve, const struct round_job *job)
{
	const struct site *site = sites_find(&serve->sites, job->site);
	struct site_row row;

	if (!site || job->judge || job->again ||
		state_site_get(serve->state, job->site, &row) < 0 ||
		row.replay_bytes <= site->settings.replay_bytes / 2)
		return 0;
	return site->settings.replay_thin;
}

/* A site's own recipe comes last. */
static void write_changes(const struct site_settings *settings, char ret_text[320])
{
	char experts[64] = "";

	if (settings->experts > 0)
		(void)snprintf(experts, sizeof(experts), "experts=%u cascade=%s ",
			settings->experts, settings->cascade_mode);
	(void)snprintf(ret_text, 320, "%s%s", experts, settings->recipe);
}

static int post_job(struct serve *serve, struct round_job *job)
{
	char changes[320], manifest[512], replay[512], round[512], judge[512], champion[512],
		name[48];
	const struct site *site = sites_find(&serve->sites, job->site);
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__LearnJob learn = KAMEN__LEARN_JOB__INIT;
	struct version_row row;
	Kamen__Prep prep;
	int r;

	(void)snprintf(name, sizeof(name), "masks/%u.manifest", job->version);
	r = state_path(serve->state, manifest, job->site, job->again ? name : "round/manifest");
	if (r >= 0)
		r = state_path(serve->state, replay, job->site, "replay");
	if (r >= 0)
		r = state_path(serve->state, round, job->site, job->again ? "again" : "round");
	if (r >= 0)
		r = state_path(serve->state, judge, job->site, "round/import.kmask");
	(void)snprintf(name, sizeof(name), "masks/%u", site ? site->champion : 0);
	if (r >= 0)
		r = state_mask_path(serve->state, champion, job->site, name);
	if (r >= 0)
		r = state_version_get(serve->state, job->site, job->version, &row);
	if (r < 0)
		return r;
	fill_prep(&prep, &job->prep);
	learn.site = job->site;
	learn.version = job->version;
	learn.prep = &prep;
	learn.manifest = manifest;
	learn.replay = replay;
	learn.round = round;
	learn.has_steps = job->steps > 0;
	learn.steps = job->steps;
	learn.has_seed = true;
	learn.seed = job->seed;
	learn.objective = row.objective[0] ? row.objective : NULL;
	if (site) {
		write_changes(&site->settings, changes);
		learn.changes = changes;
	}
	learn.has_memory = true;
	learn.memory = serve->config.learner_memory;
	learn.precision = (char *)precision_name(inference_precision(serve->inference));
	learn.judge_mask = job->judge ? judge : NULL;
	learn.champion = site && site->champion > 0 ? champion : NULL;
	learn.recipe = job->again ? job->again->recipe_text : NULL;
	learn.thin = thin_above(serve, job);
	learn.has_thin = learn.thin > 0;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_LEARN;
	message.learn = &learn;
	return role_post(&serve->roles[ROLE_LEARNER], &message, -1);
}

void rounds_kick(struct serve *serve)
{
	struct rounds *rounds = &serve->rounds;
	struct site *site;
	int r;

	if (rounds->sent || !serve->roles[ROLE_LEARNER].ready || !choose(serve))
		return;
	site = sites_find(&serve->sites, rounds->head->site);
	if (!site) {
		fail(serve, "its site is gone");
		return;
	}
	if (!rounds->head->again)
		rounds->head->prep = site->prep;
	r = post_job(serve, rounds->head);
	if (r < 0) {
		fail(serve, strerror(-r));
		return;
	}
	rounds->turn += !rounds->head->begun;
	rounds->sent = rounds->head->begun = true;
	hold_watch(&serve->hold, serve->roles[ROLE_LEARNER].pid);
	rounds->heard_ns = clock_now_ns();
	log_info("site %s: version %u is being learnt", site->name, rounds->head->version);
	serve_notify_status(serve);
}

void rounds_lost(struct serve *serve)
{
	struct rounds *rounds = &serve->rounds;

	if (!rounds->head || !rounds->sent)
		return;
	/* It goes on from its checkpoint when the learner is back. */
	rounds->sent = false;
	if (++rounds->head->n_deaths >= MAX_DEATHS)
		fail(serve, "the learner died over it again and again");
}

static struct round_job *last(struct rounds *rounds)
{
	struct round_job *job = rounds->head;

	while (job->next)
		job = job->next;
	return job;
}

int rounds_open(struct serve *serve)
{
	_cleanup_(freep) struct version_row *rows = NULL;
	uint32_t n = 0;
	int r;

	r = state_round_list(serve->state, &rows, &n);
	for (uint32_t i = 0; i < n && r >= 0; i++) {
		struct site *site = sites_find(&serve->sites, rows[i].site);
		char import[512];
		bool judge;

		r = state_path(serve->state, import, rows[i].site, "round/import.kmask");
		if (r < 0)
			return r;
		judge = access(import, F_OK) == 0;
		if (!site)
			continue;
		r = rounds_add(serve, site, rows[i].version, rows[i].steps, rows[i].seed, judge);
		if (r >= 0)
			last(&serve->rounds)->drifted = rows[i].drifted;
	}
	return r;
}

void rounds_close(struct serve *serve)
{
	serve->rounds.retry = sd_event_source_disable_unref(serve->rounds.retry);
	forget_failures(&serve->rounds, NULL);
	while (serve->rounds.head)
		pop(serve);
}

/* ---- from the learner */

static bool is_current(const struct rounds *rounds, const char *site, uint32_t version)
{
	return rounds->head && rounds->sent && strcmp(rounds->head->site, site) == 0 &&
	       rounds->head->version == version;
}

void rounds_progress(struct serve *serve, const Kamen__Progress *progress)
{
	struct rounds *rounds = &serve->rounds;

	if (!is_current(rounds, progress->site, progress->version))
		return;
	rounds->heard_ns = clock_now_ns();
	/* Who resumes does some steps again: they are no step further. */
	if (progress->step > rounds->head->step) {
		rounds->head->n_deaths = 0;
		rounds->head->step = progress->step;
	}
	rounds->step = progress->step;
	rounds->steps = progress->steps;
	rounds->loss_ratio = progress->loss_ratio;
	rounds->density = progress->density;
	rounds->seconds_left = progress->seconds_left;
	control_learn_progress(serve, progress);
}

static int store(struct serve *serve, struct version_row *row)
{
	int r;

	gate_decide(row);
	row->state = row->passed ? VERSION_CANDIDATE : VERSION_HELD;
	r = state_round_end(serve->state, row);
	if (r < 0)
		return r;
	log_notice("site %s: version %u %s (density %.5f, loss ratio %.3f)%s%s", row->site,
		row->version, row->passed ? "passed the gate" : "is held", row->density,
		row->loss_ratio, row->passed ? "" : ": ", row->reasons);
	serve_log_audit(serve);
	return 0;
}

/* Of who brings them: no list, no thinning. */
static int read_twins(struct serve *serve, const char *site, struct twins *ret_twins)
{
	_cleanup_(freep) void *data = NULL;
	char path[512];
	size_t n;
	int r;

	r = state_path(serve->state, path, site, "round/candidate.twins");
	if (r >= 0)
		r = blob_read(AT_FDCWD, path, MAX_TWINS_BYTES, &data, &n);
	if (r == -ENOENT)
		return 0;
	if (r >= 0)
		r = twins_read(ret_twins, data, n);
	return r;
}

/* Of who brings none: what was known goes on. */
static int read_hard(struct serve *serve, const char *site, struct hard_list *ret_list)
{
	_cleanup_(freep) void *data = NULL;
	char path[512];
	size_t n;
	int r;

	r = state_path(serve->state, path, site, "round/candidate.hard");
	if (r >= 0)
		r = blob_read(AT_FDCWD, path, HARD_LIST_MAX_BYTES, &data, &n);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : hard_list_read(ret_list, data, n);
}

/* The round is over: what it has shown to be too much, and what has become too old. */
static void tidy(struct serve *serve, struct site *site, const struct twins *twins)
{
	uint32_t n_thinned = 0, n_pruned = 0;
	int r = 0;

	if (twins->n > 0)
		r = state_thin(serve->state, site->name, twins, site->settings.learn_min_images,
			&n_thinned);
	if (r < 0)
		log_error("site %s: cannot thin its replay store: %s", site->name, strerror(-r));
	r = state_version_prune(serve->state, site->name, site->settings.keep_versions,
		site->live.shadow ? site->live.shadow->version : 0, &n_pruned);
	if (r < 0)
		log_error("site %s: cannot remove old versions: %s", site->name, strerror(-r));
	if (n_thinned > 0 || n_pruned > 0)
		log_info("site %s: %u near-duplicates and %u old versions are gone", site->name,
			n_thinned, n_pruned);
}

/* From here on the round is in state.db, whatever becomes of it in memory. */
static void settle(struct serve *serve, struct site *site, struct version_row *row)
{
	struct rounds *rounds = &serve->rounds;
	/* What has drifted may be a fault: that it is usual now is for a person to say. */
	bool may_promote = !rounds->head->drifted;
	int r, q;

	rounds->n_done++;
	/* First what the round wrote: a promotion takes the snapshot that it has checked. */
	r = site_renew(serve, site);
	/* Nothing of it is held any more, and the next image may not come for long. */
	admission_trim(serve, site);
	pop(serve);
	if (may_promote && promotion_is_due(serve, site, row) &&
		changes_promote_learnt(serve, site, row->version) >= 0)
		return;
	q = site_publish(serve, site);
	r = r < 0 ? r : q;
	if (r < 0)
		control_learn_unserved(serve, row, r);
	else
		control_learn_done(serve, row);
}

static void finish_again(struct serve *serve, const Kamen__LearnDone *done)
{
	struct rounds *rounds = &serve->rounds;
	const struct version_row *row = rounds->head->again;
	int r;

	log_notice("site %s: version %u was learnt again: the bits are %s", row->site, row->version,
		reproduce_is_equal(row, done) ? "the same" : "others");
	r = state_reproduce_end(serve->state, row->site);
	if (r < 0)
		log_error("site %s: cannot let its images go: %s", row->site, strerror(-r));
	reproduce_tell(serve, row, done);
	admission_trim(serve, sites_find(&serve->sites, row->site));
	pop(serve);
	rounds_kick(serve);
}

void rounds_done(struct serve *serve, const Kamen__LearnDone *done)
{
	_cleanup_(hard_list_done) struct hard_list hard = { 0 };
	_cleanup_(twins_done) struct twins twins = { 0 };
	struct rounds *rounds = &serve->rounds;
	struct diag diag = { .text = "" };
	struct version_row row;
	struct site *site;
	int r;

	if (!is_current(rounds, done->site, done->version))
		return;
	site = sites_find(&serve->sites, done->site);
	if (rounds->head->again) {
		finish_again(serve, done);
		return;
	}
	r = site ? learnt_read(&row, serve, rounds->head, done, &diag) : -ENOENT;
	if (r >= 0 && read_twins(serve, done->site, &twins) < 0)
		log_warning("site %s: its list of near-duplicates is damaged", done->site);
	if (r >= 0 && read_hard(serve, done->site, &hard) < 0)
		log_warning("site %s: its list of hard images is damaged", done->site);
	if (r >= 0)
		r = store(serve, &row);
	if (r < 0) {
		fail(serve, diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	/* Before the store is trimmed, which may go by it. */
	if (hard.n > 0)
		hard_store_take(serve, site, &hard);
	settle(serve, site, &row);
	tidy(serve, site, &twins);
	serve_notify_status(serve);
	rounds_kick(serve);
}

void rounds_failed(struct serve *serve, const Kamen__LearnFailed *failed)
{
	if (is_current(&serve->rounds, failed->site, failed->version))
		fail(serve, failed->reason);
}

void rounds_describe(const struct serve *serve, char *ret_text, size_t n_bytes)
{
	const struct rounds *rounds = &serve->rounds;

	if (!serve->config.learner_on)
		(void)snprintf(ret_text, n_bytes, "disabled");
	else if (!serve->roles[ROLE_LEARNER].ready)
		(void)snprintf(ret_text, n_bytes, "restarting");
	/* What waits for a paused site is not being learnt. */
	else if (!rounds->sent)
		(void)snprintf(ret_text, n_bytes, "idle");
	else if (clock_now_ns() - rounds->heard_ns > STARVING_NS)
		(void)snprintf(ret_text, n_bytes, "starving %s", rounds->head->site);
	else
		(void)snprintf(ret_text, n_bytes, "learning %s", rounds->head->site);
}
