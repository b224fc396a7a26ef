/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sqlite3.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "site/state_internal.h"
#include "state_fixture.h"

static void sites_come_back_sorted_with_their_settings(void **state)
{
	struct fixture *fixture = *state;
	_cleanup_(freep) struct site_row *rows = NULL;
	struct site_settings settings = fixture->defaults;
	struct site_row row;
	uint32_t n;

	assert_int_equal(site_settings_set(&settings, "input_px", "112", NULL), 0);
	assert_int_equal(site_settings_set(&settings, "resize", "squash", NULL), 0);
	assert_int_equal(state_site_create(fixture->state, "weld", &settings), 0);
	assert_int_equal(state_site_create(fixture->state, "paint", &fixture->defaults), 0);
	assert_int_equal(state_site_create(fixture->state, "weld", &settings), -EEXIST);
	assert_int_equal(state_site_create(fixture->state, "../x", &settings), -EINVAL);
	assert_int_equal(state_site_create(fixture->state, "", &settings), -EINVAL);
	fixture_reopen(fixture);
	assert_int_equal(state_site_list(fixture->state, &rows, &n), 0);
	assert_int_equal(n, 2);
	assert_string_equal(rows[0].site, "paint");
	assert_string_equal(rows[1].site, "weld");
	assert_int_equal(rows[1].settings.input_px, 112);
	assert_string_equal(rows[1].settings.resize, "squash");
	assert_int_equal(rows[0].settings.input_px, fixture->defaults.input_px);
	assert_int_equal(rows[1].champion, 0);
	assert_int_equal(state_site_get(fixture->state, "none", &row), -ENOENT);
}

static void what_a_site_was_told_outlives_new_defaults(void **state)
{
	struct fixture *fixture = *state;
	struct site_settings settings = fixture->defaults, next = fixture->defaults;
	struct site_row row;
	uint32_t keys = 0;

	for (unsigned i = 0; config_site_keys[i]; i++)
		if (strcmp(config_site_keys[i], "learn_min_images") == 0)
			keys = 1u << i;
	assert_int_equal(
		state_site_create_with(fixture->state, "own", &settings, keys, "a test"), 0);
	assert_int_equal(
		state_site_create_with(fixture->state, "plain", &settings, 0, "a test"), 0);
	next.learn_min_images = settings.learn_min_images + 1;
	state_set_defaults(fixture->state, &next);
	assert_int_equal(state_site_get(fixture->state, "own", &row), 0);
	assert_int_equal(row.settings.learn_min_images, settings.learn_min_images);
	assert_int_equal(state_site_get(fixture->state, "plain", &row), 0);
	assert_int_equal(row.settings.learn_min_images, next.learn_min_images);
}

static void a_deleted_site_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct site_row row;
	char path[512];

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 5);
	assert_int_equal(state_path(fixture->state, path, "a", ""), 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(state_site_delete(fixture->state, "a", "a test"), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(state_site_get(fixture->state, "a", &row), -ENOENT);
	assert_int_equal(state_site_delete(fixture->state, "a", "a test"), -ENOENT);
	/* The name is free again and begins empty. */
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	assert_int_equal(state_site_get(fixture->state, "a", &row), 0);
	assert_int_equal(row.n_images, 0);
}

static uint32_t count_sites(const struct fixture *fixture)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	const struct dirent *entry;
	uint32_t n = 0;
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/sites", fixture->dir);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	return n;
}

static void a_deleted_sites_files_go_in_slices(void **state)
{
	struct fixture *fixture = *state;
	unsigned n_slices = 1;
	int r;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 50);
	assert_int_equal(state_tidy(fixture->state, 8), 0);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 50);
	assert_int_equal(state_site_delete(fixture->state, "a", "a test"), 0);
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 3);
	assert_int_equal(count_sites(fixture), 2);
	while ((r = state_tidy(fixture->state, 8)) == 1)
		n_slices++;
	assert_int_equal(r, 0);
	assert_in_range(n_slices, 6, 20);
	assert_int_equal(count_sites(fixture), 1);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 3);
	/* Or at the next start. */
	assert_int_equal(state_site_delete(fixture->state, "a", "a test"), 0);
	assert_int_equal(count_sites(fixture), 1);
	fixture_reopen(fixture);
	assert_int_equal(count_sites(fixture), 0);
}

