/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture/close.h"
#include "site/twins.h"
#include "state_fixture.h"

#define DIM 4u

static const struct digest one_space = { { 1 } }, other_space = { { 2 } };

static uint64_t audit_rows(struct fixture *fixture)
{
	struct digest head;
	uint64_t n;

	assert_int_equal(state_audit_verify(fixture->state, &n, &head, NULL), 0);
	return n;
}

static void make_site(struct fixture *fixture, uint32_t n_images)
{
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, n_images);
}

/* Images [from, to), of which those with an odd number came as supports. */
static int add(struct fixture *fixture, const char *name, uint32_t from, uint32_t to)
{
	struct digest hashes[100];
	bool is_brought[100];
	struct class_wish wish = { name, hashes, is_brought, to - from, "a test" };
	struct diag diag = { "" };
	int r;

	for (uint32_t i = from; i < to; i++) {
		hashes[i - from] = fixture_hash(i);
		is_brought[i - from] = i % 2;
	}
	r = state_class_add(fixture->state, "a", &wish, &diag);
	assert_int_equal(r < 0, diag.text[0] != '\0');
	return r;
}

static struct features features_in(struct fixture *fixture, const struct digest *space)
{
	struct features features;

	assert_int_equal(state_features_read(fixture->state, "a", space, DIM, &features), 0);
	assert_true(digest_equal(&features.space, space));
	return features;
}

/* As the inference thread fills them in: row i's numbers are i, i + 1, ... */
static void look(struct fixture *fixture, const struct digest *space)
{
	_cleanup_(features_done) struct features features = features_in(fixture, space);

	for (uint32_t i = 0; i < features.n; i++) {
		if (features.rows[i].is_known)
			continue;
		for (uint32_t k = 0; k < DIM; k++)
			features.values[i * DIM + k] = (float)(i + k);
		features.rows[i].is_known = features.rows[i].is_new = true;
	}
	assert_int_equal(state_features_store(fixture->state, "a", &features), 0);
}

static uint32_t n_known(struct fixture *fixture, const struct digest *space)
{
	_cleanup_(features_done) struct features features = features_in(fixture, space);
	uint32_t n = 0;

	for (uint32_t i = 0; i < features.n; i++)
		n += features.rows[i].is_known;
	return n;
}

static void a_class_is_one_decision(void **state)
{
	struct fixture *fixture = *state;
	_cleanup_(freep) struct class_row *rows = NULL;
	uint32_t n;
	uint64_t n_audit;

	make_site(fixture, 20);
	n_audit = audit_rows(fixture);
	assert_int_equal(add(fixture, "scratch", 0, 4), 0);
	assert_int_equal(add(fixture, "dent", 4, 6), 0);
	assert_int_equal(audit_rows(fixture), n_audit + 2);
	fixture_reopen(fixture);
	assert_int_equal(state_class_list(fixture->state, "a", &rows, &n), 0);
	assert_int_equal(n, 2);
	assert_string_equal(rows[0].name, "dent");
	assert_int_equal(rows[0].n_supports, 2);
	assert_string_equal(rows[1].name, "scratch");
	assert_int_equal(rows[1].n_supports, 4);
	assert_int_equal(state_class_count(fixture->state, "a"), 2);
}

static void what_cannot_be_a_class_changes_nothing(void **state)
{
	struct fixture *fixture = *state;
	uint64_t n_audit;

	make_site(fixture, 40);
	assert_int_equal(add(fixture, "scratch", 0, 4), 0);
	n_audit = audit_rows(fixture);
	assert_int_equal(add(fixture, "scratch", 10, 12), -EEXIST);
	assert_int_equal(add(fixture, "dent", 3, 6), -EEXIST);
	assert_int_equal(add(fixture, "dent", 38, 42), -ENODATA);
	assert_int_equal(add(fixture, "dent", 10, 10), -E2BIG);
	assert_int_equal(add(fixture, "dent", 10, 11 + CLASS_MAX_SUPPORTS), -E2BIG);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_FROZEN, "me"), 0);
	assert_int_equal(add(fixture, "dent", 10, 12), -EROFS);
	assert_int_equal(state_class_remove(fixture->state, "a", "scratch", "me"), -EROFS);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_ACTIVE, "me"), 0);
	assert_int_equal(state_class_remove(fixture->state, "a", "dent", "me"), -ENODATA);
	assert_int_equal(state_class_remove(fixture->state, "b", "dent", "me"), -ENOENT);
	assert_int_equal(state_class_count(fixture->state, "a"), 1);
	assert_int_equal(audit_rows(fixture), n_audit + 2);
}

