/* SPDX-License-Identifier: Apache-2.0 */
#include "ingest_serve.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ingest/kimg.h"

/* Ends a test's ingest also where the test fails half-way. */
static int set_up(void **state)
{
	struct serve *serve = calloc(1, sizeof(*serve));

	assert_non_null(serve);
	serve_begin(serve, *state);
	serve_send_site(serve, "spool", NULL, 0);
	serve_await(serve, "spool/bad");
	*state = serve;
	return 0;
}

static int tear_down(void **state)
{
	serve_end(*state);
	free(*state);
	return 0;
}

static void read_file(const struct serve *serve, const char *path, char *ret_text, size_t n_bytes)
{
	_cleanup_(freep) void *data = NULL;
	char buffer[256];
	size_t n;

	(void)snprintf(buffer, sizeof(buffer), "%s/%s", serve->dir, path);
	assert_int_equal(blob_read(AT_FDCWD, buffer, n_bytes - 1, &data, &n), 0);
	memcpy(ret_text, data, n + 1);
}

/* The id of the next Admit; its blob's path below the folder. */
static uint64_t expect_admit(struct serve *serve, char blob[256], struct digest *ret_hash)
{
	const Kamen__Admit *admit = serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT)->admit;

	assert_string_equal(admit->site, "a");
	assert_int_equal(admit->hash.len, DIGEST_BYTES);
	(void)snprintf(blob, 256, "replay/%s", admit->blob);
	assert_true(serve_has(serve, blob));
	if (ret_hash)
		memcpy(ret_hash->bytes, admit->hash.data, DIGEST_BYTES);
	return admit->id;
}