static void duplicates_are_counted_not_stored(void **state)
{
	struct fixture *fixture = *state;
	struct image_row row;
	struct site_row site;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 3);
	row = fixture_image(fixture, "a", 1);
	assert_int_equal(state_admit(fixture->state, &row), 0);
	row = fixture_image(fixture, "a", 3);
	assert_int_equal(state_admit(fixture->state, &row), 1);
	assert_int_equal(state_admit(fixture->state, &row), 0);
	assert_int_equal(state_count_refused(fixture->state, "a", 2, 7), 0);
	assert_true(state_batch_open(fixture->state));
	assert_int_equal(state_commit(fixture->state), 0);
	assert_false(state_batch_open(fixture->state));
	fixture_reopen(fixture);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_int_equal(site.n_images, 4);
	assert_int_equal(site.n_duplicates, 2);
	assert_int_equal(site.n_rejected, 2);
	assert_int_equal(site.n_gaps, 7);
	assert_int_equal(site.replay_bytes, 4 * FIXTURE_BLOB_BYTES);
}

static void an_image_is_refused_without_site_or_blob(void **state)
{
	struct fixture *fixture = *state;
	struct image_row row, bad;
	char path[512], file[160];

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	row = fixture_image(fixture, "a", 0);
	bad = row;
	(void)snprintf(bad.site, sizeof(bad.site), "%s", "none");
	assert_int_equal(state_admit(fixture->state, &bad), -ENOENT);
	bad = row;
	(void)snprintf(bad.blob, sizeof(bad.blob), "%s", "../../state.db");
	assert_int_equal(state_admit(fixture->state, &bad), -EINVAL);
	bad = row;
	bad.n_bytes--;
	assert_int_equal(state_admit(fixture->state, &bad), -ESTALE);
	bad = row;
	bad.hash.bytes[0] ^= 1;
	assert_int_equal(state_admit(fixture->state, &row), 1);
	assert_int_equal(state_admit(fixture->state, &bad), -EEXIST);
	(void)snprintf(file, sizeof(file), "replay/%s", row.blob);
	assert_int_equal(state_path(fixture->state, path, "a", file), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(state_admit(fixture->state, &row), -ESTALE);
	/* What one refused image did not harm. */
	assert_int_equal(state_commit(fixture->state), 0);
}

static void another_verb_commits_the_open_batch(void **state)
{
	struct fixture *fixture = *state;
	struct image_row row;
	struct site_row site;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	row = fixture_image(fixture, "a", 0);
	assert_int_equal(state_admit(fixture->state, &row), 1);
	assert_int_equal(state_audit(fixture->state, "a", "test", "x"), 0);
	assert_true(state_batch_open(fixture->state));
	row = fixture_image(fixture, "a", 1);
	assert_int_equal(state_admit(fixture->state, &row), 1);
	assert_int_equal(state_commit(fixture->state), 0);
	assert_int_equal(state_commit(fixture->state), 0);
	fixture_reopen(fixture);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_int_equal(site.n_images, 2);
}

static bool has_blob(struct fixture *fixture, const char *site, uint32_t i)
{
	const struct digest hash = fixture_hash(i);
	char hex[DIGEST_HEX_CHARS + 1];
	char path[512], file[160];

	digest_to_hex(&hash, hex);
	(void)snprintf(file, sizeof(file), "replay/%s.kimg", hex);
	assert_int_equal(state_path(fixture->state, path, site, file), 0);
	return access(path, F_OK) == 0;
}

static void a_full_disk_accepts_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct image_row rows[3];
	struct rlimit usual, full;
	struct site_row site;
	struct digest head;
	uint64_t n;
	int r;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 2);
	for (uint32_t i = 0; i < 3; i++) {
		rows[i] = fixture_image(fixture, "a", 2 + i);
		assert_int_equal(state_admit(fixture->state, &rows[i]), 1);
	}
	/* No file may grow: what a full disk says to SQLite. */
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
	full = usual;
	full.rlim_cur = 1;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
	r = state_commit(fixture->state);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &usual), 0);
	assert_true(r < 0);
	assert_false(state_batch_open(fixture->state));
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_int_equal(site.n_images, 2);

	/* Another verb finds the batch lost; the commit says so all the same. */
	assert_int_equal(state_admit(fixture->state, &rows[0]), 1);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
	r = state_audit(fixture->state, "a", "test", "");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &usual), 0);
	assert_true(r < 0);
	assert_true(state_batch_open(fixture->state));
	assert_true(state_admit(fixture->state, &rows[1]) < 0);
	assert_true(state_commit(fixture->state) < 0);

	assert_int_equal(state_admit(fixture->state, &rows[0]), 1);
	assert_int_equal(state_commit(fixture->state), 0);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_int_equal(site.n_images, 3);
	assert_int_equal(state_audit_verify(fixture->state, &n, &head, NULL), 0);
}

