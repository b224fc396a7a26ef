/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_ROW_LANES_H
#define KAMEN_MODEL_ROW_LANES_H

#include <stddef.h>

/* For the files that are compiled once per instruction set: the order of a sum is the same in all. */
#define LANES 16u

/* In so many lanes by hand: the compiler may not reorder a sum. */
static inline float row_sum(const float *src, size_t n)
{
	float lane[LANES] = { 0 }, sum = 0;
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (unsigned j = 0; j < LANES; j++)
			lane[j] += src[i + j];
	for (; i < n; i++)
		sum += src[i];
	for (unsigned j = 0; j < LANES; j++)
		sum += lane[j];
	return sum;
}

/* Sum of the squared distances from mean, in lanes as above. */
static inline float row_squares(const float *src, size_t n, float mean)
{
	float lane[LANES] = { 0 }, sum = 0;
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (unsigned j = 0; j < LANES; j++)
			lane[j] += (src[i + j] - mean) * (src[i + j] - mean);
	for (; i < n; i++)
		sum += (src[i] - mean) * (src[i] - mean);
	for (unsigned j = 0; j < LANES; j++)
		sum += lane[j];
	return sum;
}

#endif
