/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_CLASS_TABLE_H
#define KAMENCTL_CLASS_TABLE_H

#include "classify/prototype.h"
#include "cli.h"

#define CLASS_TABLE_SPACE 32u

/** A site's classes, as its champion compares them. */
struct class_table {
	char **names;
	float *means;       /* (n, dim) */
	uint32_t *n_images; /* (n) */
	uint32_t n, room, dim;
	float temperature;
	uint8_t space[CLASS_TABLE_SPACE]; /* of whoever compares features with them */
};

void class_table_done(struct class_table *table);
/** Of a site without classes: an error. @return a status, the error said */
int class_table_ask(struct ctl *ctl, const char *site, struct class_table *table);
/** @return as prototypes_of_means() */
int class_table_prototypes(struct prototypes **ret_prototypes, const struct class_table *table);

#endif
