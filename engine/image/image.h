/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_IMAGE_H
#define KAMEN_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/diag.h"

/** Pixels that somebody else owns: height rows of width x n_channels bytes, row y at y * stride. */
struct image_view {
	const uint8_t *pixels; /* (height, width, n_channels), 8 bit, RGB or grey */
	uint32_t width, height;
	uint32_t n_channels; /* 1 or 3 */
	size_t stride;
	bool is_bgr; /* resizing and preprocessing take that, and make RGB of it */
};

/** An image that owns its pixels; rows are dense. */
struct image {
	uint8_t *pixels; /* (height, width, n_channels) */
	uint32_t width, height, n_channels;
};

int image_new(struct image **ret_image, uint32_t width, uint32_t height, uint32_t n_channels);
void image_free(struct image *image);
DEFINE_CLEANUP(struct image *, image_free)

static inline struct image_view image_view(const struct image *image)
{
	return (struct image_view){ image->pixels, image->width, image->height, image->n_channels,
		(size_t)image->width * image->n_channels };
}

/* Limits before a byte is decoded: what a header may promise. */
#define IMAGE_MAX_SIDE 16384u
#define IMAGE_MAX_PIXELS (64u << 20)

/**
 * Decodes a JPEG (libturbojpeg), PNG (libspng) or binary PGM/PPM (8 bit); told by content, never by
 * name. Grey stays grey, everything else becomes RGB; 16 bit and alpha are reduced.
 *
 * @return 0, -EBADMSG: not an image, or damaged (a truncated file is an error, never half an
 *         image), -EFBIG: larger than the limits, -ENOMEM; the reason is in diag
 */
int image_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag);

/** PNG (RGB or grey, 8 bit) of a view; *ret_data is malloc'ed. */
int image_encode_png(const struct image_view *view, void **ret_data, size_t *ret_n_bytes);
/** JPEG, quality 1-100, 4:4:4. */
int image_encode_jpeg(
	const struct image_view *view, int quality, void **ret_data, size_t *ret_n_bytes);

#endif
