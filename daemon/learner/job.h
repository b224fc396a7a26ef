/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_JOB_H
#define KAMEN_LEARNER_JOB_H

#include "kamen.pb-c.h"
#include "learner/images.h"
#include "learner/results.h"

/** One LearnJob: a round that is learnt and judged, or a foreign mask that is only judged. */
struct job;

/**
 * Reads manifest and images, resumes from the round folder's checkpoint where that fits.
 *
 * @param notice  set to what a person should know (images left out, a checkpoint that does not
 *                fit), or empty
 * @return 0, -ECANCELED: interrupted, or another negative errno with its reason in diag
 */
int job_new(struct job **ret_job, struct vit *vit, const Kamen__LearnJob *message,
	struct interrupt interrupt, struct diag *notice, struct diag *diag);
void job_free(struct job *job);
DEFINE_CLEANUP(struct job *, job_free)

const char *job_site(const struct job *job);
uint32_t job_version(const struct job *job);

/**
 * One step and, where it is time, a look at what the mask is worth and a checkpoint.
 *
 * @param diag  also set, with 1, where the round ends before its last step: why
 * @return 1: a step is done and ret_progress filled, 0: nothing is left but job_finish(), or a
 *         negative errno
 */
int job_step(struct job *job, struct round_progress *ret_progress, struct diag *diag);
/** Writes a checkpoint, for who has to leave now. */
int job_save(struct job *job);

/** What LearnDone says. */
struct job_done {
	struct results results;
	struct digest manifest, recipe, mask;
	struct recipe_text recipe_text; /* "": nothing was learnt */
	struct round_progress last; /* of the step whose mask this is; loss_ratio 0: an import */
	uint64_t seed;
	uint32_t n_images;
	double seconds;
};
int job_finish(struct job *job, struct job_done *ret_done, struct diag *diag);
/** Seconds since job_new() in this process. */
double job_seconds(const struct job *job);

#endif
