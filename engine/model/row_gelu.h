/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_ROW_GELU_H
#define KAMEN_MODEL_ROW_GELU_H

#include <math.h>

#include "base/cleanup.h"

/* For the files that are compiled once per instruction set; fmaf() is said where it is meant. */

/* Beyond it Phi is 0 or 1 to 4e-6. */
#define GELU_END 4.5f

static inline float gelu_clamp(float x)
{
	float low = x < -GELU_END ? -GELU_END : x;

	return low > GELU_END ? GELU_END : low;
}

/* x times a polynomial of x^2, the highest coefficient first; beyond GELU_END as there. */
static inline float odd_polynomial(float x, const float *coefficients, unsigned n)
{
	float z = gelu_clamp(x), q = z * z, p = coefficients[0];

	for (unsigned i = 1; i < n; i++)
		p = fmaf(p, q, coefficients[i]);
	return p * z;
}

/* x Phi(x) */
static inline float gelu(float x)
{
	/* Of Phi(x) - 1/2, least |x| times its error. */
	static const float phi_odd[] = { -1.400070813e-12f, 1.697307319e-10f, -9.193764561e-09f,
		2.958902443e-07f, -6.365261947e-06f, 9.787141977e-05f, -1.122678839e-03f,
		9.833186165e-03f, -6.633705867e-02f, 3.988837960e-01f };

	return x * (.5f + odd_polynomial(x, phi_odd, ARRAY_SIZE(phi_odd)));
}

#endif
