/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "site/manifest.h"
#include "state_fixture.h"

static char *read_file(struct fixture *fixture, const char *site, const char *file, size_t *ret_n)
{
	char path[512];
	void *data = NULL;

	assert_int_equal(state_path(fixture->state, path, site, file), 0);
	assert_int_equal(blob_read(AT_FDCWD, path, 1 << 20, &data, ret_n), 0);
	return data;
}

static uint32_t begin(struct fixture *fixture, const char *site)
{
	struct diag diag = { "" };
	uint32_t version = 0;
	int r = state_round_begin(
		fixture->state, site, &(struct round_wish){ "a test", 32, 50, 7 }, &version, &diag);

	if (r < 0)
		fail_msg("%s", diag.text);
	return version;
}

static uint32_t end(struct fixture *fixture, const char *site, bool passed)
{
	uint32_t version = begin(fixture, site);
	struct version_row row = fixture_results(fixture, site, version, passed);

	assert_int_equal(state_round_end(fixture->state, &row), 0);
	return version;
}

static void a_manifest_is_sorted_and_holds_out_blocks(void **state)
{
	struct fixture *fixture = *state;
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	_cleanup_(freep) char *text = NULL, *again = NULL;
	uint32_t n_held = 0, n_runs = 0;
	bool held_by_arrival[200] = { false };
	size_t n, n_again;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	assert_int_equal(state_site_create(fixture->state, "b", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 200);
	fixture_fill(fixture, "b", 0, 200);
	(void)begin(fixture, "a");
	(void)begin(fixture, "b");
	text = read_file(fixture, "a", "round/manifest", &n);
	again = read_file(fixture, "b", "round/manifest", &n_again);
	assert_int_equal(n, n_again);
	assert_memory_equal(text, again, n);

	assert_int_equal(manifest_read(&manifest, text, n, NULL), 0);
	assert_int_equal(manifest.n, 200);
	for (uint32_t i = 0; i < 200; i++) {
		const struct digest hash = fixture_hash(i);

		for (uint32_t j = 0; j < 200; j++)
			if (digest_equal(&manifest.entries[j].hash, &hash))
				held_by_arrival[i] = manifest.entries[j].held;
	}
	for (uint32_t i = 0; i < 200; i++) {
		n_held += held_by_arrival[i];
		n_runs += held_by_arrival[i] && (i == 0 || !held_by_arrival[i - 1]);
	}
	/* 25 blocks of 8, of which every fifth. */
	assert_int_equal(n_held, 40);
	assert_int_equal(n_runs, 5);
}

static void a_damaged_manifest_is_refused(void **state)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 }, out = { 0 };
	_cleanup_(freep) char *text = NULL;
	struct diag diag = { "" };
	size_t n;

	(void)state;
	for (uint32_t i = 0; i < 10; i++) {
		struct manifest_entry entry = { .hash = digest_of(&i, sizeof(i)) };

		(void)snprintf(entry.blob, sizeof(entry.blob), "%u.kimg", i);
		assert_int_equal(manifest_add(&manifest, &entry), 0);
	}
	manifest_split(&manifest);
	assert_int_equal(manifest_write(&manifest, &text, &n), 0);
	assert_int_equal(manifest_read(&out, text, n - 1, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "line 10"));
	text[0] = 'X';
	assert_int_equal(manifest_read(&out, text, n, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "line 1 "));
	text[0] = 'L';
	text[DIGEST_HEX_CHARS + 3] = '/';
	assert_int_equal(manifest_read(&out, text, n, &diag), -EBADMSG);
	text[DIGEST_HEX_CHARS + 3] = '1';
	text[2] = 'f';
	text[3] = 'f';
	assert_int_equal(manifest_read(&out, text, n, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "line 2 is out of order"));
	assert_int_equal(out.n, 0);
}

