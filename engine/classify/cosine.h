/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLASSIFY_COSINE_H
#define KAMEN_CLASSIFY_COSINE_H

#include <stdint.h>

/** Dot product of two rows of dim floats; a fixed order of additions. */
float cosine_dot(const float *a, const float *b, uint32_t dim);
/** What a row of dim floats is to be divided by: 1e-12 at the least. */
float cosine_length(const float *x, uint32_t dim);
/** L2-normalises rows (n, dim); a row without a direction (zero, or not finite) becomes zero.
 * dst may be src. */
void cosine_normalise(float *dst, const float *src, uint32_t n, uint32_t dim);

#endif
