/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "site/manifest.h"
#include "site/twins.h"
#include "state_fixture.h"

static struct site_row site_of(struct fixture *fixture)
{
	struct site_row row;

	assert_int_equal(state_site_get(fixture->state, "a", &row), 0);
	return row;
}

static uint64_t audit_rows(struct fixture *fixture)
{
	struct digest head;
	uint64_t n;

	assert_int_equal(state_audit_verify(fixture->state, &n, &head, NULL), 0);
	return n;
}

static uint32_t learn(struct fixture *fixture, bool passed)
{
	struct diag diag = { "" };
	struct version_row row;
	uint32_t version = 0;

	if (state_round_begin(fixture->state, "a", &(struct round_wish){ "test", 32, 50, 7 },
		    &version, &diag) < 0)
		fail_msg("%s", diag.text);
	row = fixture_results(fixture, "a", version, passed);
	(void)snprintf(row.recipe_text, sizeof(row.recipe_text), "%s", "seed=7");
	(void)snprintf(row.prep_text, sizeof(row.prep_text), "%s", "input_px=32\n");
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	return version;
}

static void make_site(struct fixture *fixture, uint32_t n_images)
{
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, n_images);
}

static int begin(struct fixture *fixture, struct diag *diag)
{
	uint32_t version;

	return state_round_begin(
		fixture->state, "a", &(struct round_wish){ "test", 32, 50, 7 }, &version, diag);
}

static void a_paused_site_begins_no_round(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	uint64_t n;

	make_site(fixture, 40);
	n = audit_rows(fixture);
	assert_int_equal(state_site_hold(fixture->state, "none", SITE_PAUSED, "me"), -ENOENT);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_PAUSED, "me"), 0);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_PAUSED, "me"), 0);
	assert_int_equal(audit_rows(fixture), n + 1);
	fixture_reopen(fixture);
	assert_int_equal(site_of(fixture).hold, SITE_PAUSED);
	assert_int_equal(begin(fixture, &diag), -EROFS);
	assert_non_null(strstr(diag.text, "paused"));
	fixture_fill(fixture, "a", 40, 41);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_ACTIVE, "me"), 0);
	assert_int_equal(begin(fixture, &diag), 0);
	assert_int_equal(audit_rows(fixture), n + 3);
}

static void a_frozen_site_changes_nothing_but_back(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	struct image_row image;
	uint32_t version;

	make_site(fixture, 40);
	assert_int_equal(learn(fixture, true), 1);
	assert_int_equal(learn(fixture, true), 2);
	assert_int_equal(state_promote(fixture->state, "a", 1, "me"), 0);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_PAUSED, "me"), 0);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_FROZEN, "me"), 0);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_PAUSED, "me"), -EBUSY);
	fixture_reopen(fixture);
	assert_int_equal(begin(fixture, &diag), -EROFS);
	assert_non_null(strstr(diag.text, "frozen"));
	assert_int_equal(state_promote(fixture->state, "a", 2, "me"), -EROFS);
	assert_int_equal(state_site_reset(fixture->state, "a", "me"), -EROFS);
	image = fixture_image(fixture, "a", 99);
	assert_int_equal(state_admit(fixture->state, &image), -EROFS);
	(void)state_commit(fixture->state);
	assert_int_equal(site_of(fixture).n_images, 40);
	assert_int_equal(site_of(fixture).champion, 1);
	assert_int_equal(state_rollback(fixture->state, "a", "me", &version), 0);
	assert_int_equal(version, 0);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_ACTIVE, "me"), 0);
	assert_int_equal(state_promote(fixture->state, "a", 2, "me"), 0);
}

static void a_reset_goes_to_the_base_and_can_be_undone(void **state)
{
	struct fixture *fixture = *state;
	struct version_row row;
	uint32_t version;

	make_site(fixture, 40);
	assert_int_equal(learn(fixture, true), 1);
	assert_int_equal(state_promote(fixture->state, "a", 1, "me"), 0);
	assert_int_equal(state_site_reset(fixture->state, "a", "me"), 0);
	assert_int_equal(state_site_reset(fixture->state, "a", "me"), 0);
	assert_int_equal(site_of(fixture).champion, 0);
	assert_int_equal(site_of(fixture).n_images, 40);
	assert_int_equal(state_version_get(fixture->state, "a", 1, &row), 0);
	assert_int_equal(row.state, VERSION_RETIRED);
	assert_int_equal(state_rollback(fixture->state, "a", "me", &version), 0);
	assert_int_equal(version, 1);
}