static void a_site_has_so_many_classes_and_no_more(void **state)
{
	struct fixture *fixture = *state;
	char name[16];

	make_site(fixture, CLASS_MAX + 1);
	for (uint32_t i = 0; i < CLASS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "c%u", i);
		assert_int_equal(add(fixture, name, i, i + 1), 0);
	}
	assert_int_equal(add(fixture, "one more", CLASS_MAX, CLASS_MAX + 1), -E2BIG);
	assert_int_equal(state_class_remove(fixture->state, "a", "c7", "me"), 0);
	assert_int_equal(add(fixture, "one more", CLASS_MAX, CLASS_MAX + 1), 0);
}

static void features_are_known_by_their_space_and_size(void **state)
{
	struct fixture *fixture = *state;
	struct features features;

	make_site(fixture, 10);
	assert_int_equal(n_known(fixture, &one_space), 0);
	features = features_in(fixture, &one_space);
	assert_int_equal(features.n, 0);
	features_done(&features);
	assert_int_equal(add(fixture, "b", 5, 7), 0);
	assert_int_equal(add(fixture, "a", 2, 3), 0);
	look(fixture, &one_space);
	fixture_reopen(fixture);
	features = features_in(fixture, &one_space);
	/* Supports class by class, then the line's from the oldest on. */
	assert_int_equal(features.n_classes, 2);
	assert_string_equal(features.names[0], "a");
	assert_int_equal(features.n, 10);
	for (uint32_t i = 0; i < features.n; i++) {
		assert_true(features.rows[i].is_known);
		assert_int_equal(features.rows[i].class, i == 0 ? 0 : i < 3 ? 1 : FEATURE_OF_LINE);
		for (uint32_t k = 0; k < DIM; k++)
			assert_close(features.values[i * DIM + k], (float)(i + k), 0);
	}
	assert_true(features.rows[3].image < features.rows[9].image);
	features_done(&features);
	assert_int_equal(n_known(fixture, &other_space), 0);
	assert_int_equal(
		state_features_read(fixture->state, "a", &one_space, DIM + 1, &features), 0);
	assert_false(features.rows[0].is_known);
	features_done(&features);
	look(fixture, &other_space);
	assert_int_equal(n_known(fixture, &other_space), 10);
	assert_int_equal(state_features_trim(fixture->state, "a", &one_space, &one_space), 0);
	assert_int_equal(n_known(fixture, &one_space), 10);
	assert_int_equal(n_known(fixture, &other_space), 0);
}

static void of_the_line_only_the_latest_are_kept(void **state)
{
	struct fixture *fixture = *state;

	make_site(fixture, FEATURE_N_LINE + 10);
	assert_int_equal(add(fixture, "a", 0, 4), 0);
	look(fixture, &one_space);
	assert_int_equal(n_known(fixture, &one_space), FEATURE_N_LINE + 4);
	fixture_fill(fixture, "a", FEATURE_N_LINE + 10, FEATURE_N_LINE + 20);
	assert_int_equal(n_known(fixture, &one_space), FEATURE_N_LINE - 10 + 4);
	look(fixture, &one_space);
	assert_int_equal(state_features_trim(fixture->state, "a", &one_space, &one_space), 0);
	assert_int_equal(n_known(fixture, &one_space), FEATURE_N_LINE + 4);
}

