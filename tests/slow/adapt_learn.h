/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_ADAPT_LEARN_H
#define KAMEN_TESTS_ADAPT_LEARN_H

#include "adapt_site.h"

/**
 * The mask of a row's recipe: from the file that an earlier run left, or by a round, which goes on
 * from its checkpoint. Fills what the row says about learning. The learnt mask depends on the
 * recipe and not on the size it is served at: one file for all sizes.
 */
int adapt_learn(struct mask **ret_mask, struct adapt_row *row, struct adapt_site *site,
	const struct adapt_rows *rows, const struct recipe *recipe, const struct prep *prep,
	struct diag *diag);

#endif