static void an_accepted_file_is_done_and_its_blob_is_canonical(void **state)
{
	struct serve *serve = *state;
	size_t n_png, n_blob;
	_cleanup_(freep) void *png = serve_png(1, &n_png), *data = NULL;
	_cleanup_(image_freep) struct image *image = NULL;
	struct digest hash, want = digest_of(png, n_png);
	char blob[256], path[400];
	uint64_t id;

	serve_drop(serve, "part.png", png, n_png);
	id = expect_admit(serve, blob, &hash);
	assert_true(id >> 63);
	assert_true(digest_equal(&hash, &want));
	(void)snprintf(path, sizeof(path), "%s/%s", serve->dir, blob);
	assert_int_equal(blob_read(AT_FDCWD, path, 1 << 20, &data, &n_blob), 0);
	assert_int_equal(kimg_decode(&image, data, n_blob, NULL), 0);
	assert_int_equal(image->height, SERVE_SHORTER_PX);
	/* Nothing moves before the answer. */
	assert_true(serve_has(serve, "spool/part.png"));
	serve_reply(serve, id, KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/part.png");
	assert_false(serve_has(serve, "spool/part.png"));
	assert_true(serve_has(serve, blob));
}

static void a_jpeg_passes_the_confined_decoder(void **state)
{
	struct serve *serve = *state;
	uint8_t pixels[40 * 40 * 3];
	struct image_view view = { pixels, 40, 40, 3, 40 * 3 };
	_cleanup_(freep) void *jpeg = NULL;
	char blob[256];
	size_t n;

	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)(i / 7);
	assert_int_equal(image_encode_jpeg(&view, 90, &jpeg, &n), 0);
	serve_drop(serve, "part.jpg", jpeg, n);
	serve_reply(serve, expect_admit(serve, blob, NULL), KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/part.jpg");
}

static void a_duplicate_is_done_without_its_blob(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(2, &n);
	char first[256], second[256];
	struct digest a, b;

	serve_drop(serve, "x.png", png, n);
	serve_reply(serve, expect_admit(serve, first, &a), KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/x.png");
	/* The same name too: the one that is there stays. */
	serve_drop(serve, "x.png", png, n);
	serve_reply(serve, expect_admit(serve, second, &b), KAMEN__OUTCOME__DUPLICATE);
	serve_await(serve, "spool/done/x.png.1");
	assert_true(digest_equal(&a, &b));
	assert_string_not_equal(first, second);
	assert_true(serve_has(serve, first));
	assert_false(serve_has(serve, second));
}

static void expect_refused(struct serve *serve, const char *name, const char *reason)
{
	const Kamen__Refused *refused =
		serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_REFUSED)->refused;
	char path[128], text[300];

	assert_string_equal(refused->site, "a");
	assert_string_equal(refused->source, "spool");
	assert_string_equal(refused->what, name);
	if (!strstr(refused->reason, reason))
		fail_msg("%s: \"%s\", not \"%s\"", name, refused->reason, reason);
	(void)snprintf(path, sizeof(path), "spool/bad/%s.reason", name);
	serve_await(serve, path);
	read_file(serve, path, text, sizeof(text));
	assert_non_null(strstr(text, reason));
	(void)snprintf(path, sizeof(path), "spool/bad/%s", name);
	assert_true(serve_has(serve, path));
	(void)snprintf(path, sizeof(path), "spool/%s", name);
	assert_false(serve_has(serve, path));
}

static void what_is_no_image_is_bad_and_says_why(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(3, &n);

	serve_drop(serve, "text.png", "not an image", 12);
	expect_refused(serve, "text.png", "");
	serve_drop(serve, "half.png", png, n / 2);
	expect_refused(serve, "half.png", "");
	serve_drop(serve, "empty.png", "", 0);
	expect_refused(serve, "empty.png", "empty");
}

static void move_in(const struct serve *serve, const char *from, const char *name)
{
	char old_path[128], new_path[128];

	(void)snprintf(old_path, sizeof(old_path), "%s/%s", serve->dir, from);
	(void)snprintf(new_path, sizeof(new_path), "%s/spool/%s", serve->dir, name);
	assert_int_equal(rename(old_path, new_path), 0);
}

static void what_is_no_plain_file_is_bad(void **state)
{
	struct serve *serve = *state;
	static char huge[SERVE_MAX_FILE_BYTES + 1];
	size_t n;
	_cleanup_(freep) void *png = serve_png(4, &n);
	char from[128], to[128], blob[256];

	serve_drop(serve, "huge.png", huge, sizeof(huge));
	expect_refused(serve, "huge.png", "at most 65536");

	/* Renamed into the spool, so that inotify tells and not the slow scan. */
	serve_write(serve, "outside.png", png, n);
	(void)snprintf(from, sizeof(from), "%s/outside.png", serve->dir);
	(void)snprintf(to, sizeof(to), "%s/soft", serve->dir);
	assert_int_equal(symlink(from, to), 0);
	move_in(serve, "soft", "soft.png");
	expect_refused(serve, "soft.png", "symbolic link");

	(void)snprintf(to, sizeof(to), "%s/hard", serve->dir);
	assert_int_equal(link(from, to), 0);
	move_in(serve, "hard", "hard.png");
	expect_refused(serve, "hard.png", "2 names");

	(void)snprintf(to, sizeof(to), "%s/fifo", serve->dir);
	assert_int_equal(mkfifo(to, 0600), 0);
	move_in(serve, "fifo", "fifo.png");
	expect_refused(serve, "fifo.png", "not a regular file");

	/* And it goes on. */
	serve_drop(serve, "good.png", png, n);
	serve_reply(serve, expect_admit(serve, blob, NULL), KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/good.png");
}

static void folders_and_temporary_names_are_left_alone(void **state)
{
	static const char *const names[] = { "spool/.hidden", "spool/_truth.tsv", "spool/x.tmp",
		"spool/y.part", "spool/folder/inside.png" };
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(5, &n);
	char path[128], blob[256];

	(void)snprintf(path, sizeof(path), "%s/spool/folder", serve->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		serve_write(serve, names[i], png, n);
	serve_drop(serve, "z.png", png, n);
	serve_reply(serve, expect_admit(serve, blob, NULL), KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/z.png");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_true(serve_has(serve, names[i]));
	assert_int_equal(serve_count(serve, "spool/bad"), 0);
}

static void a_killed_ingest_loses_no_file(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(6, &n);
	char blob[256], again[256];
	struct digest a, b;

	serve_drop(serve, "x.png", png, n);
	(void)expect_admit(serve, blob, &a);
	serve_kill_ingest(serve);
	serve_start_ingest(serve);
	(void)serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_READY);
	serve_send_site(serve, "spool", NULL, 0);
	serve_reply(serve, expect_admit(serve, again, &b), KAMEN__OUTCOME__DUPLICATE);
	assert_true(digest_equal(&a, &b));
	serve_await(serve, "spool/done/x.png");
	assert_true(serve_has(serve, blob));
}

static void a_rejected_file_waits_and_comes_again(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(7, &n);
	char blob[256], again[256];

	serve_drop(serve, "x.png", png, n);
	serve_reply(serve, expect_admit(serve, blob, NULL), KAMEN__OUTCOME__REJECTED);
	serve_reply(serve, expect_admit(serve, again, NULL), KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/x.png");
	assert_false(serve_has(serve, blob));
}

static void a_decoder_that_dies_once_costs_no_file(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(12, &n);
	char blob[256];

	atomic_store(&serve->faults->n_crashes, 1);
	serve_drop(serve, "x.png", png, n);
	serve_reply(serve, expect_admit(serve, blob, NULL), KAMEN__OUTCOME__ACCEPTED);
	assert_int_equal(atomic_load(&serve->faults->n_crashes), 0);
	serve_await(serve, "spool/done/x.png");

	atomic_store(&serve->faults->n_crashes, 2);
	serve_drop(serve, "y.png", png, n);
	expect_refused(serve, "y.png", "crashed");
	assert_int_equal(atomic_load(&serve->faults->n_crashes), 0);
}

static void a_shortage_costs_no_file(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(13, &n);
	char blob[256];

	atomic_store(&serve->faults->n_shortages, 2);
	serve_drop(serve, "x.png", png, n);
	serve_reply(serve, expect_admit(serve, blob, NULL), KAMEN__OUTCOME__ACCEPTED);
	assert_int_equal(atomic_load(&serve->faults->n_shortages), 0);
	serve_await(serve, "spool/done/x.png");
	assert_int_equal(serve_count(serve, "spool/bad"), 0);
}

static void a_file_is_left_to_settle(void **state)
{
	struct serve *serve = *state;
	const struct timespec old[2] = { { 1000, 0 }, { 1000, 0 } };
	size_t n;
	_cleanup_(freep) void *png = serve_png(8, &n);
	char path[128], blob[256];

	/* A folder that was never read without settling: the message may come after the file. */
	(void)snprintf(path, sizeof(path), "%s/slow", serve->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	serve_write(serve, "slow/young.png", png, n);
	serve_send_site(serve, "slow", NULL, 60000);
	assert_false(serve_hears(serve, 200));
	(void)snprintf(path, sizeof(path), "%s/slow/young.png", serve->dir);
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	serve_reply(serve, expect_admit(serve, blob, NULL), KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "slow/done/young.png");
}

static void a_flood_waits_in_its_folder(void **state)
{
	enum { N_FILES = 200, N_AT_ONCE = 64 };
	struct serve *serve = *state;
	uint64_t ids[N_AT_ONCE];
	unsigned n_waiting = 0;
	char name[32], blob[256];

	for (unsigned i = 0; i < N_FILES; i++) {
		size_t n;
		_cleanup_(freep) void *png = serve_png(1000 + i, &n);

		(void)snprintf(name, sizeof(name), "%04u.png", i);
		serve_drop(serve, name, png, n);
	}
	while (n_waiting < N_AT_ONCE)
		ids[n_waiting++] = expect_admit(serve, blob, NULL);
	assert_false(serve_hears(serve, 100));
	for (unsigned i = 0; i < N_FILES; i++) {
		serve_reply(serve, ids[i % N_AT_ONCE], KAMEN__OUTCOME__ACCEPTED);
		if (i + N_AT_ONCE < N_FILES)
			ids[i % N_AT_ONCE] = expect_admit(serve, blob, NULL);
	}
	serve_await(serve, "spool/done/0199.png");
	assert_int_equal(serve_count(serve, "replay"), N_FILES);
}

static void a_spool_that_comes_later_is_found(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(9, &n);
	char from[128], to[128], blob[256];

	/* Another spool takes its place while we look away. */
	(void)snprintf(from, sizeof(from), "%s/spool", serve->dir);
	(void)snprintf(to, sizeof(to), "%s/old", serve->dir);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(mkdir(from, 0700), 0);
	serve_drop(serve, "x.png", png, n);
	serve_reply(serve, expect_admit(serve, blob, NULL), KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/x.png");
}

static void a_site_that_goes_is_not_read_any_more(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(10, &n);
	char blob[256];
	uint64_t id;

	serve_drop(serve, "x.png", png, n);
	id = expect_admit(serve, blob, NULL);
	serve_send_no_site(serve);
	serve_reply(serve, id, KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/x.png");
	serve_drop(serve, "y.png", png, n);
	assert_false(serve_hears(serve, 100));
	assert_true(serve_has(serve, "spool/y.png"));
}

static void a_table_in_parts_holds_from_its_last_on(void **state)
{
	struct serve *serve = *state;
	size_t n_png;
	_cleanup_(freep) void *png = serve_png(1, &n_png);
	char blob[256];
	uint64_t id;

	serve_send_part(serve, true, false, 500);
	serve_drop(serve, "early.png", png, n_png);
	id = expect_admit(serve, blob, NULL);
	serve_reply(serve, id, KAMEN__OUTCOME__ACCEPTED);
	serve_await(serve, "spool/done/early.png");
	serve_send_part(serve, false, true, 500);
	serve_drop(serve, "late.png", png, n_png);
	assert_false(serve_hears(serve, 100));
	/* The whole in one message is what it was before there were parts. */
	serve_send_site(serve, "spool", NULL, 0);
	(void)expect_admit(serve, blob, NULL);
}

static void serve_has_its_images_decoded(void **state)
{
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(11, &n);
	const Kamen__Decoded *decoded;
	const Kamen__Refused *refused;
	const Kamen__Admit *admit;
	uint8_t pixels[32 * 24 + 1];

	serve_ask(serve, 5, false, png, n);
	decoded = serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_DECODED)->decoded;
	assert_int_equal(decoded->id, 5);
	assert_int_equal(decoded->code, 0);
	assert_int_equal(decoded->width, 32);
	assert_int_equal(decoded->height, 24);
	assert_int_equal(pread(serve->fd, pixels, sizeof(pixels), 0), 32 * 24);
	assert_int_equal(pixels[4], 4 + 11);

	serve_ask(serve, 6, false, "garbage", 7);
	decoded = serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_DECODED)->decoded;
	assert_int_equal(decoded->id, 6);
	assert_true(decoded->code < 0);
	assert_non_null(decoded->reason);
	assert_int_equal(serve->fd, -1);

	serve_ask(serve, 7, true, png, n);
	admit = serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT)->admit;
	assert_int_equal(admit->id, 7);
	assert_string_equal(admit->source, "push");
	serve_reply(serve, 7, KAMEN__OUTCOME__ACCEPTED);

	serve_ask(serve, 8, true, "garbage", 7);
	refused = serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_REFUSED)->refused;
	assert_true(refused->has_id);
	assert_int_equal(refused->id, 8);
}

/* The flood has all workers but one: what the quiet one asks last is answered long before the flood's
 * last. How long is the system's to say: the worker may wait for a processor. */
static void senders_take_turns_at_the_decoder(void **state)
{
	enum { N_FLOOD = 24, QUIET = 100 };
	struct serve *serve = *state;
	size_t n;
	_cleanup_(freep) void *png = serve_png(4, &n);
	int status = 0;

	/* All of them are there before it reads the first. */
	assert_int_equal(kill(serve->pid, SIGSTOP), 0);
	assert_int_equal(waitpid(serve->pid, &status, WUNTRACED), serve->pid);
	assert_true(WIFSTOPPED(status));
	for (unsigned i = 0; i < N_FLOOD; i++)
		serve_ask_for(serve, i + 1, "uid 1", png, n);
	serve_ask_for(serve, QUIET, "uid 2", png, n);
	assert_int_equal(kill(serve->pid, SIGCONT), 0);
	for (unsigned i = 0; i <= N_FLOOD; i++) {
		const Kamen__RoleMessage *message =
			serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_DECODED);

		if (message->decoded->id == QUIET)
			assert_true(i < N_FLOOD / 2);
	}
}

/* The body is that of any file; that threads do it is what set_up() has seen. */
static void where_io_uring_is_forbidden_threads_do_it(void **state)
{
	an_accepted_file_is_done_and_its_blob_is_canonical(state);
}

#define SPOOL_TEST(name, backend) \
	{ \
#name " (" backend ")", name, set_up, tear_down, (void *)(uintptr_t)backend \
	}
#define BOTH(name) SPOOL_TEST(name, "uring"), SPOOL_TEST(name, "threads")

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(an_accepted_file_is_done_and_its_blob_is_canonical),
		BOTH(a_jpeg_passes_the_confined_decoder),
		BOTH(a_duplicate_is_done_without_its_blob),
		BOTH(what_is_no_image_is_bad_and_says_why),
		BOTH(what_is_no_plain_file_is_bad),
		BOTH(folders_and_temporary_names_are_left_alone),
		BOTH(a_killed_ingest_loses_no_file),
		BOTH(a_rejected_file_waits_and_comes_again),
		SPOOL_TEST(a_decoder_that_dies_once_costs_no_file, "threads"),
		SPOOL_TEST(a_shortage_costs_no_file, "threads"),
		BOTH(a_file_is_left_to_settle),
		BOTH(a_flood_waits_in_its_folder),
		BOTH(a_spool_that_comes_later_is_found),
		BOTH(a_site_that_goes_is_not_read_any_more),
		BOTH(a_table_in_parts_holds_from_its_last_on),
		SPOOL_TEST(where_io_uring_is_forbidden_threads_do_it, "auto"),
		SPOOL_TEST(serve_has_its_images_decoded, "threads"),
		SPOOL_TEST(senders_take_turns_at_the_decoder, "threads"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
