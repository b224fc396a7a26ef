/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "site/manifest.h"
#include "site/state_internal.h"

#define MAX_KMASK (256u << 20)
#define MAX_KREF (64u << 20)
#define MAX_MANIFEST (256u << 20)

/* ---- beginning */

static int read_class(sqlite3_stmt *statement, struct manifest *manifest, uint32_t *ret_label)
{
	const char *name = (const char *)sqlite3_column_text(statement, 4);
	uint32_t index;
	int r;

	if (!name)
		return 0;
	r = classes_add(&manifest->classes, name, &index);
	if (r < 0)
		return r;
	*ret_label = index + 1;
	return 0;
}

static int read_images(struct state *state, int64_t id, struct manifest *manifest)
{
	sqlite3_stmt *statement;
	struct manifest_entry entry;
	int r;

	r = statement_get(state, &statement, SQL_IMAGE_OLDEST_FIRST, "i", id);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		entry = (struct manifest_entry){ 0 };
		r = statement_digest(statement, 1, &entry.hash);
		if (r == 0)
			r = statement_text(statement, 2, entry.blob, sizeof(entry.blob));
		if (r == 0)
			r = read_class(statement, manifest, &entry.label);
		if (r == 0)
			r = manifest_add(manifest, &entry);
		if (r < 0)
			(void)sqlite3_reset(statement);
		else
			manifest->last_id = sqlite3_column_int64(statement, 0);
	}
	return r;
}

static int check_idle(struct state *state, const char *site, int64_t id, struct diag *diag)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_VERSION_RUNNING, "i", id);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r > 0) {
		r = diag_set(diag, EBUSY, "site %s: version %d is being learnt", site,
			sqlite3_column_int(statement, 0));
		(void)sqlite3_reset(statement);
	}
	return r;
}

/* An empty round folder with the manifest, and the foreign mask where there is one. */
static int prepare_folder(struct state *state, const char *site, const struct manifest *manifest,
	const void *kmask, size_t n_bytes)
{
	_cleanup_(freep) char *text = NULL;
	_cleanup_(closep) int fd = -1;
	char path[96];
	size_t n_chars;
	int r;

	(void)snprintf(path, sizeof(path), "sites/%s/round", site);
	r = sweep_tree(state->dir_fd, path);
	if (r == 0)
		r = sweep_make_folders(state, site);
	if (r < 0)
		return r;
	fd = sweep_open_folder(state, site, "round");
	if (fd < 0)
		return fd;
	r = manifest_write(manifest, &text, &n_chars);
	if (r == 0 && kmask)
		r = blob_write(fd, "import.kmask", kmask, n_bytes);
	if (r == 0)
		r = blob_write(fd, "manifest", text, n_chars);
	return r;
}

struct round_start {
	struct round_wish wish;
	const void *kmask; /* NULL: a mask is learnt */
	size_t n_bytes;
};

static int add_version(struct state *state, int64_t id, const struct manifest *manifest,
	const struct round_start *what, uint32_t *ret_version)
{
	struct digest digest = manifest_digest(manifest);
	char why[sizeof(((struct version_row *)NULL)->why)];
	sqlite3_stmt *statement;
	int64_t version;
	int r;

	(void)snprintf(why, sizeof(why), "%s", what->wish.who);
	r = statement_get(state, &statement, SQL_VERSION_NEXT, "i", id);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	version = sqlite3_column_int64(statement, 0);
	/* To its end: an UPDATE ... RETURNING that is not finished keeps the transaction open. */
	r = statement_step(state, statement);
	if (r < 0)
		return r;
	r = statement_run(state, SQL_VERSION_ADD, "iitiiihitti", id, version,
		version_state_name(VERSION_LEARNING), (int64_t)what->wish.steps,
		(int64_t)what->wish.seed, (int64_t)manifest->n, &digest, (int64_t)clock_wall_us(),
		why, what->wish.objective ? what->wish.objective : "", (int64_t)what->wish.drifted);
	if (r < 0)
		return r;
	r = statement_run(state, SQL_SITE_PIN, "ii", manifest->last_id, id);
	if (r < 0)
		return r;
	*ret_version = (uint32_t)version;
	return 0;
}

/* A foreign mask may be judged while a site is paused: nothing is learnt. */
static int check_hold(
	struct state *state, const char *site, int64_t id, bool learns, struct diag *diag)
{
	enum site_hold hold;
	int r;

