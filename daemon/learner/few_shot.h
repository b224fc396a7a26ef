/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_FEW_SHOT_H
#define KAMEN_LEARNER_FEW_SHOT_H

#include "engine.h"

struct results_job;

/** Five to learn a class from and one to ask for. */
#define FEW_SHOT_OF_CLASS 6u
/** More are thinned out evenly. */
#define FEW_SHOT_MAX 1024u

/** Few-shot accuracy on the held-out images that have a label. */
struct few_shot {
	uint32_t n, n_classes; /* n = 0: too few have one */
	struct figures frozen, candidate;
	struct figures_diff shot1, shot5; /* candidate minus frozen, 95 % over images */
};

/**
 * Nearest class mean over the classes with FEW_SHOT_OF_CLASS labelled images among those that are
 * judged on; fewer than two such classes: nothing is measured. What was learnt from labels was learnt
 * from others.
 *
 * @param base  the frozen model as a set
 */
int few_shot_judge(struct few_shot *ret_few_shot, const struct results_job *job, struct slot *slot,
	const struct mask_set *base);

#endif
