/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_CASCADE_STATE_H
#define KAMEN_LEARN_CASCADE_STATE_H

#include "learn/cascade.h"
#include "learn/gmm.h"
#include "learn/whiten.h"

/** The images of one component, in the order of the whole. */
struct cascade_part {
	const struct image_source *whole;
	const uint32_t *images; /* (n) into whole */
	uint32_t n;
};
struct image_source cascade_part_source(struct cascade_part *part);

struct cascade {
	struct vit *vit;
	struct cascade_options options;
	struct recipe recipe;
	struct prep prep;
	struct image_source source;
	struct slot *slot;

	struct mask
		*masks[1 + CASCADE_MAX_EXPERTS]; /* the dispatcher, the experts; NULL: to learn */
	float *scores;                           /* (n_elements) of the dispatcher */
	struct whiten *route;
	struct gmm *mixture;
	struct whiten *fusions[CASCADE_N_MODES]; /* NULL until all experts are there */

	uint32_t *order;                         /* (source.n) images by component */
	uint32_t first[CASCADE_MAX_EXPERTS + 1]; /* of each component in order */
	struct cascade_part part;                /* what the round learns from */
	struct round *round;                     /* of the first expert that is missing, or NULL */
};

/** Fits route and mixture to the dispatcher's embeddings; fills order and first. */
int cascade_divide(struct cascade *cascade, struct diag *diag);
/** Fits both fusions; every expert is there. */
int cascade_fuse(struct cascade *cascade);

#endif