static void a_plan_has_the_line_as_it_will_be(void **state)
{
	struct fixture *fixture = *state;
	struct digest hashes[3] = { fixture_hash(FEATURE_N_LINE + 1), fixture_hash(30),
		fixture_hash(0) };
	const bool is_brought[3] = { true };
	const struct class_wish wish = { "b", hashes, is_brought, 3, "a test" };
	struct features plan, after;
	struct diag diag = { "" };

	make_site(fixture, FEATURE_N_LINE + 10);
	assert_int_equal(add(fixture, "a", 5, 7), 0);
	look(fixture, &one_space);
	assert_int_equal(
		state_class_plan(fixture->state, "a", &wish, &one_space, DIM, &plan, &diag), 0);
	assert_int_equal(plan.n, 2 + FEATURE_N_LINE + 3);
	assert_int_equal(plan.n_classes, 2);
	assert_string_equal(plan.names[1], "b");
	assert_int_equal(state_class_add(fixture->state, "a", &wish, &diag), 0);
	after = features_in(fixture, &one_space);
	assert_int_equal(after.n, plan.n);
	for (uint32_t i = 0; i < FEATURE_N_LINE; i++) {
		assert_int_equal(plan.rows[2 + i].image, after.rows[5 + i].image);
		assert_int_equal(plan.rows[2 + i].is_known, after.rows[5 + i].is_known);
		if (plan.rows[2 + i].is_known)
			assert_memory_equal(plan.values + (2 + i) * DIM,
				after.values + (5 + i) * DIM, DIM * sizeof(float));
	}
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(plan.rows[2 + FEATURE_N_LINE + i].class, 1);
	features_done(&plan);
	features_done(&after);
}

static uint32_t n_manifest(struct fixture *fixture)
{
	const struct round_wish wish = { .who = "me", .min_images = 1 };
	struct version_row row;
	struct diag diag = { "" };
	uint32_t version;

	assert_int_equal(state_round_begin(fixture->state, "a", &wish, &version, &diag), 0);
	assert_int_equal(state_version_get(fixture->state, "a", version, &row), 0);
	assert_int_equal(state_round_fail(fixture->state, "a", version, "a test"), 0);
	return row.n_images;
}

static void what_came_as_a_support_is_not_learnt_from(void **state)
{
	struct fixture *fixture = *state;
	const struct label label = { fixture_hash(3), "ok" };
	struct label_counts counts;

	make_site(fixture, 20);
	assert_int_equal(add(fixture, "a", 0, 4), 0);
	assert_int_equal(n_manifest(fixture), 18);
	assert_int_equal(state_label_set(fixture->state, "a", &label, 1, "me", NULL, &counts), 0);
	assert_int_equal(n_manifest(fixture), 19);
}

/* A write that no kamend has made. */
static void a_class_of_too_many_images_is_damage(void **state)
{
	struct fixture *fixture = *state;
	struct features features;
	char path[512];
	sqlite3 *db;

	make_site(fixture, 200);
	assert_int_equal(add(fixture, "a", 0, 4), 0);
	(void)snprintf(path, sizeof(path), "%s/state.db", fixture->dir);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
				 "INSERT OR IGNORE INTO support (image_id, class_id, brought) "
				 "SELECT image.id, class.id, 0 FROM image JOIN class",
				 NULL, NULL, NULL),
		SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(
		state_features_read(fixture->state, "a", &one_space, DIM, &features), -EBADMSG);
	assert_int_equal(state_class_remove(fixture->state, "a", "a", "me"), 0);
}

static void what_the_line_sends_too_is_the_lines(void **state)
{
	struct fixture *fixture = *state;
	struct image_row row;

	make_site(fixture, 20);
	assert_int_equal(add(fixture, "a", 0, 4), 0);
	row = fixture_image(fixture, "a", 1);
	assert_int_equal(state_admit(fixture->state, &row), 0);
	assert_int_equal(state_commit(fixture->state), 0);
	assert_int_equal(n_manifest(fixture), 19);
	assert_int_equal(state_class_count(fixture->state, "a"), 1);
	assert_int_equal(state_class_remove(fixture->state, "a", "a", "me"), 0);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 19);
	row = fixture_image(fixture, "a", 1);
	assert_int_equal(state_admit(fixture->state, &row), 0);
	assert_int_equal(state_commit(fixture->state), 0);
}

