/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_ONEDNN_PACKED_H
#define KAMEN_ONEDNN_PACKED_H

#include <stddef.h>
#include <stdint.h>

#include "onednn/onednn.h"

/** A weight matrix in the layout that oneDNN's products read fastest. */
struct packed;

enum packed_source {
	PACKED_K_BY_N, /* row-major (k, n) */
	PACKED_N_BY_K, /* row-major (n, k): what a linear layer's weight is for y = x W^T */
};

/**
 * The right-hand side (k, n) of a product: its layout. Memory comes by packed_place(), or else with
 * the first packed_write().
 * @return 0, -ENOMEM, -EIO
 */
int packed_new(struct packed **ret_packed, struct onednn *onednn, int64_t k, int64_t n,
	enum packed_source source, enum precision precision);
void packed_free(struct packed *packed);
DEFINE_CLEANUP(struct packed *, packed_free)

/** That its memory has; the last ones may be padding. */
size_t packed_bytes(const struct packed *packed);
/** Its memory, NULL before there is any. */
void *packed_data(const struct packed *packed);
/** Borrows memory, 64-byte aligned, from now on; before the first packed_write() only. -EIO */
int packed_place(struct packed *packed, void *data);

/**
 * Columns of a product's right-hand side that lie together, one such block behind the other, so that
 * a thread can read its own ones alone. 0: it is not so.
 */
uint32_t packed_column_block(const struct packed *packed);

/** Whether its memory is (N / n, K, n): of n columns together, row by row. */
bool packed_has_panels(const struct packed *packed, uint32_t n);

/** Repacks from plain values: f32, in int8 s8 within +-127.
 * @return 0, -ENOMEM: no room for the first ones, or -EIO */
int packed_write(struct packed *packed, const void *values);

#endif
