/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_HPM_STEP_H
#define KAMEN_LEARN_HPM_STEP_H

#include "learn/hpm_objective.h"

/** What a step costs: means over the batch. */
struct hpm_cost {
	double reconstruction, ranking;
	double guess; /* the reconstruction's if one said the same of all hidden patches */
	double pairs; /* share of the pairs of an image in the right order */
};

/** The images from `first` on, HPM_PART of them or what is left: adds to cost and to hpm->grad, and
 * overwrites their rows of student->d_out. */
int hpm_step_part(struct hpm *hpm, const struct objective_rows *teacher,
	const struct objective_rows *student, uint32_t first, struct hpm_cost *cost);

#endif
