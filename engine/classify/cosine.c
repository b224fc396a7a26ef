/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "classify/cosine.h"

#define N_LANES 16
#define MIN_LENGTH 1e-12f

float cosine_dot(const float *a, const float *b, uint32_t dim)
{
	/* Sixteen sums side by side: a single one could not be vectorised without reordering. Nor could
	 * they with an index of 32 bits, which might wrap. */
	float lanes[N_LANES] = { 0 };
	size_t n = dim, i = 0;
	float sum = 0;

	for (; i + N_LANES <= n; i += N_LANES)
		for (size_t j = 0; j < N_LANES; j++)
			lanes[j] += a[i + j] * b[i + j];
	for (; i < n; i++)
		sum += a[i] * b[i];
	for (size_t j = 0; j < N_LANES; j++)
		sum += lanes[j];
	return sum;
}

float cosine_length(const float *x, uint32_t dim)
{
	return fmaxf(sqrtf(cosine_dot(x, x, dim)), MIN_LENGTH);
}

void cosine_normalise(float *dst, const float *src, uint32_t n, uint32_t dim)
{
	for (uint32_t i = 0; i < n; i++, dst += dim, src += dim) {
		double sum = 0;
		float scale;

		for (uint32_t j = 0; j < dim; j++)
			sum += (double)src[j] * src[j];
		if (!(sum > 0) || !isfinite(sum)) {
			memset(dst, 0, dim * sizeof(*dst));
			continue;
		}
		scale = (float)(1 / sqrt(sum));
		for (uint32_t j = 0; j < dim; j++)
			dst[j] = src[j] * scale;
	}
}
