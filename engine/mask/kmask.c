/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "mask/kmask.h"
#include "mask/kmask_coder.h"
#include "mask/kmask_format.h"

static void put_u32(uint8_t *p, uint32_t value)
{
	value = htole32(value);
	memcpy(p, &value, sizeof(value));
}

static void put_u64(uint8_t *p, uint64_t value)
{
	value = htole64(value);
	memcpy(p, &value, sizeof(value));
}

static uint32_t get_u32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return le32toh(value);
}

static uint64_t get_u64(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return le64toh(value);
}

/** One row of the table. */
struct kmask_row {
	uint32_t index, n, n_on, n_bytes;
	uint64_t checksum;
};

static struct kmask_row row_get(const uint8_t *data, uint32_t t)
{
	const uint8_t *p = data + KMASK_HEADER_BYTES + (size_t)t * KMASK_ROW_BYTES;

	return (struct kmask_row){ get_u32(p), get_u32(p + 4), get_u32(p + 8), get_u32(p + 12),
		get_u64(p + 16) };
}

static void row_put(uint8_t *data, uint32_t t, const struct kmask_row *row)
{
	uint8_t *p = data + KMASK_HEADER_BYTES + (size_t)t * KMASK_ROW_BYTES;

	put_u32(p, row->index);
	put_u32(p + 4, row->n);
	put_u32(p + 8, row->n_on);
	put_u32(p + 12, row->n_bytes);
	put_u64(p + 16, row->checksum);
}

static bool is_coded(uint32_t n_on, uint32_t n)
{
	return n_on > 0 && n_on < n;
}

static int max_bytes(const struct mask *mask, size_t *ret_n_bytes)
{
	size_t n_bytes = KMASK_HEADER_BYTES + KMASK_TRAILER_BYTES +
			 (size_t)mask->layout->n_tensors * KMASK_ROW_BYTES;

	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		size_t n = mask->layout->tensors[t].n, n_off = n - mask->n_on[t];

		/* Half the range of u32: a payload's bytes then fit as well. */
		if (n > INT32_MAX)
			return -EFBIG;
		if (n_off > 0 && n_off < n)
			n_bytes += coder_max_bytes((uint32_t)n_off, (uint32_t)n);
	}
	*ret_n_bytes = n_bytes;
	return 0;
}

static uint8_t *encode_tensor(
	uint8_t *data, uint8_t *payload, const struct mask *mask, unsigned t, uint64_t *n_kept)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	uint32_t n = (uint32_t)tensor->n, n_on = (uint32_t)mask->n_on[t];
	struct kmask_row row = { .index = t, .n = n, .n_on = n_on };

	if (is_coded(n_on, n))
		row.n_bytes = (uint32_t)coder_encode(
			payload, mask->words + tensor->word, n, coder_probability(n - n_on, n));
	row.checksum = digest_checksum(payload, row.n_bytes);
	row_put(data, t, &row);
	*n_kept += n_on;
	return payload + row.n_bytes;
}

static void encode_header(uint8_t *data, const struct mask *mask, const struct kmask_header *header,
	uint64_t n_bytes, uint64_t n_kept)
{
	struct digest digest = mask_digest(mask);

	memcpy(data, KMASK_MAGIC, 8);
	put_u32(data + 8, KMASK_VERSION);
	put_u32(data + 12, 0);
	put_u64(data + 16, n_bytes);
	put_u64(data + 24, mask->layout->n_elements);
	put_u64(data + 32, n_kept);
	put_u64(data + 40, header->seed);
	put_u32(data + 48, header->steps);
	put_u32(data + 52, mask->layout->n_tensors);
	memcpy(data + 56, header->base.bytes, DIGEST_BYTES);
	memcpy(data + 88, header->prep.bytes, DIGEST_BYTES);
	memcpy(data + 120, digest.bytes, DIGEST_BYTES);
	put_u64(data + KMASK_HEADER_SUM, digest_checksum(data, KMASK_HEADER_SUM));
}

int kmask_encode(const struct mask *mask, const struct kmask_header *header, void **ret_data,
	size_t *ret_n_bytes)
{
	_cleanup_(freep) uint8_t *data = NULL;
	uint64_t n_kept = 0;
	uint8_t *p;
	size_t n_max;
	int r;

	r = max_bytes(mask, &n_max);
	if (r < 0)
		return r;
	data = calloc(1, n_max);
	if (!data)
		return -ENOMEM;

	p = data + KMASK_HEADER_BYTES + (size_t)mask->layout->n_tensors * KMASK_ROW_BYTES;
	for (unsigned t = 0; t < mask->layout->n_tensors; t++)
		p = encode_tensor(data, p, mask, t, &n_kept);
	encode_header(data, mask, header, (uint64_t)(p - data) + KMASK_TRAILER_BYTES, n_kept);
	put_u64(p, digest_checksum(data, (size_t)(p - data)));
	memset(p + 8, 0, KMASK_TRAILER_BYTES - 8);
	*ret_n_bytes = (size_t)(p - data) + KMASK_TRAILER_BYTES;
	*ret_data = TAKE_PTR(data);
	return 0;
}

