/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_CHAIN_H
#define KAMEN_BASE_CHAIN_H

#include "base/diag.h"
#include "base/digest.h"

/** A row of the audit: each carries the hash of the one before it. Borrows its texts. */
struct chain_row {
	uint64_t seq; /* from 1, without holes */
	uint64_t time_us;
	const char *site, *what, *detail;
	struct digest prev; /* zeros in the first row */
	struct digest hash; /* as stored; chain_hash() says what it must be */
};

/** Of everything in the row but its hash; kamend(8) has it to the byte. */
struct digest chain_hash(const struct chain_row *row);

/** How far a chain has been walked; zeros: not at all. */
struct chain {
	uint64_t n;
	struct digest head;
};

/** One row further. @return 0, or -EBADMSG: the row is not the next one (diag says which, and how) */
int chain_step(struct chain *chain, const struct chain_row *row, struct diag *diag);

#endif
