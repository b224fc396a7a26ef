/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "mask/kmask.h"
#include "mask/kmask_diff.h"
#include "mask/kmask_format.h"
#include "mask/kmask_sign.h"

#define SEED 99u

static struct mask_layout *make_layout(unsigned n_tensors, const size_t *sizes)
{
	static const char *const names[] = { "a.weight", "a.bias", "b.weight", "b.bias", "c.weight",
		"c.bias" };
	struct mask_layout *layout = NULL;

	assert_int_equal(mask_layout_new(&layout, n_tensors, names, sizes), 0);
	return layout;
}

/* Drops each bit of a tensor with its own chance. */
static struct mask *make_mask(const struct mask_layout *layout, const double *drop)
{
	struct mask *mask = NULL;

	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		struct rng rng = rng_stream(SEED, t, 0, 0);

		for (size_t i = 0; i < layout->tensors[t].n; i++)
			if ((double)rng_u32(&rng) < drop[t] * 4294967296.)
				mask_put(mask, t, i, false);
	}
	return mask;
}

static struct kmask_header make_header(void)
{
	return (struct kmask_header){
		.base = digest_of("base", 4),
		.prep = digest_of("prep", 4),
		.seed = 0x123456789abcdefULL,
		.steps = 50,
	};
}

static void a_mask_survives_its_file(void **state)
{
	static const size_t sizes[] = { 1, 2, 63, 64, 65, 1000 };
	static const double drops[][6] = {
		{ 0, 0, 0, 0, 0, 0 },
		{ 1.1, 1.1, 1.1, 1.1, 1.1, 1.1 },
		{ .5, .5, .5, .5, .5, .5 },
		{ .9, .1, .01, .99, .001, .05 },
	};
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(6, sizes);
	struct kmask_header header = make_header(), back_header;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(drops); i++) {
		_cleanup_(mask_freep) struct mask *mask = make_mask(layout, drops[i]);
		_cleanup_(mask_freep) struct mask *back = NULL;
		_cleanup_(freep) void *data = NULL;
		struct digest digest = mask_digest(mask);
		struct diag diag;
		size_t n_bytes;

		assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
		assert_int_equal(kmask_decode(&back, &back_header, layout, &header.base, data,
					 n_bytes, &diag),
			0);
		assert_int_equal(mask_distance(mask, back), 0);
		assert_memory_equal(mask->n_on, back->n_on, 6 * sizeof(*mask->n_on));
		assert_true(digest_equal(&back_header.mask, &digest));
		assert_true(digest_equal(&back_header.prep, &header.prep));
		assert_true(back_header.seed == header.seed);
		assert_int_equal(back_header.steps, 50);
		assert_int_equal(back_header.n_tensors, 6);
		assert_int_equal(back_header.n_elements, 1195);
		assert_int_equal(back_header.n_kept, (size_t)(mask_density(mask) * 1195 + .5));
	}
}

/* Cut anywhere and with any bit flipped: refused, and said why. */
static void assert_fragile(const struct mask_layout *layout, uint8_t *data, size_t n_bytes)
{
	struct kmask_header header = make_header(), seen;
	struct mask *none = NULL;
	struct diag diag;

	for (size_t n = 0; n < n_bytes; n++) {
		diag.text[0] = 0;
		assert_int_equal(kmask_verify(data, n, &seen, &diag), -EBADMSG);
		assert_true(diag.text[0] != 0);
	}
	for (size_t i = 0; i < n_bytes * 8; i++) {
		diag.text[0] = 0;
		data[i / 8] ^= (uint8_t)(1 << (i % 8));
		assert_true(kmask_verify(data, n_bytes, &seen, &diag) < 0);
		assert_true(diag.text[0] != 0);
		assert_true(
			kmask_decode(&none, &seen, layout, &header.base, data, n_bytes, &diag) < 0);
		data[i / 8] ^= (uint8_t)(1 << (i % 8));
	}
	assert_null(none);
	assert_int_equal(kmask_verify(data, n_bytes, &seen, &diag), 0);
}