static int check_header(const uint8_t *data, size_t n_bytes, struct diag *diag)
{
	if (n_bytes < KMASK_HEADER_BYTES + KMASK_TRAILER_BYTES)
		return diag_set(
			diag, EBADMSG, "mask: %zu bytes are too few for a mask file", n_bytes);
	if (memcmp(data, KMASK_MAGIC, 8) != 0)
		return diag_set(diag, EBADMSG, "mask: not a mask file");
	if (get_u64(data + KMASK_HEADER_SUM) != digest_checksum(data, KMASK_HEADER_SUM))
		return diag_set(diag, EBADMSG, "mask: checksum of the header does not match");
	if (get_u32(data + 8) != KMASK_VERSION || get_u32(data + 12) != 0)
		return diag_set(diag, EBADMSG,
			"mask: version %" PRIu32 " with flags %#" PRIx32 " is not known here",
			get_u32(data + 8), get_u32(data + 12));
	if (get_u64(data + 16) != n_bytes)
		return diag_set(diag, EBADMSG,
			"mask: %zu bytes where the header says %" PRIu64 " (truncated?)", n_bytes,
			get_u64(data + 16));
	return 0;
}

static int check_trailer(const uint8_t *data, size_t n_bytes, struct diag *diag)
{
	const uint8_t *trailer = data + n_bytes - KMASK_TRAILER_BYTES;

	if (get_u64(trailer) != digest_checksum(data, n_bytes - KMASK_TRAILER_BYTES))
		return diag_set(diag, EBADMSG, "mask: checksum of the file does not match");
	for (unsigned i = 8; i < KMASK_TRAILER_BYTES; i++)
		if (trailer[i])
			return diag_set(
				diag, EBADMSG, "mask: carries a signature of an unknown kind");
	return 0;
}

static int check_row(const struct kmask_row *row, uint32_t t, const uint8_t *payload, size_t n_left,
	struct diag *diag)
{
	if (row->index != t)
		return diag_set(
			diag, EBADMSG, "mask: row %" PRIu32 " has index %" PRIu32, t, row->index);
	if (row->n == 0 || row->n > INT32_MAX || row->n_on > row->n)
		return diag_set(diag, EBADMSG,
			"mask: tensor %" PRIu32 " keeps %" PRIu32 " of %" PRIu32, t, row->n_on,
			row->n);
	if (row->n_bytes > n_left || (row->n_bytes > 0) != is_coded(row->n_on, row->n))
		return diag_set(diag, EBADMSG,
			"mask: tensor %" PRIu32 " has a payload of %" PRIu32 " bytes, %zu left", t,
			row->n_bytes, n_left);
	if (row->checksum != digest_checksum(payload, row->n_bytes))
		return diag_set(
			diag, EBADMSG, "mask: checksum of tensor %" PRIu32 " does not match", t);
	return 0;
}

static int check_table(const uint8_t *data, size_t n_bytes, struct diag *diag)
{
	uint64_t n_elements = 0, n_kept = 0;
	uint32_t n_tensors = get_u32(data + 52);
	size_t n_left = n_bytes - KMASK_HEADER_BYTES - KMASK_TRAILER_BYTES;
	const uint8_t *payload;
	int r;

	if (n_tensors > n_left / KMASK_ROW_BYTES)
		return diag_set(diag, EBADMSG, "mask: a table of %" PRIu32 " tensors in %zu bytes",
			n_tensors, n_bytes);
	payload = data + KMASK_HEADER_BYTES + (size_t)n_tensors * KMASK_ROW_BYTES;
	n_left -= (size_t)n_tensors * KMASK_ROW_BYTES;
	for (uint32_t t = 0; t < n_tensors; t++) {
		struct kmask_row row = row_get(data, t);

		r = check_row(&row, t, payload, n_left, diag);
		if (r < 0)
			return r;
		payload += row.n_bytes;
		n_left -= row.n_bytes;
		n_elements += row.n;
		n_kept += row.n_on;
	}
	if (n_left > 0)
		return diag_set(diag, EBADMSG, "mask: %zu bytes that belong to no tensor", n_left);
	if (n_elements != get_u64(data + 24) || n_kept != get_u64(data + 32))
		return diag_set(diag, EBADMSG,
			"mask: the table keeps %" PRIu64 " of %" PRIu64 ", the header %" PRIu64
			" of %" PRIu64,
			n_kept, n_elements, get_u64(data + 32), get_u64(data + 24));
	return 0;
}

