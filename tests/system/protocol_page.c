/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "shm_layout.h"

/* kamen-protocol(7) has a table of every struct that the two sides share: offset, type and name of
 * each field, none more and none less. */
static char page[65536];

struct row {
	const char *name;
	size_t at, n_bytes;
};

/* clang-format off */
#define ROW(type, field) \
	{ #field, offsetof(struct type, field), sizeof(((struct type *)0)->field) }
static const struct row shm_request_rows[] = {
	ROW(shm_request, id),
	ROW(shm_request, deadline_ns),
	ROW(shm_request, n_bytes),
	ROW(shm_request, trigger_id),
	ROW(shm_request, part_id),
	ROW(shm_request, capture_us),
	ROW(shm_request, encoder),
	ROW(shm_request, verb),
	ROW(shm_request, slot),
	ROW(shm_request, format),
	ROW(shm_request, flags),
	ROW(shm_request, width),
	ROW(shm_request, height),
	ROW(shm_request, stride),
	ROW(shm_request, px),
	ROW(shm_request, mask),
	ROW(shm_request, version),
	ROW(shm_request, reserved),
	ROW(shm_request, space),
	ROW(shm_request, site),
};
static const struct row shm_completion_rows[] = {
	ROW(shm_completion, slot),
	ROW(shm_completion, reserved),
	ROW(shm_completion, id),
};
static const struct row shm_result_rows[] = {
	ROW(shm_result, id),
	ROW(shm_result, trigger_id),
	ROW(shm_result, part_id),
	ROW(shm_result, capture_us),
	ROW(shm_result, encoder),
	ROW(shm_result, queue_ns),
	ROW(shm_result, compute_ns),
	ROW(shm_result, code),
	ROW(shm_result, verdict),
	ROW(shm_result, version),
	ROW(shm_result, n_embedding),
	ROW(shm_result, novelty),
	ROW(shm_result, distance),
	ROW(shm_result, score),
	ROW(shm_result, outcome),
	ROW(shm_result, checksum),
	ROW(shm_result, space),
	ROW(shm_result, label),
	ROW(shm_result, reason),
	ROW(shm_result, deadline_ns),
	ROW(shm_result, n_hardness),
	ROW(shm_result, hardness_side),
	ROW(shm_result, unknown),
	ROW(shm_result, reserved),
	ROW(shm_result, values),
};
static const struct row shm_results_header_rows[] = {
	ROW(shm_results_header, magic),
	ROW(shm_results_header, version),
	ROW(shm_results_header, n_slots),
	ROW(shm_results_header, slot_bytes),
	ROW(shm_results_header, completion_head),
	ROW(shm_results_header, submission_tail),
	ROW(shm_results_header, daemon_awake),
	ROW(shm_results_header, pad),
};
static const struct row shm_frames_header_rows[] = {
	ROW(shm_frames_header, magic),
	ROW(shm_frames_header, version),
	ROW(shm_frames_header, n_slots),
	ROW(shm_frames_header, slot_bytes),
	ROW(shm_frames_header, submission_head),
	ROW(shm_frames_header, client_awake),
	ROW(shm_frames_header, pad),
};
/* clang-format on */

/* From the line that ends the last field onwards: a type's name says how long it is. */
static size_t length_of(const char *type)
{
	unsigned n;

	if (strncmp(type, "u64\n", 4) == 0)
		return 8;
	if (strncmp(type, "u32\n", 4) == 0 || strncmp(type, "i32\n", 4) == 0 ||
		strncmp(type, "f32\n", 4) == 0)
		return 4;
	return sscanf(type, "%u bytes\n", &n) == 1 ? n : 0;
}

static void check(const char *before, const struct row *rows, size_t n)
{
	const char *at = strstr(page, before);

	if (!at)
		fail_msg("no '%s'", before);
	at = strstr(at, "\n[[ *Offset*\n");
	assert_non_null(at);
	for (size_t i = 0; i < n; i++) {
		char want[64], name[64];

		at = strstr(at, "\n|  ");
		assert_non_null(at);
		(void)snprintf(want, sizeof(want), "\n|  %zu\n:  ", rows[i].at);
		(void)snprintf(name, sizeof(name), "\n:  %s\n:  ", rows[i].name);
		if (strncmp(at, want, strlen(want)) != 0)
			fail_msg("%s: not at %zu: %.20s", rows[i].name, rows[i].at, at + 1);
		at += strlen(want);
		assert_int_equal(length_of(at), rows[i].n_bytes);
		at = strchr(at, '\n');
		if (!at || strncmp(at, name, strlen(name)) != 0)
			fail_msg("at %zu there is no %s", rows[i].at, rows[i].name);
		at += strlen(name);
		at = strchr(at, '\n');
		assert_non_null(at);
	}
	assert_true(strncmp(at, "\n|  ", 4) != 0);
}

#define CHECK(before, rows) check(before, rows, sizeof(rows) / sizeof((rows)[0]))

static void the_page_has_every_field_where_it_lies(void **state)
{
	(void)state;
	CHECK("\nThe header of results:\n", shm_results_header_rows);
	CHECK("\nThe header of frames:\n", shm_frames_header_rows);
	CHECK("\nA submission, 208 bytes:\n", shm_request_rows);
	CHECK("\nA completion, 16 bytes:\n", shm_completion_rows);
	CHECK("\nA result, 16768 bytes:\n", shm_result_rows);
}

static void the_page_has_the_sizes(void **state)
{
	char want[100];

	(void)state;
	assert_int_equal(sizeof(struct shm_result), 16768);
	(void)snprintf(want, sizeof(want), "n_slots of %zu bytes", sizeof(struct shm_result));
	assert_non_null(strstr(page, want));
	(void)snprintf(want, sizeof(want), "n_slots of %zu bytes", sizeof(struct shm_completion));
	assert_non_null(strstr(page, want));
	(void)snprintf(want, sizeof(want), "n_slots of %zu bytes", sizeof(struct shm_request));
	assert_non_null(strstr(page, want));
	(void)snprintf(want, sizeof(want), "0x%016llx", (unsigned long long)SHM_RESULTS_MAGIC);
	assert_non_null(strstr(page, want));
	(void)snprintf(want, sizeof(want), "0x%016llx", (unsigned long long)SHM_FRAMES_MAGIC);
	assert_non_null(strstr(page, want));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_page_has_every_field_where_it_lies),
		cmocka_unit_test(the_page_has_the_sizes),
	};
	FILE *file = argc == 2 ? fopen(argv[1], "re") : NULL;

	if (!file)
		return 1;
	page[fread(page, 1, sizeof(page) - 1, file)] = '\0';
	(void)fclose(file);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
