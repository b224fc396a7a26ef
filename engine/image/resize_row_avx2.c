/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>
#include <stdbool.h>

#include "image/resize_row.h"

/* Destination pixels of a step. */
#define N_ACROSS 8u
#define N_DOWN 16u

/* 8 values here and 8 there. */
static inline __m256i load_two(const int16_t *low, const int16_t *high)
{
	return _mm256_inserti128_si256(
		_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
		_mm_loadu_si128((const __m128i *)high), 1);
}

/* Sums of two destination pixels, in four parts each. */
static inline __m256i two_sums(const int16_t *plane, uint32_t first, const struct resize_axis *axis,
	uint32_t x, uint32_t n_blocks)
{
	const size_t n_taps = (size_t)n_blocks * RESIZE_BLOCK;
	const int16_t *weights = axis->weights + x * n_taps;
	const int16_t *low = plane + (axis->spans[x].begin - first);
	const int16_t *high = plane + (axis->spans[x + 1].begin - first);
	__m256i sums = _mm256_setzero_si256();

	for (uint32_t b = 0; b < n_blocks; b++)
		sums = _mm256_add_epi32(
			sums, _mm256_madd_epi16(load_two(low + (size_t)b * RESIZE_BLOCK,
							high + (size_t)b * RESIZE_BLOCK),
				      load_two(weights + (size_t)b * RESIZE_BLOCK,
					      weights + n_taps + (size_t)b * RESIZE_BLOCK)));
	return sums;
}

static inline __m256i round_sums(__m256i sums, unsigned fraction_bits)
{
	const __m256i half = _mm256_set1_epi32(1 << (fraction_bits - 1));

	return _mm256_sra_epi32(
		_mm256_add_epi32(sums, half), _mm_cvtsi32_si128((int)fraction_bits));
}

static inline void across(uint8_t *restrict dst, const int16_t *restrict plane, uint32_t first,
	const struct resize_axis *axis, uint32_t n_blocks)
{
	for (uint32_t x = 0; x + N_ACROSS <= axis->n_dst; x += N_ACROSS) {
		const __m256i a = two_sums(plane, first, axis, x, n_blocks);
		const __m256i b = two_sums(plane, first, axis, x + 2, n_blocks);
		const __m256i c = two_sums(plane, first, axis, x + 4, n_blocks);
		const __m256i d = two_sums(plane, first, axis, x + 6, n_blocks);
		/* Pixels 0, 2, 4, 6 and 1, 3, 5, 7. */
		const __m256i sums = round_sums(
			_mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d)),
			axis->fraction_bits);
		const __m128i even = _mm256_castsi256_si128(sums);
		const __m128i odd = _mm256_extracti128_si256(sums, 1);
		const __m128i words = _mm_packs_epi32(
			_mm_unpacklo_epi32(even, odd), _mm_unpackhi_epi32(even, odd));

		_mm_storel_epi64((__m128i *)(dst + x), _mm_packus_epi16(words, words));
	}
}

void kern_resize_across_avx2(uint8_t *restrict dst, const int16_t *restrict plane, uint32_t first,
	const struct resize_axis *axis)
{
	const uint32_t whole = axis->n_dst / N_ACROSS * N_ACROSS;
	struct resize_axis rest = *axis;

	/* The usual reductions by less than two: without a loop over blocks. */
	if (axis->n_blocks == 1)
		across(dst, plane, first, axis, 1);
	else
		across(dst, plane, first, axis, axis->n_blocks);
	rest.spans += whole;
	rest.weights += (size_t)whole * axis->n_blocks * RESIZE_BLOCK;
	rest.n_dst -= whole;
	kern_resize_across_c(dst + whole, plane, first, &rest);
}

/* 16 sums of all rows, which pass in pairs: the weights of a pair are the halves of 32 bits. */
static inline void sixteen_down(uint8_t *restrict dst, const uint8_t *restrict rows, size_t n,
	const int16_t *restrict weights, uint32_t n_rows, unsigned fraction_bits)
{
	__m256i low = _mm256_setzero_si256(), high = low;

	for (uint32_t i = 0; i < n_rows; i += 2) {
		const bool two = i + 1 < n_rows;
		const uint8_t *row = rows + i * n, *next = two ? row + n : row;
		const uint32_t both =
			(uint16_t)weights[i] | (uint32_t)(two ? (uint16_t)weights[i + 1] : 0) << 16;
		const __m256i pair = _mm256_set1_epi32((int)both);
		const __m256i a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)row));
		const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)next));

		low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), pair));
		high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), pair));
	}
	low = _mm256_packs_epi32(round_sums(low, fraction_bits), round_sums(high, fraction_bits));
	low = _mm256_permute4x64_epi64(_mm256_packus_epi16(low, low), 0x08);
	_mm_storeu_si128((__m128i *)dst, _mm256_castsi256_si128(low));
}

void kern_resize_down_avx2(uint8_t *restrict dst, const uint8_t *restrict rows, size_t n,
	const int16_t *restrict weights, uint32_t n_rows, unsigned fraction_bits)
{
	if (n < N_DOWN) {
		kern_resize_down_c(dst, rows, n, weights, n_rows, fraction_bits);
		return;
	}
	for (size_t x = 0; x + N_DOWN <= n; x += N_DOWN)
		sixteen_down(dst + x, rows + x, n, weights, n_rows, fraction_bits);
	/* The last ones overlap those before. */
	if (n % N_DOWN != 0)
		sixteen_down(
			dst + n - N_DOWN, rows + n - N_DOWN, n, weights, n_rows, fraction_bits);
}
