/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/blob.h"
#include "model/base.h"

struct place {
	char dir[32];
	char file[48];
	void *image; /* of the file */
	size_t n_image;
};

static int make_place(void **state)
{
	static const float weights[4] = { 1, 2, 3, 4 };
	const struct tensor_out out = { "w", 1, { 4 }, weights };
	struct place *place = calloc(1, sizeof(*place));

	assert_non_null(place);
	(void)snprintf(place->dir, sizeof(place->dir), "%s", "/tmp/kamen-base-XXXXXX");
	assert_non_null(mkdtemp(place->dir));
	(void)snprintf(place->file, sizeof(place->file), "%s/model", place->dir);
	assert_int_equal(safetensors_encode(&out, 1, NULL, &place->image, &place->n_image), 0);
	assert_int_equal(blob_write(AT_FDCWD, place->file, place->image, place->n_image), 0);
	*state = place;
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;

	(void)unlink(place->file);
	(void)rmdir(place->dir);
	free(place->image);
	free(place);
	return 0;
}

static void a_loaded_base_is_the_file_and_its_digest(void **state)
{
	const struct place *place = *state;
	struct digest want = digest_of(place->image, place->n_image);
	_cleanup_(base_freep) struct base *base = NULL;
	const struct tensor *tensor;
	float back[4];

	assert_int_equal(base_load(&base, place->file, NULL), 0);
	assert_true(digest_equal(base_digest(base), &want));
	tensor = safetensors_find(base_tensors(base), "w");
	assert_non_null(tensor);
	tensor_to_f32(back, tensor);
	assert_true(back[0] == 1 && back[3] == 4);
	/* The file may go or change: the base stays. */
	assert_int_equal(truncate(place->file, 3), 0);
	tensor_to_f32(back, tensor);
	assert_true(back[3] == 4);
}

static void nobody_can_change_a_base(void **state)
{
	const struct place *place = *state;
	_cleanup_(base_freep) struct base *base = NULL;
	int fd;

	assert_int_equal(base_load(&base, place->file, NULL), 0);
	fd = base_fd(base);
	assert_int_equal(
		fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, 1 << 20), -1);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 16), -1);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void another_process_sees_the_same_base(void **state)
{
	const struct place *place = *state;
	_cleanup_(base_freep) struct base *base = NULL, *other = NULL;
	int fd;

	assert_int_equal(base_load(&base, place->file, NULL), 0);
	fd = dup(base_fd(base));
	assert_int_equal(base_from_fd(&other, fd, NULL), 0);
	assert_int_equal(base_fd(other), fd);
	assert_true(digest_equal(base_digest(base), base_digest(other)));
	assert_non_null(safetensors_find(base_tensors(other), "w"));
	base_free(TAKE_PTR(other));
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* it was taken */
}

static void an_unsealed_descriptor_is_refused_and_left_alone(void **state)
{
	const struct place *place = *state;
	_cleanup_(closep) int memfd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	_cleanup_(closep) int file = open(place->file, O_RDONLY | O_CLOEXEC);
	_cleanup_(base_freep) struct base *base = NULL;
	struct diag diag;

	assert_int_equal(write(memfd, place->image, place->n_image), place->n_image);
	assert_int_equal(base_from_fd(&base, -1, &diag), -EPERM);
	assert_int_equal(base_from_fd(&base, file, &diag), -EPERM);
	assert_int_equal(base_from_fd(&base, memfd, &diag), -EPERM);
	assert_int_equal(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	assert_int_equal(base_from_fd(&base, memfd, &diag), -EPERM);
	assert_true(fcntl(memfd, F_GETFD) >= 0);
	assert_null(base);
	assert_int_equal(fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	assert_int_equal(base_from_fd(&base, memfd, &diag), 0);
	memfd = -1;
}

static void a_damaged_file_is_refused(void **state)
{
	const struct place *place = *state;
	_cleanup_(base_freep) struct base *base = NULL;
	struct diag diag;

	for (size_t n = 0; n < place->n_image; n++) {
		assert_int_equal(blob_write(AT_FDCWD, place->file, place->image, n), 0);
		assert_int_equal(base_load(&base, place->file, &diag), -EBADMSG);
		assert_null(base);
	}
	assert_int_equal(unlink(place->file), 0);
	assert_int_equal(base_load(&base, place->file, &diag), -ENOENT);
	assert_non_null(strstr(diag.text, place->file));
	assert_int_equal(base_load(&base, place->dir, &diag), -EINVAL);
	assert_int_equal(mkfifo(place->file, 0600), 0);
	assert_int_equal(base_load(&base, place->file, &diag), -EINVAL);
}

#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_PLACE(a_loaded_base_is_the_file_and_its_digest),
		WITH_PLACE(nobody_can_change_a_base),
		WITH_PLACE(another_process_sees_the_same_base),
		WITH_PLACE(an_unsealed_descriptor_is_refused_and_left_alone),
		WITH_PLACE(a_damaged_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
