/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_SPLIT_H
#define KAMEN_LEARNER_SPLIT_H

#include "learner/images.h"

/** More images than this are split by time alone: each is compared with each. */
#define SPLIT_MAX 8192u
/** Cosine of the frozen model's embeddings above which two images count as one and the same. */
#define SPLIT_LIKE .995f
#define SPLIT_MIN_HELD 16u

/**
 * The manifest is split by blocks of time; the same part may come back later. Embeds all images by
 * the base; of a group of near-duplicates that lies on both sides nothing is judged on: a mask must
 * not be praised for what it was learnt from. It stays held out as a scale of novelty, because the
 * line will show such images too. Where fewer than half of the held-out images would be left (or
 * than SPLIT_MIN_HELD), blocks of time have to do, and notice says so.
 *
 * @param ret_rows  what was embedded, normalised, (n, width); NULL: there are too many
 */
int split_by_likeness(float **ret_rows, struct images *images, struct vit *vit,
	const struct prep *prep, struct diag *notice);

/**
 * The same of normalised embeddings, (n, dim). Groups are closed: whoever is like one
 * of a group belongs to it. Each is compared with each, on this thread: SPLIT_MAX images of width 192
 * take one second of it, of width 384 two and a half.
 *
 * @param held    (n), changed: off where the group lies on both sides
 * @param images  asked meanwhile whether to go on; NULL: nobody is
 * @return how many were taken off; -ENOMEM, or what images_check() said
 */
int split_groups(bool *held, const float *rows, uint32_t n, uint32_t dim, float limit,
	const struct images *images);

#endif
