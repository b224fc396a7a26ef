/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_HARD_H
#define KAMEN_LEARNER_HARD_H

#include "learner/images.h"

/** Images that a map is made of to tell how hard they are. */
#define HARD_MAX_IMAGES 4096u

struct hard_options {
	struct vit *vit;
	enum precision precision; /* in which the set is served */
	const struct mask_set *set;
	const struct prep *prep;
	struct images *images;
};
/**
 * Writes candidate.hard to the round's folder: how hard each of its images is, by candidate.khard,
 * which is of this set. Where there is no such file, there is no list either.
 */
int hard_write(const struct hard_options *options, int dir_fd, struct diag *diag);

/** How hard an image is, of its map (n): the mean of the hardest quarter. Sorts the map. */
float hard_of_map(float *map, uint32_t n);

#endif
