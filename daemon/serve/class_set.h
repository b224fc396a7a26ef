/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_CLASS_SET_H
#define KAMEN_SERVE_CLASS_SET_H

#include "site/state.h"

/** The classes of a site as one snapshot tells them apart. Immutable; its snapshot's. */
struct class_set {
	char (*names)[CLASSES_NAME_BYTES]; /* (prototypes->n_classes) by their bytes */
	struct prototypes *prototypes;
	struct unknown unknown; /* from where on an image is of none */
};

/**
 * @param features  what is not known of them is left out
 * @return 0, -ENODATA: there are no classes, or of one of them nothing is known
 */
int class_set_new(struct class_set **ret_set, const struct features *features);
void class_set_free(struct class_set *set);
DEFINE_CLEANUP(struct class_set *, class_set_free)

/** What an answer says of an image. */
struct class_answer {
	const char *name; /* "": of no class */
	float confidence; /* in it, (0, 1]; NAN: of no class */
	float unknown;    /* [0, 1], beyond .5 of no class; NAN: there is nothing to tell it by */
};
struct class_answer class_set_judge(const struct class_set *set, const float *feature);

#endif
