/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. */
#include "mask/quantise.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

int32_t NAME(kern_quantise_row_, KERN_ISA)(
	int8_t *restrict dst, const float *restrict src, float inverse, size_t n)
{
	int32_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		dst[i] = quantise_value(src[i], inverse);
		sum += dst[i];
	}
	return sum;
}