	r = site_hold(state, id, &hold);
	if (r < 0)
		return r;
	if (hold == SITE_FROZEN || (hold == SITE_PAUSED && learns))
		return diag_set(
			diag, EROFS, "site %s is %s: resume it first", site, site_hold_name(hold));
	return 0;
}

static int record_start(struct state *state, const char *site, const struct round_start *what,
	const struct manifest *manifest, uint32_t version)
{
	struct digest digest = manifest_digest(manifest);
	char detail[512], hex[DIGEST_HEX_CHARS + 1];

	digest_to_hex(&digest, hex);
	if (what->kmask)
		(void)snprintf(
			detail, sizeof(detail), "version %u by %.300s", version, what->wish.who);
	else
		(void)snprintf(detail, sizeof(detail),
			"version %u by %.300s: %u images, manifest %.16s, steps %u, seed %llu",
			version, what->wish.who, manifest->n, hex, what->wish.steps,
			(unsigned long long)what->wish.seed);
	return audit_add(state, site, what->kmask ? "mask.import" : "round.begin", detail);
}

/* Before anything is written: what the learner would find out later is an error now. */
static int check_labels(const char *site, const struct manifest *manifest, struct diag *diag)
{
	_cleanup_(freep) uint32_t *labels = NULL;
	struct diag why = { "" };
	int r = manifest_learnt_labels(manifest, &labels, &why);

	return r < 0 ? diag_set(
			       diag, -r, "site %s: %s", site, why.text[0] ? why.text : strerror(-r))
		     : 0;
}

static int start(struct state *state, const char *site, const struct round_start *what,
	uint32_t *ret_version, struct diag *diag)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	r = check_hold(state, site, id, !what->kmask, diag);
	if (r >= 0)
		r = check_idle(state, site, id, diag);
	if (r < 0)
		return r;
	r = read_images(state, id, &manifest);
	if (r < 0)
		return r;
	if (manifest.n < what->wish.min_images)
		return diag_set(diag, ENODATA, "site %s has %u images, learning needs %u", site,
			manifest.n, what->wish.min_images);
	manifest_split(&manifest);
	if (what->wish.wants_labels) {
		r = check_labels(site, &manifest, diag);
		if (r < 0)
			return r;
	}
	r = prepare_folder(state, site, &manifest, what->kmask, what->n_bytes);
	if (r < 0)
		return diag_set(diag, -r, "site %s: round folder: %s", site, strerror(-r));
	r = add_version(state, id, &manifest, what, ret_version);
	/* From here on images count as new again; a judged import is no round of learning. */
	if (r >= 0 && !what->kmask)
		r = statement_run(state, SQL_SITE_BEGUN, "ii", (int64_t)clock_wall_us(), id);
	if (r < 0)
		return r;
	return record_start(state, site, what, &manifest, *ret_version);
}

static int begin(struct state *state, const char *site, const struct round_start *what,
	uint32_t *ret_version, struct diag *diag)
{
	uint32_t version = 0;
	int r;

	/* In one transaction with the reading, so that the manifest is what is committed. */
	r = state_begin(state);
	if (r < 0)
		return r;
	r = state_end(state, start(state, site, what, &version, diag));
	if (r < 0)
		return r;
	*ret_version = version;
	return 0;
}

int state_round_begin(struct state *state, const char *site, const struct round_wish *wish,
	uint32_t *ret_version, struct diag *diag)
{
	struct round_start what = { .wish = *wish };

	if (what.wish.min_images == 0)
		what.wish.min_images = 1;
	return begin(state, site, &what, ret_version, diag);
}

int state_import_begin(struct state *state, const char *site, const char *who, const void *kmask,
	size_t n_bytes, uint32_t *ret_version, struct diag *diag)
{
	struct round_start what = {
		.wish = { .who = who, .min_images = 1 }, .kmask = kmask, .n_bytes = n_bytes
	};

	return begin(state, site, &what, ret_version, diag);
}

int state_round_list(struct state *state, struct version_row **ret_rows, uint32_t *ret_n)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_VERSION_RUNNING_ALL, "");
	if (r < 0)
		return r;
	return version_collect(state, statement, ret_rows, ret_n);
}

/* ---- ending */

