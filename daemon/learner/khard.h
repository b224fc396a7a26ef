/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_KHARD_H
#define KAMEN_LEARNER_KHARD_H

#include "engine.h"

/*
 * candidate.khard in a round's folder: what the round says of hardness (hardness.h) goes with the
 * one mask that is taken. A sound mask may be an early one, but who says what is hard learns to the
 * round's end, with masks that differ from it by few bits: it is asked then.
 */

/** For the mask of that digest; nothing where the objective learns no hardness. */
int khard_keep(const struct round *round, const struct digest *mask, int round_fd);
/** Removes what is of another mask than this: of an earlier try, or of a mask that was not kept. */
int khard_settle(int round_fd, const struct digest *mask);

#endif
