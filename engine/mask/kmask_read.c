/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "mask/kmask.h"
#include "mask/kmask_coder.h"
#include "mask/kmask_format.h"
#include "mask/kmask_sign.h"

/* Three varints of a byte each. */
#define MIN_ROW_BYTES 3u

static bool is_signed(const uint8_t *data)
{
	return get_u32(data + KMASK_AT_FLAGS) & KMASK_SIGNED;
}

static int check_header(const uint8_t *data, size_t n_bytes, struct diag *diag)
{
	uint32_t version, flags;

	if (n_bytes < KMASK_HEADER_BYTES + 2 * KMASK_SUM_BYTES)
		return diag_set(
			diag, EBADMSG, "mask: %zu bytes are too few for a mask file", n_bytes);
	if (memcmp(data, KMASK_MAGIC, 8) != 0)
		return diag_set(diag, EBADMSG, "mask: not a mask file");
	if (get_u64(data + KMASK_AT_SUM) != digest_checksum(data, KMASK_AT_SUM))
		return diag_set(diag, EBADMSG, "mask: checksum of the header does not match");
	version = get_u32(data + KMASK_AT_VERSION);
	flags = get_u32(data + KMASK_AT_FLAGS);
	if (version != KMASK_VERSION || (flags & ~KMASK_SIGNED) || get_u32(data + KMASK_AT_ZERO))
		return diag_set(diag, EBADMSG,
			"mask: version %" PRIu32 " with flags %#" PRIx32 " is not known here",
			version, flags);
	if (get_u64(data + KMASK_AT_BYTES) != n_bytes)
		return diag_set(diag, EBADMSG,
			"mask: %zu bytes where the header says %" PRIu64 " (truncated?)", n_bytes,
			get_u64(data + KMASK_AT_BYTES));
	return 0;
}

static void read_header(struct kmask_header *header, const uint8_t *data, size_t n_bytes)
{
	*header = (struct kmask_header){
		.seed = get_u64(data + KMASK_AT_SEED),
		.steps = get_u32(data + KMASK_AT_STEPS),
		.n_tensors = get_u32(data + KMASK_AT_TENSORS),
		.n_elements = get_u64(data + KMASK_AT_ELEMENTS),
		.n_kept = get_u64(data + KMASK_AT_KEPT),
		.n_bytes = n_bytes,
		.is_signed = is_signed(data),
	};
	memcpy(header->base.bytes, data + KMASK_AT_BASE, DIGEST_BYTES);
	memcpy(header->prep.bytes, data + KMASK_AT_PREP, DIGEST_BYTES);
	memcpy(header->mask.bytes, data + KMASK_AT_MASK, DIGEST_BYTES);
}

/* ---- the table */

/* What is left of the rows and of the bytes for payloads while the table is read. */
struct table {
	const uint8_t *row, *end;
	const uint8_t *payload;
	size_t n_left;
	uint64_t n_elements, n_off;
};

static int check_counts(
	const struct kmask_tensor *tensor, uint32_t t, size_t n_left, struct diag *diag)
{
	if (tensor->n == 0 || tensor->n > INT32_MAX || tensor->n_off > tensor->n)
		return diag_set(diag, EBADMSG,
			"mask: tensor %" PRIu32 " drops %" PRIu32 " of %" PRIu32, t, tensor->n_off,
			tensor->n);
	if (tensor->n_bytes > n_left || (tensor->n_bytes > 0 && kmask_n_named(tensor) == 0))
		return diag_set(diag, EBADMSG,
			"mask: tensor %" PRIu32 " has a payload of %" PRIu32 " bytes, %zu left", t,
			tensor->n_bytes, n_left);
	/* A named bit costs a bit at least, but for what the reader's register holds. */
	if (kmask_n_named(tensor) > 8 * (uint64_t)tensor->n_bytes + 40)
		return diag_set(diag, EFBIG,
			"mask: tensor %" PRIu32 " promises %" PRIu32 " positions in %" PRIu32
			" bytes",
			t, kmask_n_named(tensor), tensor->n_bytes);
	return 0;
}

static int read_row(struct kmask_tensor *tensor, struct table *table, uint32_t t, struct diag *diag)
{
	const uint8_t *p = table->row;
	int r;

	p = get_varint(p, table->end, &tensor->n);
	p = p ? get_varint(p, table->end, &tensor->n_off) : NULL;
	p = p ? get_varint(p, table->end, &tensor->n_bytes) : NULL;
	if (!p || (tensor->n_bytes > 0 && table->end - p < KMASK_PAYLOAD_SUM_BYTES))
		return diag_set(diag, EBADMSG, "mask: row %" PRIu32 " of the table is broken", t);
	r = check_counts(tensor, t, table->n_left, diag);
	if (r < 0)
		return r;
	if (tensor->n_bytes > 0) {
		if (get_u32(p) != (uint32_t)digest_checksum(table->payload, tensor->n_bytes))
			return diag_set(diag, EBADMSG,
				"mask: checksum of tensor %" PRIu32 " does not match", t);
		p += KMASK_PAYLOAD_SUM_BYTES;
	}
	table->row = p;
	table->payload += tensor->n_bytes;
	table->n_left -= tensor->n_bytes;
	table->n_elements += tensor->n;
	table->n_off += tensor->n_off;
	return 0;
}

