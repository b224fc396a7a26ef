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

#define LARGEST 255.f
/* Added to what is smaller it rounds to the nearest, ties to even: then the sum's exponent leaves no
 * room for a fraction. Its lowest byte is 0. */
#define ROUNDER 12582912.f

struct range {
	float low, high;
};

/* Of both, what to multiply by is kept here. */
struct quantiser {
	struct row_steps steps;
	float inverse;
};

static inline struct quantiser quantiser_of(struct range range)
{
	const float low = range.low < 0 ? range.low : 0, high = range.high > 0 ? range.high : 0;
	const float inverse = LARGEST / (high - low);
	/* Nothing but zeros, or numbers too small to have an inverse. */
	const bool sound = inverse <= 3.4e38f;
	struct quantiser q = { .inverse = sound ? inverse : 0 };

	q.steps.step = sound ? (high - low) / LARGEST : 0;
	q.steps.zero = (int32_t)lrintf(-low * q.inverse);
	return q;
}

static inline uint8_t quantise(float x, float inverse, float zero)
{
	float y = x * inverse + zero;
	float low = y > 0.f ? y : 0.f;
	float shifted = (low < LARGEST ? low : LARGEST) + ROUNDER;
	uint32_t bits;

	memcpy(&bits, &shifted, sizeof(bits));
	return (uint8_t)bits;
}

/* Sums wrap on the way, what comes out of them fits: engine/model/vit.c bounds a layer's width. */
static inline float worth(
	int32_t acc, const struct int8_layer *layer, size_t i, struct row_steps steps)
{
	const uint32_t sum = (uint32_t)acc - (uint32_t)steps.zero * (uint32_t)layer->sums[i];

	return ((float)(int32_t)sum * (steps.step * layer->steps[i]) + layer->bias[i]) *
	       layer->scale;
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
	const struct int8_layer l = *layer;

	/* Where dst is residual, element by element is right too. */
#pragma omp simd
	for (size_t i = 0; i < l.n; i++)
		dst[i] = residual[i] + worth(acc[i], &l, i, steps);
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
		float y = (src[i] - mean) * factor * weight[i] + bias[i];

		low = y < low ? y : low;
		high = y > high ? y : high;
	}
	q = quantiser_of((struct range){ low, high });
	for (size_t i = 0; i < n; i++)
		dst[i] = quantise((src[i] - mean) * factor * weight[i] + bias[i], q.inverse,
			(float)q.steps.zero);
	return q.steps;
}

struct row_steps NAME(kern_int8_gelu_row_, KERN_ISA)(uint8_t *restrict dst, int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps)
{
	const struct int8_layer l = *layer;
	float low = 0, high = 0;
	struct quantiser q;

#pragma omp simd reduction(min : low) reduction(max : high)
	for (size_t i = 0; i < l.n; i++) {
		float y = gelu(worth(acc[i], &l, i, steps));

		low = y < low ? y : low;
		high = y > high ? y : high;
		acc[i] = bits_of(y);
	}
	q = quantiser_of((struct range){ low, high });
	for (size_t i = 0; i < l.n; i++)
		dst[i] = quantise(float_of(acc[i]), q.inverse, (float)q.steps.zero);
	return q.steps;
}

void NAME(kern_int8_widen_row_, KERN_ISA)(void *restrict dst, const int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps)
{
	const struct int8_layer l = *layer;
	float *restrict values = dst;

	for (size_t i = 0; i < l.n; i++)
		values[i] = worth(acc[i], &l, i, steps);
}

void NAME(kern_int8_widen_bf16_row_, KERN_ISA)(void *restrict dst, const int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps)
{
	const struct int8_layer l = *layer;
	bf16 *restrict values = dst;

	for (size_t i = 0; i < l.n; i++)
		values[i] = bf16_narrow(worth(acc[i], &l, i, steps));
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
		q = quantiser_of((struct range){ low, high }); \
		for (size_t i = 0; i < n; i++) \
			dst[i] = quantise(widen(values[i]), q.inverse, (float)q.steps.zero); \
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
