/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_NEAR_H
#define KAMEN_LEARNER_NEAR_H

#include "learner/images.h"

/** More images than this are not compared with each other: a rotating part of them is. */
#define NEAR_MAX 8192u

/** Rows that are compared with all others between two looks whether to go on: milliseconds. */
#define NEAR_ROWS 64u

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
 * The same of normalised embeddings, (n, dim). pairs[i]: the image that i is near to, or n. Each is
 * compared with each before it that stays, on this thread: NEAR_MAX images of width 192 take one
 * second of it, of width 384 two and a half.
 *
 * @param pairs   (n)
 * @param images  asked meanwhile whether to go on; NULL: nobody is
 * @return 0, or what images_check() said
 */
int near_find(uint32_t *pairs, const float *rows, uint32_t n, uint32_t dim, double limit,
	const struct images *images);

#endif
