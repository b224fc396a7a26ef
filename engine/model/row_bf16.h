/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_ROW_BF16_H
#define KAMEN_MODEL_ROW_BF16_H

#include <string.h>

#include "model/row.h"

static inline float bf16_widen(bf16 value)
{
	uint32_t bits = (uint32_t)value << 16;
	float x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

/* To the nearest, ties to even. A NaN stays one: its payload does not reach the lower half here. */
static inline bf16 bf16_narrow(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
