/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_ADAPT_LEARN_H
#define KAMEN_TESTS_ADAPT_LEARN_H

#include "adapt_site.h"

/**
 * Learns the mask of a row's recipe as the daemon does, looking at it now and then on the gate's
 * fifth and keeping the best; goes on from the checkpoint of an earlier run. Fills what the row says
 * about learning, leaves the mask's file and the scores behind it.
 *
 * @param ret_mask  NULL: no mask of this round is worth keeping, and the row says why
 */
int adapt_learn(struct mask **ret_mask, struct adapt_row *row, struct adapt_site *site,
	const struct adapt_rows *rows, const struct recipe *recipe, const struct prep *prep,
	struct diag *diag);
/** The row has been added: its checkpoint is not needed any more. */
void adapt_learn_done(const struct adapt_rows *rows, const struct adapt_row *row);
/** The mask of a row that is there. *ret_mask NULL: it has none. */
int adapt_learnt(struct mask **ret_mask, const struct adapt_site *site,
	const struct adapt_rows *rows, const struct adapt_row *row);

/** The scores behind the mask of a row that was learnt, as long as a file has them: (n_elements),
 * malloc'ed. -ENOENT: no file. */
int adapt_scores(float **ret_scores, const struct adapt_site *site, const struct adapt_rows *rows,
	const struct adapt_row *row);

/** A mask and its file; *ret_n_bytes: the file's. */
int adapt_mask_read(struct mask **ret_mask, const struct adapt_site *site, const char *path,
	size_t *ret_n_bytes);
int adapt_mask_write(const struct adapt_site *site, const struct mask *mask,
	const struct adapt_row *row, const struct prep *prep, const char *path,
	size_t *ret_n_bytes);

#endif
