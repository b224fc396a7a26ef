/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_ONEDNN_PACKED_H
#define KAMEN_ONEDNN_PACKED_H

#include <stdint.h>

#include "onednn/onednn.h"

/** A weight matrix in the layout that oneDNN's products read fastest. */
struct packed;

enum packed_source {
	PACKED_K_BY_N, /* row-major (k, n) */
	PACKED_N_BY_K, /* row-major (n, k): what a linear layer's weight is for y = x W^T */
};

/**
 * Room for the right-hand side (k, n) of a product. Content undefined until packed_write().
 * @return 0, -ENOMEM, -EIO
 */
int packed_new(struct packed **ret_packed, struct onednn *onednn, int64_t k, int64_t n,
	enum packed_source source, enum precision precision);
void packed_free(struct packed *packed);
DEFINE_CLEANUP(struct packed *, packed_free)

/** Repacks from plain f32 values. @return 0, or -EIO */
int packed_write(struct packed *packed, const float *values);

#endif
