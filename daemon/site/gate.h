/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_GATE_H
#define KAMEN_SITE_GATE_H

#include "site/state.h"

/* What no mask may come to: a round that does is stopped, the gate holds it. */
#define GATE_MIN_DENSITY .90 /* over all tensors */
#define GATE_MIN_LOWEST .50  /* of the tensor that lost most */
#define GATE_RANK_SHARE .4f  /* of the frozen effective rank */

#define GATE_MAX_LOSS 1.05 /* of what who guesses pays; swav: ln K */
/* Standard errors, 99 %: figures of a few hundred images are never exact. */
#define GATE_SURE 2.576f

/* A few-shot accuracy is harmed whose paired upper bound (95 %) is this far below the frozen one's. */
#define GATE_HARM .005

/** The same while a round runs. */
static inline struct early_stop_limits gate_limits(void)
{
	return (struct early_stop_limits){ .density = GATE_MIN_DENSITY,
		.lowest_density = GATE_MIN_LOWEST,
		.rank_share = GATE_RANK_SHARE,
		.loss_ratio = (float)GATE_MAX_LOSS,
		.errors = GATE_SURE };
}

/**
 * Decides on a candidate from unlabelled figures, which labels can only speak against (design.md
 * section 5). A pure function.
 * Passes when, on held-out images, the two-view margin is surely above the frozen model's and the
 * two-view retrieval not surely below it (by 2.576 standard errors of the paired difference), the
 * loss ratio shows that something was learnt, bits have moved, density and the lowest tensor's
 * density have not crashed, effective rank has kept a floor of the frozen one.
 * Where they were measured: the head uses half of its prototypes' entropy, and a tenth of the
 * neighbours are the champion's: only a collapse does not.
 * Where enough held-out images have labels, the few-shot accuracy with one and with five images a
 * class is not surely below the frozen model's.
 * Fewer than 16 held-out images: held. loss_ratio 0: the mask was not learnt here (an import), the
 * loss is not asked. Fills row->passed and row->reasons (each with the figure and its limit).
 */
void gate_decide(struct version_row *row);

#endif