static void new_images_are_counted_from_the_last_round(void **state)
{
	struct fixture *fixture = *state;
	_cleanup_(freep) struct site_need *needs = NULL;
	uint64_t made_us;
	uint32_t n;

	make_site(fixture, 40);
	assert_int_equal(site_of(fixture).n_new, 40);
	made_us = site_of(fixture).round_us;
	assert_true(made_us > 0);
	assert_int_equal(learn(fixture, false), 1);
	assert_int_equal(site_of(fixture).n_new, 0);
	assert_true(site_of(fixture).round_us >= made_us);
	fixture_fill(fixture, "a", 40, 80);
	/* An image that is evicted was new all the same. */
	assert_int_equal(state_evict(fixture->state, "a", 10 * FIXTURE_BLOB_BYTES, false), 0);
	fixture_reopen(fixture);
	assert_int_equal(state_need_list(fixture->state, &needs, &n), 0);
	assert_int_equal(n, 1);
	assert_string_equal(needs[0].site, "a");
	assert_int_equal(needs[0].n_new, 40);
	assert_in_range(needs[0].n_images, 1, 10);
}

static bool has_version(struct fixture *fixture, uint32_t version)
{
	struct version_row row;
	char path[512], name[32];
	bool has_row = state_version_get(fixture->state, "a", version, &row) == 0, has_file;

	(void)snprintf(name, sizeof(name), "masks/%u.kmask", version);
	assert_int_equal(state_path(fixture->state, path, "a", name), 0);
	has_file = access(path, F_OK) == 0;
	if (has_row && row.state == VERSION_FAILED)
		return true;
	assert_int_equal(has_row, has_file);
	return has_row;
}

