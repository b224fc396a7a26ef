/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "crash/life.h"
#include "site/manifest.h"

const char *const life_sites[LIFE_SITES] = { "a", "b" };

enum { A, B };

/* ---- leading it */

static struct site_model *next_of(struct ledger *ledger, unsigned site)
{
	ledger->next = ledger->now;
	return &ledger->next.sites[site];
}

/* The verb has returned: this is promised. */
static void told(struct fixture *fixture, struct ledger *ledger)
{
	struct digest head;

	ledger->now = ledger->next;
	ledger->is_evicting = false;
	assert_int_equal(state_audit_head(fixture->state, &ledger->n_audit, &head), 0);
}

static void create(struct fixture *fixture, struct ledger *ledger, unsigned site)
{
	*next_of(ledger, site) = (struct site_model){ .is_there = true };
	assert_int_equal(
		state_site_create(fixture->state, life_sites[site], &fixture->defaults), 0);
	told(fixture, ledger);
}

static void delete (struct fixture *fixture, struct ledger *ledger, unsigned site)
{
	*next_of(ledger, site) = (struct site_model){ 0 };
	assert_int_equal(state_site_delete(fixture->state, life_sites[site], "a test"), 0);
	told(fixture, ledger);
}

static void admit(
	struct fixture *fixture, struct ledger *ledger, unsigned site, uint32_t from, uint32_t to)
{
	struct site_model *next = next_of(ledger, site);

	for (uint32_t i = from; i < to; i++)
		next->images |= UINT64_C(1) << i;
	fixture_fill(fixture, life_sites[site], from, to);
	told(fixture, ledger);
}

static uint32_t begin(struct fixture *fixture, struct ledger *ledger, unsigned site)
{
	struct site_model *next = next_of(ledger, site);
	struct diag diag = { "" };
	uint32_t version;

	next->running = ++next->n_versions;
	if (state_round_begin(fixture->state, life_sites[site],
		    &(struct round_wish){ "a test", 1, 50, 7 }, &version, &diag) < 0)
		fail_msg("%s", diag.text);
	told(fixture, ledger);
	return version;
}

static uint32_t import(struct fixture *fixture, struct ledger *ledger, unsigned site)
{
	struct site_model *next = next_of(ledger, site);
	struct diag diag = { "" };
	uint32_t version;

	next->running = ++next->n_versions;
	assert_int_equal(state_import_begin(fixture->state, life_sites[site], "a test", "bits", 4,
				 &version, &diag),
		0);
	told(fixture, ledger);
	return version;
}

static void end(struct fixture *fixture, struct ledger *ledger, unsigned site, uint32_t version,
	bool passed)
{
	struct version_row row = fixture_results(fixture, life_sites[site], version, passed);

	next_of(ledger, site)->running = 0;
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	told(fixture, ledger);
}

/* As end(), of an objective that tells what is hard: a file more. */
static void end_hard(
	struct fixture *fixture, struct ledger *ledger, unsigned site, uint32_t version)
{
	struct version_row row = fixture_results(fixture, life_sites[site], version, true);

	fixture_hardness(fixture, &row);
	next_of(ledger, site)->running = 0;
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	told(fixture, ledger);
}

/* ---- classes */

enum { DIM = 3 };

static const struct digest spaces[LIFE_SPACES] = { { { 1 } }, { { 2 } } };

static float feature_of(int64_t image, unsigned space, uint32_t k)
{
	return (float)(image * 100 + space * 10 + k);
}

/* Shown by images [from, to) that no version has seen; those with an odd number came for its sake. */
static void add_class(struct fixture *fixture, struct ledger *ledger, unsigned site, uint32_t class,
	uint32_t from, uint32_t to)
{
	struct site_model *next = next_of(ledger, site);
	struct digest hashes[CLASS_MAX_SUPPORTS];
	bool is_brought[CLASS_MAX_SUPPORTS];
	char name[8];
	const struct class_wish wish = { name, hashes, is_brought, to - from, "a test" };
	struct diag diag = { "" };

	(void)snprintf(name, sizeof(name), "%u", class);
	for (uint32_t i = from; i < to; i++) {
		hashes[i - from] = fixture_hash(i);
		is_brought[i - from] = i % 2;
	}
	next->classes |= 1u << class;
	next->n_supports += to - from;
	if (state_class_add(fixture->state, life_sites[site], &wish, &diag) < 0)
		fail_msg("%s", diag.text);
	told(fixture, ledger);
}

