/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "classify/reference.h"

/*
 * Little-endian: magic, n, dim, k, n_held (u32 each), space (32 bytes), embeddings (n, dim) f32,
 * held (n_held) f32, XXH3 of everything before it (u64).
 */
#define MAGIC "KAMNREF1"
#define HEADER_BYTES (8 + 4 * 4 + DIGEST_BYTES)
#define TRAILER_BYTES 8
#define MAX_DIM 65536u
#define MAX_HELD (1u << 24)
#define MAX_LENGTH_ERROR 1e-3

static uint8_t *put_u32(uint8_t *p, uint32_t value)
{
	value = htole32(value);
	memcpy(p, &value, sizeof(value));
	return p + sizeof(value);
}

static uint32_t get_u32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return le32toh(value);
}

static uint8_t *put_floats(uint8_t *p, const float *values, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;

		memcpy(&bits, &values[i], sizeof(bits));
		p = put_u32(p, bits);
	}
	return p;
}

/* False where one is not finite: a comparison with it would be lost. */
static bool get_floats(float *values, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = get_u32(p + i * sizeof(bits));

		memcpy(&values[i], &bits, sizeof(bits));
		if (!isfinite(values[i]))
			return false;
	}
	return true;
}

static size_t file_bytes(uint32_t n, uint32_t dim, uint32_t n_held)
{
	return HEADER_BYTES + ((size_t)n * dim + n_held) * sizeof(float) + TRAILER_BYTES;
}

int reference_encode(const struct reference *reference, void **ret_data, size_t *ret_n_bytes)
{
	size_t n_bytes = file_bytes(reference->n, reference->dim, reference->n_held);
	uint8_t *data = malloc(n_bytes);
	uint8_t *p = data;
	uint64_t checksum;

	if (!data)
		return -ENOMEM;
	memcpy(p, MAGIC, 8);
	p = put_u32(p + 8, reference->n);
	p = put_u32(p, reference->dim);
	p = put_u32(p, reference->k);
	p = put_u32(p, reference->n_held);
	memcpy(p, reference->space.bytes, DIGEST_BYTES);
	p = put_floats(
		p + DIGEST_BYTES, reference->embeddings, (size_t)reference->n * reference->dim);
	p = put_floats(p, reference->held, reference->n_held);
	checksum = htole64(digest_checksum(data, (size_t)(p - data)));
	memcpy(p, &checksum, sizeof(checksum));
	*ret_data = data;
	*ret_n_bytes = n_bytes;
	return 0;
}

static int check(const uint8_t *p, size_t n_bytes, struct diag *diag)
{
	uint32_t n, dim, k, n_held;
	uint64_t checksum;

	if (n_bytes < HEADER_BYTES + TRAILER_BYTES || memcmp(p, MAGIC, 8) != 0)
		return diag_set(diag, EBADMSG, "reference: not a reference file");
	n = get_u32(p + 8);
	dim = get_u32(p + 12);
	k = get_u32(p + 16);
	n_held = get_u32(p + 20);
	if (n == 0 || n > REFERENCE_MAX)
		return diag_set(diag, EBADMSG, "reference: n = %u, not 1..%u", n, REFERENCE_MAX);
	if (dim == 0 || dim > MAX_DIM)
		return diag_set(diag, EBADMSG, "reference: dim = %u, not 1..%u", dim, MAX_DIM);
	if (k == 0 || k > n || k > REFERENCE_K)
		return diag_set(diag, EBADMSG, "reference: k = %u of n = %u", k, n);
	if (n_held > MAX_HELD)
		return diag_set(diag, EBADMSG, "reference: n_held = %u is too many", n_held);
	if (n_bytes != file_bytes(n, dim, n_held))
		return diag_set(diag, EBADMSG, "reference: %zu bytes where the header says %zu",
			n_bytes, file_bytes(n, dim, n_held));
	memcpy(&checksum, p + n_bytes - TRAILER_BYTES, sizeof(checksum));
	if (le64toh(checksum) != digest_checksum(p, n_bytes - TRAILER_BYTES))
		return diag_set(diag, EBADMSG, "reference: checksum does not match");
	return 0;
}

/* Distances are taken as if: a longer row would be near to everything. */
static bool is_normalised(const float *row, uint32_t dim)
{
	double length2 = 0;

	for (uint32_t j = 0; j < dim; j++)
		length2 += (double)row[j] * row[j];
	return length2 == 0 || fabs(length2 - 1) < MAX_LENGTH_ERROR;
}

static int read_values(struct reference *reference, const uint8_t *p, struct diag *diag)
{
	size_t n_values = (size_t)reference->n * reference->dim;

	reference->embeddings = malloc(n_values * sizeof(*reference->embeddings));
	reference->held = malloc(((size_t)reference->n_held + 1) * sizeof(*reference->held));
	if (!reference->embeddings || !reference->held)
		return -ENOMEM;
	if (!get_floats(reference->embeddings, p, n_values))
		return diag_set(diag, EBADMSG, "reference: an embedding is not finite");
	if (!get_floats(reference->held, p + n_values * sizeof(float), reference->n_held))
		return diag_set(diag, EBADMSG, "reference: a held distance is not finite");
	for (uint32_t i = 0; i < reference->n; i++)
		if (!is_normalised(
			    reference->embeddings + (size_t)i * reference->dim, reference->dim))
			return diag_set(
				diag, EBADMSG, "reference: embedding %u is not of length 1", i);
	for (uint32_t i = 1; i < reference->n_held; i++)
		if (reference->held[i] < reference->held[i - 1])
			return diag_set(
				diag, EBADMSG, "reference: held distances are not ascending");
	return 0;
}

int reference_decode(
	struct reference **ret_reference, const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(reference_freep) struct reference *reference = NULL;
	const uint8_t *p = data;
	int r;

	r = check(p, n_bytes, diag);
	if (r < 0)
		return r;
	reference = calloc(1, sizeof(*reference));
	if (!reference)
		return -ENOMEM;
	reference->n = get_u32(p + 8);
	reference->dim = get_u32(p + 12);
	reference->k = get_u32(p + 16);
	reference->n_held = get_u32(p + 20);
	memcpy(reference->space.bytes, p + 24, DIGEST_BYTES);
	r = read_values(reference, p + HEADER_BYTES, diag);
	if (r < 0)
		return r;
	*ret_reference = TAKE_PTR(reference);
	return 0;
}