static void eviction_keeps_the_newest_half(void **state)
{
	struct fixture *fixture = *state;
	struct site_row site;
	uint32_t n_new = 0, n_old = 0;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 200);
	assert_int_equal(state_evict(fixture->state, "a", 200 * FIXTURE_BLOB_BYTES, false), 0);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 200);
	assert_int_equal(state_evict(fixture->state, "a", 100 * FIXTURE_BLOB_BYTES, false), 0);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_in_range(site.replay_bytes, 90 * FIXTURE_BLOB_BYTES, 100 * FIXTURE_BLOB_BYTES);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), site.n_images);
	for (uint32_t i = 0; i < 200; i++) {
		uint32_t *n = i >= 152 ? &n_new : &n_old;

		*n += has_blob(fixture, "a", i);
	}
	assert_int_equal(n_new, 48);
	assert_int_equal(n_old, site.n_images - 48);
	assert_int_equal(state_evict(fixture->state, "none", 1, false), -ENOENT);
}

static void eviction_spares_what_a_round_learns_from(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	struct site_row site;
	uint32_t version;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "a test", 32, 5, 1 }, &version, &diag),
		0);
	fixture_fill(fixture, "a", 40, 80);
	assert_int_equal(state_evict(fixture->state, "a", 10 * FIXTURE_BLOB_BYTES, false), 0);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_in_range(site.n_images, 40, 46);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), site.n_images);
	assert_int_equal(state_round_fail(fixture->state, "a", version, "stopped"), 0);
	assert_int_equal(state_evict(fixture->state, "a", 10 * FIXTURE_BLOB_BYTES, false), 0);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_in_range(site.n_images, 1, 10);
}

static uint64_t n_images(struct fixture *fixture)
{
	struct site_row site;

	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	return site.n_images;
}

/* To look at every row costs; while a round holds most of them it would be in vain. */
static void a_store_that_a_round_holds_is_not_looked_at_for_every_image(void **state)
{
	const uint64_t bound = 64 * FIXTURE_BLOB_BYTES; /* a slack of two images */
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	uint32_t version;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 100);
	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "a test", 32, 5, 1 }, &version, &diag),
		0);
	fixture_fill(fixture, "a", 100, 140);
	assert_int_equal(state_evict(fixture->state, "a", bound, false), 0);
	assert_int_equal(n_images(fixture), 131);
	fixture_fill(fixture, "a", 140, 141);
	assert_int_equal(state_evict(fixture->state, "a", bound, false), 0);
	assert_int_equal(n_images(fixture), 132);
	fixture_fill(fixture, "a", 141, 142);
	assert_int_equal(state_evict(fixture->state, "a", bound, false), 0);
	assert_int_equal(n_images(fixture), 131);
	/* Another bound, or the round's end: at once. */
	fixture_fill(fixture, "a", 142, 143);
	assert_int_equal(state_evict(fixture->state, "a", bound / 2, false), 0);
	assert_int_equal(n_images(fixture), 115);
	assert_int_equal(state_round_fail(fixture->state, "a", version, "stopped"), 0);
	assert_int_equal(state_evict(fixture->state, "a", bound / 2, false), 0);
	assert_in_range(n_images(fixture), 16, 32);
}

