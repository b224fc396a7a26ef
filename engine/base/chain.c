/* SPDX-License-Identifier: Apache-2.0 */
#include "base/chain.h"

#include <errno.h>
#include <inttypes.h>

static void put_u64(struct digest_state *sum, uint64_t value)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	digest_update(sum, bytes, sizeof(bytes));
}

struct digest chain_hash(const struct chain_row *row)
{
	static const char domain[] = "kamen audit 1";
	struct digest_state sum;

	digest_init(&sum);
	/* With their final NULs, so that no two rows give the same bytes. */
	digest_update(&sum, domain, sizeof(domain));
	digest_update(&sum, row->prev.bytes, DIGEST_BYTES);
	put_u64(&sum, row->seq);
	put_u64(&sum, row->time_us);
	digest_update(&sum, row->site, strlen(row->site) + 1);
	digest_update(&sum, row->what, strlen(row->what) + 1);
	digest_update(&sum, row->detail, strlen(row->detail) + 1);
	return digest_final(&sum);
}

int chain_step(struct chain *chain, const struct chain_row *row, struct diag *diag)
{
	struct digest right = chain_hash(row);

	if (row->seq != chain->n + 1)
		return diag_set(diag, EBADMSG, "audit row %" PRIu64 " is missing", chain->n + 1);
	if (!digest_equal(&row->prev, &chain->head))
		return diag_set(diag, EBADMSG,
			"audit row %" PRIu64 " was changed: it does not follow the row before it",
			row->seq);
	if (!digest_equal(&row->hash, &right))
		return diag_set(diag, EBADMSG,
			"audit row %" PRIu64 " was changed: it has another hash than it says",
			row->seq);
	chain->n = row->seq;
	chain->head = right;
	return 0;
}