/* A version of that space looks at what it does not know. */
static void look(struct fixture *fixture, struct ledger *ledger, unsigned site, unsigned space)
{
	_cleanup_(features_done) struct features features = { 0 };
	struct site_model *next = next_of(ledger, site);

	assert_int_equal(state_features_read(
				 fixture->state, life_sites[site], &spaces[space], DIM, &features),
		0);
	for (uint32_t i = 0; i < features.n; i++) {
		struct feature_row *row = &features.rows[i];

		if (row->is_known)
			continue;
		for (uint32_t k = 0; k < DIM; k++)
			features.values[i * DIM + k] = feature_of(row->image, space, k);
		row->is_known = row->is_new = true;
	}
	next->n_known[space] = next->n_supports;
	assert_int_equal(state_features_store(fixture->state, life_sites[site], &features), 0);
	told(fixture, ledger);
}

static void keep_space(
	struct fixture *fixture, struct ledger *ledger, unsigned site, unsigned space)
{
	struct site_model *next = next_of(ledger, site);

	for (unsigned i = 0; i < LIFE_SPACES; i++)
		if (i != space)
			next->n_known[i] = 0;
	assert_int_equal(state_features_trim(
				 fixture->state, life_sites[site], &spaces[space], &spaces[space]),
		0);
	told(fixture, ledger);
}

/* images: of it, as add_class() had them. */
static void remove_class(struct fixture *fixture, struct ledger *ledger, unsigned site,
	uint32_t class, uint32_t from, uint32_t to)
{
	struct site_model *next = next_of(ledger, site);
	char name[8];

	(void)snprintf(name, sizeof(name), "%u", class);
	next->classes &= ~(1u << class);
	next->n_supports -= to - from;
	for (unsigned i = 0; i < LIFE_SPACES; i++)
		next->n_known[i] = next->n_supports;
	for (uint32_t i = from; i < to; i++)
		if (i % 2)
			next->images &= ~(UINT64_C(1) << i);
	assert_int_equal(state_class_remove(fixture->state, life_sites[site], name, "a test"), 0);
	told(fixture, ledger);
}

static void give_up(struct fixture *fixture, struct ledger *ledger, unsigned site, uint32_t version)
{
	next_of(ledger, site)->running = 0;
	assert_int_equal(
		state_round_fail(fixture->state, life_sites[site], version, "given up"), 0);
	told(fixture, ledger);
}

static void promote(struct fixture *fixture, struct ledger *ledger, unsigned site, uint32_t version)
{
	struct site_model *next = next_of(ledger, site);

	next->predecessor = next->champion;
	next->champion = version;
	assert_int_equal(state_promote(fixture->state, life_sites[site], version, "life"), 0);
	told(fixture, ledger);
}

/* predecessor: what is before the one that comes back. */
static void roll_back(
	struct fixture *fixture, struct ledger *ledger, unsigned site, uint32_t predecessor)
{
	struct site_model *next = next_of(ledger, site);
	uint32_t version;

	next->champion = next->predecessor;
	next->predecessor = predecessor;
	assert_int_equal(state_rollback(fixture->state, life_sites[site], "life", &version), 0);
	told(fixture, ledger);
}

static uint64_t read_images(struct fixture *fixture, const char *site);

static void evict(struct fixture *fixture, struct ledger *ledger, unsigned site, uint64_t max_bytes)
{
	struct site_model *next = next_of(ledger, site);

	ledger->is_evicting = true;
	assert_int_equal(state_evict(fixture->state, life_sites[site], max_bytes, false), 0);
	next->images = read_images(fixture, life_sites[site]);
	assert_true(next->images != 0 && next->images != ledger->now.sites[site].images);
	told(fixture, ledger);
}

static void note(struct fixture *fixture, struct ledger *ledger)
{
	ledger->next = ledger->now;
	assert_int_equal(state_audit(fixture->state, "a", "note", "of nothing"), 0);
	told(fixture, ledger);
}

