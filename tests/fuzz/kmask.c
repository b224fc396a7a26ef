/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <stdint.h>
#include <string.h>

#include "mask/kmask.h"
#include "mask/kmask_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void put_checksum(uint8_t *at, const uint8_t *data, size_t n_bytes)
{
	uint64_t sum = htole64(digest_checksum(data, n_bytes));

	memcpy(at, &sum, sizeof(sum));
}

/* Random bytes would never get past a checksum: make every one of them right, and the size too. */
static void mend(uint8_t *data, size_t n_bytes)
{
	uint64_t size = htole64(n_bytes);
	uint32_t n_tensors;
	size_t at;

	if (n_bytes < KMASK_HEADER_BYTES + KMASK_TRAILER_BYTES)
		return;
	memcpy(data + 16, &size, sizeof(size));
	memcpy(&n_tensors, data + 52, sizeof(n_tensors));
	n_tensors = le32toh(n_tensors);
	at = KMASK_HEADER_BYTES + (size_t)n_tensors * KMASK_ROW_BYTES;
	for (uint32_t t = 0; t < n_tensors && at <= n_bytes; t++) {
		uint8_t *row = data + KMASK_HEADER_BYTES + (size_t)t * KMASK_ROW_BYTES;
		uint32_t n_payload;

		memcpy(&n_payload, row + 12, sizeof(n_payload));
		n_payload = le32toh(n_payload);
		if (n_payload > n_bytes - at)
			break;
		put_checksum(row + 16, data + at, n_payload);
		at += n_payload;
	}
	put_checksum(data + KMASK_HEADER_SUM, data, KMASK_HEADER_SUM);
	put_checksum(data + n_bytes - KMASK_TRAILER_BYTES, data, n_bytes - KMASK_TRAILER_BYTES);
}

static void decode(const struct mask_layout *layout, const uint8_t *data, size_t n_bytes)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct kmask_header header;
	struct digest base = { 0 };
	struct diag diag;

	if (n_bytes >= 88)
		memcpy(base.bytes, data + 56, DIGEST_BYTES);
	(void)kmask_verify(data, n_bytes, &header, &diag);
	(void)kmask_decode(&mask, &header, layout, &base, data, n_bytes, &diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	static const char *const names[] = { "a", "b", "c" };
	static const size_t sizes[] = { 300, 64, 9 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(freep) uint8_t *copy = malloc(n_bytes + 1);

	if (!copy || mask_layout_new(&layout, 3, names, sizes) < 0)
		return 0;
	decode(layout, data, n_bytes);
	memcpy(copy, data, n_bytes);
	mend(copy, n_bytes);
	decode(layout, copy, n_bytes);
	return 0;
}
