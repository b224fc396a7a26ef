/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_HEAT_FILE_H
#define KAMENCTL_HEAT_FILE_H

#include <stddef.h>
#include <stdint.h>

/*
 * The one place of kamenctl that knows the engine's image code: a hardness map, drawn over the image
 * that it is of.
 */

/** How a site cuts the network's input out of an image. */
struct heat_prep {
	uint32_t input_px;
	float crop;
	const char *resize; /* crop, squash */
};

struct heat_why {
	char text[512];
};

/**
 * Reads an image file and writes a PNG, whole or not at all.
 *
 * @param map  (side, side)
 * @return 0, or a negative errno and why
 */
int heat_file_write(const char *path, const char *image_path, const struct heat_prep *prep,
	const float *map, uint32_t side, struct heat_why *why);

#endif