static void touch(struct fixture *fixture, const char *site, const char *file)
{
	char path[512];

	assert_int_equal(state_path(fixture->state, path, site, file), 0);
	assert_int_equal(blob_write(AT_FDCWD, path, "x", 1), 0);
}

static void orphans_are_swept_and_lost_rows_dropped(void **state)
{
	struct fixture *fixture = *state;
	struct image_row lost;
	struct site_row site;
	struct digest head;
	uint64_t n_before, n_after;
	char path[512], file[160];

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 6);
	touch(fixture, "a", "replay/orphan.kimg");
	touch(fixture, "a", "replay/torn.kimg.tmp");
	touch(fixture, "a", "masks/9.kmask");
	touch(fixture, "a", "masks/9.kcas");
	touch(fixture, "a", "masks/0.kref");
	touch(fixture, "a", "masks/x");
	touch(fixture, "a", "round/manifest");
	lost = fixture_image(fixture, "a", 2);
	(void)snprintf(file, sizeof(file), "replay/%s", lost.blob);
	assert_int_equal(state_path(fixture->state, path, "a", file), 0);
	assert_int_equal(unlink(path), 0);
	(void)snprintf(path, sizeof(path), "%s/sites/ghost", fixture->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(state_audit_verify(fixture->state, &n_before, &head, NULL), 0);

	fixture_reopen(fixture);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 5);
	assert_int_equal(fixture_count_files(fixture, "a", "masks"), 1);
	assert_int_equal(fixture_count_files(fixture, "a", "round"), 0);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_int_equal(site.n_images, 5);
	assert_int_equal(state_audit_verify(fixture->state, &n_after, &head, NULL), 0);
	assert_int_equal(n_after, n_before + 1);
}

static int query(const struct fixture *fixture, const char *sql)
{
	char path[128];
	sqlite3 *db = NULL;
	int code;

	(void)snprintf(path, sizeof(path), "%s/state.db", fixture->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	code = sqlite3_exec(db, sql, NULL, NULL, NULL);
	(void)sqlite3_close(db);
	return code;
}

static void the_audit_head_is_the_end_of_the_chain(void **state)
{
	struct fixture *fixture = *state;
	static const struct digest none;
	struct digest head, walked;
	uint64_t n, n_walked;

	assert_int_equal(state_audit_head(fixture->state, &n, &head), 0);
	assert_int_equal(n, 0);
	assert_true(digest_equal(&head, &none));
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(state_audit(fixture->state, "a", "test", "detail"), 0);
		assert_int_equal(state_audit_head(fixture->state, &n, &head), 0);
		assert_int_equal(state_audit_verify(fixture->state, &n_walked, &walked, NULL), 0);
		assert_int_equal(n, i);
		assert_int_equal(n_walked, i);
		assert_true(digest_equal(&head, &walked));
	}
}

struct seen {
	uint64_t seqs[8];
	unsigned n;
};

static void see(void *data, const struct chain_row *row)
{
	struct seen *seen = data;

	assert_true(seen->n < ARRAY_SIZE(seen->seqs));
	assert_string_equal(row->site, row->seq % 2 ? "a" : "b");
	seen->seqs[seen->n++] = row->seq;
}

static int rows_scanned(const struct fixture *fixture, enum statement which)
{
	assert_non_null(fixture->state->statements[which]);
	return sqlite3_stmt_status(
		fixture->state->statements[which], SQLITE_STMTSTATUS_FULLSCAN_STEP, 0);
}

