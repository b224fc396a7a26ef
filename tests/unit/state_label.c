/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
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
	assert_int_equal(state_evict(fixture->state, "a", 4 * FIXTURE_BLOB_BYTES, false), 0);
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
	assert_int_equal(state_evict(fixture->state, "a", 60 * FIXTURE_BLOB_BYTES, false), 0);
	assert_in_range(site_of(fixture).n_images, 50, 60);
	assert_int_equal(count(fixture, "ok"), 20);
	/* They are bounded too: the newest half of the store is for the newest. */
	(void)set(fixture, 150, 200, "ok");
	assert_int_equal(state_evict(fixture->state, "a", 20 * FIXTURE_BLOB_BYTES, false), 0);
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

/* ---- what a round gets of them */

static void read_manifest(struct fixture *fixture, struct manifest *ret_manifest)
{
	_cleanup_(freep) void *text = NULL;
	char path[512];
	size_t n;

	assert_int_equal(state_path(fixture->state, path, "a", "round/manifest"), 0);
	assert_int_equal(blob_read(AT_FDCWD, path, 1 << 20, &text, &n), 0);
	assert_int_equal(manifest_read(ret_manifest, text, n, NULL), 0);
}

static int begin(struct fixture *fixture, bool wants_labels, struct diag *diag)
{
	const struct round_wish wish = { "a test", 32, 5, 1, wants_labels ? "supervised" : NULL,
		wants_labels };
	uint32_t version;

	return state_round_begin(fixture->state, "a", &wish, &version, diag);
}

static const char *name_of(const struct manifest *manifest, uint32_t image)
{
	struct digest hash = fixture_hash(image);

	for (uint32_t i = 0; i < manifest->n; i++)
		if (digest_equal(&manifest->entries[i].hash, &hash))
			return manifest->entries[i].label
				       ? manifest->classes.names[manifest->entries[i].label - 1]
				       : "";
	return NULL;
}

static void a_rounds_manifest_has_the_classes_of_its_images(void **state)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 }, later = { 0 };
	struct fixture *fixture = *state;
	struct digest digest, other;
	struct version_row row;

	make_site(fixture, 60);
	(void)set(fixture, 0, 20, "z \xc3\xa4");
	(void)set(fixture, 30, 40, "a");
	assert_int_equal(begin(fixture, true, NULL), 0);
	assert_int_equal(state_version_get(fixture->state, "a", 1, &row), 0);
	assert_string_equal(row.objective, "supervised");
	/* It is frozen. */
	(void)set(fixture, 0, 20, NULL);
	read_manifest(fixture, &manifest);
	for (uint32_t i = 0; i < 60; i++)
		assert_string_equal(name_of(&manifest, i), i < 20              ? "z \xc3\xa4"
							   : i >= 30 && i < 40 ? "a"
									       : "");
	digest = manifest_digest(&manifest);
	assert_true(digest_equal(&digest, &row.manifest));
	assert_int_equal(state_round_fail(fixture->state, "a", 1, "stopped"), 0);
	assert_int_equal(begin(fixture, false, NULL), 0);
	read_manifest(fixture, &later);
	assert_string_equal(name_of(&later, 3), "");
	assert_string_equal(name_of(&later, 33), "a");
	other = manifest_digest(&later);
	assert_false(digest_equal(&digest, &other));
	assert_int_equal(state_version_get(fixture->state, "a", 2, &row), 0);
	assert_string_equal(row.objective, "");
}

/* 60 images are 7 blocks, of which the fifth is held out: images 35 to 42. */
static void who_wants_labels_gets_enough_of_them_or_one_error(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { "" };
	uint64_t n;

	make_site(fixture, 60);
	n = audit_rows(fixture);
	assert_int_equal(begin(fixture, true, &diag), -ENODATA);
	assert_string_equal(diag.text,
		"site a: a round by labels needs 2 classes of 5 labelled images that are not "
		"held out; there are: none");
	assert_int_equal(audit_rows(fixture), n);
	(void)set(fixture, 0, 10, "ok");
	(void)set(fixture, 31, 42, "bad");
	assert_int_equal(begin(fixture, true, &diag), -ENODATA);
	assert_non_null(strstr(diag.text, "there are: bad 4, ok 10"));
	(void)set(fixture, 50, 51, "bad");
	assert_int_equal(begin(fixture, true, &diag), 0);
}

static void labels_are_numbered_by_their_names_where_there_are_enough(void **state)
{
	static const char *const names[] = { "c", "few", "a", "b" };
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	_cleanup_(freep) uint32_t *labels = NULL;

	(void)state;
	for (uint32_t i = 0; i < 40; i++) {
		struct manifest_entry entry = { .hash = fixture_hash(i), .held = i % 8 == 7 };
		uint32_t index;

		assert_int_equal(classes_add(&manifest.classes, names[i % 4], &index), 0);
		/* Of "b" every second one is held out; of "few" most have no label. */
		if (i % 4 != 1 || i < 16)
			entry.label = index + 1;
		assert_int_equal(manifest_add(&manifest, &entry), 0);
	}
	assert_int_equal(manifest_learnt_labels(&manifest, &labels, NULL), 3);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(labels[i], i % 4 == 0   ? 2
					    : i % 4 == 1 ? CLASSES_NONE
					    : i % 4 == 2 ? 0
					    : i % 8 == 3 ? 1
							 : CLASSES_NONE);
}

static void damaged_classes_are_refused(void **state)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 }, out = { 0 };
	struct manifest_entry entry = { .hash = fixture_hash(0), .blob = "0.kimg" };
	_cleanup_(freep) char *text = NULL;
	struct diag diag = { "" };
	uint32_t index;
	size_t n;

	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		char name[80];

		(void)snprintf(name, sizeof(name), "%u", i * 7 % 100);
		assert_int_equal(classes_add(&manifest.classes, name, &index), 0);
		assert_int_equal(index, i);
		assert_int_equal(classes_add(&manifest.classes, name, &index), 0);
		assert_int_equal(index, i);
	}
	assert_int_equal(classes_add(&manifest.classes, "", &index), -EINVAL);
	assert_int_equal(classes_add(&manifest.classes, "a\tb", &index), -EINVAL);
	entry.label = 12 + 1; /* "84" */
	assert_int_equal(manifest_add(&manifest, &entry), 0);
	assert_int_equal(manifest_write(&manifest, &text, &n), 0);
	assert_string_equal(text + n - 4, "\t84\n");
	assert_int_equal(manifest_read(&out, text, n, &diag), 0);
	manifest_done(&out);
	text[n - 2] = '\t';
	assert_int_equal(manifest_read(&out, text, n, &diag), -EBADMSG);
	text[n - 2] = 0;
	assert_int_equal(manifest_read(&out, text, n, &diag), -EBADMSG);
	text[n - 3] = '\n';
	assert_int_equal(manifest_read(&out, text, n - 2, &diag), -EBADMSG);
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
		with_state(a_rounds_manifest_has_the_classes_of_its_images),
		with_state(who_wants_labels_gets_enough_of_them_or_one_error),
		cmocka_unit_test(labels_are_numbered_by_their_names_where_there_are_enough),
		cmocka_unit_test(damaged_classes_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