static void every_truncation_and_flipped_bit_is_refused(void **state)
{
	static const size_t sizes[] = { 300, 64, 9 };
	static const double drops[] = { .1, .02, .5 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(3, sizes);
	_cleanup_(mask_freep) struct mask *mask = make_mask(layout, drops);
	_cleanup_(freep) void *data = NULL, *with = NULL;
	struct kmask_header header = make_header();
	struct kmask_secret secret = { .seed = { 1 } };
	struct diag diag;
	size_t n_bytes, n_with;

	(void)state;
	assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
	assert_fragile(layout, data, n_bytes);
	assert_int_equal(kmask_sign(data, n_bytes, &secret, &with, &n_with, &diag), 0);
	assert_fragile(layout, with, n_with);
}

static void a_tensor_gives_its_positions_without_the_others(void **state)
{
	static const size_t sizes[] = { 1, 2, 63, 64, 65, 1000 };
	static const double drops[] = { 0, 1.1, .5, .1, .9, .02 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(6, sizes);
	_cleanup_(mask_freep) struct mask *mask = make_mask(layout, drops);
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	_cleanup_(freep) uint8_t *data = NULL;
	struct kmask_header header = make_header();
	uint32_t positions[1000];
	struct diag diag;
	size_t n_bytes;

	(void)state;
	assert_int_equal(kmask_encode(mask, &header, (void **)&data, &n_bytes), 0);
	assert_int_equal(kmask_open(&kmask, data, n_bytes, &diag), 0);
	for (unsigned t = 0; t < 6; t++) {
		const struct kmask_tensor *row = &kmask->tensors[t];
		uint32_t n = kmask_n_named(row), at = 0;

		assert_int_equal(row->n, sizes[t]);
		assert_int_equal(row->n_off, sizes[t] - mask->n_on[t]);
		assert_int_equal(kmask_positions(kmask, t, positions, &diag), 0);
		for (uint32_t i = 0; i < row->n; i++)
			if (mask_get(mask, t, i) != kmask_names_dropped(row)) {
				assert_true(at < n);
				assert_int_equal(positions[at++], i);
			}
		assert_int_equal(at, n);
		/* Whatever came before it is not looked at. */
		if (t > 0)
			memset(data + kmask->tensors[0].at, 0xa5, row->at - kmask->tensors[0].at);
		assert_int_equal(kmask_positions(kmask, t, positions, &diag), 0);
	}
}

/* Header and table say what they like; their sums are right. */
static size_t forge(uint8_t *data, uint32_t n, uint32_t n_off, uint32_t n_payload)
{
	uint8_t *rows = data + KMASK_HEADER_BYTES, *p = rows;

	p = put_varint(p, n);
	p = put_varint(p, n_off);
	p = put_varint(p, n_payload);
	if (n_payload > 0) {
		uint8_t zeros[64] = { 0 };

		put_u32(p, (uint32_t)digest_checksum(zeros, n_payload));
		p += KMASK_PAYLOAD_SUM_BYTES;
	}
	put_u32(data + KMASK_AT_TABLE, (uint32_t)(p - rows));
	put_u32(data + KMASK_AT_TENSORS, 1);
	put_u64(data + KMASK_AT_ELEMENTS, n);
	put_u64(data + KMASK_AT_KEPT, n - n_off);
	put_u64(p, digest_checksum(rows, (size_t)(p - rows)));
	p += KMASK_SUM_BYTES;
	memset(p, 0, n_payload);
	p += n_payload;
	put_u64(data + KMASK_AT_BYTES, (uint64_t)(p - data) + KMASK_SUM_BYTES);
	put_u64(data + KMASK_AT_SUM, digest_checksum(data, KMASK_AT_SUM));
	put_u64(p, digest_checksum(data, (size_t)(p - data)));
	return (size_t)(p - data) + KMASK_SUM_BYTES;
}

static void a_bomb_is_refused_before_it_is_opened(void **state)
{
	static const size_t size = 300;
	static const double drop = .1;
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(1, &size);
	_cleanup_(mask_freep) struct mask *mask = make_mask(layout, &drop);
	_cleanup_(freep) uint8_t *data = NULL;
	struct kmask_header header = make_header(), seen;
	struct mask *none = NULL;
	uint8_t forged[512];
	struct diag diag;
	size_t n_bytes, n;

	(void)state;
	assert_int_equal(kmask_encode(mask, &header, (void **)&data, &n_bytes), 0);
	assert_true(n_bytes < sizeof(forged));
	memcpy(forged, data, n_bytes);
	/* More positions than the payload can have bits for. */
	n = forge(forged, 2000000000, 1000000000, 8);
	assert_int_equal(kmask_verify(forged, n, &seen, &diag), -EFBIG);
	assert_non_null(strstr(diag.text, "promises 1000000000 positions in 8 bytes"));
	/* Few, but of a tensor that the base does not have. */
	n = forge(forged, 2000000000, 3, 8);
	assert_int_equal(kmask_verify(forged, n, &seen, &diag), 0);
	assert_int_equal(
		kmask_decode(&none, &seen, layout, &header.base, forged, n, &diag), -EFBIG);
	assert_non_null(strstr(diag.text, "promises 2000000000 weights"));
	/* Tensors that the table has no room for. */
	n = forge(forged, 300, 3, 8);
	put_u32(forged + KMASK_AT_TENSORS, UINT32_MAX);
	put_u64(forged + KMASK_AT_SUM, digest_checksum(forged, KMASK_AT_SUM));
	assert_int_equal(kmask_verify(forged, n, &seen, &diag), -EFBIG);
	assert_non_null(strstr(diag.text, "table"));
	/* All is right but the bits: a payload that ends too early (of zeros, the first 30 bits would
	 * come out of nothing) or too late. */
	n = forge(forged, 300, 30, 1);
	diag.text[0] = 0;
	assert_int_equal(
		kmask_decode(&none, &seen, layout, &header.base, forged, n, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "does not decode"));
	n = forge(forged, 300, 3, 30);
	diag.text[0] = 0;
	assert_int_equal(
		kmask_decode(&none, &seen, layout, &header.base, forged, n, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "does not decode"));
	assert_null(none);
}

/* As an attacker would: the sums are all right. */
static void forge_digest(uint8_t *data, size_t n_bytes)
{
	data[KMASK_AT_MASK] ^= 1;
	put_u64(data + KMASK_AT_SUM, digest_checksum(data, KMASK_AT_SUM));
	put_u64(data + n_bytes - KMASK_SUM_BYTES, digest_checksum(data, n_bytes - KMASK_SUM_BYTES));
}

/* Tensors of more than one window of words, of whole words and not, that name either kind. */
static void the_digest_of_the_bits_needs_no_model(void **state)
{
	static const size_t sizes[] = { 200000, 65536, 64, 1, 131073, 65537 };
	static const double drops[][6] = {
		{ .3, .001, 0, 0, .9, 1.1 },
		{ .99999, .00001, 1.1, 1.1, .6, 0 },
	};
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(6, sizes);
	const struct kmask_secret secret = { .seed = { 1 } };
	struct kmask_header header = make_header();

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(drops); i++) {
		_cleanup_(mask_freep) struct mask *mask = make_mask(layout, drops[i]);
		_cleanup_(kmask_freep) struct kmask *kmask = NULL, *forged = NULL;
		_cleanup_(freep) void *data = NULL;
		struct digest want = mask_digest(mask), got;
		struct diag diag = { .text = "" };
		void *with = NULL;
		size_t n_bytes, n_with;

		assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
		assert_int_equal(kmask_open(&kmask, data, n_bytes, &diag), 0);
		assert_int_equal(kmask_digest(kmask, &got, &diag), 0);
		assert_true(digest_equal(&got, &want));
		assert_int_equal(kmask_check_bits(kmask, &diag), 0);

		forge_digest(data, n_bytes);
		assert_int_equal(kmask_open(&forged, data, n_bytes, &diag), 0);
		assert_int_equal(kmask_check_bits(forged, &diag), -EBADMSG);
		assert_non_null(strstr(diag.text, "another digest"));
		assert_int_equal(
			kmask_sign(data, n_bytes, &secret, &with, &n_with, &diag), -EBADMSG);
		assert_null(with);
	}
}

/* Rows of 6 bytes, each of a tensor of 2^31 - 1 weights: hours of bits. */
static void too_many_weights_are_not_looked_at(void **state)
{
	enum { N = 9 };
	uint8_t data[KMASK_HEADER_BYTES + N * KMASK_MAX_ROW_BYTES + 2 * KMASK_SUM_BYTES] = { 0 };
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	uint8_t *rows = data + KMASK_HEADER_BYTES, *p = rows;
	struct diag diag = { .text = "" };
	struct digest digest;

	(void)state;
	memcpy(data, KMASK_MAGIC, 8);
	put_u32(data + KMASK_AT_VERSION, KMASK_VERSION);
	for (unsigned t = 0; t < N; t++) {
		p = put_varint(p, INT32_MAX);
		p = put_varint(p, 0);
		p = put_varint(p, 0);
	}
	put_u32(data + KMASK_AT_TABLE, (uint32_t)(p - rows));
	put_u32(data + KMASK_AT_TENSORS, N);
	put_u64(data + KMASK_AT_ELEMENTS, N * (uint64_t)INT32_MAX);
	put_u64(data + KMASK_AT_KEPT, N * (uint64_t)INT32_MAX);
	put_u64(p, digest_checksum(rows, (size_t)(p - rows)));
	p += KMASK_SUM_BYTES;
	put_u64(data + KMASK_AT_BYTES, (uint64_t)(p - data) + KMASK_SUM_BYTES);
	put_u64(data + KMASK_AT_SUM, digest_checksum(data, KMASK_AT_SUM));
	put_u64(p, digest_checksum(data, (size_t)(p - data)));
	p += KMASK_SUM_BYTES;
	assert_int_equal(kmask_open(&kmask, data, (size_t)(p - data), &diag), 0);
	assert_int_equal(kmask_digest(kmask, &digest, &diag), -EFBIG);
	assert_int_equal(kmask_check_bits(kmask, &diag), -EFBIG);
}

static void a_signature_names_its_key(void **state)
{
	static const size_t size = 300;
	static const double drop = .1;
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(1, &size);
	_cleanup_(mask_freep) struct mask *mask = make_mask(layout, &drop);
	_cleanup_(mask_freep) struct mask *back = NULL;
	_cleanup_(freep) uint8_t *data = NULL, *first = NULL, *second = NULL;
	struct kmask_header header = make_header(), seen;
	struct kmask_secret secrets[2];
	struct kmask_key keys[2];
	struct diag diag;
	size_t n_bytes, n_first, n_second;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(kmask_secret_new(&secrets[i]), 0);
		kmask_secret_key(&secrets[i], &keys[i]);
	}
	assert_memory_not_equal(&keys[0], &keys[1], sizeof(keys[0]));
	assert_int_equal(kmask_encode(mask, &header, (void **)&data, &n_bytes), 0);
	assert_int_equal(kmask_verify(data, n_bytes, &seen, &diag), 0);
	assert_false(seen.is_signed);
	assert_int_equal(
		kmask_sign(data, n_bytes, &secrets[0], (void **)&first, &n_first, &diag), 0);
	assert_int_equal(n_first, n_bytes + KMASK_SIGNED_BYTES);
	assert_int_equal(kmask_verify(first, n_first, &seen, &diag), 0);
	assert_true(seen.is_signed);
	assert_memory_equal(&seen.signer, &keys[0], sizeof(keys[0]));
	/* Signed again: the newer signature takes the older one's place. */
	assert_int_equal(
		kmask_sign(first, n_first, &secrets[1], (void **)&second, &n_second, &diag), 0);
	assert_int_equal(n_second, n_first);
	assert_int_equal(
		kmask_decode(&back, &seen, layout, &header.base, second, n_second, &diag), 0);
	assert_memory_equal(&seen.signer, &keys[1], sizeof(keys[1]));
	assert_int_equal(mask_distance(mask, back), 0);
	/* Another's key under a signature that is not its own. */
	memcpy(second + n_second - KMASK_SIGNED_BYTES, &keys[0], sizeof(keys[0]));
	assert_int_equal(kmask_verify(second, n_second, &seen, &diag), -EKEYREJECTED);
	assert_non_null(strstr(diag.text, "signature"));
}

