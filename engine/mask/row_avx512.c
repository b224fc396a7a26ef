/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "mask/row.h"

void kern_mask_row_avx512(float *dst, const float *src, const uint64_t *words, size_t n)
{
	size_t i = 0;

	for (; i + 16 <= n; i += 16) {
		__mmask16 keep = (__mmask16)(words[i / 64] >> (i % 64));

		_mm512_storeu_ps(dst + i, _mm512_maskz_loadu_ps(keep, src + i));
	}
	if (i < n) {
		__mmask16 tail = (__mmask16)((1u << (n - i)) - 1);
		__mmask16 keep = (__mmask16)(words[i / 64] >> (i % 64)) & tail;

		_mm512_mask_storeu_ps(dst + i, tail, _mm512_maskz_loadu_ps(keep, src + i));
	}
}
