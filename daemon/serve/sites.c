/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/sites.h"

#include <errno.h>

#include "ops/log.h"
#include "serve/need.h"
#include "serve/serve.h"
#include "serve/shadow.h"

struct site *site_ref(struct site *site)
{
	site->n_refs++;
	return site;
}

void site_unref(struct site *site)
{
	if (!site || --site->n_refs > 0)
		return;
	serving_unref(site->queue.champion);
	serving_unref(site->live.shadow);
	for (unsigned i = 0; i < SITE_PINNED; i++)
		serving_unref(site->pinned[i]);
	free(site);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp((*(struct site *const *)a)->name, (*(struct site *const *)b)->name);
}

struct site *sites_find(const struct site_table *table, const char *name)
{
	uint32_t lo = 0, hi = table->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int order = strcmp(name, table->sites[mid]->name);

		if (order == 0)
			return table->sites[mid];
		if (order < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

/* ---- settings: a file wins, key by key */

static const struct site_file *file_of(const struct config *config, const char *name)
{
	for (uint32_t i = 0; i < config->n_sites; i++)
		if (strcmp(config->sites[i].site, name) == 0)
			return &config->sites[i];
	return NULL;
}

bool site_key_owner(const struct site *site, const char *key, char *ret_text, size_t n_bytes)
{
	for (unsigned i = 0; site->file && config_site_keys[i]; i++) {
		if (strcmp(config_site_keys[i], key) != 0 || site->file->lines[i] == 0)
			continue;
		(void)snprintf(ret_text, n_bytes, "%s:%u", site->file->path, site->file->lines[i]);
		return true;
	}
	return false;
}

static int overlay_file(struct site_settings *settings, const struct site_file *file)
{
	char value[512];
	int r;

	for (unsigned i = 0; file && config_site_keys[i]; i++) {
		if (file->lines[i] == 0)
			continue;
		r = site_settings_get(&file->settings, config_site_keys[i], value, sizeof(value));
		if (r < 0)
			return r;
		r = site_settings_set(settings, config_site_keys[i], value, NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What a site should be served with: not in force before its snapshot is there. */
struct wanted {
	struct site_settings settings;
	struct prep prep;
	uint32_t champion, predecessor;
	enum site_hold hold;
};

static int want(struct serve *serve, const struct site *site, struct wanted *ret_wanted)
{
	struct prep native = vit_native_prep(inference_vit(serve->inference));
	struct wanted wanted = { .champion = 0 };
	struct diag diag = { .text = "" };
	struct site_row row;
	int r;

	r = state_site_get(serve->state, site->name, &row);
	if (r < 0)
		return r;
	wanted.champion = row.champion;
	wanted.predecessor = row.predecessor;
	wanted.hold = row.hold;
	wanted.settings = row.settings;
	r = overlay_file(&wanted.settings, site->file);
	if (r < 0)
		return r;
	wanted.prep = site_settings_prep(&wanted.settings, &native);
	/* Files were checked when they were read; a row may be of the time of another model. */
	if (serve_prep_check(serve, &wanted.prep, &diag) < 0) {
		log_error("site %s: %s; the model's own preprocessing is used", site->name,
			diag.text);
		wanted.prep = native;
	}
	*ret_wanted = wanted;
	return 0;
}

int sites_check_files(const struct serve *serve, const struct config *config, struct diag *diag)
{
	struct prep native = vit_native_prep(inference_vit(serve->inference));
	struct prep prep = site_settings_prep(&config->site_defaults, &native);
	struct diag what = { .text = "" };
	int r;

	r = serve_prep_check(serve, &prep, &what);
	if (r < 0)
		return diag_set(diag, -r, "%s: %.100s", config->input_px_from, what.text);
	for (uint32_t i = 0; i < config->n_sites; i++) {
		const struct site_file *file = &config->sites[i];
		struct site_settings settings = config->site_defaults;

		r = overlay_file(&settings, file);
		if (r < 0)
			return r;
		prep = site_settings_prep(&settings, &native);
		r = serve_prep_check(serve, &prep, &what);
		/* The first key is input_px: all others are checked without the model. */
		if (r < 0)
			return diag_set(diag, -r, "%.150s:%u: %.100s", file->path, file->lines[0],
				what.text);
	}
	return 0;
}

/* ---- snapshots */

static bool same_prep(const struct prep *a, const struct prep *b)
{
	struct digest da = prep_digest(a), db = prep_digest(b);

	return digest_equal(&da, &db);
}

static void forget_pinned(struct site *site)
{
	for (unsigned i = 0; i < SITE_PINNED; i++) {
		serving_unref(site->pinned[i]);
		site->pinned[i] = NULL;
		site->pinned_used[i] = 0;
	}
}

static bool is_snapshot(
	const struct serving *s, uint32_t version, const struct prep *prep, double threshold)
{
	/* Bit for bit: a threshold is what a file says, it is never computed. */
	return s && s->version == version &&
	       memcmp(&s->threshold, &threshold, sizeof(threshold)) == 0 &&
	       same_prep(&s->prep, prep);
}

/* In which precision a version was judged; what new ones are judged in, where this CPU lacks it or the
 * row does not tell. */
static enum precision judged_in(struct serve *serve, const struct site *site, uint32_t version,
	const struct serving_model *model)
{
	struct version_row row;

	if (version == 0 || state_version_get(serve->state, site->name, version, &row) < 0)
		return model->precision;
	for (enum precision p = 0; p < N_PRECISIONS; p++) {
		struct digest space =
			space_digest(&row.base, &row.mask, &row.prep, precision_name(p), "cls");

		if (model->has[p] && digest_equal(&space, &row.space))
			return p;
	}
	return model->precision;
}

/* As a snapshot tells them apart; NULL: it has none, or its supports are not all embedded there. */
static struct class_set *read_classes(
	struct serve *serve, const struct site *site, const struct serving *serving)
{
	_cleanup_(features_done) struct features features = { 0 };
	struct class_set *classes = NULL;
	int r;

	r = state_features_read(
		serve->state, site->name, &serving->space, embedding_dim(serving), &features);
	if (r >= 0)
		r = class_set_new(&classes, &features);
	if (r < 0 && r != -ENODATA)
		log_error("site %s: its classes are not told apart by version %u: %s", site->name,
			serving->version, strerror(-r));
	return classes;
}

static int load(struct serve *serve, const struct site *site, uint32_t version,
	const struct wanted *how, bool with_reference, struct serving **ret_serving,
	struct diag *diag)
{
	struct serving_model model = serve_model(serve);
	char mask[512], reference[512], hardness[512], name[32];
	int r;

	(void)snprintf(name, sizeof(name), "masks/%u.khard", version);
	r = state_path(serve->state, hardness, site->name, name);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "masks/%u.kref", version);
	r = state_path(serve->state, reference, site->name, name);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "masks/%u", version);
	r = state_mask_path(serve->state, mask, site->name, name);
	if (r < 0)
		return r;
	model.precision = judged_in(serve, site, version, &model);
	r = serving_load(ret_serving, &model, version, &how->prep, how->settings.novelty_threshold,
		version > 0 ? mask : NULL, with_reference ? reference : NULL, diag);
	if (r < 0 && !diag->text[0])
		(void)diag_set(diag, -r, "%s", strerror(-r));
	/* Read when somebody asks for a map: most sites and most requests do not. */
	if (r >= 0 && access(hardness, F_OK) == 0)
		memcpy((*ret_serving)->hardness_path, hardness, sizeof(hardness));
	if (r >= 0)
		(*ret_serving)->classes = read_classes(serve, site, *ret_serving);
	return r;
}

/* What a change of champion was checked with is what it is served with: nothing is read twice. */
static int take(struct serve *serve, const struct site *site, const struct wanted *wanted,
	struct serving **ret_serving, struct diag *diag)
{
	double threshold = wanted->settings.novelty_threshold;

	for (unsigned i = 0; i < SITE_PINNED; i++) {
		if (!is_snapshot(site->pinned[i], wanted->champion, &wanted->prep, threshold))
			continue;
		*ret_serving = serving_ref(site->pinned[i]);
		return 0;
	}
	return load(serve, site, wanted->champion, wanted, true, ret_serving, diag);
}

/* At the start, when there is nothing to go on with: less is better than no answer. */
static int fall_back(struct serve *serve, const struct site *site, const struct wanted *wanted,
	struct serving **ret_serving, struct diag *diag)
{
	struct diag again = { .text = "" };
	int r;

	r = load(serve, site, wanted->champion, wanted, false, ret_serving, &again);
	if (r >= 0) {
		log_error("site %s: version %u has no references, verdicts are UNKNOWN: %s",
			site->name, wanted->champion, diag->text);
		return r;
	}
	log_error("site %s: version %u cannot be served, the base is instead: %s", site->name,
		wanted->champion, diag->text);
	return load(serve, site, 0, wanted, false, ret_serving, diag);
}

static void tell_of_lost_reference(
	const struct site *site, const struct serving *was, const struct serving *is)
{
	bool was_told = was && was->version == is->version && was->has_foreign_reference;

	if (is->has_foreign_reference && !was_told)
		log_warning("site %s: the references of version %u are of another preprocessing, "
			    "or of a precision that this CPU does not have: verdicts are UNKNOWN "
			    "until the site has learnt anew",
			site->name, is->version);
	else if (was && was->version == is->version && was->reference && !is->reference &&
		 !was_told)
		log_warning("site %s: the references of version %u are gone: verdicts are UNKNOWN "
			    "until the site has learnt anew",
			site->name, is->version);
}

/* Settings come from files, so what decides is that they come into force: not without their row. */
static int record_changes(
	struct serve *serve, const struct site *site, const struct site_settings *wanted)
{
	char detail[1024] = "by the configuration read again", was[320], is[320];
	size_t n = strlen(detail), n_before = n;

	for (unsigned i = 0; config_site_keys[i] && n < sizeof(detail); i++)
		if (site_settings_get(&site->settings, config_site_keys[i], was, sizeof(was)) ==
				0 &&
			site_settings_get(wanted, config_site_keys[i], is, sizeof(is)) == 0 &&
			strcmp(was, is) != 0)
			n += (size_t)snprintf(detail + n, sizeof(detail) - n,
				", %s from '%.100s' to '%.100s'", config_site_keys[i], was, is);
	return n > n_before ? state_audit(serve->state, site->name, "site.settings", detail) : 0;
}

static int publish(struct serve *serve, struct site *site, bool renewed, struct diag *diag)
{
	const struct serving *now = site->queue.champion;
	struct serving *serving = NULL;
	struct wanted wanted;
	bool is_wanted, keep;
	int r;

	r = want(serve, site, &wanted);
	if (r < 0)
		return diag_set(diag, -r, "state.db: %s", strerror(-r));
	if (renewed)
		forget_pinned(site);
	/* A round writes references of the base; those of a version stay what they are. Without any,
	 * it is worth another look: they may not have been readable. */
	is_wanted =
		is_snapshot(now, wanted.champion, &wanted.prep, wanted.settings.novelty_threshold);
	keep = is_wanted && !(renewed && wanted.champion == 0) && now->reference;
	if (!keep) {
		r = take(serve, site, &wanted, &serving, diag);
		if (r < 0 && !now)
			r = fall_back(serve, site, &wanted, &serving, diag);
		/* Still no references, as when it was published: that was told then. */
		if (r < 0 && !(is_wanted && !now->reference))
			return r;
		if (serving)
			tell_of_lost_reference(site, now, serving);
	}
	r = now ? record_changes(serve, site, &wanted.settings) : 0;
	if (r < 0) {
		serving_unref(serving);
		return diag_set(diag, -r, "the audit cannot be written, its settings stay: %s",
			strerror(-r));
	}
	site->settings = wanted.settings;
	scheduler_set_priority(serve->scheduler, &site->queue, wanted.settings.priority);
	site->prep = wanted.prep;
	site->champion = wanted.champion;
	site->predecessor = wanted.predecessor;
	site->hold = wanted.hold;
	forget_pinned(site);
	if (serving) {
		/* A stand-in is not tried, and what the champion has shown waits for it. */
		if (serving->version == site->champion)
			live_champion(serve, site, serving);
		scheduler_publish(serve->scheduler, &site->queue, serving);
	}
	shadow_choose(serve, site);
	r = state_class_count(serve->state, site->name);
	site->n_classes = r < 0 ? site->n_classes : (uint32_t)r;
	if (site->n_classes > 0 && !site->queue.champion->classes)
		changes_embed(serve, site, site->queue.champion->version);
	return 0;
}

static int publish_and_log(struct serve *serve, struct site *site, bool renewed)
{
	struct diag diag = { .text = "" };
	int r = publish(serve, site, renewed, &diag);

	if (r < 0 && site->queue.champion)
		log_error("site %s: version %u goes on being served as it is: %s", site->name,
			site->queue.champion->version, diag.text);
	else if (r < 0)
		log_error("site %s: %s", site->name, diag.text);
	return r;
}

int site_publish(struct serve *serve, struct site *site)
{
	return publish_and_log(serve, site, false);
}

int site_renew(struct serve *serve, struct site *site)
{
	return publish_and_log(serve, site, true);
}

/* NULL: it stays as it is. */
static struct serving *with_fresh_classes(
	struct serve *serve, const struct site *site, struct serving *serving)
{
	struct class_set *classes = read_classes(serve, site, serving);
	struct serving *other = NULL;

	if ((classes || serving->classes) && serving_with_classes(&other, serving, classes) < 0)
		class_set_free(classes);
	return other;
}

void site_renew_classes(struct serve *serve, struct site *site)
{
	struct serving *other;
	int r = state_class_count(serve->state, site->name);

	site->n_classes = r < 0 ? site->n_classes : (uint32_t)r;
	for (unsigned i = 0; i < SITE_PINNED; i++) {
		if (!site->pinned[i])
			continue;
		other = with_fresh_classes(serve, site, site->pinned[i]);
		if (!other)
			continue;
		serving_unref(site->pinned[i]);
		site->pinned[i] = other;
	}
	other = with_fresh_classes(serve, site, site->queue.champion);
	if (other)
		scheduler_publish(serve->scheduler, &site->queue, other);
}

static int wanted_prep(struct serve *serve, const struct site *site, uint32_t px,
	struct prep *ret_prep, struct diag *diag)
{
	if (px == SHM_PX_SITE) {
		*ret_prep = site->prep;
		return 0;
	}
	if (px == SHM_PX_NATIVE) {
		*ret_prep = vit_native_prep(inference_vit(serve->inference));
		return 0;
	}
	*ret_prep = site->prep;
	ret_prep->input_px = px;
	return serve_prep_check(serve, ret_prep, diag);
}

static bool version_may_be_served(
	struct serve *serve, const struct site *site, uint32_t version, struct diag *diag)
{
	struct version_row row;

	if (version == 0)
		return true;
	if (state_version_get(serve->state, site->name, version, &row) < 0) {
		(void)diag_set(diag, ENOENT, "site %s has no version %u", site->name, version);
		return false;
	}
	if (row.state != VERSION_LEARNING && row.state != VERSION_FAILED)
		return true;
	(void)diag_set(diag, ENOENT, "version %u of site %s is %s", version, site->name,
		version_state_name(row.state));
	return false;
}

bool site_has_snapshot(const struct site *site, const struct serving *serving, uint32_t version)
{
	return is_snapshot(serving, version, &site->prep, site->settings.novelty_threshold) &&
	       serving->reference;
}

int site_serving(struct serve *serve, struct site *site, uint32_t version, uint32_t px,
	struct serving **ret_serving, struct diag *diag)
{
	struct wanted how = { .settings = site->settings };
	double threshold = site->settings.novelty_threshold;
	unsigned oldest = 0;
	int r;

	r = wanted_prep(serve, site, px, &how.prep, diag);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < SITE_PINNED; i++) {
		struct serving *s = site->pinned[i];

		if (is_snapshot(s, version, &how.prep, threshold)) {
			site->pinned_used[i] = ++serve->sites.clock;
			*ret_serving = serving_ref(s);
			return 0;
		}
		if (site->pinned_used[i] < site->pinned_used[oldest])
			oldest = i;
	}
	if (!version_may_be_served(serve, site, version, diag))
		return -ENOENT;
	serving_unref(TAKE_PTR(site->pinned[oldest]));
	site->pinned_used[oldest] = 0;
	r = load(serve, site, version, &how, true, &site->pinned[oldest], diag);
	if (r < 0)
		return r;
	site->pinned_used[oldest] = ++serve->sites.clock;
	*ret_serving = serving_ref(site->pinned[oldest]);
	return 0;
}

static int check_judged(
	struct serve *serve, const struct site *site, uint32_t version, struct diag *diag)
{
	char judged_hex[DIGEST_HEX_CHARS + 1], site_hex[DIGEST_HEX_CHARS + 1];
	struct digest prep = prep_digest(&site->prep);
	struct version_row row;
	int r;

	r = state_version_get(serve->state, site->name, version, &row);
	if (r < 0)
		return diag_set(diag, -r, "site %s has no version %u", site->name, version);
	/* What is held or failed is refused by state.db, with its own reason. */
	if (digest_equal(&row.prep, &prep) || row.state == VERSION_HELD ||
		row.state == VERSION_FAILED || row.state == VERSION_LEARNING)
		return 0;
	digest_to_hex(&row.prep, judged_hex);
	digest_to_hex(&prep, site_hex);
	return diag_set(diag, EXDEV,
		"version %u was judged under preprocessing %.12s, site %s has %.12s now: learn "
		"anew",
		version, judged_hex, site->name, site_hex);
}

int site_check_promotion(
	struct serve *serve, struct site *site, uint32_t version, struct diag *diag)
{
	int r = version > 0 ? check_judged(serve, site, version, diag) : 0;

	return r < 0 ? r : site_check_servable(serve, site, version, diag);
}

int site_check_servable(struct serve *serve, struct site *site, uint32_t version, struct diag *diag)
{
	struct serving *serving = NULL;
	int r;

	r = site_serving(serve, site, version, SHM_PX_SITE, &serving, diag);
	serving_unref(serving);
	return r;
}

/* ---- the table */

static int table_add(struct serve *serve, const char *name)
{
	struct site_table *table = &serve->sites;
	struct site **sites;
	struct site *site;
	int r;

	sites = realloc(table->sites, (table->n + 1) * sizeof(*sites));
	if (!sites)
		return -ENOMEM;
	table->sites = sites;
	site = calloc(1, sizeof(*site));
	if (!site)
		return -ENOMEM;
	site->n_refs = 1;
	(void)snprintf(site->name, sizeof(site->name), "%s", name);
	site->file = file_of(&serve->config, name);
	r = site_publish(serve, site);
	if (r < 0) {
		site_unref(site);
		return r;
	}
	table->sites[table->n++] = site;
	qsort(table->sites, table->n, sizeof(*table->sites), compare_names);
	return 0;
}

int sites_create(struct serve *serve, const char *name, const struct site_settings *settings,
	uint32_t keys, const char *who, struct diag *diag)
{
	int r;

	if (wire_site_name_check(name) < 0)
		return diag_set(
			diag, EINVAL, "'%s' is no site name ([a-z0-9][a-z0-9._-]{0,62})", name);
	if (sites_find(&serve->sites, name))
		return diag_set(diag, EEXIST, "site %s exists already", name);
	r = state_site_create_with(serve->state, name, settings, keys, who);
	if (r < 0)
		return diag_set(diag, -r, "cannot create site %s: %s", name, strerror(-r));
	r = table_add(serve, name);
	if (r < 0)
		return diag_set(diag, -r, "cannot serve site %s: %s", name, strerror(-r));
	return 0;
}

/* When there is nothing else to do, a few files at a time. */
static int on_idle(sd_event_source *source, void *userdata)
{
	enum { N_FILES = 32 };
	struct serve *serve = userdata;
	int r = state_tidy(serve->state, N_FILES);

	if (r == 1)
		return 0;
	if (r < 0)
		log_warning("files of deleted sites stay until the next start: %s", strerror(-r));
	(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	/* It was the loop's, and this was the last reference. */
	(void)sd_event_source_set_floating(source, 0);
	return 0;
}

static void tidy_when_idle(struct serve *serve)
{
	sd_event_source *source = NULL;

	if (sd_event_add_defer(serve->event, &source, on_idle, serve) < 0)
		return; /* the next start does it */
	(void)sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IDLE);
	(void)sd_event_source_set_enabled(source, SD_EVENT_ON);
	(void)sd_event_source_set_floating(source, 1);
	(void)sd_event_source_unref(source);
}

int sites_delete(struct serve *serve, struct site *site, const char *who)
{
	struct site_table *table = &serve->sites;
	struct request *dropped, *next;
	uint32_t at = 0;
	int r;

	r = state_site_delete(serve->state, site->name, who);
	if (r < 0)
		return r;
	tidy_when_idle(serve);
	/* While it still has a name. */
	feed_audit(serve);
	site->gone = true;
	changes_site_gone(serve, site);
	for (dropped = scheduler_drop(serve->scheduler, &site->queue); dropped; dropped = next) {
		next = dropped->next;
		request_fail(dropped, -ENOENT, "site %s was deleted", site->name);
		request_finish(serve, dropped);
	}
	while (table->sites[at] != site)
		at++;
	table->n--;
	memmove(table->sites + at, table->sites + at + 1, (table->n - at) * sizeof(*table->sites));
	site_unref(site);
	return 0;
}

/* Sites of sites.d that state.db does not know yet. */
static void create_from_files(struct serve *serve)
{
	for (uint32_t i = 0; i < serve->config.n_sites; i++) {
		const struct site_file *file = &serve->config.sites[i];
		struct diag diag = { .text = "" };

		if (sites_find(&serve->sites, file->site))
			continue;
		if (sites_create(serve, file->site, &serve->config.site_defaults, 0, file->path,
			    &diag) < 0)
			log_error("%s: %s", file->path, diag.text);
		else
			log_notice("site %s created from %s", file->site, file->path);
	}
}

int sites_open(struct serve *serve)
{
	_cleanup_(freep) struct site_row *rows = NULL;
	uint32_t n = 0;
	int r;

	r = state_site_list(serve->state, &rows, &n);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++) {
		r = table_add(serve, rows[i].site);
		if (r < 0)
			return r;
	}
	create_from_files(serve);
	return 0;
}

void sites_refresh(struct serve *serve)
{
	state_set_defaults(serve->state, &serve->config.site_defaults);
	/* All of them first: the old list of files goes away whatever fails below. */
	for (uint32_t i = 0; i < serve->sites.n; i++)
		serve->sites.sites[i]->file = file_of(&serve->config, serve->sites.sites[i]->name);
	create_from_files(serve);
	for (uint32_t i = 0; i < serve->sites.n; i++)
		(void)site_publish(serve, serve->sites.sites[i]);
	need_soon(serve);
	serve_log_audit(serve);
}

void sites_save(struct serve *serve)
{
	for (uint32_t i = 0; i < serve->sites.n; i++)
		live_close(serve, serve->sites.sites[i]);
}

void sites_close(struct serve *serve)
{
	for (uint32_t i = 0; i < serve->sites.n; i++) {
		shadow_stop(serve, serve->sites.sites[i]);
		live_close(serve, serve->sites.sites[i]);
		site_unref(serve->sites.sites[i]);
	}
	free(serve->sites.sites);
	serve->sites = (struct site_table){ .n = 0 };
}