void life_lead(struct fixture *fixture, struct ledger *ledger)
{
	uint32_t version;

	create(fixture, ledger, A);
	admit(fixture, ledger, A, 0, 4);
	create(fixture, ledger, B);
	admit(fixture, ledger, B, 0, 3);
	admit(fixture, ledger, A, 4, 12);
	add_class(fixture, ledger, A, 0, 0, 3);
	look(fixture, ledger, A, 0);
	version = begin(fixture, ledger, A);
	admit(fixture, ledger, A, 12, 14);
	end_hard(fixture, ledger, A, version);
	/* What the version to come says of the supports is there before it is in force. */
	look(fixture, ledger, A, 1);
	promote(fixture, ledger, A, version);
	keep_space(fixture, ledger, A, 1);
	give_up(fixture, ledger, A, begin(fixture, ledger, A));
	end(fixture, ledger, A, begin(fixture, ledger, A), false);
	fixture_reopen(fixture);
	end(fixture, ledger, A, version = import(fixture, ledger, A), true);
	promote(fixture, ledger, A, version);
	roll_back(fixture, ledger, A, 0);
	promote(fixture, ledger, A, 0);
	admit(fixture, ledger, A, 16, 18);
	add_class(fixture, ledger, A, 1, 16, 18);
	look(fixture, ledger, A, 0);
	look(fixture, ledger, A, 1);
	evict(fixture, ledger, A, 8 * FIXTURE_BLOB_BYTES);
	remove_class(fixture, ledger, A, 0, 0, 3);
	roll_back(fixture, ledger, A, 0);
	version = begin(fixture, ledger, B);
	delete (fixture, ledger, B);
	create(fixture, ledger, B);
	assert_int_equal(state_tidy(fixture->state, 100), 0);
	admit(fixture, ledger, B, 0, 3);
	end(fixture, ledger, B, version = begin(fixture, ledger, B), true);
	promote(fixture, ledger, B, version);
	note(fixture, ledger);
	begin(fixture, ledger, A);
	fixture_reopen(fixture);
	admit(fixture, ledger, A, 14, 16);
	ledger->is_over = true;
}

/* ---- looking at what is left */

static sqlite3 *open_database(struct fixture *fixture)
{
	char path[512];
	sqlite3 *db;

	(void)snprintf(path, sizeof(path), "%s/state.db", fixture->dir);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	return db;
}

static uint64_t read_images(struct fixture *fixture, const char *site)
{
	sqlite3 *db = open_database(fixture);
	sqlite3_stmt *rows;
	uint64_t images = 0;

	assert_int_equal(sqlite3_prepare_v2(db,
				 "SELECT hash, blob FROM image WHERE site_id ="
				 " (SELECT id FROM site WHERE name = ?)",
				 -1, &rows, NULL),
		SQLITE_OK);
	assert_int_equal(sqlite3_bind_text(rows, 1, site, -1, SQLITE_STATIC), SQLITE_OK);
	while (sqlite3_step(rows) == SQLITE_ROW) {
		_cleanup_(freep) void *data = NULL;
		char path[512], file[160];
		struct digest hash;
		size_t n_bytes;
		uint32_t i;

		(void)snprintf(file, sizeof(file), "replay/%s", sqlite3_column_text(rows, 1));
		assert_int_equal(state_path(fixture->state, path, site, file), 0);
		assert_int_equal(blob_read(AT_FDCWD, path, 1 << 20, &data, &n_bytes), 0);
		hash = digest_of(data, n_bytes);
		assert_memory_equal(hash.bytes, sqlite3_column_blob(rows, 0), DIGEST_BYTES);
		memcpy(&i, data, sizeof(i));
		images |= UINT64_C(1) << i;
	}
	(void)sqlite3_finalize(rows);
	(void)sqlite3_close(db);
	assert_int_equal(
		fixture_count_files(fixture, site, "replay"), __builtin_popcountll(images));
	return images;
}

static void *read_site_file(
	struct fixture *fixture, const char *site, const char *file, size_t *ret_n)
{
	char path[512];
	void *data;

	assert_int_equal(state_path(fixture->state, path, site, file), 0);
	if (blob_read(AT_FDCWD, path, 1 << 20, &data, ret_n) < 0)
		fail_msg("%s cannot be read", path);
	return data;
}

