/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_CLASS_SET_H
#define KAMEN_SERVE_CLASS_SET_H

#include "site/state.h"

/** The classes of a site as one snapshot tells them apart. Immutable; its snapshot's. */
struct class_set {
	uint32_t n, dim;
	char (*names)[CLASSES_NAME_BYTES]; /* (n) by their bytes */
	float *prototypes;                 /* (n, dim), L2-normalised */
};

/**
 * @param features  what is not known of them is left out
 * @return 0, -ENODATA: there are no classes, or of one of them nothing is known
 */
int class_set_new(struct class_set **ret_set, const struct features *features);
void class_set_free(struct class_set *set);
DEFINE_CLEANUP(struct class_set *, class_set_free)

/** @return the class that is nearest to a feature (dim); *ret_score: its cosine */
uint32_t class_set_judge(const struct class_set *set, const float *feature, float *ret_score);

#endif
