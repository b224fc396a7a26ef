/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_RESULTS_H
#define KAMEN_LEARNER_RESULTS_H

#include "learner/few_shot.h"
#include "learner/images.h"

/** What a finished mask or cascade is judged by and written for. */
struct results_job {
	struct vit *vit;
	enum precision precision; /* in which it will be served */
	const struct recipe *recipe;
	const struct prep *prep;
	struct images *images;
	const struct mask_set *set;
	const struct mask_set *champion; /* NULL: the base */
	const struct head *head;         /* NULL: nothing was learnt */
	const char *round;               /* folder */
	uint32_t steps;
	uint64_t seed;
};

struct results {
	struct judgement frozen, candidate; /* n = 0: too few held-out images */
	struct few_shot few_shot;
	bool has_entropy, has_neighbours;
	float entropy;    /* of the head's assignments over the held-out images */
	float neighbours; /* common with the champion, of the held-out images */
};

/**
 * Judges the frozen model and the set on the held-out images by the same views, then writes
 * candidate.kmask or candidate.kcas, candidate.kref and base.kref to the round folder.
 */
int results_write(struct results *ret_results, const struct results_job *job, struct diag *diag);

#endif
