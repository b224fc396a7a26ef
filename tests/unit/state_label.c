/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <string.h>
#include <cmocka.h>

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

static void make_site(struct fixture *fixture, uint32_t n_images)
{
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, n_images);
}

static struct label_counts set(
	struct fixture *fixture, uint32_t from, uint32_t to, const char *name)
{
	struct label labels[100] = { { .name = NULL } };
	struct label_counts counts;

	for (uint32_t i = from; i < to; i++)
		labels[i - from] = (struct label){ fixture_hash(i), name };
	assert_int_equal(
		state_label_set(fixture->state, "a", labels, to - from, "a test", NULL, &counts),
		0);
	return counts;
}

/* -1: there is no such class */
static int count(struct fixture *fixture, const char *name)
{
	_cleanup_(freep) struct label_class *rows = NULL;
	uint32_t n;

	assert_int_equal(state_label_list(fixture->state, "a", &rows, &n), 0);
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(rows[i].name, name) == 0)
			return (int)rows[i].n_images;
	return -1;
}

static void labels_are_one_decision_each(void **state)
{
	struct fixture *fixture = *state;
	struct label labels[4] = { { fixture_hash(0), "ok" }, { fixture_hash(99), "ok" },
		{ fixture_hash(1), "bad" }, { fixture_hash(1), "ok" } };
	struct label_counts counts;
	bool is_unknown[4];
	uint64_t n;

	make_site(fixture, 10);
	n = audit_rows(fixture);
	assert_int_equal(
		state_label_set(fixture->state, "none", labels, 1, "me", NULL, &counts), -ENOENT);
	assert_int_equal(
		state_label_set(fixture->state, "a", labels, 4, "me", is_unknown, &counts), 0);
	assert_true(is_unknown[1] && !is_unknown[0] && !is_unknown[2] && !is_unknown[3]);
	assert_int_equal(counts.n_added, 2);
	assert_int_equal(counts.n_changed, 1);
	assert_int_equal(counts.n_unknown, 1);
	assert_int_equal(count(fixture, "ok"), 2);
	assert_int_equal(count(fixture, "bad"), -1);
	assert_int_equal(audit_rows(fixture), n + 1);
	/* Said again it is no decision. */
	counts = set(fixture, 0, 2, "ok");
	assert_int_equal(counts.n_added + counts.n_changed + counts.n_removed, 0);
	assert_int_equal(audit_rows(fixture), n + 1);
	counts = set(fixture, 0, 4, NULL);
	assert_int_equal(counts.n_removed, 2);
	assert_int_equal(audit_rows(fixture), n + 2);
	fixture_reopen(fixture);
	assert_int_equal(count(fixture, "ok"), -1);
}

static void a_label_goes_with_its_image_and_its_site(void **state)
{
	struct fixture *fixture = *state;

	make_site(fixture, 10);
	(void)set(fixture, 0, 10, "ok");
	assert_int_equal(state_evict(fixture->state, "a", 4 * FIXTURE_BLOB_BYTES), 0);
	assert_int_equal(count(fixture, "ok"), site_of(fixture).n_images);
	/* The image that comes back is a new one. */
	for (uint32_t i = 0; i < 10; i++) {
		struct image_row row = fixture_image(fixture, "a", i);

		assert_true(state_admit(fixture->state, &row) >= 0);
	}
	assert_int_equal(state_commit(fixture->state), 0);
	assert_in_range(count(fixture, "ok"), 1, 4);
	assert_int_equal(state_site_delete(fixture->state, "a", "me"), 0);
	while (state_tidy(fixture->state, 100) > 0)
		;
	make_site(fixture, 10);
	assert_int_equal(count(fixture, "ok"), -1);
}

static void a_site_has_so_many_classes_and_no_more(void **state)
{
	struct fixture *fixture = *state;
	struct label labels[LABEL_MAX_CLASSES], label;
	char names[LABEL_MAX_CLASSES][16];
	struct label_counts counts;
	uint64_t n;

	make_site(fixture, LABEL_MAX_CLASSES + 1);
	for (uint32_t i = 0; i < LABEL_MAX_CLASSES; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "c%u", i);
		labels[i] = (struct label){ fixture_hash(i), names[i] };
	}
	assert_int_equal(state_label_set(fixture->state, "a", labels, LABEL_MAX_CLASSES, "me", NULL,
				 &counts),
		0);
	n = audit_rows(fixture);
	label = (struct label){ fixture_hash(LABEL_MAX_CLASSES), "one more" };
	assert_int_equal(
		state_label_set(fixture->state, "a", &label, 1, "me", NULL, &counts), -E2BIG);
	assert_int_equal(count(fixture, "one more"), -1);
	assert_int_equal(audit_rows(fixture), n);
	label.name = "c7";
	assert_int_equal(state_label_set(fixture->state, "a", &label, 1, "me", NULL, &counts), 0);
	assert_int_equal(count(fixture, "c7"), 2);
}

static void a_frozen_site_takes_no_label(void **state)
{
	struct fixture *fixture = *state;
	struct label label = { fixture_hash(0), "ok" };
	struct label_counts counts;

	make_site(fixture, 1);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_FROZEN, "me"), 0);
	assert_int_equal(
		state_label_set(fixture->state, "a", &label, 1, "me", NULL, &counts), -EROFS);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_ACTIVE, "me"), 0);
	assert_int_equal(state_site_hold(fixture->state, "a", SITE_PAUSED, "me"), 0);
	assert_int_equal(state_label_set(fixture->state, "a", &label, 1, "me", NULL, &counts), 0);
}

static void eviction_takes_images_without_a_label_first(void **state)
{
	struct fixture *fixture = *state;

	make_site(fixture, 200);
	/* Among the oldest, which a sample of a tenth would mostly lose. */
	(void)set(fixture, 0, 20, "ok");
	assert_int_equal(state_evict(fixture->state, "a", 60 * FIXTURE_BLOB_BYTES), 0);
	assert_in_range(site_of(fixture).n_images, 50, 60);
	assert_int_equal(count(fixture, "ok"), 20);
	/* They are bounded too: the newest half of the store is for the newest. */
	(void)set(fixture, 150, 200, "ok");
	assert_int_equal(state_evict(fixture->state, "a", 20 * FIXTURE_BLOB_BYTES), 0);
	assert_in_range(site_of(fixture).n_images, 15, 20);
	assert_true(site_of(fixture).replay_bytes <= 20 * FIXTURE_BLOB_BYTES);
	assert_int_equal(count(fixture, "ok"), site_of(fixture).n_images);
}

static void a_labelled_near_duplicate_stays(void **state)
{
	struct fixture *fixture = *state;
	struct twin pairs[] = { { fixture_hash(0), fixture_hash(1) },
		{ fixture_hash(2), fixture_hash(3) } };
	const struct twins twins = { .pairs = pairs, .n = 2 };
	struct label_counts counts;
	struct label label = { fixture_hash(1), "ok" };
	uint32_t n;

	make_site(fixture, 10);
	assert_int_equal(state_label_set(fixture->state, "a", &label, 1, "me", NULL, &counts), 0);
	assert_int_equal(state_thin(fixture->state, "a", &twins, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(count(fixture, "ok"), 1);
}

#define with_state(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_state(labels_are_one_decision_each),
		with_state(a_label_goes_with_its_image_and_its_site),
		with_state(a_site_has_so_many_classes_and_no_more),
		with_state(a_frozen_site_takes_no_label),
		with_state(eviction_takes_images_without_a_label_first),
		with_state(a_labelled_near_duplicate_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
