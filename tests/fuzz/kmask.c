/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "mask/kmask.h"
#include "mask/kmask_format.h"
#include "mask/kmask_sign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* The sums of the rows' payloads. @return whether the rows end where they should */
static bool mend_rows(uint8_t *rows, const uint8_t *end, const uint8_t *payload, size_t n_left)
{
	for (uint8_t *p = rows; p < end;) {
		uint32_t value[3] = { 0 };

		for (unsigned i = 0; i < 3; i++) {
			p = (uint8_t *)(uintptr_t)get_varint(p, end, &value[i]);
			if (!p)
				return false;
		}
		if (value[2] == 0)
			continue;
		if (value[2] > n_left || end - p < KMASK_PAYLOAD_SUM_BYTES)
			return false;
		put_u32(p, (uint32_t)digest_checksum(payload, value[2]));
		p += KMASK_PAYLOAD_SUM_BYTES;
		payload += value[2];
		n_left -= value[2];
	}
	return true;
}

/* Random bytes would never get past a checksum: make every one of them right, and the size too. */
static void mend(uint8_t *data, size_t n_bytes)
{
	uint8_t *rows = data + KMASK_HEADER_BYTES;
	size_t n_table, n_left;

	if (n_bytes < KMASK_HEADER_BYTES + 2 * KMASK_SUM_BYTES)
		return;
	n_left = n_bytes - KMASK_HEADER_BYTES - 2 * KMASK_SUM_BYTES;
	n_table = get_u32(data + KMASK_AT_TABLE);
	put_u32(data + KMASK_AT_FLAGS, 0);
	put_u64(data + KMASK_AT_BYTES, n_bytes);
	if (n_table <= n_left &&
		mend_rows(rows, rows + n_table, rows + n_table + KMASK_SUM_BYTES, n_left - n_table))
		put_u64(rows + n_table, digest_checksum(rows, n_table));
	put_u64(data + KMASK_AT_SUM, digest_checksum(data, KMASK_AT_SUM));
	put_u64(data + n_bytes - KMASK_SUM_BYTES, digest_checksum(data, n_bytes - KMASK_SUM_BYTES));
}

/* Bits of weights that no payload names cost time all the same. */
#define MAX_ELEMENTS (1u << 20)

static void positions(const uint8_t *data, size_t n_bytes)
{
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	struct diag diag;

	if (kmask_open(&kmask, data, n_bytes, &diag) < 0)
		return;
	(void)kmask_entropy_bytes(kmask);
	if (kmask->header.n_elements <= MAX_ELEMENTS)
		(void)kmask_check_bits(kmask, &diag);
	for (uint32_t t = 0; t < kmask->header.n_tensors; t++) {
		_cleanup_(freep) uint32_t *found =
			malloc((kmask_n_named(&kmask->tensors[t]) + 1) * sizeof(*found));

		if (found)
			(void)kmask_positions(kmask, t, found, &diag);
	}
}

/* The digest of the bits, too, for who signs. @return whether there is one */
static bool mend_digest(uint8_t *data, size_t n_bytes)
{
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	struct digest digest;
	struct diag diag;

	if (kmask_open(&kmask, data, n_bytes, &diag) < 0 ||
		kmask->header.n_elements > MAX_ELEMENTS || kmask_digest(kmask, &digest, &diag) < 0)
		return false;
	memcpy(data + KMASK_AT_MASK, digest.bytes, DIGEST_BYTES);
	mend(data, n_bytes);
	return true;
}

static void decode(const struct mask_layout *layout, const uint8_t *data, size_t n_bytes)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct kmask_header header;
	struct digest base = { 0 };
	struct diag diag;

	if (n_bytes >= 88)
		memcpy(base.bytes, data + KMASK_AT_BASE, DIGEST_BYTES);
	(void)kmask_verify(data, n_bytes, &header, &diag);
	(void)kmask_decode(&mask, &header, layout, &base, data, n_bytes, &diag);
	positions(data, n_bytes);
}

/* What may be mended may be signed: the reader of a good signature behind any content. */
static void decode_signed(const struct mask_layout *layout, const uint8_t *data, size_t n_bytes)
{
	const struct kmask_secret secret = { .seed = { 1 } };
	_cleanup_(freep) void *with = NULL;
	struct diag diag;
	size_t n_with;

	if (kmask_sign(data, n_bytes, &secret, &with, &n_with, &diag) == 0)
		decode(layout, with, n_with);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	static const char *const names[] = { "a", "b", "c" };
	static const size_t sizes[] = { 300, 64, 9 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(freep) uint8_t *copy = malloc(n_bytes + 1);
	struct kmask_key key = { { 0 } };
	struct kmask_secret secret;
	struct diag diag;

	if (!copy || mask_layout_new(&layout, 3, names, sizes) < 0)
		return 0;
	decode(layout, data, n_bytes);
	(void)kmask_keys_find((const char *)data, n_bytes, &key, &diag);
	(void)kmask_secret_read(&secret, (const char *)data, n_bytes, &diag);
	memcpy(copy, data, n_bytes);
	mend(copy, n_bytes);
	decode(layout, copy, n_bytes);
	if (mend_digest(copy, n_bytes)) {
		decode(layout, copy, n_bytes);
		decode_signed(layout, copy, n_bytes);
	}
	return 0;
}
