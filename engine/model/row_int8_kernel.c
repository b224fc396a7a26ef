/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. */
#include <math.h>
#include <string.h>

#include "model/row_bf16.h"
#include "model/row_gelu.h"
#include "model/row_int8.h"
#include "model/row_lanes.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

/* Steps between a row's ends. With one left over at each of them nothing has to be cut off there,
 * whatever the zero's own rounding moves. */
#define N_STEPS 253.f
/* Added to what is smaller it rounds to the nearest, ties to even: then the sum's exponent leaves no
 * room for a fraction. Its lowest byte is 0. */
#define ROUNDER 12582912.f

/* What a row is multiplied by, and what is then added to it: zero and ROUNDER. */
struct quantiser {
	struct row_steps steps;
	float inverse, shift;
};

static inline struct quantiser quantiser_of(float low, float high)
{
	const float range = high - low, inverse = N_STEPS / range;
	/* Nothing but zeros, or numbers too small to have an inverse. */
	const bool sound = inverse <= 3.4e38f;
	struct quantiser q = { .inverse = sound ? inverse : 0 };

	q.steps.step = sound ? range / N_STEPS : 0;
	q.steps.zero = 1 + (int32_t)lrintf(-low * q.inverse);
	q.shift = (float)q.steps.zero + ROUNDER;
	return q;
}

static inline uint8_t quantise(float x, const struct quantiser *q)
{
	float shifted = fmaf(x, q->inverse, q->shift);
	uint32_t bits;

	memcpy(&bits, &shifted, sizeof(bits));
	return (uint8_t)bits;
}

/* What a row's steps make of a layer. */
struct dial {
	const float *steps, *offsets, *shifts;
	float factor, zero;
	size_t n;
};

static inline struct dial dial_of(const struct int8_layer *layer, struct row_steps read)
{
	return (struct dial){ layer->steps, layer->offsets, layer->shifts, read.step * layer->scale,
		-(float)read.zero, layer->n };
}

static inline float worth(int32_t acc, const struct dial *d, size_t i)
{
	float sum = fmaf(d->zero, d->offsets[i], (float)acc * d->steps[i]);

	return fmaf(d->factor, sum, d->shifts[i]);
}

static inline float float_of(int32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

static inline int32_t bits_of(float x)
{
	int32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	return bits;
}

void NAME(kern_int8_add_row_, KERN_ISA)(float *dst, const float *residual,
	const int32_t *restrict acc, const struct int8_layer *layer, struct row_steps steps)
{
	const struct dial d = dial_of(layer, steps);

	/* Where dst is residual, element by element is right too. */
#pragma omp simd
	for (size_t i = 0; i < d.n; i++)
		dst[i] = residual[i] + worth(acc[i], &d, i);
}

struct row_steps NAME(kern_int8_norm_row_, KERN_ISA)(
	uint8_t *restrict dst, const float *restrict src, const struct row_norm *norm)
{
	const float *restrict weight = norm->weight, *restrict bias = norm->bias;
	const size_t n = norm->n;
	const float mean = row_sum(src, n) / (float)n;
	const float variance = row_squares(src, n, mean) / (float)n;
	const float factor = 1 / sqrtf(variance + norm->eps);
	float low = 0, high = 0;
	struct quantiser q;

#pragma omp simd reduction(min : low) reduction(max : high)
	for (size_t i = 0; i < n; i++) {
		float y = fmaf((src[i] - mean) * factor, weight[i], bias[i]);

		low = y < low ? y : low;
		high = y > high ? y : high;
	}
	q = quantiser_of(low, high);
	for (size_t i = 0; i < n; i++)
		dst[i] = quantise(fmaf((src[i] - mean) * factor, weight[i], bias[i]), &q);
	return q.steps;
}

struct row_steps NAME(kern_int8_gelu_row_, KERN_ISA)(uint8_t *restrict dst, int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps)
{
	const struct dial d = dial_of(layer, steps);
	float low = 0, high = 0;
	struct quantiser q;

#pragma omp simd reduction(min : low) reduction(max : high)
	for (size_t i = 0; i < d.n; i++) {
		float y = gelu(worth(acc[i], &d, i));

		low = y < low ? y : low;
		high = y > high ? y : high;
		acc[i] = bits_of(y);
	}
	q = quantiser_of(low, high);
	for (size_t i = 0; i < d.n; i++)
		dst[i] = quantise(float_of(acc[i]), &q);
	return q.steps;
}

void NAME(kern_int8_widen_row_, KERN_ISA)(void *restrict dst, const int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps)
{
	const struct dial d = dial_of(layer, steps);
	float *restrict values = dst;

	for (size_t i = 0; i < d.n; i++)
		values[i] = worth(acc[i], &d, i);
}

void NAME(kern_int8_widen_bf16_row_, KERN_ISA)(void *restrict dst, const int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps)
{
	const struct dial d = dial_of(layer, steps);
	bf16 *restrict values = dst;

	for (size_t i = 0; i < d.n; i++)
		values[i] = bf16_narrow(worth(acc[i], &d, i));
}

static inline float plain(float x)
{
	return x;
}

#define NARROW(type, widen) \
	do { \
		const type *restrict values = src; \
		float low = 0, high = 0; \
		struct quantiser q; \
\
		_Pragma("omp simd reduction(min : low) reduction(max : high)") for (size_t i = 0; \
										    i < n; i++) \
		{ \
			float y = widen(values[i]); \
\
			low = y < low ? y : low; \
			high = y > high ? y : high; \
		} \
		q = quantiser_of(low, high); \
		for (size_t i = 0; i < n; i++) \
			dst[i] = quantise(widen(values[i]), &q); \
		return q.steps; \
	} while (0)

struct row_steps NAME(kern_int8_narrow_row_, KERN_ISA)(
	uint8_t *restrict dst, const void *restrict src, size_t n)
{
	NARROW(float, plain);
}

struct row_steps NAME(kern_int8_narrow_bf16_row_, KERN_ISA)(
	uint8_t *restrict dst, const void *restrict src, size_t n)
{
	NARROW(bf16, bf16_widen);
}
