/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_REPRODUCE_H
#define KAMEN_SERVE_REPRODUCE_H

#include "kamen.pb-c.h"
#include "site/state.h"

struct serve;

/** A preprocessing as KEY=VALUE lines of [site], every key once: what is stored with a version. */
int reproduce_write_prep(
	const struct prep *prep, char ret_text[sizeof(((struct version_row *)0)->prep_text)]);
/** -EBADMSG: it is not what reproduce_write_prep() wrote. */
int reproduce_read_prep(struct prep *ret_prep, const char *text);

/** Did it come to the same mask, bit for bit? */
bool reproduce_is_equal(const struct version_row *row, const Kamen__LearnDone *done);
/** To everybody who waits for it. */
void reproduce_tell(
	struct serve *serve, const struct version_row *row, const Kamen__LearnDone *done);

#endif
