/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "serve/serve.h"
#include "state_fixture.h"

static void admit(struct serve *serve, const struct image_row *row, uint64_t id)
{
	Kamen__Admit message = KAMEN__ADMIT__INIT;

	message.id = id;
	message.site = (char *)(uintptr_t)row->site;
	message.hash = (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)(uintptr_t)row->hash.bytes };
	message.blob = (char *)(uintptr_t)row->blob;
	message.n_bytes = row->n_bytes;
	message.width = row->width;
	message.height = row->height;
	message.n_channels = row->n_channels;
	message.source = (char *)(uintptr_t)row->source;
	admission_admit(serve, &message);
}

static struct serve *make_serve(struct fixture *fixture, struct site **sites)
{
	struct serve *serve = calloc(1, sizeof(*serve));
	struct diag diag = { "" };

	assert_non_null(serve);
	assert_true(sd_event_new(&serve->event) >= 0);
	serve->state = fixture->state;
	serve->sites = (struct site_table){ .sites = sites, .n = 1 };
	serve->roles[ROLE_INGEST].sock = -1;
	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	admission_init(&serve->admission);
	assert_int_equal(admission_open(serve, &diag), 0);
	return serve;
}

static void free_serve(struct serve *serve)
{
	admission_done(serve);
	sd_event_unref(serve->event);
	free(serve);
}

/* Nobody is told before it is durable, and the loop, which does not run here, has waited for nothing. */
static void a_full_batch_does_not_hold_the_loop(void **state)
{
	enum { N = SERVE_COMMIT_ROWS + 10 };
	struct fixture *fixture = *state;
	/* Gone: nothing is trimmed, but it is in the table. */
	struct site site = { .name = "a", .n_refs = 1, .gone = true }, *sites = &site;
	struct serve *serve = make_serve(fixture, &sites);

	for (uint32_t i = 0; i < N; i++) {
		const struct image_row row = fixture_image(fixture, "a", i);

		admit(serve, &row, i + 1);
	}
	assert_int_equal(serve->admission.n_accepted, 0);
	assert_int_equal(serve->admission.open->n, N - SERVE_COMMIT_ROWS);
	assert_int_equal(serve->admission.writing->n, SERVE_COMMIT_ROWS);
	admission_commit(serve);
	assert_int_equal(serve->admission.n_accepted, N);
	assert_int_equal(serve->admission.n_commits, 2);
	assert_int_equal(site.n_refs, 1);
	free_serve(serve);
}

static uint32_t count_hard(struct fixture *fixture)
{
	_cleanup_(freep) struct hard_row *rows = NULL;
	uint32_t n = 0;

	assert_int_equal(state_hardest(fixture->state, "a", 1000, &rows, &n), 0);
	return n;
}

static void a_long_list_of_hard_images_does_not_either(void **state)
{
	enum { N = 200 };
	_cleanup_(hard_list_done) struct hard_list list = { 0 };
	struct fixture *fixture = *state;
	struct site site = { .name = "a", .settings = fixture->defaults, .n_refs = 1 };
	struct site *sites = &site;
	struct serve *serve = make_serve(fixture, &sites);
	uint32_t n, n_steps = 0;

	fixture_fill(fixture, "a", 0, N);
	for (uint32_t i = 0; i < N; i++) {
		const struct digest hash = fixture_hash(i);

		assert_int_equal(hard_list_add(&list, &hash, (float)i), 0);
	}
	hard_store_take(serve, &site, &list);
	assert_int_equal(list.n, 0);
	for (n = 0; serve->hard_store.head && n < N / 2; n_steps++) {
		uint32_t before = n;

		assert_true(sd_event_run(serve->event, UINT64_MAX) >= 0);
		n = count_hard(fixture);
		assert_true(n - before < N / 4);
	}
	assert_true(n_steps > 2 && n < N);
	/* What may go depends on it: that waits. */
	site.settings.replay_bytes = N / 2 * FIXTURE_BLOB_BYTES;
	admission_trim(serve, &site);
	assert_int_equal(fixture_count_files(fixture, "a", "replay"), N);
	site.settings.replay_bytes = fixture->defaults.replay_bytes;
	/* Who asks, and who ends, has all of it. */
	hard_store_close(serve);
	assert_int_equal(count_hard(fixture), N);
	admission_done(serve);
	fixture_reopen(fixture);
	serve->state = NULL;
	assert_int_equal(count_hard(fixture), N);
	assert_int_equal(site.n_refs, 1);
	free_serve(serve);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_full_batch_does_not_hold_the_loop, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_long_list_of_hard_images_does_not_either,
			fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
