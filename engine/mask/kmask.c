/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "mask/kmask.h"
#include "mask/kmask_coder.h"
#include "mask/kmask_format.h"

static uint32_t n_rare_of(const struct mask *mask, unsigned t)
{
	size_t n = mask->layout->tensors[t].n, n_on = mask->n_on[t];

	return (uint32_t)(n_on < n - n_on ? n_on : n - n_on);
}

static int max_bytes(const struct mask *mask, size_t *ret_n_bytes)
{
	const struct mask_layout *layout = mask->layout;
	size_t n_bytes = KMASK_HEADER_BYTES + 2 * KMASK_SUM_BYTES +
			 (size_t)layout->n_tensors * KMASK_MAX_ROW_BYTES;

	for (unsigned t = 0; t < layout->n_tensors; t++) {
		uint32_t n_rare = n_rare_of(mask, t);

		/* Half the range of u32: a payload's bytes then fit as well. */
		if (layout->tensors[t].n > INT32_MAX)
			return -EFBIG;
		if (n_rare > 0)
			n_bytes += coder_max_bytes((uint32_t)layout->tensors[t].n, n_rare);
	}
	*ret_n_bytes = n_bytes;
	return 0;
}

/* ret_sizes (n_tensors): bytes of the payloads. @return past the last of them */
static uint8_t *encode_payloads(uint8_t *p, const struct mask *mask, uint32_t *ret_sizes)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &mask->layout->tensors[t];
		uint32_t n_rare = n_rare_of(mask, t);

		ret_sizes[t] = 0;
		if (n_rare > 0)
			ret_sizes[t] = (uint32_t)coder_encode(p, mask->words + tensor->word,
				(uint32_t)tensor->n, n_rare,
				mask->n_on[t] < tensor->n - mask->n_on[t]);
		p += ret_sizes[t];
	}
	return p;
}

/* @return past the rows */
static uint8_t *put_rows(
	uint8_t *p, const struct mask *mask, const uint32_t *sizes, const uint8_t *payload)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		size_t n = mask->layout->tensors[t].n;

		p = put_varint(p, (uint32_t)n);
		p = put_varint(p, (uint32_t)(n - mask->n_on[t]));
		p = put_varint(p, sizes[t]);
		if (sizes[t] > 0) {
			put_u32(p, (uint32_t)digest_checksum(payload, sizes[t]));
			p += KMASK_PAYLOAD_SUM_BYTES;
		}
		payload += sizes[t];
	}
	return p;
}

static void put_header(uint8_t *data, const struct mask *mask, const struct kmask_header *header,
	uint64_t n_bytes, uint32_t n_table)
{
	struct digest digest = mask_digest(mask);
	uint64_t n_kept = 0;

	for (unsigned t = 0; t < mask->layout->n_tensors; t++)
		n_kept += mask->n_on[t];
	memcpy(data, KMASK_MAGIC, 8);
	put_u32(data + KMASK_AT_VERSION, KMASK_VERSION);
	put_u32(data + KMASK_AT_FLAGS, 0);
	put_u64(data + KMASK_AT_BYTES, n_bytes);
	put_u64(data + KMASK_AT_ELEMENTS, mask->layout->n_elements);
	put_u64(data + KMASK_AT_KEPT, n_kept);
	put_u64(data + KMASK_AT_SEED, header->seed);
	put_u32(data + KMASK_AT_STEPS, header->steps);
	put_u32(data + KMASK_AT_TENSORS, mask->layout->n_tensors);
	memcpy(data + KMASK_AT_BASE, header->base.bytes, DIGEST_BYTES);
	memcpy(data + KMASK_AT_PREP, header->prep.bytes, DIGEST_BYTES);
	memcpy(data + KMASK_AT_MASK, digest.bytes, DIGEST_BYTES);
	put_u32(data + KMASK_AT_TABLE, n_table);
	put_u32(data + KMASK_AT_ZERO, 0);
	put_u64(data + KMASK_AT_SUM, digest_checksum(data, KMASK_AT_SUM));
}

int kmask_encode(const struct mask *mask, const struct kmask_header *header, void **ret_data,
	size_t *ret_n_bytes)
{
	const size_t n_room = (size_t)mask->layout->n_tensors * KMASK_MAX_ROW_BYTES;
	_cleanup_(freep) uint8_t *data = NULL;
	_cleanup_(freep) uint32_t *sizes = NULL;
	uint8_t *rows, *payloads, *p;
	size_t n_max, n_payloads;
	int r;

	r = max_bytes(mask, &n_max);
	if (r < 0)
		return r;
	data = malloc(n_max);
	sizes = calloc(mask->layout->n_tensors + 1, sizeof(*sizes));
	if (!data || !sizes)
		return -ENOMEM;

	/* The rows come first but need the payloads, which move up once the rows' size is known. */
	rows = data + KMASK_HEADER_BYTES;
	payloads = rows + n_room + KMASK_SUM_BYTES;
	n_payloads = (size_t)(encode_payloads(payloads, mask, sizes) - payloads);
	p = put_rows(rows, mask, sizes, payloads);
	put_header(data, mask, header,
		(uint64_t)(p - data) + 2 * KMASK_SUM_BYTES + (uint64_t)n_payloads,
		(uint32_t)(p - rows));
	put_u64(p, digest_checksum(rows, (size_t)(p - rows)));
	p += KMASK_SUM_BYTES;
	memmove(p, payloads, n_payloads);
	p += n_payloads;
	put_u64(p, digest_checksum(data, (size_t)(p - data)));
	p += KMASK_SUM_BYTES;

	*ret_n_bytes = (size_t)(p - data);
	*ret_data = TAKE_PTR(data);
	return 0;
}
