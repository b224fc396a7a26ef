/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_KIMG_H
#define KAMEN_INGEST_KIMG_H

#include "engine.h"

/*
 * A canonical image on disk: fixed 32-byte little-endian header (magic "KIMG", version, width,
 * height, channels, XXH3 of the pixels), then dense 8-bit pixels. Raw, so that the learner's epoch
 * costs a read and not a decode. Written by ingest, read by the learner.
 */
int kimg_encode(const struct image_view *view, void **ret_data, size_t *ret_n_bytes);
/** @return 0, -EBADMSG with the field in diag, -ENOMEM */
int kimg_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag);

#endif
