/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_TWINS_H
#define KAMEN_SITE_TWINS_H

#include "engine.h"

/** Two images of a site that are nearly the same, as the learner proposes them to serve. */
struct twin {
	struct digest a, b; /* hashes of their content, as in a manifest */
};

/** Written by the learner, lines "HASH HASH", read by serve, which decides. */
struct twins {
	struct twin *pairs;
	uint32_t n, size;
};

#define TWINS_MAX (1u << 18)

int twins_add(struct twins *twins, const struct digest *a, const struct digest *b);
/** *ret_text malloc'ed. */
int twins_write(const struct twins *twins, char **ret_text, size_t *ret_n_chars);
/** -EBADMSG: the whole list is refused. */
int twins_read(struct twins *ret_twins, const char *text, size_t n_chars);
void twins_done(struct twins *twins);

#endif
