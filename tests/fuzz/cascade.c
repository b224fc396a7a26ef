/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cascade/kcas_format.h"
#include "cascade/mask_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* Random bytes would never get past a checksum: make those of the file right, and its size. */
static void mend(uint8_t *data, size_t n_bytes)
{
	uint64_t n, width, route, out, n_table;

	if (n_bytes < KCAS_HEADER_BYTES + 2 * KCAS_SUM_BYTES)
		return;
	put_u64(data + KCAS_AT_BYTES, n_bytes);
	put_u64(data + KCAS_AT_SUM, digest_checksum(data, KCAS_AT_SUM));
	n = get_u32(data + KCAS_AT_EXPERTS) % 16;
	width = get_u32(data + KCAS_AT_WIDTH) % 1024;
	route = get_u32(data + KCAS_AT_ROUTE) % 1024;
	out = get_u32(data + KCAS_AT_OUT) % 1024;
	n_table =
		(1 + n) * 8 + 4 * ((1 + route) * width + n * (1 + route + route * (route + 1) / 2) +
					  (1 + out) * (1 + n) * width);
	if (n_table <= n_bytes - KCAS_HEADER_BYTES - 2 * KCAS_SUM_BYTES)
		put_u64(data + KCAS_HEADER_BYTES + n_table,
			digest_checksum(data + KCAS_HEADER_BYTES, n_table));
	put_u64(data + n_bytes - KCAS_SUM_BYTES, digest_checksum(data, n_bytes - KCAS_SUM_BYTES));
}

static void decode(const struct mask_layout *layout, const uint8_t *data, size_t n_bytes)
{
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	struct mask_set_header header;
	struct digest base = { 0 };
	const void *part;
	struct diag diag;
	size_t n_part;

	if (n_bytes >= KCAS_AT_PREP)
		memcpy(base.bytes, data + KCAS_AT_BASE, DIGEST_BYTES);
	(void)mask_set_verify(data, n_bytes, &header, &diag);
	(void)mask_set_part(data, n_bytes, 1, &part, &n_part);
	(void)mask_set_decode(&set, &header, layout, &base, 6, data, n_bytes, &diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	static const char *const names[] = { "a", "b" };
	static const size_t sizes[] = { 200, 7 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(freep) uint8_t *copy = malloc(n_bytes + 1);

	if (!copy || mask_layout_new(&layout, 2, names, sizes) < 0)
		return 0;
	decode(layout, data, n_bytes);
	memcpy(copy, data, n_bytes);
	mend(copy, n_bytes);
	decode(layout, copy, n_bytes);
	return 0;
}
