/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "model/row_wide.h"

/* Unrolled, for rows in an array would lie in memory. */
static inline void turn(float *dst, const float *src, size_t stride)
{
	__m256 row[TURN_ROWS], pair[TURN_ROWS];

#pragma GCC unroll 8
	for (unsigned j = 0; j < TURN_ROWS; j++)
		row[j] = _mm256_loadu_ps(src + j * stride);
#pragma GCC unroll 4
	for (unsigned j = 0; j < TURN_ROWS; j += 2) {
		pair[j] = _mm256_unpacklo_ps(row[j], row[j + 1]);
		pair[j + 1] = _mm256_unpackhi_ps(row[j], row[j + 1]);
	}
#pragma GCC unroll 2
	for (unsigned j = 0; j < TURN_ROWS; j += 4) {
		row[j] = _mm256_shuffle_ps(pair[j], pair[j + 2], 0x44);
		row[j + 1] = _mm256_shuffle_ps(pair[j], pair[j + 2], 0xee);
		row[j + 2] = _mm256_shuffle_ps(pair[j + 1], pair[j + 3], 0x44);
		row[j + 3] = _mm256_shuffle_ps(pair[j + 1], pair[j + 3], 0xee);
	}
#pragma GCC unroll 4
	for (unsigned j = 0; j < TURN_ROWS / 2; j++) {
		_mm256_storeu_ps(
			dst + j * TURN_ROWS, _mm256_permute2f128_ps(row[j], row[j + 4], 0x20));
		_mm256_storeu_ps(dst + (j + 4) * TURN_ROWS,
			_mm256_permute2f128_ps(row[j], row[j + 4], 0x31));
	}
}

void kern_wide_turn_avx2(float *restrict dst, const float *restrict src, size_t stride, size_t n)
{
	for (size_t i = 0; i < n; i += TURN_ROWS)
		turn(dst + i * TURN_ROWS, src + i, stride);
}