static size_t encode_and_open(
	const struct mask *mask, const char *base, struct kmask **ret_kmask, void **ret_data)
{
	struct kmask_header header = make_header();
	size_t n_bytes;

	header.base = digest_of(base, strlen(base));
	assert_int_equal(kmask_encode(mask, &header, ret_data, &n_bytes), 0);
	assert_int_equal(kmask_open(ret_kmask, *ret_data, n_bytes, NULL), 0);
	return n_bytes;
}

/* Over tensors that name what is dropped, what is kept, and one of each, few and thousands. */
static void a_difference_counts_both_ways(void **state)
{
	static const size_t sizes[] = { 1, 2, 63, 9000, 7000, 1000 };
	static const double drops[][6] = {
		{ 0, 1.1, .1, .9, .3, .97 },
		{ 1.1, 1.1, .2, .8, .6, .05 },
	};
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(6, sizes);
	_cleanup_(mask_freep) struct mask *a = make_mask(layout, drops[0]);
	_cleanup_(mask_freep) struct mask *b = make_mask(layout, drops[1]);
	_cleanup_(kmask_freep) struct kmask *from = NULL, *to = NULL, *foreign = NULL;
	_cleanup_(freep) void *data_a = NULL, *data_b = NULL, *data_c = NULL;
	struct kmask_flips flips[6], back[6], base[6];
	struct diag diag;

	(void)state;
	(void)encode_and_open(a, "base", &from, &data_a);
	(void)encode_and_open(b, "base", &to, &data_b);
	(void)encode_and_open(b, "another", &foreign, &data_c);
	assert_int_equal(kmask_diff(from, to, flips, &diag), 0);
	assert_int_equal(kmask_diff(to, from, back, &diag), 0);
	assert_int_equal(kmask_diff(NULL, to, base, &diag), 0);
	for (unsigned t = 0; t < 6; t++) {
		uint32_t n_dropped = 0, n_restored = 0;

		for (size_t i = 0; i < sizes[t]; i++) {
			n_dropped += mask_get(a, t, i) && !mask_get(b, t, i);
			n_restored += !mask_get(a, t, i) && mask_get(b, t, i);
		}
		assert_int_equal(flips[t].n_dropped, n_dropped);
		assert_int_equal(flips[t].n_restored, n_restored);
		assert_int_equal(back[t].n_dropped, n_restored);
		assert_int_equal(back[t].n_restored, n_dropped);
		assert_int_equal(base[t].n_dropped, sizes[t] - b->n_on[t]);
		assert_int_equal(base[t].n_restored, 0);
	}
	assert_int_equal(kmask_diff(from, foreign, flips, &diag), -EXDEV);
	assert_non_null(strstr(diag.text, "bases"));
}

