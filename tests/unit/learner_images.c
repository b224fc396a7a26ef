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

#include "ingest/kimg.h"
#include "learner/images.h"
#include "learner/near.h"
#include "learner/process.h"
#include "learner/split.h"

#define N 40u
#define SIDE 10u
#define PIXELS (SIDE * SIDE)

struct folder {
	char dir[64];
	int fd;
	struct manifest manifest;
};

static int setup(void **state)
{
	struct folder *folder = calloc(1, sizeof(*folder));

	if (!folder)
		return -1;
	(void)snprintf(folder->dir, sizeof(folder->dir), "%s", "/tmp/kamen-images-XXXXXX");
	if (!mkdtemp(folder->dir))
		return -1;
	folder->fd = open(folder->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (uint32_t i = 0; i < N; i++) {
		uint8_t pixels[PIXELS];
		const struct image_view view = { pixels, SIDE, SIDE, 1, SIDE };
		struct manifest_entry entry = { .hash = digest_of(&i, sizeof(i)) };
		_cleanup_(freep) void *data = NULL;
		size_t n_bytes;

		memset(pixels, (int)i, sizeof(pixels));
		(void)snprintf(entry.blob, sizeof(entry.blob), "%u.kimg", i);
		if (kimg_encode(&view, &data, &n_bytes) < 0 ||
			blob_write(folder->fd, entry.blob, data, n_bytes) < 0 ||
			manifest_add(&folder->manifest, &entry) < 0)
			return -1;
	}
	manifest_split(&folder->manifest);
	*state = folder;
	return 0;
}

static int teardown(void **state)
{
	struct folder *folder = *state;
	char command[96];

	manifest_done(&folder->manifest);
	(void)close(folder->fd);
	(void)snprintf(command, sizeof(command), "rm -rf %s", folder->dir);
	free(folder);
	return system(command) == 0 ? 0 : -1;
}

static int never(void *owner)
{
	(void)owner;
	return 0;
}

static struct images *open_all(struct folder *folder, size_t max_cached, uint32_t *ret_n_lost)
{
	struct images *images = NULL;
	struct diag diag = { "" };
	int r = images_open(&images, &folder->manifest, folder->dir, max_cached,
		(struct interrupt){ .check = never }, ret_n_lost, &diag);

	if (r < 0)
		fail_msg("%s", diag.text);
	return images;
}

/* The image's number is in its name and in its pixels. */
static void assert_right(struct image_source *source, const struct images *images, uint32_t i)
{
	struct image_view view;
	unsigned value;
	char name[32];
	bool found = false;

	assert_int_equal(source->get(source->owner, i, &view), 0);
	assert_int_equal(view.width, SIDE);
	value = view.pixels[PIXELS - 1];
	(void)snprintf(name, sizeof(name), "%u.kimg", value);
	for (uint32_t j = 0; j < images_manifest(images)->n; j++)
		found = found || strcmp(images_manifest(images)->entries[j].blob, name) == 0;
	assert_true(found);
}

static void every_image_comes_back_from_a_small_cache(void **state)
{
	struct folder *folder = *state;
	uint32_t n_lost;
	_cleanup_(images_freep) struct images *images = open_all(folder, 3 * PIXELS, &n_lost);
	struct images_part learn_part, held_part;
	struct image_source learn = images_source(images, &learn_part, false, UINT32_MAX);
	struct image_source held = images_source(images, &held_part, true, UINT32_MAX);
	uint8_t first[2] = { 0 };

	assert_int_equal(n_lost, 0);
	assert_int_equal(learn.n, 32);
	assert_int_equal(held.n, 8);
	for (unsigned pass = 0; pass < 2; pass++) {
		struct image_view view;

		for (uint32_t i = 0; i < learn.n; i++)
			assert_right(&learn, images, i);
		for (uint32_t i = 0; i < held.n; i++)
			assert_right(&held, images, i);
		assert_int_equal(learn.get(learn.owner, 0, &view), 0);
		first[pass] = view.pixels[0];
	}
	assert_int_equal(first[0], first[1]);
	assert_true(digest_equal(&learn.manifest, &held.manifest));
}

static void a_part_is_thinned_out_evenly(void **state)
{
	struct folder *folder = *state;
	uint32_t n_lost;
	_cleanup_(images_freep) struct images *images = open_all(folder, 1 << 20, &n_lost);
	struct images_part all_part, thin_part;
	struct image_source all = images_source(images, &all_part, false, UINT32_MAX);
	struct image_source thin = images_source(images, &thin_part, false, 8);

	assert_int_equal(thin.n, 8);
	for (uint32_t i = 0; i < 8; i++) {
		struct image_view a, b;

		assert_int_equal(thin.get(thin.owner, i, &a), 0);
		assert_int_equal(all.get(all.owner, 4 * i, &b), 0);
		assert_int_equal(a.pixels[0], b.pixels[0]);
	}
}

static void lost_images_leave_the_manifest(void **state)
{
	struct folder *folder = *state;
	struct digest whole = manifest_digest(&folder->manifest), used;
	_cleanup_(images_freep) struct images *images = NULL;
	struct images_part learn_part, held_part;
	struct image_source learn, held;
	struct diag diag = { "" };
	uint32_t n_lost;
	int fd;

	assert_int_equal(unlinkat(folder->fd, folder->manifest.entries[0].blob, 0), 0);
	fd = openat(folder->fd, folder->manifest.entries[7].blob, O_WRONLY);
	assert_int_equal(pwrite(fd, "\377\377\377", 3, 60), 3);
	assert_int_equal(close(fd), 0);
	assert_int_equal(blob_write(folder->fd, folder->manifest.entries[39].blob, "K", 1), 0);
	assert_int_equal(images_open(&images, &folder->manifest, folder->dir, 1 << 20,
				 (struct interrupt){ .check = never }, &n_lost, &diag),
		0);
	assert_int_equal(n_lost, 3);
	assert_non_null(strstr(diag.text, "No such file"));
	learn = images_source(images, &learn_part, false, UINT32_MAX);
	held = images_source(images, &held_part, true, UINT32_MAX);
	assert_int_equal(learn.n + held.n, N - 3);
	used = manifest_digest(images_manifest(images));
	assert_false(digest_equal(&used, &whole));
	for (uint32_t i = 0; i < learn.n; i++)
		assert_right(&learn, images, i);
	for (uint32_t i = 0; i < held.n; i++)
		assert_right(&held, images, i);
}

static void nothing_left_is_an_error(void **state)
{
	struct folder *folder = *state;
	struct images *images = NULL;
	struct diag diag = { "" };
	uint32_t n_lost;

	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(unlinkat(folder->fd, folder->manifest.entries[i].blob, 0), 0);
	assert_int_equal(images_open(&images, &folder->manifest, folder->dir, 1 << 20,
				 (struct interrupt){ .check = never }, &n_lost, &diag),
		-ENODATA);
	assert_null(images);
	assert_int_equal(images_open(&images, &folder->manifest, "/nowhere", 1 << 20,
				 (struct interrupt){ .check = never }, &n_lost, &diag),
		-ENOENT);
}

static int after_a_while(void *owner)
{
	uint32_t *left = owner;

	return (*left)-- == 0 ? -ECANCELED : 0;
}

static void an_interrupt_stops_a_reader(void **state)
{
	struct folder *folder = *state;
	_cleanup_(images_freep) struct images *images = NULL;
	struct images_part part;
	struct image_source source;
	struct image_view view;
	struct diag diag = { "" };
	uint32_t n_lost, left = 5;
	const struct interrupt interrupt = { .check = after_a_while, .owner = &left };

	assert_int_equal(images_open(&images, &folder->manifest, folder->dir, 1 << 20, interrupt,
				 &n_lost, &diag),
		-ECANCELED);
	left = N + 1;
	assert_int_equal(images_open(&images, &folder->manifest, folder->dir, 1 << 20, interrupt,
				 &n_lost, &diag),
		0);
	source = images_source(images, &part, false, UINT32_MAX);
	assert_int_equal(source.get(source.owner, 0, &view), 0);
	assert_int_equal(source.get(source.owner, 1, &view), -ECANCELED);
	images_set_interruptible(images, false);
	left = 0;
	assert_int_equal(source.get(source.owner, 1, &view), 0);
}

static void a_percentage_rests_for_the_remainder(void **state)
{
	(void)state;
	assert_int_equal(process_rest_ns(100, 1000), 0);
	assert_int_equal(process_rest_ns(50, 1000), 1000);
	assert_int_equal(process_rest_ns(20, 1000), 4000);
}

/* Each is compared with each: whoever waits for the learner is heard before that is done. */
static void an_interrupt_stops_what_compares(void **state)
{
	enum { N_ROWS = 3 * NEAR_ROWS + 1, DIM = 2 };
	struct folder *folder = *state;
	_cleanup_(images_freep) struct images *images = NULL;
	static float rows[N_ROWS * DIM];
	uint32_t pairs[N_ROWS];
	bool held[N_ROWS] = { 0 };
	struct diag diag = { "" };
	uint32_t n_lost;
	uint32_t left = UINT32_MAX;
	const struct interrupt interrupt = { .check = after_a_while, .owner = &left };

	assert_int_equal(images_open(&images, &folder->manifest, folder->dir, 1 << 20, interrupt,
				 &n_lost, &diag),
		0);
	left = 3;
	assert_int_equal(near_find(pairs, rows, N_ROWS, DIM, .9, images), -ECANCELED);
	left = 3;
	assert_int_equal(split_groups(held, rows, N_ROWS, DIM, .9f, images), -ECANCELED);
	left = 4;
	assert_int_equal(near_find(pairs, rows, N_ROWS, DIM, .9, images), 0);
	left = 4;
	assert_int_equal(split_groups(held, rows, N_ROWS, DIM, .9f, images), 0);
}

#define with_folder(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* Nothing is judged of a group that lies on both sides; one that is held whole stays. */
static void a_near_duplicate_of_what_was_learnt_is_not_judged_on(void **state)
{
	enum { N_ROWS = 9, DIM = 3 };
	float rows[N_ROWS * DIM] = {
		1, 0, 0,    /* learnt */
		2, .02f, 0, /* held, like 0 */
		1, .03f, 0, /* held, like 1: of the group by way of it */
		0, 1, 0,    /* held, alone */
		0, 0, 1,    /* held, with 5 */
		0, .01f, 3, /* held */
		0, 1, 1,    /* learnt */
		0, 1.5f, 1, /* held, not so like 6 */
		0, 0, 0,    /* held, like nothing */
	};
	bool held[N_ROWS] = { 0, 1, 1, 1, 1, 1, 0, 1, 1 };
	const bool wanted[N_ROWS] = { 0, 0, 0, 1, 1, 1, 0, 1, 1 };

	(void)state;
	cosine_normalise(rows, rows, N_ROWS, DIM);
	assert_int_equal(split_groups(held, rows, N_ROWS, DIM, .9998f, NULL), 2);
	assert_memory_equal(held, wanted, sizeof(held));
	assert_int_equal(split_groups(held, rows, N_ROWS, DIM, .9998f, NULL), 0);
}

static void what_is_judged_on_is_of_the_held_out_part(void **state)
{
	struct folder *folder = *state;
	bool judged[N] = { 0 };
	uint32_t n_held, first = 0;
	struct images_part part;
	struct images *images;
	uint32_t n_lost;

	images = open_all(folder, 1 << 20, &n_lost);
	n_held = images_source(images, &part, true, UINT32_MAX).n;
	assert_int_equal(images_judged_source(images, &part).n, n_held);
	while (!images_manifest(images)->entries[first].held)
		first++;
	judged[first] = true;
	/* What is learnt from is never judged on, whoever asks. */
	for (uint32_t i = 0; i < N; i++)
		judged[i] = judged[i] || !images_manifest(images)->entries[i].held;
	assert_int_equal(images_judge_only(images, judged), 0);
	assert_int_equal(images_judged_source(images, &part).n, 1);
	assert_int_equal(images_source(images, &part, true, UINT32_MAX).n, n_held);
	images_free(images);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_folder(every_image_comes_back_from_a_small_cache),
		with_folder(a_part_is_thinned_out_evenly),
		with_folder(lost_images_leave_the_manifest),
		with_folder(nothing_left_is_an_error),
		with_folder(an_interrupt_stops_a_reader),
		with_folder(an_interrupt_stops_what_compares),
		with_folder(what_is_judged_on_is_of_the_held_out_part),
		cmocka_unit_test(a_near_duplicate_of_what_was_learnt_is_not_judged_on),
		cmocka_unit_test(a_percentage_rests_for_the_remainder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