/* What can be promoted can be served: as serving_load() reads it. */
static void check_servable(struct fixture *fixture, const char *site, const struct version_row *row)
{
	_cleanup_(freep) void *kmask = NULL, *kref = NULL, *manifest = NULL;
	_cleanup_(reference_freep) struct reference *reference = NULL;
	struct kmask_header header;
	struct diag diag = { "" };
	char file[48];
	size_t n;

	(void)snprintf(file, sizeof(file), "masks/%u.kmask", row->version);
	kmask = read_site_file(fixture, site, file, &n);
	if (kmask_verify(kmask, n, &header, &diag) < 0)
		fail_msg("%s/%s: %s", site, file, diag.text);
	assert_true(digest_equal(&header.mask, &row->mask));
	(void)snprintf(file, sizeof(file), "masks/%u.kref", row->version);
	kref = read_site_file(fixture, site, file, &n);
	if (reference_decode(&reference, kref, n, &diag) < 0)
		fail_msg("%s/%s: %s", site, file, diag.text);
	assert_true(digest_equal(&reference->space, &row->space));
	(void)snprintf(file, sizeof(file), "masks/%u.manifest", row->version);
	manifest = read_site_file(fixture, site, file, &n);
	if (row->hardness_bytes > 0) {
		_cleanup_(freep) void *khard = NULL;
		struct hardness_info info;

		(void)snprintf(file, sizeof(file), "masks/%u.khard", row->version);
		khard = read_site_file(fixture, site, file, &n);
		assert_int_equal(n, row->hardness_bytes);
		assert_int_equal(hardness_check(&info, khard, n, NULL), 0);
		assert_true(digest_equal(&info.mask, &row->mask));
	}
}

/* A learner could go on: the manifest is whole, and so is every image that it names. */
static void check_round(struct fixture *fixture, const char *site, const struct version_row *row)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	_cleanup_(freep) char *text = NULL;
	size_t n;

	text = read_site_file(fixture, site, "round/manifest", &n);
	assert_int_equal(manifest_read(&manifest, text, n, NULL), 0);
	assert_int_equal(manifest.n, row->n_images);
	for (uint32_t i = 0; i < manifest.n; i++) {
		_cleanup_(freep) void *data = NULL;
		char file[160];

		(void)snprintf(file, sizeof(file), "replay/%s", manifest.entries[i].blob);
		data = read_site_file(fixture, site, file, &n);
	}
}

static void observe_versions(struct fixture *fixture, const char *site, struct site_model *model)
{
	_cleanup_(freep) struct version_row *rows = NULL;
	uint32_t n;

	assert_int_equal(state_version_list(fixture->state, site, &rows, &n), 0);
	for (uint32_t i = 0; i < n; i++) {
		model->n_versions = rows[i].version;
		if (rows[i].state == VERSION_LEARNING) {
			model->running = rows[i].version;
			check_round(fixture, site, &rows[i]);
		} else if (rows[i].state != VERSION_FAILED) {
			check_servable(fixture, site, &rows[i]);
		}
		assert_int_equal(
			rows[i].state == VERSION_CHAMPION, rows[i].version == model->champion);
	}
}

static void observe_classes(struct fixture *fixture, const char *site, struct site_model *model)
{
	_cleanup_(freep) struct class_row *rows = NULL;
	uint32_t n;

	assert_int_equal(state_class_list(fixture->state, site, &rows, &n), 0);
	for (uint32_t i = 0; i < n; i++) {
		model->classes |= 1u << (rows[i].name[0] - '0');
		model->n_supports += rows[i].n_supports;
	}
	for (unsigned space = 0; space < LIFE_SPACES; space++) {
		_cleanup_(features_done) struct features features = { 0 };

		assert_int_equal(
			state_features_read(fixture->state, site, &spaces[space], DIM, &features),
			0);
		for (uint32_t i = 0; i < features.n; i++) {
			const struct feature_row *row = &features.rows[i];

			if (!row->is_known)
				continue;
			model->n_known[space] += row->class != FEATURE_OF_LINE;
			for (uint32_t k = 0; k < DIM; k++)
				assert_close(features.values[i * DIM + k],
					feature_of(row->image, space, k), 0);
		}
	}
}

