/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <endian.h>
#include <stdint.h>
#include <string.h>

#include "classify/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define TRAILER_BYTES 8

/* Random bytes would never get past the checksum: make it right. */
static void mend(uint8_t *data, size_t n_bytes)
{
	uint64_t sum;

	if (n_bytes < TRAILER_BYTES)
		return;
	sum = htole64(digest_checksum(data, n_bytes - TRAILER_BYTES));
	memcpy(data + n_bytes - TRAILER_BYTES, &sum, sizeof(sum));
}

/* What is taken must be usable, and encode to the same bytes. */
static void decode(const uint8_t *data, size_t n_bytes)
{
	_cleanup_(reference_freep) struct reference *reference = NULL;
	_cleanup_(freep) float *query = NULL;
	_cleanup_(freep) void *again = NULL;
	struct diag diag;
	size_t n_again;
	float distance;

	if (reference_decode(&reference, data, n_bytes, &diag) < 0)
		return;
	query = calloc(reference->dim, sizeof(*query));
	if (!query || reference_encode(reference, &again, &n_again) < 0)
		return;
	assert(n_again == n_bytes && memcmp(again, data, n_bytes) == 0);
	query[0] = 1;
	distance = reference_distance(reference, query);
	assert(distance >= -1e-3f && distance <= 2.001f);
	(void)reference_novelty(reference, distance);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	_cleanup_(freep) uint8_t *copy = malloc(n_bytes + 1);

	if (!copy)
		return 0;
	decode(data, n_bytes);
	memcpy(copy, data, n_bytes);
	mend(copy, n_bytes);
	decode(copy, n_bytes);
	return 0;
}