static void rounds_need_images_and_run_one_at_a_time(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	uint32_t version;

	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "a test", 32, 5, 1 }, &version, &diag),
		-ENOENT);
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 31);
	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "a test", 32, 5, 1 }, &version, &diag),
		-ENODATA);
	assert_non_null(strstr(diag.text, "31"));
	fixture_fill(fixture, "a", 31, 40);
	assert_int_equal(begin(fixture, "a"), 1);
	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "a test", 32, 5, 1 }, &version, &diag),
		-EBUSY);
	assert_int_equal(state_round_fail(fixture->state, "a", 1, "killed"), 0);
	assert_int_equal(state_round_fail(fixture->state, "a", 1, "killed"), -ENOENT);
	assert_int_equal(begin(fixture, "a"), 2);
}

static void a_running_round_outlives_a_restart(void **state)
{
	struct fixture *fixture = *state;
	_cleanup_(freep) struct version_row *rows = NULL;
	struct version_row row;
	uint32_t n;
	char path[512];

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	(void)begin(fixture, "a");
	fixture_reopen(fixture);
	assert_int_equal(state_round_list(fixture->state, &rows, &n), 0);
	assert_int_equal(n, 1);
	assert_string_equal(rows[0].site, "a");
	assert_int_equal(rows[0].version, 1);
	assert_int_equal(rows[0].steps, 50);
	assert_int_equal(rows[0].seed, 7);
	assert_int_equal(state_path(fixture->state, path, "a", "round/manifest"), 0);
	assert_int_equal(unlink(path), 0);
	fixture_reopen(fixture);
	assert_int_equal(state_version_get(fixture->state, "a", 1, &row), 0);
	assert_int_equal(row.state, VERSION_FAILED);
	assert_non_null(strstr(row.reasons, "manifest"));
}

static void a_finished_round_is_kept_with_every_figure(void **state)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	_cleanup_(freep) char *text = NULL;
	struct fixture *fixture = *state;
	struct version_row row, back;
	struct digest used;
	size_t n;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	row = fixture_results(fixture, "a", begin(fixture, "a"), false);
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	assert_int_equal(fixture_count_files(fixture, "a", "round"), 0);
	fixture_reopen(fixture);
	assert_int_equal(fixture_count_files(fixture, "a", "masks"), 4);
	assert_int_equal(state_version_get(fixture->state, "a", 1, &back), 0);
	assert_int_equal(back.state, VERSION_HELD);
	assert_true(back.n_bytes > 0 && back.created_us > 0);
	row.state = back.state;
	row.n_bytes = back.n_bytes;
	row.created_us = back.created_us;
	assert_memory_equal(&row, &back, offsetof(struct version_row, isa));
	assert_string_equal(row.isa, back.isa);
	assert_memory_equal(&row.base, &back.base, 6 * sizeof(struct digest));
	assert_memory_equal(&row.frozen, &back.frozen, 2 * sizeof(struct judgement_row));
	assert_false(back.passed);
	assert_string_equal(row.reasons, back.reasons);
	/* The list that is kept is the one that the row's digest is of. */
	text = read_file(fixture, "a", "masks/1.manifest", &n);
	assert_int_equal(manifest_read(&manifest, text, n, NULL), 0);
	used = manifest_digest(&manifest);
	assert_int_equal(manifest.n, 39);
	assert_true(digest_equal(&used, &back.manifest));
}

static void a_cascade_is_kept_as_one_file(void **state)
{
	struct fixture *fixture = *state;
	struct version_row row, wrong, back;
	char path[512];
	struct stat st;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	row = fixture_results(fixture, "a", begin(fixture, "a"), true);
	fixture_make_cascade(fixture, "a", &row);
	wrong = row;
	wrong.mask.bytes[0] ^= 1;
	assert_int_equal(state_round_end(fixture->state, &wrong), -EBADMSG);
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	fixture_reopen(fixture);
	assert_int_equal(fixture_count_files(fixture, "a", "masks"), 4);
	assert_int_equal(state_mask_path(fixture->state, path, "a", "masks/1"), 0);
	assert_non_null(strstr(path, "masks/1.kcas"));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(state_version_get(fixture->state, "a", 1, &back), 0);
	assert_int_equal(back.n_bytes, st.st_size);
	assert_int_equal(back.n_flips, 3);

	/* The next one is a mask again, and then nothing is left of the cascade. */
	row = fixture_results(fixture, "a", begin(fixture, "a"), true);
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	assert_int_equal(state_version_prune(fixture->state, "a", 1, 0, &(uint32_t){ 0 }), 0);
	assert_int_equal(fixture_count_files(fixture, "a", "masks"), 4);
	assert_int_equal(state_mask_path(fixture->state, path, "a", "masks/2"), 0);
	assert_non_null(strstr(path, "masks/2.kmask"));
}

