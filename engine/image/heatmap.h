/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_HEATMAP_H
#define KAMEN_IMAGE_HEATMAP_H

#include "image/resize.h"

/** Sides of what is drawn, in pixels: the longer one, as far as the image has them or more. */
#define HEATMAP_MIN_PX 448u
#define HEATMAP_MAX_PX 1024u

/**
 * Draws a map over the part of an image that it is of: the image in grey, the map in colours from
 * black over purple, red and orange to light yellow, from its 2nd to its 98th percentile: its
 * numbers have an order but no unit. Cells run into each other.
 *
 * @param box  inside of src
 * @param map  (side, side), rows from the top down; a number that is none counts as the lowest
 * @return 0, -EINVAL: side is 0 or the box outside of src, -ENOMEM
 */
int heatmap_draw(struct image **ret_image, const struct image_view *src,
	const struct resize_box *box, const float *map, uint32_t side);

#endif
