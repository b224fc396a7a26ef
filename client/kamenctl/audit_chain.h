/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_AUDIT_CHAIN_H
#define KAMENCTL_AUDIT_CHAIN_H

#include <stddef.h>
#include <stdint.h>

#define AUDIT_HEX_CHARS 64

/** A row as it was told; hashes in hexadecimal digits. */
struct audit_text {
	uint64_t seq, time_us;
	const char *site, *what, *detail, *prev, *hash;
};

/** How far a chain has been walked; zeros: not at all. */
struct audit_chain {
	uint64_t n;
	uint8_t head[32];
	uint8_t wanted[32]; /* zeros: none */
	uint64_t found;     /* which row has it, 0: none yet */
};

/** Looks out for a row of this hash. -EINVAL */
int audit_chain_expect(struct audit_chain *chain, const char *hex);
/**
 * The one place of kamenctl that knows the engine's chain.
 *
 * @param ret_why  where the chain breaks, and how, on failure
 * @return 0 or a negative errno
 */
int audit_chain_step(
	struct audit_chain *chain, const struct audit_text *text, char *ret_why, size_t n_why);
/** Of a hash; what is not one has no digits. */
void audit_hex(const void *data, size_t n_bytes, char ret_hex[AUDIT_HEX_CHARS + 1]);

#endif
