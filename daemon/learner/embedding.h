/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_EMBEDDING_H
#define KAMEN_LEARNER_EMBEDDING_H

#include "engine.h"

/** Every image of a source by the site's preprocessing: (n, width), not normalised; malloc'ed. */
int embedding_rows(float **ret_rows, struct vit *vit, const struct slot *slot,
	const struct prep *prep, const struct image_source *source);

/** The same by a mask set, (n, set->n_out). slot: any for SLOT_INFER. */
int embedding_of_set(float **ret_rows, struct vit *vit, struct slot *slot,
	const struct mask_set *set, const struct prep *prep, const struct image_source *source);

/** The same by the frozen base, L2-normalised. */
int embedding_of_base(float **ret_rows, struct vit *vit, const struct prep *prep,
	const struct image_source *source);

#endif