static void results_that_are_not_what_the_row_says_are_refused(void **state)
{
	struct fixture *fixture = *state;
	struct version_row row, wrong, back;
	char path[512];

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	row = fixture_results(fixture, "a", begin(fixture, "a"), true);
	wrong = row;
	wrong.n_flips++;
	assert_int_equal(state_round_end(fixture->state, &wrong), -EBADMSG);
	wrong = row;
	wrong.space.bytes[0] ^= 1;
	assert_int_equal(state_round_end(fixture->state, &wrong), -EBADMSG);
	wrong = row;
	wrong.manifest.bytes[0] ^= 1;
	assert_int_equal(state_round_end(fixture->state, &wrong), -EBADMSG);
	wrong = row;
	wrong.version = 2;
	assert_int_equal(state_round_end(fixture->state, &wrong), -ENOENT);
	assert_int_equal(state_path(fixture->state, path, "a", "round/candidate.kref"), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(state_round_end(fixture->state, &row), -EBADMSG);
	assert_int_equal(fixture_count_files(fixture, "a", "masks"), 0);
	assert_int_equal(state_version_get(fixture->state, "a", 1, &back), 0);
	assert_int_equal(back.state, VERSION_LEARNING);
}

static void an_import_brings_its_mask_to_the_round_folder(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	_cleanup_(freep) char *text = NULL;
	uint32_t version;
	size_t n;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	assert_int_equal(
		state_import_begin(fixture->state, "a", "a test", "bits", 4, &version, &diag),
		-ENODATA);
	fixture_fill(fixture, "a", 0, 3);
	assert_int_equal(
		state_import_begin(fixture->state, "a", "a test", "bits", 4, &version, &diag), 0);
	assert_int_equal(version, 1);
	text = read_file(fixture, "a", "round/import.kmask", &n);
	assert_string_equal(text, "bits");
	assert_int_equal(fixture_count_files(fixture, "a", "round"), 2);
}

static enum version_state state_of(struct fixture *fixture, uint32_t version)
{
	struct version_row row;

	assert_int_equal(state_version_get(fixture->state, "a", version, &row), 0);
	return row.state;
}

static void assert_champion(struct fixture *fixture, uint32_t champion, uint32_t predecessor)
{
	struct site_row site;

	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	assert_int_equal(site.champion, champion);
	assert_int_equal(site.predecessor, predecessor);
}

static void what_is_withdrawn_is_known_by_its_bits(void **state)
{
	struct fixture *fixture = *state;
	struct digest other = digest_of("other", 5);
	struct version_row row;
	uint32_t version = 9;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	assert_int_equal(end(fixture, "a", true), 1);
	assert_int_equal(end(fixture, "a", true), 2);
	assert_int_equal(state_promote(fixture->state, "a", 1, "me"), 0);
	assert_int_equal(state_promote(fixture->state, "a", 2, "me"), 0);
	assert_int_equal(state_version_get(fixture->state, "a", 2, &row), 0);
	assert_string_equal(row.withdrawn, "");
	assert_int_equal(state_is_withdrawn(fixture->state, "a", &row.mask), 0);
	assert_int_equal(state_withdraw(fixture->state, "a", 1, "why", &version), -ESTALE);
	assert_int_equal(state_withdraw(fixture->state, "a", 2, "9 of 20 are NG", &version), 0);
	assert_int_equal(version, 1);
	assert_champion(fixture, 1, 0);
	fixture_reopen(fixture);
	assert_int_equal(state_version_get(fixture->state, "a", 2, &row), 0);
	assert_string_equal(row.withdrawn, "9 of 20 are NG");
	assert_int_equal(row.state, VERSION_RETIRED);
	assert_int_equal(state_is_withdrawn(fixture->state, "a", &row.mask), 1);
	assert_int_equal(state_is_withdrawn(fixture->state, "a", &other), 0);
	assert_int_equal(state_audit_verify(fixture->state, &(uint64_t){ 0 }, &other, NULL), 0);
	/* Who says so may. */
	assert_int_equal(state_promote(fixture->state, "a", 2, "me"), 0);
}

static void a_hardness_file_goes_with_its_mask(void **state)
{
	struct fixture *fixture = *state;
	struct version_row row, other, back;
	char path[512];
	uint32_t version;
	size_t n;

	assert_int_equal(state_site_create(fixture->state, "h", &fixture->defaults), 0);
	fixture_fill(fixture, "h", 0, 40);
	version = begin(fixture, "h");
	row = fixture_results(fixture, "h", version, true);
	other = row;
	other.mask = digest_of("another", 7);
	fixture_hardness(fixture, &other);
	assert_int_equal(state_round_end(fixture->state, &row), -EBADMSG);
	fixture_hardness(fixture, &row);
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	assert_int_equal(state_version_get(fixture->state, "h", version, &back), 0);
	free(read_file(fixture, "h", "masks/1.khard", &n));
	assert_int_equal(back.hardness_bytes, n);
	/* The next one has none, and the sweep leaves the first one's alone. */
	(void)end(fixture, "h", true);
	fixture_reopen(fixture);
	assert_int_equal(state_version_get(fixture->state, "h", 2, &back), 0);
	assert_int_equal(back.hardness_bytes, 0);
	free(read_file(fixture, "h", "masks/1.khard", &n));
	/* With the version it goes. */
	assert_int_equal(state_version_prune(fixture->state, "h", 1, 0, &version), 0);
	assert_int_equal(version, 1);
	assert_int_equal(state_path(fixture->state, path, "h", "masks/1.khard"), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(state_site_delete(fixture->state, "h", "me"), 0);
}

static void figures_are_kept_with_their_version(void **state)
{
	const struct shadow_row shadow = { 100, 97, 3, 2, .51, .49, .93, .004 };
	struct fixture *fixture = *state;
	struct version_row row, back, *rows;
	uint32_t version, n;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "me", 32, 50, 7 }, &version, NULL),
		0);
	row = fixture_results(fixture, "a", version, true);
	row.candidate.has_entropy = true;
	row.candidate.entropy = .75f;
	row.n_figures = 2;
	row.figures[0] = (struct named_figure){ "hpm.spearman", .53 };
	row.figures[1] = (struct named_figure){ "a_name_of_thirty-one_characters", -1e30 };
	row.shots = (struct shots_row){ 24, 3, .5, .6, .7, .8, .01, .02, .03, (double)NAN };
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	assert_int_equal(state_shadow_store(fixture->state, "a", version, &shadow), 0);
	assert_int_equal(state_shadow_store(fixture->state, "a", version + 1, &shadow), -EEXIST);
	fixture_reopen(fixture);
	assert_int_equal(state_version_get(fixture->state, "a", version, &back), 0);
	assert_true(back.candidate.has_entropy && !back.candidate.has_neighbours);
	assert_close(back.candidate.entropy, .75, 0);
	assert_int_equal(back.n_figures, 2);
	assert_string_equal(back.figures[0].name, row.figures[1].name);
	assert_close(back.figures[0].value, -1e30, 0);
	assert_string_equal(back.figures[1].name, "hpm.spearman");
	assert_close(back.figures[1].value, .53, 0);
	assert_int_equal(back.shots.n, 24);
	assert_int_equal(back.shots.n_classes, 3);
	assert_memory_equal(&back.shots.frozen1, &row.shots.frozen1, 7 * sizeof(double));
	/* What is not a number is stored as none, and must not become one that passes. */
	assert_true(isnan(back.shots.hi5));
	assert_int_equal(back.shadow.n_agreed, 97);
	assert_close(back.shadow.cosine, .93, 0);
	assert_int_equal(state_version_list(fixture->state, "a", &rows, &n), 0);
	assert_int_equal(rows[n - 1].shadow.n, 100);
	free(rows);
	assert_int_equal(state_site_delete(fixture->state, "a", "me"), 0);
}

