/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_QUANTISE_H
#define KAMEN_MASK_QUANTISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Weights in s8, each row of a matrix (an output) in steps of its own: the largest of the BASE's row
 * is 127 of them. A mask changes no step, so that what it drops is an exact 0, and what it keeps is
 * what every other mask that keeps it has.
 */

/** So many steps are 1; 0 where the row has nothing that could be said in steps. */
float quantise_inverse(const float *row, size_t n);
/** One step. */
float quantise_step(float inverse);

/** To the nearest, ties to even: every instruction set gives the same bits. */
static inline int8_t quantise_value(float value, float inverse)
{
	float x = value * inverse;
	float low = x > -127.f ? x : -127.f;
	/* Rounds while the sum's exponent leaves no room for a fraction. */
	float shifted = (low < 127.f ? low : 127.f) + 12582912.f;
	uint32_t bits;

	memcpy(&bits, &shifted, sizeof(bits));
	return (int8_t)(uint8_t)bits;
}

/** dst = src in steps, n of them. @return their sum */
typedef int32_t kern_quantise_row_fn(
	int8_t *restrict dst, const float *restrict src, float inverse, size_t n);

struct kern_quantise_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_quantise_row_fn *row;
};

/** Fastest first; name NULL ends it. */
extern const struct kern_quantise_impl kern_quantise_impls[];

/** A matrix (n_rows, n), in the caller's threads: inverses and sums (n_rows). */
void quantise_rows(int8_t *dst, const float *src, const float *inverses, int32_t *sums,
	uint32_t n_rows, uint32_t n);

kern_quantise_row_fn kern_quantise_row_c, kern_quantise_row_avx2, kern_quantise_row_avx512;

#endif
