/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/blob.h"
#include "learn/folder.h"

static char root[] = "/tmp/kamen-folder-XXXXXX";

static void put_image(int fd, const char *path, uint32_t px, uint8_t value)
{
	struct image *image;
	struct image_view view;
	void *data;
	size_t n_bytes;

	assert_int_equal(image_new(&image, px, px, 1), 0);
	memset(image->pixels, value, (size_t)px * px);
	view = image_view(image);
	assert_int_equal(image_encode_png(&view, &data, &n_bytes), 0);
	assert_int_equal(blob_write(fd, path, data, n_bytes), 0);
	free(data);
	image_free(image);
}

static int set_up(void **state)
{
	_cleanup_(closep) int fd = -1;
	char path[32];

	(void)state;
	assert_non_null(mkdtemp(root));
	fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(fd, "b", 0700), 0);
	assert_int_equal(mkdirat(fd, "a", 0700), 0);
	assert_int_equal(mkdirat(fd, "_notes", 0700), 0);
	for (uint8_t i = 0; i < 20; i++) {
		(void)snprintf(path, sizeof(path), "%s/%02u.png", i % 4 ? "a" : "b", i);
		put_image(fd, path, 30, i);
	}
	put_image(fd, "_notes/x.png", 30, 99);
	put_image(fd, "a/.hidden.png", 30, 98);
	return blob_write(fd, "a/readme.txt", "no image", 8);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	(void)state;
	return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void folders_are_classes_in_sorted_order(void **state)
{
	_cleanup_(folder_freep) struct folder *folder = NULL;
	struct image_source source;
	struct image_view view;
	struct diag diag;

	(void)state;
	assert_int_equal(folder_open(&folder, root, FOLDER_ALL, 0, &diag), 0);
	assert_int_equal(folder->n, 20);
	assert_int_equal(folder->n_names, 2);
	assert_string_equal(folder->names[0], "a");
	assert_string_equal(folder->names[1], "b");
	source = folder_source(folder);
	for (uint32_t i = 0; i < 20; i++) {
		assert_int_equal(source.get(source.owner, i, &view), 0);
		assert_int_equal(folder->labels[i], view.pixels[0] % 4 ? 0 : 1);
		assert_int_equal(view.width, 30);
	}
	assert_int_equal(source.get(source.owner, 20, &view), -ERANGE);
}

/* The manifest names a source and its order: a round must not see by which names. */
static void renamed_images_are_the_same_source(void **state)
{
	_cleanup_(folder_freep) struct folder *folder = NULL, *renamed = NULL;
	_cleanup_(closep) int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[64];

	(void)state;
	assert_int_equal(mkdirat(fd, "_renamed", 0700), 0);
	for (uint8_t i = 0; i < 20; i++) {
		(void)snprintf(path, sizeof(path), "_renamed/%02u.png", 19 - i);
		put_image(fd, path, 30, i);
	}
	(void)snprintf(path, sizeof(path), "%s/_renamed", root);
	assert_int_equal(folder_open(&folder, root, FOLDER_ALL, 0, NULL), 0);
	assert_int_equal(folder_open(&renamed, path, FOLDER_ALL, 0, NULL), 0);
	assert_int_equal(renamed->n, folder->n);
	assert_true(digest_equal(&folder->manifest, &renamed->manifest));
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(folder->images[i]->pixels[0], renamed->images[i]->pixels[0]);
}

static void the_parts_are_disjoint_and_complete(void **state)
{
	_cleanup_(folder_freep) struct folder *all = NULL, *learn = NULL, *held = NULL;
	struct diag diag;

	(void)state;
	assert_int_equal(folder_open(&all, root, FOLDER_ALL, 0, &diag), 0);
	assert_int_equal(folder_open(&learn, root, FOLDER_LEARN, 0, &diag), 0);
	assert_int_equal(folder_open(&held, root, FOLDER_HELD, 0, &diag), 0);
	assert_int_equal(learn->n + held->n, all->n);
	for (uint32_t i = 0; i < learn->n; i++)
		for (uint32_t j = 0; j < held->n; j++)
			assert_int_not_equal(
				learn->images[i]->pixels[0], held->images[j]->pixels[0]);
	assert_false(digest_equal(&all->manifest, &learn->manifest));
}

static void large_images_are_shrunk_on_demand(void **state)
{
	_cleanup_(folder_freep) struct folder *folder = NULL;
	struct diag diag;

	(void)state;
	assert_int_equal(folder_open(&folder, root, FOLDER_ALL, 16, &diag), 0);
	assert_int_equal(folder->images[3]->width, 16);
}

static void a_missing_folder_is_named(void **state)
{
	struct folder *folder = NULL;
	struct diag diag;

	(void)state;
	assert_int_equal(folder_open(&folder, "/nonexistent", FOLDER_ALL, 0, &diag), -ENOENT);
	assert_non_null(strstr(diag.text, "/nonexistent"));
	assert_null(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(folders_are_classes_in_sorted_order),
		cmocka_unit_test(renamed_images_are_the_same_source),
		cmocka_unit_test(the_parts_are_disjoint_and_complete),
		cmocka_unit_test(large_images_are_shrunk_on_demand),
		cmocka_unit_test(a_missing_folder_is_named),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
