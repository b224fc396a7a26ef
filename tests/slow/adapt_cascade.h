/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_ADAPT_CASCADE_H
#define KAMEN_TESTS_ADAPT_CASCADE_H

#include "adapt_learn.h"
#include "learn/cascade.h"

/**
 * The cascade over a learnt mask: experts that an earlier run left are not learnt again. Fills what
 * the row says about learning: seconds of all, the mean density, the coded bytes of all masks.
 *
 * @param dispatcher  the row of the mask
 */
int adapt_cascade(struct cascade **ret_cascade, struct adapt_row *row, struct adapt_site *site,
	const struct adapt_rows *rows, const struct adapt_row *dispatcher,
	const struct recipe *recipe, const struct prep *prep, struct diag *diag);

/** As adapt_site_embed(), of width cascade_width(). */
int adapt_cascade_embed(float **ret_rows, double *ret_ms, struct adapt_site *site,
	struct cascade *cascade, enum cascade_mode mode);

#endif
