/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_EMBED_H
#define KAMEN_LEARN_EMBED_H

#include "cascade/mask_set.h"
#include "learn/round.h"

/** At most n_max images of another source, evenly spaced. The other must outlive it. */
struct embed_subset {
	const struct image_source *whole;
	uint32_t n;
};
struct image_source embed_subset_source(
	struct embed_subset *subset, const struct image_source *whole, uint32_t n_max);

/** Some images of another source. The other and the list must outlive it. */
struct embed_part {
	const struct image_source *whole;
	const uint32_t *images; /* (n) into whole */
	uint32_t n;
};
struct image_source embed_part_source(struct embed_part *part);

/** A source seen through one slot by the masks of a set: embed_look() is what a mask_set_eye has. */
struct embed_window {
	struct vit *vit;
	struct slot *slot;
	const struct mask_set *set;
	const struct prep *prep;
	const struct image_source *source;
};

int embed_look(void *owner, uint32_t m, const uint32_t *images, uint32_t n, float *rows);

#endif
