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

/** The scores behind the mask of a row that was learnt, as long as a file has them: (n_elements),
 * malloc'ed. -ENOENT: no file; remove the row's line and learn it again. */
int adapt_scores(float **ret_scores, const struct adapt_site *site, const struct adapt_rows *rows,
	const struct adapt_row *row);

/** A mask and its file; *ret_n_bytes: the file's. */
int adapt_mask_read(struct mask **ret_mask, const struct adapt_site *site, const char *path,
	size_t *ret_n_bytes);
int adapt_mask_write(const struct adapt_site *site, const struct mask *mask,
	const struct adapt_row *row, const struct prep *prep, const char *path,
	size_t *ret_n_bytes);

#endif