static void the_audit_is_read_by_site_and_from_its_end(void **state)
{
	struct fixture *fixture = *state;
	struct seen seen = { .n = 0 };
	uint64_t after;

	for (unsigned i = 1; i <= 6; i++)
		assert_int_equal(
			state_audit(fixture->state, i % 2 ? "a" : "b", "test", "detail"), 0);
	assert_int_equal(state_audit_seek(fixture->state, "b", 2, &after), 0);
	assert_int_equal(after, 3);
	assert_int_equal(state_audit_walk(fixture->state, "b", after, 8, see, &seen), 2);
	assert_int_equal(seen.seqs[0], 4);
	assert_int_equal(seen.seqs[1], 6);
	assert_int_equal(state_audit_seek(fixture->state, "", 100, &after), 0);
	assert_int_equal(after, 0);
	seen.n = 0;
	assert_int_equal(state_audit_walk(fixture->state, "", after, 5, see, &seen), 5);
	assert_int_equal(seen.seqs[4], 5);
	assert_int_equal(state_audit_walk(fixture->state, "", 6, 5, see, &seen), 0);
	assert_int_equal(state_audit_walk(fixture->state, "none", 0, 5, see, &seen), 0);
	assert_int_equal(state_audit_walk(fixture->state, "", UINT64_MAX, 5, see, &seen), 0);
	assert_int_equal(state_audit_seek(fixture->state, "", 0, &after), -EINVAL);
	assert_int_equal(
		state_audit_seek(fixture->state, "b", AUDIT_MAX_LAST + 1, &after), -EINVAL);
	assert_int_equal(state_audit_seek(fixture->state, "b", AUDIT_MAX_LAST, &after), 0);
	/* Whoever asks for one site does not make the loop look through the others. */
	assert_int_equal(rows_scanned(fixture, SQL_AUDIT_SEEK_SITE), 0);
	assert_int_equal(rows_scanned(fixture, SQL_AUDIT_FROM_SITE), 0);
}

static void a_changed_audit_row_is_found(void **state)
{
	struct fixture *fixture = *state;
	struct digest head, again;
	struct diag diag = { "" };
	uint64_t n;

	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(state_audit(fixture->state, "a", "test", "detail"), 0);
	assert_int_equal(state_audit_verify(fixture->state, &n, &head, &diag), 0);
	assert_int_equal(n, 5);
	fixture_reopen(fixture);
	assert_int_equal(state_audit_verify(fixture->state, &n, &again, &diag), 0);
	assert_true(digest_equal(&head, &again));
	assert_int_equal(
		query(fixture, "UPDATE audit SET detail = 'other' WHERE seq = 3"), SQLITE_OK);
	assert_int_equal(state_audit_verify(fixture->state, &n, &again, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "row 3"));
	assert_int_equal(query(fixture, "DELETE FROM audit WHERE seq = 3"), SQLITE_OK);
	assert_int_equal(state_audit_verify(fixture->state, &n, &again, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "row 3"));
}

static void write_over(const struct fixture *fixture, const char *file, off_t at, const char *text)
{
	char path[128];
	_cleanup_(closep) int fd = -1;

	(void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, file);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, strlen(text), at), strlen(text));
}

static void a_damaged_database_is_one_error_with_its_path(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	struct state *other = NULL;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	assert_int_equal(state_open(&other, fixture->dir, &fixture->defaults, &diag), -EBUSY);
	assert_non_null(strstr(diag.text, fixture->dir));
	state_free(fixture->state);
	fixture->state = NULL;
	write_over(fixture, "state.db", 0, "this is not a database at all");
	assert_int_equal(state_open(&other, fixture->dir, &fixture->defaults, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "state.db"));
	assert_null(other);
}

static void a_damaged_page_is_found_at_open(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	struct state *other = NULL;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 100);
	state_free(fixture->state);
	fixture->state = NULL;
	for (off_t at = 8192; at < 8192 + 4096; at += 16)
		write_over(fixture, "state.db", at, "not a page now..");
	assert_int_equal(state_open(&other, fixture->dir, &fixture->defaults, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "state.db"));
	assert_non_null(strstr(diag.text, "damaged"));
}

static void a_lost_database_does_not_cost_the_masks(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	struct state *other = NULL;
	char path[128];

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 2);
	assert_int_equal(query(fixture, "PRAGMA user_version = 99"), SQLITE_OK);
	state_free(fixture->state);
	fixture->state = NULL;
	assert_int_equal(
		state_open(&other, fixture->dir, &fixture->defaults, &diag), -EPROTONOSUPPORT);
	assert_non_null(strstr(diag.text, "99"));
	(void)snprintf(path, sizeof(path), "%s/state.db", fixture->dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(state_open(&other, fixture->dir, &fixture->defaults, &diag), -ENOTEMPTY);
	(void)snprintf(path, sizeof(path), "%s/sites/a/replay", fixture->dir);
	assert_int_equal(access(path, F_OK), 0);
}