static void key_files_are_read_strictly(void **state)
{
	struct kmask_secret secret, back;
	char line[KMASK_SECRET_LINE_BYTES], hex[KMASK_KEY_HEX_CHARS + 1], list[512];
	struct kmask_key key, other = { { 1 } };
	struct diag diag;
	size_t n;

	(void)state;
	assert_int_equal(kmask_secret_new(&secret), 0);
	kmask_secret_key(&secret, &key);
	kmask_key_to_hex(&key, hex);
	kmask_secret_write(&secret, line);
	assert_int_equal(kmask_secret_read(&back, line, strlen(line), &diag), 0);
	assert_memory_equal(&back, &secret, sizeof(secret));
	assert_int_equal(kmask_secret_read(&back, line, strlen(line) - 2, &diag), -EINVAL);
	assert_int_equal(kmask_secret_read(&back, "", 0, &diag), -EINVAL);

	n = (size_t)snprintf(list, sizeof(list), "# plant\n\nkamen-mask-key %s line two\n", hex);
	assert_int_equal(kmask_keys_find(list, n, &key, &diag), 1);
	assert_int_equal(kmask_keys_find(list, n, &other, &diag), 0);
	assert_int_equal(kmask_keys_find("", 0, &key, &diag), 0);
	/* A secret key among them, or one that was cut, is an error: nobody is trusted by half. */
	assert_int_equal(kmask_keys_find(line, strlen(line), &key, &diag), -EINVAL);
	n = (size_t)snprintf(list, sizeof(list), "kamen-mask-key %s\nkamen-mask-key 12\n", hex);
	assert_int_equal(kmask_keys_find(list, n, &key, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "line 2"));
}

