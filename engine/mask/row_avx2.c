/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "mask/row.h"

/* All ones in lane j where bit j of byte is set. */
static __m256i lanes(unsigned byte)
{
	const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);

	return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)byte), bit), bit);
}

void kern_mask_row_avx2(float *dst, const float *src, const uint64_t *words, size_t n)
{
	size_t i = 0;

	for (; i + 8 <= n; i += 8) {
		unsigned byte = (unsigned)(words[i / 64] >> (i % 64)) & 0xff;
		__m256 keep = _mm256_castsi256_ps(lanes(byte));

		_mm256_storeu_ps(dst + i, _mm256_and_ps(_mm256_loadu_ps(src + i), keep));
	}
	if (i < n) {
		unsigned inside = (1u << (n - i)) - 1;
		unsigned byte = (unsigned)(words[i / 64] >> (i % 64)) & inside;

		_mm256_maskstore_ps(
			dst + i, lanes(inside), _mm256_maskload_ps(src + i, lanes(byte)));
	}
}