static void supports_are_neither_evicted_nor_thinned(void **state)
{
	struct fixture *fixture = *state;
	struct twin pairs[3] = { { fixture_hash(50), fixture_hash(0) },
		{ fixture_hash(50), fixture_hash(1) }, { fixture_hash(50), fixture_hash(51) } };
	const struct twins twins = { .pairs = pairs, .n = 3 };
	uint32_t n = 0;

	make_site(fixture, 200);
	assert_int_equal(add(fixture, "a", 0, 16), 0);
	assert_int_equal(state_thin(fixture->state, "a", &twins, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(state_evict(fixture->state, "a", 40 * FIXTURE_BLOB_BYTES, false), 0);
	look(fixture, &one_space);
	assert_in_range(n_known(fixture, &one_space), 16, 40);
	/* A bound that they alone are over does not move them. */
	assert_int_equal(state_evict(fixture->state, "a", 4 * FIXTURE_BLOB_BYTES, false), 0);
	assert_in_range(fixture_count_files(fixture, "a", "replay"), 16, 19);
	fixture_reopen(fixture);
	assert_int_equal(add(fixture, "b", 16, 17), -ENODATA);
	assert_int_equal(add(fixture, "b", 15, 16), -EEXIST);
}

static void a_class_goes_with_what_came_for_it(void **state)
{
	struct fixture *fixture = *state;
	const struct label label = { fixture_hash(3), "ok" };
	struct label_counts counts;

	make_site(fixture, 20);
	assert_int_equal(add(fixture, "a", 0, 6), 0);
	assert_int_equal(add(fixture, "b", 6, 8), 0);
	look(fixture, &one_space);
	assert_int_equal(state_label_set(fixture->state, "a", &label, 1, "me", NULL, &counts), 0);
	assert_int_equal(state_class_remove(fixture->state, "a", "a", "me"), 0);
	/* Of six three came for it, of which one has a label by now. */
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 18);
	assert_int_equal(n_known(fixture, &one_space), 18);
	fixture_reopen(fixture);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 18);
	assert_int_equal(add(fixture, "c", 0, 1), 0);
	assert_int_equal(add(fixture, "d", 1, 2), -ENODATA);
	assert_int_equal(state_site_delete(fixture->state, "a", "me"), 0);
	assert_int_equal(state_class_count(fixture->state, "a"), -ENOENT);
}

static uint32_t drop(struct fixture *fixture, uint32_t from, uint32_t to)
{
	struct digest hashes[CLASS_MAX_SUPPORTS];
	uint32_t n_dropped;

	for (uint32_t i = from; i < to; i++)
		hashes[i - from] = fixture_hash(i);
	assert_int_equal(state_class_drop(fixture->state, "a", hashes, to - from, &n_dropped), 0);
	return n_dropped;
}

static void what_came_for_no_class_goes_and_nothing_else(void **state)
{
	const struct round_wish wish = { .who = "me", .min_images = 1 };
	const struct label label = { fixture_hash(11), "ok" };
	const struct digest twice[2] = { fixture_hash(20), fixture_hash(20) };
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	struct label_counts counts;
	uint32_t n;

	make_site(fixture, 40);
	assert_int_equal(add(fixture, "a", 0, 4), 0);
	assert_int_equal(state_label_set(fixture->state, "a", &label, 1, "me", NULL, &counts), 0);
	assert_int_equal(drop(fixture, 2, 6), 2);   /* two show a class */
	assert_int_equal(drop(fixture, 10, 13), 2); /* one has a label */
	assert_int_equal(drop(fixture, 60, 63), 0); /* none is there */
	assert_int_equal(state_class_drop(fixture->state, "a", twice, 2, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 35);
	/* What a round learns from has to stay; what comes meanwhile need not. */
	assert_int_equal(state_round_begin(fixture->state, "a", &wish, &n, &diag), 0);
	fixture_fill(fixture, "a", 50, 54);
	assert_int_equal(drop(fixture, 30, 35), 0);
	assert_int_equal(drop(fixture, 50, 54), 4);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 35);
	fixture_reopen(fixture);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), 35);
	assert_int_equal(state_class_drop(fixture->state, "b", twice, 2, &n), -ENOENT);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_FROZEN, "me"), 0);
	assert_int_equal(state_class_drop(fixture->state, "a", twice, 2, &n), -EROFS);
}

#define with_state(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_state(a_class_is_one_decision),
		with_state(what_cannot_be_a_class_changes_nothing),
		with_state(a_site_has_so_many_classes_and_no_more),
		with_state(features_are_known_by_their_space_and_size),
		with_state(of_the_line_only_the_latest_are_kept),
		with_state(a_plan_has_the_line_as_it_will_be),
		with_state(what_came_as_a_support_is_not_learnt_from),
		with_state(a_class_of_too_many_images_is_damage),
		with_state(what_the_line_sends_too_is_the_lines),
		with_state(supports_are_neither_evicted_nor_thinned),
		with_state(a_class_goes_with_what_came_for_it),
		with_state(what_came_for_no_class_goes_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
