/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_KHARD_H
#define KAMEN_LEARNER_KHARD_H

#include "engine.h"

/*
 * candidate.khard in a round's folder: what the round says of hardness (hardness.h) goes with one
 * mask alone, so it is written whenever a mask is kept, and not at the end.
 */

/** Of the present mask; nothing where the objective learns no hardness. */
int khard_keep(const struct round *round, int round_fd);
/** Removes what is of another mask than this: of an earlier try, or of a mask that was not kept. */
int khard_settle(int round_fd, const struct digest *mask);

#endif