/* Every column, index and trigger, whatever their order. */
static char *schema_of(struct fixture *fixture)
{
	static const char query[] =
		"SELECT group_concat(line, char(10)) FROM (SELECT * FROM ("
		"SELECT m.name || '.' || p.name || ' ' || p.type || ' ' || p.\"notnull\" || ' ' ||"
		" coalesce(p.dflt_value, '') || ' ' || p.pk AS line"
		" FROM sqlite_schema m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'"
		" UNION ALL SELECT type || ' ' || name || ': ' || coalesce(sql, '')"
		" FROM sqlite_schema WHERE type <> 'table') ORDER BY line)";
	sqlite3_stmt *statement;
	char *text;

	assert_int_equal(
		sqlite3_prepare_v2(fixture->state->db, query, -1, &statement, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	text = strdup((const char *)sqlite3_column_text(statement, 0));
	assert_non_null(text);
	(void)sqlite3_finalize(statement);
	return text;
}

/* What an earlier kamend wrote is brought up to date once, with all its rows. */
static void an_older_database_is_upgraded(void **state)
{
	struct fixture *fixture = *state;
	_cleanup_(freep) char *fresh = schema_of(fixture), *upgraded = NULL;
	struct version_row row, back;
	struct live_row live;
	uint32_t version;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "a test", 32, 50, 7 }, &version, NULL),
		0);
	row = fixture_results(fixture, "a", version, false);
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	assert_int_equal(
		query(fixture, "ALTER TABLE version DROP COLUMN retrieval_error;"
			       "ALTER TABLE version DROP COLUMN margin_error;"
			       "DROP TABLE figure; DROP TABLE withdrawal; DROP TABLE label;"
			       "DROP TABLE live; DROP INDEX audit_of_site;"
			       "DROP TABLE feature; DROP TABLE support; DROP TABLE class;"
			       "ALTER TABLE version DROP COLUMN kept_step;"
			       "ALTER TABLE version DROP COLUMN keep;"
			       "ALTER TABLE version DROP COLUMN why;"
			       "ALTER TABLE version DROP COLUMN recipe_text;"
			       "ALTER TABLE version DROP COLUMN prep_text;"
			       "ALTER TABLE version DROP COLUMN objective;"
			       "ALTER TABLE version DROP COLUMN drifted;"
			       "DROP TRIGGER image_added;"
			       "CREATE TRIGGER image_added AFTER INSERT ON image BEGIN"
			       " SELECT 1; END;"
			       "ALTER TABLE site DROP COLUMN hold;"
			       "ALTER TABLE site DROP COLUMN held;"
			       "ALTER TABLE site DROP COLUMN n_new;"
			       "ALTER TABLE site DROP COLUMN round_us;"
			       "DROP INDEX image_by_hardness;"
			       "ALTER TABLE image DROP COLUMN hardness;"
			       "PRAGMA user_version = 1"),
		SQLITE_OK);
	fixture_reopen(fixture);
	upgraded = schema_of(fixture);
	assert_string_equal(upgraded, fresh);
	assert_int_equal(state_version_get(fixture->state, "a", version, &back), 0);
	assert_close(back.candidate.margin, row.candidate.margin, 0);
	assert_true(isnan(back.candidate.margin_error));
	fixture_reopen(fixture);
	assert_int_equal(state_version_get(fixture->state, "a", version, &back), 0);
	assert_int_equal(state_live_get(fixture->state, "a", &live), 0);
	assert_int_equal(query(fixture, "DROP INDEX audit_of_site"), SQLITE_OK);
}

#define with_state(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

/* How far the log is written back: pages of it, and of these done. */
static int log_pages(struct fixture *fixture, int *ret_done)
{
	int n = 0;

	assert_int_equal(sqlite3_wal_checkpoint_v2(
				 fixture->state->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &n, ret_done),
		SQLITE_OK);
	return n;
}