static struct kmask_header header_get(const uint8_t *data)
{
	struct kmask_header header = {
		.seed = get_u64(data + 40),
		.steps = get_u32(data + 48),
		.n_tensors = get_u32(data + 52),
		.n_elements = get_u64(data + 24),
		.n_kept = get_u64(data + 32),
	};

	memcpy(header.base.bytes, data + 56, DIGEST_BYTES);
	memcpy(header.prep.bytes, data + 88, DIGEST_BYTES);
	memcpy(header.mask.bytes, data + 120, DIGEST_BYTES);
	return header;
}

int kmask_verify(
	const void *data, size_t n_bytes, struct kmask_header *ret_header, struct diag *diag)
{
	int r;

	r = check_header(data, n_bytes, diag);
	if (r < 0)
		return r;
	r = check_trailer(data, n_bytes, diag);
	if (r < 0)
		return r;
	r = check_table(data, n_bytes, diag);
	if (r < 0)
		return r;
	*ret_header = header_get(data);
	return 0;
}

static int check_layout(const uint8_t *data, const struct kmask_header *header,
	const struct mask_layout *layout, const struct digest *base, struct diag *diag)
{
	char want[DIGEST_HEX_CHARS + 1], got[DIGEST_HEX_CHARS + 1];

	if (!digest_equal(&header->base, base)) {
		digest_to_hex(base, want);
		digest_to_hex(&header->base, got);
		return diag_set(diag, EXDEV, "mask: made for base %.16s, not for %.16s", got, want);
	}
	if (header->n_tensors != layout->n_tensors)
		return diag_set(diag, EXDEV, "mask: of %" PRIu32 " tensors, the base has %u",
			header->n_tensors, layout->n_tensors);
	for (uint32_t t = 0; t < header->n_tensors; t++) {
		struct kmask_row row = row_get(data, t);

		if (row.n != layout->tensors[t].n)
			return diag_set(diag, EXDEV,
				"mask: %s has %" PRIu32 " elements, the base's has %zu",
				layout->tensors[t].name, row.n, layout->tensors[t].n);
	}
	return 0;
}

static int decode_tensor(struct mask *mask, unsigned t, const struct kmask_row *row,
	const uint8_t *payload, struct diag *diag)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	uint64_t *words = mask->words + tensor->word;
	size_t n_words = (tensor->n + 63) / 64, n_on = 0;

	if (row->n_on == 0)
		memset(words, 0, n_words * sizeof(*words));
	else if (row->n_on < row->n &&
		 !coder_decode(words, row->n, coder_probability(row->n - row->n_on, row->n),
			 payload, row->n_bytes))
		return diag_set(diag, EBADMSG, "mask: payload of %s does not decode", tensor->name);
	for (size_t w = 0; w < n_words; w++)
		n_on += (size_t)__builtin_popcountll(words[w]);
	if (n_on != row->n_on)
		return diag_set(diag, EBADMSG, "mask: %s keeps %zu bits, its row says %" PRIu32,
			tensor->name, n_on, row->n_on);
	mask->n_on[t] = n_on;
	return 0;
}

static int decode_tensors(struct mask *mask, const uint8_t *data, struct diag *diag)
{
	const uint8_t *payload =
		data + KMASK_HEADER_BYTES + (size_t)mask->layout->n_tensors * KMASK_ROW_BYTES;
	int r;

	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		struct kmask_row row = row_get(data, t);

		r = decode_tensor(mask, t, &row, payload, diag);
		if (r < 0)
			return r;
		payload += row.n_bytes;
	}
	return 0;
}

int kmask_decode(struct mask **ret_mask, struct kmask_header *ret_header,
	const struct mask_layout *layout, const struct digest *base, const void *data,
	size_t n_bytes, struct diag *diag)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct kmask_header header;
	struct digest digest;
	int r;

	r = kmask_verify(data, n_bytes, &header, diag);
	if (r < 0)
		return r;
	r = check_layout(data, &header, layout, base, diag);
	if (r < 0)
		return r;
	r = mask_new(&mask, layout);
	if (r < 0)
		return r;
	r = decode_tensors(mask, data, diag);
	if (r < 0)
		return r;
	digest = mask_digest(mask);
	if (!digest_equal(&digest, &header.mask))
		return diag_set(diag, EBADMSG, "mask: its bits have another digest than it says");
	*ret_header = header;
	*ret_mask = TAKE_PTR(mask);
	return 0;
}
