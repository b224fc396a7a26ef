/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/admission.h"

#include <errno.h>
#include <stddef.h>

#include "ops/log.h"
#include "serve/need.h"
#include "serve/serve.h"

/* ---- rows */

static void copy_text(char *ret_text, size_t n_bytes, const char *text)
{
	(void)snprintf(ret_text, n_bytes, "%s", text ? text : "");
}

/* Ingest is our own, but it reads hostile bytes: what it says is checked like anybody's. */
static int read_row(struct image_row *ret_row, const Kamen__Admit *admit)
{
	if (wire_site_name_check(admit->site) < 0 || admit->hash.len != DIGEST_BYTES)
		return -EBADMSG;
	if (admit->blob[0] == '\0' || admit->blob[0] == '.' || strchr(admit->blob, '/') ||
		strlen(admit->blob) >= sizeof(ret_row->blob))
		return -EBADMSG;
	*ret_row = (struct image_row){
		.n_bytes = admit->n_bytes,
		.width = admit->width,
		.height = admit->height,
		.n_channels = admit->n_channels,
		.capture_us = admit->capture_us,
	};
	memcpy(ret_row->hash.bytes, admit->hash.data, DIGEST_BYTES);
	copy_text(ret_row->site, sizeof(ret_row->site), admit->site);
	copy_text(ret_row->blob, sizeof(ret_row->blob), admit->blob);
	copy_text(ret_row->source, sizeof(ret_row->source), admit->source);
	copy_text(ret_row->sender, sizeof(ret_row->sender), admit->sender);
	copy_text(ret_row->part_id, sizeof(ret_row->part_id), admit->part_id);
	return 0;
}

static void reply_ingest(
	struct serve *serve, uint64_t id, Kamen__Outcome outcome, const char *reason)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__AdmitReply reply = KAMEN__ADMIT_REPLY__INIT;

	reply.id = id;
	reply.outcome = outcome;
	reply.reason = (char *)reason;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_ADMITTED;
	message.admitted = &reply;
	/* One that died meanwhile asks again, and is told that it is a duplicate. */
	(void)role_post(&serve->roles[ROLE_INGEST], &message, -1);
}

static void tell(struct serve *serve, struct admitted *row, Kamen__Outcome outcome, int code,
	const char *reason)
{
	struct request *request;

	reply_ingest(serve, row->id, outcome, reason);
	/* Looked up only now: its deadline or its client may have gone while the row waited. */
	request = decoder_take(serve, row->id);
	if (request) {
		request->answer.code = code;
		request->answer.outcome = outcome;
		request->answer.reason = reason;
		request_complete(serve, request);
	}
	site_unref(TAKE_PTR(row->site));
}

void admission_trim(struct serve *serve, struct site *site)
{
	int r;

	/* Which images are hard is being told: it trims when that is over. */
	if (!site || site->gone || hard_store_waits(serve, site))
		return;
	r = state_evict(serve->state, site->name, site->settings.replay_bytes,
		strcmp(site->settings.replay, "hard") == 0);
	if (r < 0)
		log_error("site %s: cannot trim its replay store: %s", site->name, strerror(-r));
}

/* Nobody knows what the disk has of them: their rows go before ingest deletes their blobs. */
static void take_back(struct serve *serve, const struct admission_batch *batch)
{
	for (uint32_t i = 0; i < batch->n; i++) {
		const struct admitted *row = &batch->rows[i];

		if (row->outcome == KAMEN__OUTCOME__ACCEPTED)
			(void)state_take_back(serve->state, row->site->name, &row->hash);
	}
}