static void batches_leave_the_disk_to_somebody_else(void **state)
{
	struct fixture *fixture = *state;
	struct image_row row;
	struct site_row site;
	struct digest head, hash;
	uint64_t n;
	int done;

	assert_int_equal(state_disk_open(&fixture->disk, fixture->state, NULL), 0);
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	assert_false(fixture->state->is_relaxed);
	fixture_fill(fixture, "a", 0, 2);
	assert_true(fixture->state->is_relaxed);
	/* A decision in between is durable by itself, and what the batch had is committed before it. */
	row = fixture_image(fixture, "a", 2);
	assert_int_equal(state_admit(fixture->state, &row), 1);
	assert_int_equal(state_audit_soon(fixture->state, "a", "mask.refuse", "by nobody"), 0);
	assert_int_equal(state_audit(fixture->state, "a", "test", ""), 0);
	assert_false(fixture->state->is_relaxed);
	assert_int_equal(state_commit(fixture->state), 0);
	assert_int_equal(state_disk_sync(fixture->disk), 0);
	assert_int_equal(state_audit_verify(fixture->state, &n, &head, NULL), 0);
	assert_int_equal(n, 3);

	/* What a failed sync leaves behind goes again, once. */
	hash = fixture_hash(2);
	assert_int_equal(state_take_back(fixture->state, "a", &hash), 0);
	assert_int_equal(state_take_back(fixture->state, "a", &hash), 0);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_int_equal(site.n_images, 2);
	state_disk_free(TAKE_PTR(fixture->disk));
	fixture_fill(fixture, "a", 3, 4);
	assert_false(fixture->state->is_relaxed);
	assert_true(log_pages(fixture, &done) > 0);
}

static void the_log_is_written_back_by_who_waits_for_the_disk(void **state)
{
	struct fixture *fixture = *state;
	int n_pages, done = 0;

	assert_int_equal(state_disk_open(&fixture->disk, fixture->state, NULL), 0);
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	for (uint32_t i = 0; i < 2000 && !state_disk_is_due(fixture->disk); i++)
		assert_int_equal(state_audit_soon(fixture->state, "a", "test", "") |
					 state_commit(fixture->state),
			0);
	assert_true(state_disk_is_due(fixture->disk));
	assert_int_equal(state_disk_checkpoint(fixture->disk), 0);
	n_pages = log_pages(fixture, &done);
	assert_true(n_pages >= 1000);
	assert_int_equal(done, n_pages);
	/* The log begins anew. */
	fixture_fill(fixture, "a", 0, 1);
	assert_false(state_disk_is_due(fixture->disk));
	state_disk_free(TAKE_PTR(fixture->disk));
	fixture_reopen(fixture);
	assert_int_equal(
		state_audit_verify(fixture->state, &(uint64_t){ 0 }, &(struct digest){ 0 }, NULL),
		0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_state(sites_come_back_sorted_with_their_settings),
		with_state(a_deleted_site_leaves_nothing),
		with_state(a_deleted_sites_files_go_in_slices),
		with_state(duplicates_are_counted_not_stored),
		with_state(an_image_is_refused_without_site_or_blob),
		with_state(another_verb_commits_the_open_batch),
		with_state(a_full_disk_accepts_nothing),
		with_state(eviction_keeps_the_newest_half),
		with_state(eviction_spares_what_a_round_learns_from),
		with_state(a_store_that_a_round_holds_is_not_looked_at_for_every_image),
		with_state(orphans_are_swept_and_lost_rows_dropped),
		with_state(what_a_site_was_told_outlives_new_defaults),
		with_state(the_audit_head_is_the_end_of_the_chain),
		with_state(the_audit_is_read_by_site_and_from_its_end),
		with_state(a_changed_audit_row_is_found),
		with_state(a_damaged_database_is_one_error_with_its_path),
		with_state(a_damaged_page_is_found_at_open),
		with_state(a_lost_database_does_not_cost_the_masks),
		with_state(an_older_database_is_upgraded),
		with_state(batches_leave_the_disk_to_somebody_else),
		with_state(the_log_is_written_back_by_who_waits_for_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