static void a_mask_for_another_base_is_told_apart(void **state)
{
	static const size_t sizes[] = { 300, 64, 9 };
	static const size_t other_sizes[] = { 300, 65, 9 };
	static const double drops[] = { .1, .02, .5 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(3, sizes);
	_cleanup_(mask_layout_freep) struct mask_layout *fewer = make_layout(2, sizes);
	_cleanup_(mask_layout_freep) struct mask_layout *other = make_layout(3, other_sizes);
	_cleanup_(mask_freep) struct mask *mask = make_mask(layout, drops);
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header = make_header(), seen;
	struct digest base = digest_of("another", 7);
	struct mask *none = NULL;
	struct diag diag;
	size_t n_bytes;

	(void)state;
	assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
	assert_int_equal(kmask_decode(&none, &seen, layout, &base, data, n_bytes, &diag), -EXDEV);
	assert_non_null(strstr(diag.text, "base"));
	assert_int_equal(
		kmask_decode(&none, &seen, fewer, &header.base, data, n_bytes, &diag), -EFBIG);
	assert_int_equal(
		kmask_decode(&none, &seen, other, &header.base, data, n_bytes, &diag), -EXDEV);
	assert_non_null(strstr(diag.text, "a.bias"));
	assert_null(none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mask_survives_its_file),
		cmocka_unit_test(every_truncation_and_flipped_bit_is_refused),
		cmocka_unit_test(a_mask_for_another_base_is_told_apart),
		cmocka_unit_test(a_tensor_gives_its_positions_without_the_others),
		cmocka_unit_test(a_bomb_is_refused_before_it_is_opened),
		cmocka_unit_test(the_digest_of_the_bits_needs_no_model),
		cmocka_unit_test(too_many_weights_are_not_looked_at),
		cmocka_unit_test(a_difference_counts_both_ways),
		cmocka_unit_test(a_signature_names_its_key),
		cmocka_unit_test(key_files_are_read_strictly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
