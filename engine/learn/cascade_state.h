/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_CASCADE_STATE_H
#define KAMEN_LEARN_CASCADE_STATE_H

#include "cascade/gmm.h"
#include "cascade/whiten.h"
#include "learn/cascade.h"
#include "learn/embed.h"

/** A source by component. */
struct cascade_share {
	struct image_source source;
	uint32_t *order;                         /* (source.n) images, component after component */
	uint32_t first[CASCADE_MAX_EXPERTS + 1]; /* of each in order */
	struct embed_part part;                  /* of the expert that learns */
};

struct cascade {
	struct vit *vit;
	struct cascade_options options;
	struct recipe recipe;
	struct prep prep;
	struct slot *slot;

	struct mask
		*masks[1 + CASCADE_MAX_EXPERTS]; /* the dispatcher, the experts; NULL: to learn */
	float *scores;                           /* (n_elements) of the dispatcher */
	struct whiten *route;
	struct gmm *mixture;
	struct whiten *fusions[CASCADE_N_MODES]; /* NULL until all experts are there */

	struct cascade_share learnt, held; /* held.order NULL: nothing is */
	struct round *round;               /* of the first expert that is missing, or NULL */
	struct early_stop *stop;           /* as round; NULL: nothing is held */
	uint32_t step;                     /* that the round has done */
};

/** Fits route and mixture to the dispatcher's embeddings; divides what is learnt from and what is held. */
int cascade_divide(struct cascade *cascade, struct diag *diag);
/** The first expert without a mask; their number: all are there. */
uint32_t cascade_first_missing(const struct cascade *cascade);
/** Makes the round of an expert. */
int cascade_begin(struct cascade *cascade, uint32_t expert, struct diag *diag);
void cascade_drop_round(struct cascade *cascade);
/** Fits both fusions; every expert is there. */
int cascade_fuse(struct cascade *cascade);

#endif