static void tell_all(struct serve *serve, struct admission_batch *batch, int r)
{
	struct admission *a = &serve->admission;
	struct site *last = NULL;
	uint32_t n = batch->n;

	batch->n = 0;
	if (r < 0) {
		a->n_failed++;
		log_error("cannot commit %u images: %s", n, strerror(-r));
	} else {
		a->n_commits++;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct admitted *row = &batch->rows[i];

		if (r >= 0 && row->site != last) {
			last = row->site;
			admission_trim(serve, last);
		}
		if (r >= 0) {
			a->n_accepted += row->outcome == KAMEN__OUTCOME__ACCEPTED;
			a->n_duplicates += row->outcome == KAMEN__OUTCOME__DUPLICATE;
			tell(serve, row, row->outcome, 0, NULL);
		} else {
			tell(serve, row, KAMEN__OUTCOME__REJECTED, r, "state.db cannot be written");
		}
	}
	if (r >= 0 && n > 0)
		need_soon(serve);
	if (batch->is_audited)
		serve_log_audit(serve);
	batch->is_audited = false;
	serve_check_drained(serve);
}

/* ---- the disk, by a thread of its own */

static bool sync_disk(struct errand *errand)
{
	struct admission *a =
		(struct admission *)((char *)errand - offsetof(struct admission, sync));

	a->sync_r = state_disk_sync(a->disk);
	return false;
}

static bool check_disk(struct errand *errand)
{
	struct admission *a =
		(struct admission *)((char *)errand - offsetof(struct admission, checkpoint));

	/* What cannot be written back now stays in the log, where it is as safe. */
	(void)state_disk_checkpoint(a->disk);
	return false;
}

static void on_checked(struct errand *errand)
{
	struct admission *a =
		(struct admission *)((char *)errand - offsetof(struct admission, checkpoint));

	a->is_checking = false;
}

static void begin_commit(struct serve *serve);

static void on_synced(struct errand *errand)
{
	struct serve *serve =
		(struct serve *)((char *)errand - offsetof(struct serve, admission.sync));
	struct admission *a = &serve->admission;

	a->is_writing = false;
	if (a->sync_r < 0)
		take_back(serve, a->writing);
	tell_all(serve, a->writing, a->sync_r);
	if (a->is_due)
		begin_commit(serve);
	if (!a->is_checking && state_disk_is_due(a->disk)) {
		a->is_checking = true;
		a->checkpoint = (struct errand){ .run = check_disk, .done = on_checked };
		hand_give(a->hand, &a->checkpoint);
	}
}

static void begin_commit(struct serve *serve)
{
	struct admission *a = &serve->admission;
	struct admission_batch *batch = a->open;
	int r;

	a->is_due = a->is_writing;
	if (a->is_writing)
		return;
	if (a->timer)
		(void)sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
	if (batch->n == 0 && !state_batch_open(serve->state))
		return;
	r = state_commit(serve->state);
	if (r < 0 || !a->disk) {
		tell_all(serve, batch, r);
		return;
	}
	a->open = a->writing;
	a->writing = batch;
	a->is_writing = true;
	a->sync = (struct errand){ .run = sync_disk, .done = on_synced };
	hand_give(a->hand, &a->sync);
}

void admission_commit(struct serve *serve)
{
	struct admission *a = &serve->admission;

	do {
		begin_commit(serve);
		hand_settle(a->hand);
	} while (a->is_writing || a->open->n > 0);
}

void admission_init(struct admission *admission)
{
	*admission = (struct admission){ .n_failed = 0 };
	admission->open = &admission->batches[0];
	admission->writing = &admission->batches[1];
}

int admission_open(struct serve *serve, struct diag *diag)
{
	struct admission *a = &serve->admission;
	int r = hand_new(&a->hand, serve->event, "kamend-disk", 0);

	if (r < 0)
		return diag_set(diag, -r, "no thread for the disk: %s", strerror(-r));
	return state_disk_open(&a->disk, serve->state, diag);
}

static int on_commit_due(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	begin_commit(userdata);
	return 0;
}

