/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_CODEC_H
#define KAMEN_IMAGE_CODEC_H

#include "image/image.h"

/* The formats behind image_decode(), each with its contract. */
int jpeg_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag);
int png_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag);
int netpbm_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag);

/** What a header promises, checked before anything is allocated: 0, -EBADMSG or -EFBIG. */
int image_check_size(uint64_t width, uint64_t height, struct diag *diag);

#endif
