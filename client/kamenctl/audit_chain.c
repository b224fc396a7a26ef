/* SPDX-License-Identifier: Apache-2.0 */
#include "audit_chain.h"

#include <errno.h>
#include <stdio.h>

#include "base/chain.h"

int audit_chain_expect(struct audit_chain *chain, const char *hex)
{
	struct digest wanted;
	int r = digest_from_hex(&wanted, hex);

	if (r < 0)
		return r;
	memcpy(chain->wanted, wanted.bytes, sizeof(chain->wanted));
	return 0;
}

int audit_chain_step(
	struct audit_chain *chain, const struct audit_text *text, char *ret_why, size_t n_why)
{
	static const uint8_t none[DIGEST_BYTES];
	struct chain walked = { .n = chain->n };
	struct chain_row row = {
		.seq = text->seq,
		.time_us = text->time_us,
		.site = text->site,
		.what = text->what,
		.detail = text->detail,
	};
	struct diag diag = { .text = "" };
	int r;

	memcpy(walked.head.bytes, chain->head, DIGEST_BYTES);
	if (digest_from_hex(&row.prev, text->prev) < 0 ||
		digest_from_hex(&row.hash, text->hash) < 0) {
		(void)snprintf(ret_why, n_why, "audit row %llu was changed: it has no hash",
			(unsigned long long)text->seq);
		return -EBADMSG;
	}
	r = chain_step(&walked, &row, &diag);
	if (r < 0) {
		(void)snprintf(ret_why, n_why, "%s", diag.text);
		return r;
	}
	chain->n = walked.n;
	memcpy(chain->head, walked.head.bytes, DIGEST_BYTES);
	if (memcmp(chain->wanted, none, DIGEST_BYTES) != 0 &&
		memcmp(chain->wanted, chain->head, DIGEST_BYTES) == 0)
		chain->found = chain->n;
	return 0;
}

void audit_hex(const void *data, size_t n_bytes, char ret_hex[AUDIT_HEX_CHARS + 1])
{
	struct digest digest;

	ret_hex[0] = 0;
	if (n_bytes != DIGEST_BYTES)
		return;
	memcpy(digest.bytes, data, DIGEST_BYTES);
	digest_to_hex(&digest, ret_hex);
}