static int plan_commit(struct serve *serve)
{
	struct admission *a = &serve->admission;
	int r;

	if (!a->timer)
		return sd_event_add_time_relative(serve->event, &a->timer, CLOCK_MONOTONIC,
			SERVE_COMMIT_NS / NS_PER_US, 1, on_commit_due, serve);
	r = sd_event_source_set_time_relative(a->timer, SERVE_COMMIT_NS / NS_PER_US);
	if (r < 0)
		return r;
	return sd_event_source_set_enabled(a->timer, SD_EVENT_ONESHOT);
}

/* Whoever comes later does not put off whom the timer was set for. */
static void commit_soon(struct serve *serve)
{
	struct admission *a = &serve->admission;
	int enabled = SD_EVENT_OFF;

	if (a->timer)
		(void)sd_event_source_get_enabled(a->timer, &enabled);
	if (enabled == SD_EVENT_OFF && plan_commit(serve) < 0)
		admission_commit(serve);
}

/* Rows have set their own timer. */
void admission_joined(struct serve *serve)
{
	if (serve->admission.open->n == 0)
		commit_soon(serve);
}

static void reject(struct serve *serve, uint64_t id, int code, const char *reason)
{
	struct admitted row = { .id = id };

	serve->admission.n_rejected++;
	tell(serve, &row, KAMEN__OUTCOME__REJECTED, code, reason);
}

void admission_admit(struct serve *serve, const Kamen__Admit *admit)
{
	struct admission *a = &serve->admission;
	struct image_row row;
	struct site *site;
	int r;

	r = read_row(&row, admit);
	if (r < 0) {
		reject(serve, admit->id, r, "a row that makes no sense");
		return;
	}
	site = sites_find(&serve->sites, row.site);
	if (!site) {
		reject(serve, admit->id, -ENOENT, "no such site");
		return;
	}
	r = state_admit(serve->state, &row);
	if (r < 0) {
		reject(serve, admit->id, r,
			r == -EROFS ? "the site is frozen: it takes no images" : strerror(-r));
		return;
	}
	a->open->rows[a->open->n++] = (struct admitted){
		.id = admit->id,
		.outcome = r > 0 ? KAMEN__OUTCOME__ACCEPTED : KAMEN__OUTCOME__DUPLICATE,
		.site = site_ref(site),
		.hash = row.hash,
	};
	if (a->open->n == SERVE_COMMIT_MOST)
		admission_commit(serve);
	else if (a->open->n == SERVE_COMMIT_ROWS)
		begin_commit(serve);
	else if (a->open->n == 1)
		commit_soon(serve);
}

void admission_audit(
	struct serve *serve, const struct site *site, const char *what, const char *detail)
{
	struct admission *a = &serve->admission;
	int r = state_audit_soon(serve->state, site->name, what, detail);

	if (r < 0) {
		log_error("audit: %s is not recorded: %s", what, strerror(-r));
		return;
	}
	a->open->is_audited = true;
	admission_joined(serve);
}

/* ---- counts */

static void count(struct serve *serve, const char *site, uint64_t n_rejected, uint64_t n_gaps)
{
	if (!sites_find(&serve->sites, site))
		return;
	if (state_count_refused(serve->state, site, n_rejected, n_gaps) < 0)
		log_error("site %s: cannot count what was refused", site);
	else
		admission_joined(serve);
}

void admission_refused(struct serve *serve, const Kamen__Refused *refused)
{
	serve->admission.n_rejected += refused->n;
	count(serve, refused->site, refused->n, 0);
	/* Who pushed it gets the reason; for a spool or a stream it can only be said here. */
	if (!refused->has_id)
		log_warning("site %.64s: refused %.128s from %.16s: %.200s", refused->site,
			refused->what ? refused->what : "an image", refused->source,
			refused->reason ? refused->reason : "no reason given");
	decoder_refused(serve, refused);
}

void admission_gap(struct serve *serve, const Kamen__Gap *gap)
{
	struct site *site = sites_find(&serve->sites, gap->site);
	char detail[128];

	serve->admission.n_gaps += gap->n_lost;
	(void)snprintf(detail, sizeof(detail), "%llu frames of %.64s",
		(unsigned long long)gap->n_lost, gap->sender);
	if (site)
		feed_event(serve, site, "gap", detail);
	count(serve, gap->site, 0, gap->n_lost);
	log_warning("site %.64s: sender %.64s lost %llu frames on the way", gap->site, gap->sender,
		(unsigned long long)gap->n_lost);
}

