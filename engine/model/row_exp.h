/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_ROW_EXP_H
#define KAMEN_MODEL_ROW_EXP_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "model/row_lanes.h"

/* For the files that are compiled once per instruction set; fmaf() is said where it is meant. */

/* e^x for x <= 0, as at -87 below it: 2^round(y) times a polynomial of what is left of y = x / ln 2. */
static inline float exp_down(float x)
{
	float y = (x < -87.f ? -87.f : x) * 1.44269504f;
	/* Rounds while the sum's exponent leaves no room for a fraction. */
	float shifted = y + 12582912.f;
	float t = y - (shifted - 12582912.f);
	uint32_t bits;
	float scale, p;

	memcpy(&bits, &shifted, sizeof(bits));
	bits = (bits - 0x4b400000u + 127u) << 23;
	memcpy(&scale, &bits, sizeof(scale));
	p = 1.326697039e-03f;
	p = fmaf(p, t, 9.675459746e-03f);
	p = fmaf(p, t, 5.550742616e-02f);
	p = fmaf(p, t, 2.402212175e-01f);
	p = fmaf(p, t, 6.931469492e-01f);
	p = fmaf(p, t, 1.000000071e+00f);
	return p * scale;
}

/* The largest is the same in any order. */
static inline float row_max(const float *src, size_t n)
{
	float max = src[0];

#pragma omp simd reduction(max : max)
	for (size_t i = 0; i < n; i++)
		max = src[i] > max ? src[i] : max;
	return max;
}

/* e^(x - max) of LANES values, added up lane by lane. */
static inline void exp_lanes(float *restrict x, float max, float sums[restrict LANES])
{
#pragma omp simd
	for (unsigned j = 0; j < LANES; j++) {
		x[j] = exp_down(x[j] - max);
		sums[j] += x[j];
	}
}

#endif