/* What the learner left in the round folder, read once: what is checked is what is kept. */
struct results {
	void *set, *candidate, *base, *manifest;
	void *hardness; /* NULL: its objective learns none */
	size_t set_bytes, candidate_bytes, base_bytes, manifest_bytes, hardness_bytes;
	const char *suffix; /* of the set's file */
};

static void results_done(struct results *results)
{
	free(results->set);
	free(results->candidate);
	free(results->base);
	free(results->manifest);
	free(results->hardness);
}

static int read_results(struct state *state, const char *site, struct results *results)
{
	_cleanup_(closep) int fd = sweep_open_folder(state, site, "round");
	int r;

	if (fd < 0)
		return fd;
	results->suffix = "kcas";
	r = blob_read(fd, "candidate.kcas", MAX_KMASK, &results->set, &results->set_bytes);
	if (r == -ENOENT) {
		results->suffix = "kmask";
		r = blob_read(fd, "candidate.kmask", MAX_KMASK, &results->set, &results->set_bytes);
	}
	if (r == 0)
		r = blob_read(fd, "candidate.kref", MAX_KREF, &results->candidate,
			&results->candidate_bytes);
	if (r == 0)
		r = blob_read(fd, "base.kref", MAX_KREF, &results->base, &results->base_bytes);
	if (r == 0)
		r = blob_read(fd, "candidate.manifest", MAX_MANIFEST, &results->manifest,
			&results->manifest_bytes);
	if (r < 0)
		return r;
	r = blob_read(fd, "candidate.khard", HARDNESS_MAX_BYTES, &results->hardness,
		&results->hardness_bytes);
	return r == -ENOENT ? 0 : r;
}

static int check_manifest(const struct results *results, const struct version_row *row)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	struct digest digest;
	int r;

	r = manifest_read(&manifest, results->manifest, results->manifest_bytes, NULL);
	if (r < 0)
		return r;
	digest = manifest_digest(&manifest);
	return digest_equal(&digest, &row->manifest) ? 0 : -EBADMSG;
}

static int check_hardness(const struct results *results, const struct version_row *row)
{
	struct hardness_info info;
	int r;

	if (!results->hardness)
		return 0;
	r = hardness_check(&info, results->hardness, results->hardness_bytes, NULL);
	if (r < 0)
		return r;
	return digest_equal(&info.base, &row->base) && digest_equal(&info.mask, &row->mask)
		       ? 0
		       : -EBADMSG;
}

static int check_results(const struct results *results, const struct version_row *row)
{
	_cleanup_(reference_freep) struct reference *candidate = NULL, *base = NULL;
	struct mask_set_header header;
	int r;

	r = mask_set_verify(results->set, results->set_bytes, &header, NULL);
	if (r == 0)
		r = check_manifest(results, row);
	if (r == 0)
		r = check_hardness(results, row);
	if (r < 0)
		return r;
	if (!digest_equal(&header.base, &row->base) || !digest_equal(&header.prep, &row->prep) ||
		!digest_equal(&header.id, &row->mask) || header.n_elements != row->n_elements ||
		header.n_flips != row->n_flips)
		return -EBADMSG;
	r = reference_decode(&candidate, results->candidate, results->candidate_bytes, NULL);
	if (r == 0)
		r = reference_decode(&base, results->base, results->base_bytes, NULL);
	if (r < 0)
		return r;
	if (!digest_equal(&candidate->space, &row->space) ||
		candidate->dim != (header.n_experts > 0 ? header.n_out : base->dim))
		return -EBADMSG;
	return 0;
}

static int keep_file(int fd, uint32_t version, const char *suffix, const void *data, size_t n_bytes)
{
	char name[32];

	(void)snprintf(name, sizeof(name), "%u.%s", version, suffix);
	return blob_write(fd, name, data, n_bytes);
}

static int keep_results(struct state *state, const struct version_row *row,
	const struct results *results, bool is_drifted)
{
	_cleanup_(closep) int fd = sweep_open_folder(state, row->site, "masks");
	int r;

	if (fd < 0)
		return fd;
	r = keep_file(fd, row->version, results->suffix, results->set, results->set_bytes);
	if (r == 0)
		r = keep_file(
			fd, row->version, "kref", results->candidate, results->candidate_bytes);
	if (r == 0)
		r = keep_file(
			fd, row->version, "manifest", results->manifest, results->manifest_bytes);
	if (r == 0 && results->hardness)
		r = keep_file(
			fd, row->version, "khard", results->hardness, results->hardness_bytes);
	/* A person may take what drifted for usual, and promotes; a round by itself may not. */
	if (r == 0 && !is_drifted)
		r = keep_file(fd, 0, "kref", results->base, results->base_bytes);
	return r;
}