static int check_table(const struct kmask *kmask, const struct table *table, struct diag *diag)
{
	const struct kmask_header *header = &kmask->header;

	if (table->row != table->end || table->n_left > 0)
		return diag_set(diag, EBADMSG, "mask: %zu bytes that belong to no tensor",
			(size_t)(table->end - table->row) + table->n_left);
	if (table->n_elements != header->n_elements ||
		table->n_elements - table->n_off != header->n_kept)
		return diag_set(diag, EBADMSG,
			"mask: the table keeps %" PRIu64 " of %" PRIu64 ", the header %" PRIu64
			" of %" PRIu64,
			table->n_elements - table->n_off, table->n_elements, header->n_kept,
			header->n_elements);
	return 0;
}

static int read_table(struct kmask *kmask, size_t n_bytes, struct diag *diag)
{
	const uint8_t *rows = kmask->data + KMASK_HEADER_BYTES;
	size_t n_table = get_u32(kmask->data + KMASK_AT_TABLE);
	size_t n_left = n_bytes - KMASK_HEADER_BYTES - 2 * KMASK_SUM_BYTES;
	struct table table;
	int r;

	if (n_table > n_left || kmask->header.n_tensors > n_table / MIN_ROW_BYTES)
		return diag_set(diag, EFBIG,
			"mask: promises a table of %" PRIu32 " tensors in %zu bytes",
			kmask->header.n_tensors, n_table < n_left ? n_table : n_left);
	if (get_u64(rows + n_table) != digest_checksum(rows, n_table))
		return diag_set(diag, EBADMSG, "mask: checksum of the table does not match");
	kmask->tensors = calloc(kmask->header.n_tensors + 1, sizeof(*kmask->tensors));
	if (!kmask->tensors)
		return -ENOMEM;
	table = (struct table){ .row = rows,
		.end = rows + n_table,
		.payload = rows + n_table + KMASK_SUM_BYTES,
		.n_left = n_left - n_table };
	kmask->header.payload_bytes = n_left - n_table;
	kmask->header.table_bytes = n_bytes - kmask->header.payload_bytes;
	for (uint32_t t = 0; t < kmask->header.n_tensors; t++) {
		kmask->tensors[t].at = (size_t)(table.payload - kmask->data);
		r = read_row(&kmask->tensors[t], &table, t, diag);
		if (r < 0)
			return r;
	}
	return check_table(kmask, &table, diag);
}

/* ---- the file */

static int check_trailer(const uint8_t *data, size_t n_bytes, struct diag *diag)
{
	size_t n = n_bytes - KMASK_SUM_BYTES;

	if (get_u64(data + n) != digest_checksum(data, n))
		return diag_set(diag, EBADMSG, "mask: checksum of the file does not match");
	return 0;
}

int kmask_open(struct kmask **ret_kmask, const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(kmask_freep) struct kmask *kmask = calloc(1, sizeof(*kmask));
	size_t n_unsigned = n_bytes;
	int r;

	if (!kmask)
		return -ENOMEM;
	r = check_header(data, n_bytes, diag);
	if (r < 0)
		return r;
	kmask->data = data;
	read_header(&kmask->header, data, n_bytes);
	if (kmask->header.is_signed) {
		if (n_bytes < KMASK_HEADER_BYTES + 2 * KMASK_SUM_BYTES + KMASK_SIGNED_BYTES)
			return diag_set(diag, EBADMSG, "mask: has no room for its signature");
		n_unsigned -= KMASK_SIGNED_BYTES;
	}
	r = read_table(kmask, n_unsigned, diag);
	if (r == 0)
		r = check_trailer(data, n_unsigned, diag);
	if (r == 0 && kmask->header.is_signed)
		r = kmask_check_signature(data, n_bytes, &kmask->header.signer, diag);
	if (r < 0)
		return r;
	*ret_kmask = TAKE_PTR(kmask);
	return 0;
}

void kmask_free(struct kmask *kmask)
{
	if (!kmask)
		return;
	free(kmask->tensors);
	free(kmask);
}

int kmask_verify(
	const void *data, size_t n_bytes, struct kmask_header *ret_header, struct diag *diag)
{
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	int r = kmask_open(&kmask, data, n_bytes, diag);

	if (r < 0)
		return r;
	*ret_header = kmask->header;
	return 0;
}

