/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_HEAT_TARGET_H
#define KAMENCTL_HEAT_TARGET_H

#include "cli.h"
#include "images.h"

/** Where the map of each image is drawn to: known before anything is asked for or written. */
struct heat_targets {
	char **paths; /* (n) */
	size_t n;
};

/**
 * @param to  a folder that is there: of the image's name with .png; else the file of the only image
 * @return EXIT_DONE, or a status, said: two maps of one name, or one that would replace an image
 */
int heat_targets_find(const struct ctl *ctl, struct heat_targets *ret_targets,
	const struct images *images, const char *to);
void heat_targets_done(struct heat_targets *targets);

#endif
