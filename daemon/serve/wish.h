/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_WISH_H
#define KAMEN_SERVE_WISH_H

#include "serve/sites.h"

/**
 * What a round of this site is asked for, whoever asks: steps and objective as the site has them
 * unless learn says otherwise. Borrows from both.
 *
 * @param learn  NULL: the round begins by itself
 * @return 0, or -EINVAL: no such objective (diag)
 */
int wish_make(struct round_wish *ret_wish, const struct site *site, const Kamen__Learn *learn,
	const char *who, struct diag *diag);

#endif
