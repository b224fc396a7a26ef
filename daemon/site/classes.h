/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_CLASSES_H
#define KAMEN_SITE_CLASSES_H

#include "engine.h"

#define CLASSES_NAME_BYTES 64u
#define CLASSES_MAX 1000u

/** Names of classes. An index stays what it is while names are added. */
struct classes {
	char (*names)[CLASSES_NAME_BYTES];
	uint32_t *order; /* (n) indices by the bytes of their names */
	uint32_t n, size;
};

/** Finds a name or adds it. -EINVAL: empty, too long or with a control character, -E2BIG, -ENOMEM */
int classes_add(struct classes *classes, const char *name, uint32_t *ret_index);
void classes_done(struct classes *classes);

#define CLASSES_NONE UINT32_MAX
/**
 * Numbers those classes, by their names' bytes, that have counts of n_min and more.
 *
 * @param counts   (n)
 * @param numbers  (n): CLASSES_NONE for the others
 * @return how many
 */
uint32_t classes_number(
	const struct classes *classes, const uint32_t *counts, uint32_t n_min, uint32_t *numbers);

#endif