/* ---- what ingest watches */

struct site_entry {
	Kamen__IngestSite message;
	char spool[512], replay[512];
};

static int fill_entry(struct serve *serve, struct site_entry *entry, const struct site *site)
{
	Kamen__IngestSite *m = &entry->message;
	const struct site_settings *set = &site->settings;
	int r;

	kamen__ingest_site__init(m);
	r = state_path(serve->state, entry->replay, site->name, "replay");
	if (r < 0)
		return r;
	m->site = (char *)site->name;
	m->shorter_px = 2 * site->prep.input_px;
	m->replay = entry->replay;
	m->has_settle_ms = true;
	m->settle_ms = set->settle_ms;
	/* What a frozen site is sent stays where it is until the site is resumed. */
	if (site->hold == SITE_FROZEN)
		return 0;
	if (set->spool_on) {
		m->spool = entry->spool;
		if (set->spool[0])
			copy_text(entry->spool, sizeof(entry->spool), set->spool);
		else
			(void)snprintf(entry->spool, sizeof(entry->spool), "%s/spool/%s",
				serve->boot->state_dir, site->name);
	}
	if (set->zmq_pull[0])
		m->zmq_pull = (char *)set->zmq_pull;
	return 0;
}

uint32_t admission_fit(Kamen__IngestSite *const *rows, uint32_t n)
{
	const size_t framing = 16; /* of a row, and generously of the message around them */
	size_t n_bytes = framing;
	uint32_t fit = 0;

	for (; fit < n; fit++) {
		n_bytes += kamen__ingest_site__get_packed_size(rows[fit]) + framing;
		if (n_bytes > WIRE_MAX_PACKET && fit > 0)
			break;
	}
	return fit;
}

static int send_table(struct serve *serve, Kamen__IngestSite **rows, uint32_t n)
{
	uint32_t at = 0;
	int r;

	do {
		Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
		Kamen__SiteTable table = KAMEN__SITE_TABLE__INIT;
		uint32_t fit = admission_fit(rows + at, n - at);

		table.has_first = table.has_last = true;
		table.first = at == 0;
		table.last = at + fit == n;
		table.n_sites = fit;
		table.sites = rows + at;
		message.kind_case = KAMEN__ROLE_MESSAGE__KIND_SITES;
		message.sites = &table;
		r = role_post(&serve->roles[ROLE_INGEST], &message, -1);
		at += fit;
	} while (r >= 0 && at < n);
	return r;
}

void admission_send_sites(struct serve *serve)
{
	_cleanup_(freep) Kamen__IngestSite **list = NULL;
	_cleanup_(freep) struct site_entry *entries = NULL;
	uint32_t n = serve->sites.n;
	int r = 0;

	if (!serve->roles[ROLE_INGEST].ready)
		return;
	entries = calloc(n + 1, sizeof(*entries));
	list = calloc(n + 1, sizeof(*list));
	if (!entries || !list)
		r = -ENOMEM;
	for (uint32_t i = 0; i < n && r >= 0; i++) {
		r = fill_entry(serve, &entries[i], serve->sites.sites[i]);
		list[i] = &entries[i].message;
	}
	if (r >= 0)
		r = send_table(serve, list, n);
	if (r < 0)
		log_error("cannot tell ingest about %u sites: %s", n, strerror(-r));
}

void admission_done(struct serve *serve)
{
	struct admission *a = &serve->admission;

	if (!serve->state)
		return;
	admission_commit(serve);
	a->timer = sd_event_source_disable_unref(a->timer);
	hand_free(TAKE_PTR(a->hand));
	state_disk_free(TAKE_PTR(a->disk));
}
