/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/blob.h"
#include "base/digest.h"
#include "base/rng.h"

static void philox_gives_the_published_vectors(void **state)
{
	/* Random123 kat_vectors, philox4x32 10: counter and key all zero, then all ones. */
	static const uint32_t zero[4] = { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 };
	static const uint32_t ones[4] = { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd };
	struct rng rng = rng_stream(0, 0, 0, 0);

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(rng_u32(&rng), zero[i]);
	rng = rng_stream(UINT64_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX);
	rng.counter[0] = UINT32_MAX;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(rng_u32(&rng), ones[i]);
}

static void a_permutation_holds_each_number_once(void **state)
{
	struct rng rng = rng_stream(7, 1, 2, 3);
	uint32_t order[101];
	uint8_t seen[101] = { 0 };

	(void)state;
	rng_permutation(&rng, order, 101);
	for (unsigned i = 0; i < 101; i++)
		seen[order[i]]++;
	for (unsigned i = 0; i < 101; i++)
		assert_int_equal(seen[i], 1);
}

static void an_arena_gives_no_more_than_it_has(void **state)
{
	_cleanup_(arena_freep) struct arena *arena = NULL;

	(void)state;
	assert_int_equal(arena_new(&arena, 128), 0);
	assert_non_null(arena_take(arena, 1));
	assert_non_null(arena_take(arena, 64));
	assert_null(arena_take(arena, 1));
	assert_null(arena_take(arena, SIZE_MAX));
}

static void a_blob_comes_back_whole_or_not_at_all(void **state)
{
	char dir[] = "/tmp/kamen-base-XXXXXX";
	_cleanup_(closep) int fd = -1;
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;

	(void)state;
	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(blob_write(fd, "x", "hello", 5), 0);
	assert_int_equal(blob_read(fd, "x", 4, &data, &n_bytes), -EFBIG);
	assert_int_equal(blob_read(fd, "x", 5, &data, &n_bytes), 0);
	assert_int_equal(n_bytes, 5);
	assert_string_equal(data, "hello");
	assert_int_equal(blob_read(fd, "x.tmp", 5, &(void *){ NULL }, &n_bytes), -ENOENT);
	assert_int_equal(blob_read(AT_FDCWD, dir, 5, &(void *){ NULL }, &n_bytes), -EINVAL);
	assert_int_equal(unlinkat(fd, "x", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void digests_match_known_values(void **state)
{
	char hex[DIGEST_HEX_CHARS + 1];
	struct digest digest, back;
	struct digest_state sum;

	(void)state;
	digest = digest_of("abc", 3);
	digest_to_hex(&digest, hex);
	assert_string_equal(
		hex, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
	digest_init(&sum);
	digest_update(&sum, "a", 1);
	digest_update(&sum, "bc", 2);
	back = digest_final(&sum);
	assert_true(digest_equal(&digest, &back));
	assert_int_equal(digest_from_hex(&back, hex), 0);
	assert_true(digest_equal(&digest, &back));
	hex[5] = 'x';
	assert_int_equal(digest_from_hex(&back, hex), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(philox_gives_the_published_vectors),
		cmocka_unit_test(a_permutation_holds_each_number_once),
		cmocka_unit_test(an_arena_gives_no_more_than_it_has),
		cmocka_unit_test(a_blob_comes_back_whole_or_not_at_all),
		cmocka_unit_test(digests_match_known_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