static int store_version(struct state *state, int64_t id, const struct version_row *row,
	enum version_state to, size_t n_bytes)
{
	const struct judgement_row *a = &row->frozen, *b = &row->candidate;

	return statement_run(state, SQL_VERSION_STORE, "tddddiiiiiiithhhhhhidddiddditddittii",
		version_state_name(to), row->density, row->lowest_density, row->loss_ratio,
		row->seconds, (int64_t)n_bytes, (int64_t)row->n_elements, (int64_t)row->n_flips,
		(int64_t)row->seed, (int64_t)row->steps, (int64_t)row->n_images,
		(int64_t)row->threads, row->isa, &row->base, &row->prep, &row->mask, &row->manifest,
		&row->recipe, &row->space, (int64_t)a->n, (double)a->retrieval, (double)a->margin,
		(double)a->effective_rank, (int64_t)b->n, (double)b->retrieval, (double)b->margin,
		(double)b->effective_rank, (int64_t)row->passed, row->reasons,
		(double)b->retrieval_error, (double)b->margin_error, (int64_t)row->kept_step,
		row->recipe_text, row->prep_text, id, (int64_t)row->version);
}

static int end(struct state *state, const struct version_row *row, enum version_state to,
	const struct results *results)
{
	char detail[1280];
	int64_t id;
	int r;

	r = site_id(state, row->site, &id);
	if (r < 0)
		return r;
	r = store_version(state, id, row, to, results->set_bytes);
	if (r < 0)
		return r;
	r = figures_put(state, id, row, results->hardness_bytes);
	if (r < 0)
		return r;
	r = statement_run(state, SQL_SITE_PIN, "ii", (int64_t)0, id);
	if (r < 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "version %u %s by the gate, density %.6f%s%s",
		row->version, version_state_name(to), row->density, row->reasons[0] ? ": " : "",
		row->reasons);
	return audit_add(state, row->site, "round.end", detail);
}

static void remove_folder(struct state *state, const char *site)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "sites/%s/round", site);
	/* What cannot be removed now is swept at the next start. */
	(void)sweep_tree(state->dir_fd, path);
}

int state_round_end(struct state *state, const struct version_row *row)
{
	_cleanup_(results_done) struct results results = { 0 };
	struct version_row present;
	int r;

	r = state_version_get(state, row->site, row->version, &present);
	if (r < 0)
		return r;
	if (present.state != VERSION_LEARNING)
		return -EINVAL;
	r = read_results(state, row->site, &results);
	if (r == 0)
		r = check_results(&results, row);
	if (r < 0)
		return r == -ENOENT || r == -EFBIG || r == -EINVAL ? -EBADMSG : r;
	r = keep_results(state, row, &results, present.drifted);
	if (r < 0)
		return r;
	r = state_begin(state);
	if (r < 0)
		return r;
	r = state_end(
		state, end(state, row, row->passed ? VERSION_CANDIDATE : VERSION_HELD, &results));
	if (r < 0)
		return r;
	remove_folder(state, row->site);
	return 0;
}

static int fail(struct state *state, const char *site, uint32_t version, const char *reason)
{
	char text[sizeof(((struct version_row *)NULL)->reasons)];
	char detail[640];
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	(void)snprintf(text, sizeof(text), "%s", reason);
	r = statement_run(state, SQL_VERSION_FAIL, "tii", text, id, (int64_t)version);
	if (r < 0)
		return r;
	if (sqlite3_changes(state->db) == 0)
		return -ENOENT;
	r = statement_run(state, SQL_SITE_PIN, "ii", (int64_t)0, id);
	if (r < 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "version %u: %.600s", version, reason);
	return audit_add(state, site, "round.fail", detail);
}

int state_round_fail(struct state *state, const char *site, uint32_t version, const char *reason)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	r = state_end(state, fail(state, site, version, reason));
	if (r < 0)
		return r;
	remove_folder(state, site);
	return 0;
}
