/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CASCADE_WHITEN_H
#define KAMEN_CASCADE_WHITEN_H

#include <stddef.h>
#include <stdint.h>

/**
 * True whitening (algorithms.md 1.10): y = (x - mean) V diag(1 / S), V and S the first right
 * singular vectors and values of the centred rows that it was fitted to. Those rows come out with
 * columns of length 1, orthogonal to each other.
 */
struct whiten {
	uint32_t n_in, n_out;
	float *mean; /* (n_in) */
	float *axes; /* (n_out, n_in): rows of V divided by S */
};

/** Mean and axes not yet written. -ENOMEM */
int whiten_new(struct whiten **ret_whiten, uint32_t n_in, uint32_t n_out);
void whiten_free(struct whiten *whiten);

#include "base/cleanup.h"
DEFINE_CLEANUP(struct whiten *, whiten_free)

/** rows (n, n_in) -> out (n, n_out), another array. */
void whiten_apply(const struct whiten *whiten, const float *rows, uint32_t n, float *out);

/** What it takes to store one, in f32. */
static inline size_t whiten_bytes(const struct whiten *whiten)
{
	return ((size_t)whiten->n_out + 1) * whiten->n_in * sizeof(float);
}

#endif