void life_observe(struct fixture *fixture, struct model *ret_model)
{
	struct model model = { 0 };

	for (unsigned i = 0; i < LIFE_SITES; i++) {
		struct site_model *site = &model.sites[i];
		struct site_row row;
		int r = state_site_get(fixture->state, life_sites[i], &row);

		if (r == -ENOENT)
			continue;
		assert_int_equal(r, 0);
		site->is_there = true;
		site->champion = row.champion;
		site->predecessor = row.predecessor;
		site->images = read_images(fixture, life_sites[i]);
		assert_int_equal(row.n_images, __builtin_popcountll(site->images));
		observe_versions(fixture, life_sites[i], site);
		observe_classes(fixture, life_sites[i], site);
	}
	*ret_model = model;
}

static bool site_equal(const struct site_model *a, const struct site_model *b)
{
	return a->is_there == b->is_there && a->images == b->images && a->champion == b->champion &&
	       a->predecessor == b->predecessor && a->running == b->running &&
	       a->n_versions == b->n_versions && a->classes == b->classes &&
	       a->n_supports == b->n_supports &&
	       memcmp(a->n_known, b->n_known, sizeof(a->n_known)) == 0;
}

static bool model_equal(const struct model *a, const struct model *b)
{
	for (unsigned i = 0; i < LIFE_SITES; i++)
		if (!site_equal(&a->sites[i], &b->sites[i]))
			return false;
	return true;
}

static void print_model(const char *name, const struct model *model)
{
	for (unsigned i = 0; i < LIFE_SITES; i++) {
		const struct site_model *site = &model->sites[i];

		print_message("%s %s: %s, images %#llx, champion %u before %u, running %u of %u, "
			      "classes %#x of %u images, of which %u and %u are known\n",
			name, life_sites[i], site->is_there ? "there" : "not there",
			(unsigned long long)site->images, site->champion, site->predecessor,
			site->running, site->n_versions, site->classes, site->n_supports,
			site->n_known[0], site->n_known[1]);
	}
}

static bool is_allowed(const struct model *seen, const struct ledger *ledger)
{
	struct model fewer = ledger->now;

	if (model_equal(seen, &ledger->now) || model_equal(seen, &ledger->next))
		return true;
	if (!ledger->is_evicting)
		return false;
	for (unsigned i = 0; i < LIFE_SITES; i++)
		fewer.sites[i].images &= seen->sites[i].images;
	return model_equal(seen, &fewer);
}

static uint64_t count(struct fixture *fixture, const char *query)
{
	sqlite3 *db = open_database(fixture);
	sqlite3_stmt *statement;
	uint64_t n;

	assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	n = (uint64_t)sqlite3_column_int64(statement, 0);
	(void)sqlite3_finalize(statement);
	(void)sqlite3_close(db);
	return n;
}

static void check_audit(struct fixture *fixture, const struct ledger *ledger)
{
	struct diag diag = { "" };
	struct digest head;
	uint64_t n;

	if (state_audit_verify(fixture->state, &n, &head, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_true(n >= ledger->n_audit);
	assert_int_equal(count(fixture, "SELECT count(*) FROM audit WHERE what = 'image.lost'"), 0);
}

/* What is left is no museum. */
static void go_on(struct fixture *fixture, const struct model *model)
{
	struct diag diag = { "" };
	uint32_t version;

	if (!model->sites[A].is_there)
		assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 40, 42);
	if (model->sites[A].running > 0)
		assert_int_equal(
			state_round_fail(fixture->state, "a", model->sites[A].running, "x"), 0);
	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "a test", 1, 5, 1 }, &version, &diag),
		0);
	assert_int_equal(version, model->sites[A].n_versions + 1);
	assert_int_equal(state_promote(fixture->state, "a", 0, "me"), 0);
}

void life_check(struct fixture *fixture, const struct ledger *ledger)
{
	struct model seen;

	life_observe(fixture, &seen);
	if (!is_allowed(&seen, ledger)) {
		print_model("told", &ledger->now);
		print_model("next", &ledger->next);
		print_model("seen", &seen);
		fail_msg("what is left is not what was told");
	}
	check_audit(fixture, ledger);
	go_on(fixture, &seen);
	check_audit(fixture, ledger);
}