static void a_round_for_drift_widens_nothing(void **state)
{
	const struct round_wish wish = { "drift, 9 new images", 32, 50, 7, .drifted = true };
	struct fixture *fixture = *state;
	struct version_row row, back, *rows;
	uint32_t version, n;
	char path[512];

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	assert_int_equal(end(fixture, "a", true), 1);
	assert_int_equal(state_path(fixture->state, path, "a", "masks/0.kref"), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(state_round_begin(fixture->state, "a", &wish, &version, NULL), 0);
	fixture_reopen(fixture);
	assert_int_equal(state_round_list(fixture->state, &rows, &n), 0);
	assert_int_equal(n, 1);
	assert_true(rows[0].drifted);
	free(rows);
	row = fixture_results(fixture, "a", version, true);
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	assert_int_equal(state_version_get(fixture->state, "a", version, &back), 0);
	assert_true(back.drifted);
	assert_int_equal(access(path, F_OK), -1);

	assert_int_equal(end(fixture, "a", true), 3);
	assert_int_equal(state_version_get(fixture->state, "a", 3, &back), 0);
	assert_false(back.drifted);
	assert_int_equal(access(path, F_OK), 0);
}

static void promotion_and_rollback_are_audited(void **state)
{
	struct fixture *fixture = *state;
	struct digest head;
	uint64_t n, n_after;
	uint32_t version;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	assert_int_equal(end(fixture, "a", true), 1);
	assert_int_equal(end(fixture, "a", false), 2);
	assert_int_equal(end(fixture, "a", true), 3);
	assert_int_equal(state_rollback(fixture->state, "a", "me", &version), -ENODATA);
	assert_int_equal(state_promote(fixture->state, "a", 2, "me"), -EPERM);
	assert_int_equal(state_promote(fixture->state, "a", 9, "me"), -ENOENT);
	assert_int_equal(state_promote(fixture->state, "none", 1, "me"), -ENOENT);

	assert_int_equal(state_audit_verify(fixture->state, &n, &head, NULL), 0);
	assert_int_equal(state_promote(fixture->state, "a", 1, "me"), 0);
	assert_int_equal(state_promote(fixture->state, "a", 1, "me"), 0);
	assert_champion(fixture, 1, 0);
	assert_int_equal(state_promote(fixture->state, "a", 3, "me"), 0);
	assert_champion(fixture, 3, 1);
	assert_int_equal(state_of(fixture, 1), VERSION_RETIRED);
	assert_int_equal(state_of(fixture, 3), VERSION_CHAMPION);
	fixture_reopen(fixture);
	assert_champion(fixture, 3, 1);
	assert_int_equal(state_rollback(fixture->state, "a", "me", &version), 0);
	assert_int_equal(version, 1);
	assert_champion(fixture, 1, 0);
	assert_int_equal(state_of(fixture, 1), VERSION_CHAMPION);
	assert_int_equal(state_promote(fixture->state, "a", 0, "me"), 0);
	assert_champion(fixture, 0, 1);
	assert_int_equal(state_of(fixture, 1), VERSION_RETIRED);
	assert_int_equal(state_rollback(fixture->state, "a", "me", &version), 0);
	assert_champion(fixture, 1, 0);
	assert_int_equal(state_audit_verify(fixture->state, &n_after, &head, NULL), 0);
	assert_int_equal(n_after, n + 5);
}

/* Admits, evicts, runs rounds and promotes until it is killed; one line a committed image. */
static void busy(struct fixture *fixture, int out)
{
	struct diag diag = { "" };
	struct state *state = NULL;

	if (state_open(&state, fixture->dir, &fixture->defaults, &diag) < 0)
		_exit(1);
	fixture->state = state;
	for (uint32_t i = 0;; i += 4) {
		uint32_t version;

		for (uint32_t j = 0; j < 4; j++) {
			struct image_row row = fixture_image(fixture, "a", i + j);

			if (state_admit(state, &row) < 0)
				_exit(2);
		}
		if (state_commit(state) < 0)
			_exit(3);
		if (write(out, &i, sizeof(i)) != sizeof(i))
			_exit(4);
		if (i % 16 == 12) {
			struct version_row row;

			if (state_round_begin(state, "a", &(struct round_wish){ "a test", 1, 5, 1 },
				    &version, &diag) == 0) {
				row = fixture_results(fixture, "a", version, true);
				if (state_round_end(state, &row) < 0 ||
					state_promote(state, "a", version, "busy") < 0)
					_exit(5);
			}
		}
	}
}

static void assert_consistent(struct fixture *fixture, uint32_t n_committed)
{
	struct site_row site;
	struct digest head;
	struct diag diag = { "" };
	uint64_t n;
	_cleanup_(freep) struct version_row *rounds = NULL;
	uint32_t n_rounds;

	fixture_reopen(fixture);
	if (state_audit_verify(fixture->state, &n, &head, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(state_site_get(fixture->state, "a", &site), 0);
	/* Every image that was told to be accepted is a row, and no row was lost for want of a blob. */
	assert_in_range(site.n_images, n_committed, n_committed + 4);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), site.n_images);
	for (uint32_t i = 0; i < n_committed; i++) {
		struct image_row row = fixture_image(fixture, "a", i);

		assert_int_equal(state_admit(fixture->state, &row), 0);
	}
	assert_int_equal(state_commit(fixture->state), 0);
	if (site.champion > 0) {
		char file[32];
		size_t n_bytes;
		_cleanup_(freep) char *data = NULL;

		(void)snprintf(file, sizeof(file), "masks/%u.kmask", site.champion);
		data = read_file(fixture, "a", file, &n_bytes);
		assert_int_equal(
			kmask_verify(data, n_bytes, &(struct kmask_header){ 0 }, &diag), 0);
	}
	assert_int_equal(state_round_list(fixture->state, &rounds, &n_rounds), 0);
	for (uint32_t i = 0; i < n_rounds; i++)
		assert_int_equal(state_round_fail(fixture->state, "a", rounds[i].version, "x"), 0);
}

static void a_kill_at_any_moment_loses_nothing_accepted(void **state)
{
	struct fixture *fixture = *state;
	struct rng rng = rng_stream(20, 0, 0, 0);

	for (unsigned run = 0; run < 15; run++) {
		uint32_t n_lines = 2 + rng_below(&rng, 12), n_committed = 0, line;
		int pipes[2], status;
		pid_t pid;

		if (run > 0)
			assert_int_equal(state_site_delete(fixture->state, "a", "a test"), 0);
		assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
		state_free(fixture->state);
		fixture->state = NULL;
		assert_int_equal(pipe(pipes), 0);
		pid = fork();
		if (pid == 0)
			busy(fixture, pipes[1]);
		(void)close(pipes[1]);
		for (uint32_t i = 0; i < n_lines; i++)
			if (read(pipes[0], &line, sizeof(line)) == sizeof(line))
				n_committed = line + 4;
		assert_int_equal(usleep(rng_below(&rng, 3000)), 0);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		while (read(pipes[0], &line, sizeof(line)) == sizeof(line))
			n_committed = line + 4;
		(void)close(pipes[0]);
		assert_true(n_committed >= 8);
		assert_consistent(fixture, n_committed);
	}
}

#define with_state(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_state(a_manifest_is_sorted_and_holds_out_blocks),
		cmocka_unit_test(a_damaged_manifest_is_refused),
		with_state(rounds_need_images_and_run_one_at_a_time),
		with_state(a_running_round_outlives_a_restart),
		with_state(a_finished_round_is_kept_with_every_figure),
		with_state(a_cascade_is_kept_as_one_file),
		with_state(results_that_are_not_what_the_row_says_are_refused),
		with_state(an_import_brings_its_mask_to_the_round_folder),
		with_state(promotion_and_rollback_are_audited),
		with_state(what_is_withdrawn_is_known_by_its_bits),
		with_state(a_hardness_file_goes_with_its_mask),
		with_state(figures_are_kept_with_their_version),
		with_state(a_round_for_drift_widens_nothing),
		with_state(a_kill_at_any_moment_loses_nothing_accepted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