double kmask_entropy_bytes(const struct kmask *kmask)
{
	double n_bits = 0;

	for (uint32_t t = 0; t < kmask->header.n_tensors; t++) {
		double n = kmask->tensors[t].n, off = kmask->tensors[t].n_off, on = n - off;

		if (off > 0 && on > 0)
			n_bits -= off * log2(off / n) + on * log2(on / n);
	}
	return n_bits / 8;
}

/* ---- the bits */

int kmask_positions(
	const struct kmask *kmask, uint32_t tensor, uint32_t *ret_positions, struct diag *diag)
{
	const struct kmask_tensor *row = &kmask->tensors[tensor];
	uint32_t n_named = kmask_n_named(row);
	struct coder_reader reader;

	if (n_named == 0)
		return 0;
	coder_open(&reader, row->n, n_named, kmask->data + row->at, row->n_bytes);
	if (coder_read(&reader, ret_positions, n_named) != n_named || !coder_is_whole(&reader))
		return diag_set(diag, EBADMSG,
			"mask: payload of tensor %" PRIu32 " does not decode", tensor);
	return 0;
}

static int check_layout(const struct kmask *kmask, const struct mask_layout *layout,
	const struct digest *base, struct diag *diag)
{
	const struct kmask_header *header = &kmask->header;
	char want[DIGEST_HEX_CHARS + 1], got[DIGEST_HEX_CHARS + 1];

	if (!digest_equal(&header->base, base)) {
		digest_to_hex(base, want);
		digest_to_hex(&header->base, got);
		return diag_set(diag, EXDEV, "mask: made for base %.16s, not for %.16s", got, want);
	}
	if (header->n_elements > layout->n_elements || header->n_tensors > layout->n_tensors)
		return diag_set(diag, EFBIG,
			"mask: promises %" PRIu64 " weights in %" PRIu32
			" tensors, the base has %zu in %u",
			header->n_elements, header->n_tensors, layout->n_elements,
			layout->n_tensors);
	if (header->n_tensors != layout->n_tensors)
		return diag_set(diag, EXDEV, "mask: of %" PRIu32 " tensors, the base has %u",
			header->n_tensors, layout->n_tensors);
	for (uint32_t t = 0; t < header->n_tensors; t++)
		if (kmask->tensors[t].n != layout->tensors[t].n)
			return diag_set(diag, EXDEV,
				"mask: %s has %" PRIu32 " elements, the base's has %zu",
				layout->tensors[t].name, kmask->tensors[t].n, layout->tensors[t].n);
	return 0;
}

/* The mask has all bits kept. */
static int decode_tensor(
	struct mask *mask, const struct kmask *kmask, uint32_t t, struct diag *diag)
{
	enum { N_AT_ONCE = 512 };
	const struct kmask_tensor *row = &kmask->tensors[t];
	uint64_t *words = mask->words + mask->layout->tensors[t].word;
	uint32_t n_named = kmask_n_named(row), positions[N_AT_ONCE];
	struct coder_reader reader;
	size_t n;

	if (!kmask_names_dropped(row))
		memset(words, 0, (row->n / 64 + (row->n % 64 != 0)) * sizeof(*words));
	mask->n_on[t] = row->n - row->n_off;
	if (n_named == 0)
		return 0;
	coder_open(&reader, row->n, n_named, kmask->data + row->at, row->n_bytes);
	while ((n = coder_read(&reader, positions, N_AT_ONCE)) > 0)
		for (size_t i = 0; i < n; i++)
			words[positions[i] / 64] ^= UINT64_C(1) << (positions[i] % 64);
	if (!coder_is_whole(&reader))
		return diag_set(diag, EBADMSG, "mask: payload of %s does not decode",
			mask->layout->tensors[t].name);
	return 0;
}

int kmask_decode(struct mask **ret_mask, struct kmask_header *ret_header,
	const struct mask_layout *layout, const struct digest *base, const void *data,
	size_t n_bytes, struct diag *diag)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	struct digest digest;
	int r;

	r = kmask_open(&kmask, data, n_bytes, diag);
	if (r < 0)
		return r;
	r = check_layout(kmask, layout, base, diag);
	if (r < 0)
		return r;
	r = mask_new(&mask, layout);
	for (uint32_t t = 0; t < layout->n_tensors && r >= 0; t++)
		r = decode_tensor(mask, kmask, t, diag);
	if (r < 0)
		return r;
	digest = mask_digest(mask);
	if (!digest_equal(&digest, &kmask->header.mask))
		return diag_set(diag, EBADMSG, "mask: its bits have another digest than it says");
	*ret_header = kmask->header;
	*ret_mask = TAKE_PTR(mask);
	return 0;
}