static void old_versions_go_but_not_what_is_needed(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	uint32_t version, n;
	uint64_t n_audit;

	make_site(fixture, 40);
	for (uint32_t v = 1; v <= 6; v++)
		assert_int_equal(learn(fixture, true), v);
	/* 1 is pinned, 2 and 3 are predecessor and champion; 1 lies below them. */
	for (uint32_t v = 1; v <= 3; v++)
		assert_int_equal(state_promote(fixture->state, "a", v, "me"), 0);
	assert_int_equal(state_version_keep(fixture->state, "a", 9, true, "me"), -ENOENT);
	assert_int_equal(state_version_keep(fixture->state, "a", 1, true, "me"), 0);
	assert_int_equal(begin(fixture, &diag), 0);
	assert_int_equal(state_version_keep(fixture->state, "a", 7, true, "me"), -EPERM);
	n_audit = audit_rows(fixture);
	assert_int_equal(state_version_prune(fixture->state, "a", 1, 0, &n), 0);
	assert_int_equal(n, 2); /* 4 and 5 */
	assert_int_equal(audit_rows(fixture), n_audit + 2);
	for (uint32_t v = 1; v <= 6; v++)
		assert_int_equal(has_version(fixture, v), v != 4 && v != 5);
	/* One that failed takes nobody's place. */
	assert_int_equal(state_round_fail(fixture->state, "a", 7, "killed"), 0);
	assert_int_equal(state_version_prune(fixture->state, "a", 1, 0, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(state_version_keep(fixture->state, "a", 1, false, "me"), 0);
	fixture_reopen(fixture);
	assert_int_equal(state_version_prune(fixture->state, "a", 1, 0, &n), 0);
	assert_int_equal(n, 1);
	assert_false(has_version(fixture, 1));
	/* The way back ends before what is gone: 2, then the base. */
	assert_int_equal(state_rollback(fixture->state, "a", "me", &version), 0);
	assert_int_equal(version, 2);
	assert_int_equal(state_rollback(fixture->state, "a", "me", &version), 0);
	assert_int_equal(version, 0);
}

/* Bottom-k of fixed draws is a uniform sample of all that ever came, whatever the steps between. */
static void the_older_half_is_a_sample_of_the_whole_past(void **state)
{
	enum { N = 1200, STEP = 50, BOUND = 200 };
	struct fixture *fixture = *state;
	unsigned quarters[4] = { 0 }, n_old = 0;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	for (uint32_t i = 0; i < N; i += STEP) {
		fixture_fill(fixture, "a", i, i + STEP);
		assert_int_equal(
			state_evict(fixture->state, "a", BOUND * FIXTURE_BLOB_BYTES, false), 0);
	}
	for (uint32_t i = 0; i < N - BOUND / 2; i++) {
		struct digest hash = fixture_hash(i);
		char path[512], name[160], hex[DIGEST_HEX_CHARS + 1];

		digest_to_hex(&hash, hex);
		(void)snprintf(name, sizeof(name), "replay/%s.kimg", hex);
		assert_int_equal(state_path(fixture->state, path, "a", name), 0);
		if (access(path, F_OK) != 0)
			continue;
		quarters[i / ((N - BOUND / 2) / 4)]++;
		n_old++;
	}
	assert_in_range(n_old, 85, 110);
	for (unsigned q = 0; q < 4; q++) {
		print_message("quarter %u of the past: %u images\n", q, quarters[q]);
		assert_in_range(quarters[q], 10, 40);
	}
}

static void of_near_duplicates_the_second_goes(void **state)
{
	struct fixture *fixture = *state;
	_cleanup_(twins_done) struct twins twins = { 0 }, again = { 0 };
	_cleanup_(freep) char *text = NULL;
	struct diag diag = { "" };
	struct digest hashes[41];
	size_t n_chars;
	uint32_t n;

	make_site(fixture, 40);
	for (uint32_t i = 0; i < 41; i++)
		hashes[i] = fixture_hash(i);
	/* 0 and 2 are 1's twins: one of each group stays, though 0 came first. 40 is not there. */
	assert_int_equal(twins_add(&twins, &hashes[1], &hashes[0]), 0);
	assert_int_equal(twins_add(&twins, &hashes[1], &hashes[2]), 0);
	assert_int_equal(twins_add(&twins, &hashes[3], &hashes[40]), 0);
	assert_int_equal(twins_add(&twins, &hashes[5], &hashes[5]), 0);
	assert_int_equal(twins_add(&twins, &hashes[7], &hashes[6]), 0);
	assert_int_equal(twins_write(&twins, &text, &n_chars), 0);
	assert_int_equal(twins_read(&again, text, n_chars - 1), -EBADMSG);
	text[0] = 'x';
	assert_int_equal(twins_read(&again, text, n_chars), -EBADMSG);
	assert_int_equal(again.n, 0);
	free(TAKE_PTR(text));
	assert_int_equal(twins_write(&twins, &text, &n_chars), 0);
	assert_int_equal(twins_read(&again, text, n_chars), 0);

	/* What a round learns from stays, and so do the last that learning needs. */
	assert_int_equal(begin(fixture, &diag), 0);
	assert_int_equal(state_thin(fixture->state, "a", &again, 10, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(state_round_fail(fixture->state, "a", 1, "stopped"), 0);
	assert_int_equal(state_thin(fixture->state, "a", &again, 40, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(state_thin(fixture->state, "a", &again, 39, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(state_thin(fixture->state, "a", &again, 10, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(site_of(fixture).n_images, 37);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 37);
	assert_int_equal(audit_rows(fixture), 5);
}

static void what_was_learnt_can_be_learnt_again_while_its_images_are_there(void **state)
{
	struct fixture *fixture = *state;
	struct version_row row;
	struct diag diag = { "" };

	make_site(fixture, 40);
	assert_int_equal(learn(fixture, true), 1);
	assert_int_equal(state_reproduce_begin(fixture->state, "a", 2, &row, &diag), -ENOENT);
	assert_int_equal(state_reproduce_begin(fixture->state, "a", 1, &row, &diag), 0);
	assert_string_equal(row.recipe_text, "seed=7");
	assert_string_equal(row.prep_text, "input_px=32\n");
	assert_string_equal(row.why, "test");
	/* Its images are held, also against later ones. */
	fixture_fill(fixture, "a", 40, 60);
	assert_int_equal(state_evict(fixture->state, "a", 4 * FIXTURE_BLOB_BYTES, false), 0);
	assert_in_range(site_of(fixture).n_images, 40, 42);
	/* Nor does the end of a round that was begun meanwhile let them go. */
	assert_int_equal(learn(fixture, true), 2);
	fixture_fill(fixture, "a", 60, 80);
	assert_int_equal(state_evict(fixture->state, "a", 4 * FIXTURE_BLOB_BYTES, false), 0);
	assert_in_range(site_of(fixture).n_images, 40, 42);
	assert_int_equal(state_reproduce_end(fixture->state, "a"), 0);
	assert_int_equal(state_reproduce_begin(fixture->state, "a", 1, &row, &diag), 0);
	fixture_reopen(fixture);
	assert_int_equal(state_evict(fixture->state, "a", 4 * FIXTURE_BLOB_BYTES, false), 0);
	assert_in_range(site_of(fixture).n_images, 1, 4);
	assert_int_equal(state_reproduce_begin(fixture->state, "a", 1, &row, &diag), -ENODATA);
	assert_non_null(strstr(diag.text, "are gone"));
}

#define with_state(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_state(a_paused_site_begins_no_round),
		with_state(a_frozen_site_changes_nothing_but_back),
		with_state(a_reset_goes_to_the_base_and_can_be_undone),
		with_state(new_images_are_counted_from_the_last_round),
		with_state(old_versions_go_but_not_what_is_needed),
		with_state(the_older_half_is_a_sample_of_the_whole_past),
		with_state(of_near_duplicates_the_second_goes),
		with_state(what_was_learnt_can_be_learnt_again_while_its_images_are_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
