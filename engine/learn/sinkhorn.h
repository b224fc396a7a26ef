/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_SINKHORN_H
#define KAMEN_LEARN_SINKHORN_H

#include <stdint.h>

/**
 * Soft assignments of n rows to k prototypes with equal shares (algorithms.md 1.6): in place, from
 * scores (n, k), however large, to rows that sum to 1.
 */
void sinkhorn(float *scores, uint32_t n, uint32_t k, float eps, uint32_t iterations);

#endif
