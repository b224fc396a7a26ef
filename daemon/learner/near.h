/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_NEAR_H
#define KAMEN_LEARNER_NEAR_H

#include "learner/images.h"

/** More images than this are not compared with each other: a rotating part of them is. */
#define NEAR_MAX 8192u

struct near_options {
	double limit;      /* cosine */
	uint32_t first;    /* where the part begins, if it is one */
	const float *rows; /* of every image by the base, normalised; or NULL: not known yet */
};

/**
 * Embeds the job's images by the base and writes the pairs whose cosine is above limit to
 * candidate.twins in the round folder. Every image is near at most one that is not near another, so
 * that whoever deletes one of each pair keeps one of each group.
 */
int near_write(struct vit *vit, const struct prep *prep, struct images *images,
	const struct near_options *options, int round_fd, struct diag *diag);

/**
 * The same of normalised embeddings, (n, dim). pairs[i]: the image that i is near to, or n.
 *
 * @param pairs  (n)
 */
void near_find(uint32_t *pairs, const float *rows, uint32_t n, uint32_t dim, double limit);

#endif
