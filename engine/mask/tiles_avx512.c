/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "mask/tiles.h"

/* A line's 16 rows in 32-bit lanes: two columns of each. */
enum { N_LANES = 16, N_LINES = TILE_ROWS / N_LANES, N_HALF = TILE_COLUMNS / 4 };

/* 32 columns of 16 rows. */
static inline __m512i load_bits(const uint64_t *words, uint32_t row, uint32_t n_columns, uint32_t c)
{
	const __m512i lanes =
		_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const uint32_t n_row = n_columns / 32;
	const int32_t *first = (const int32_t *)(const void *)words + (size_t)row * n_row + c / 32;

	return _mm512_i32gather_epi32(
		_mm512_mullo_epi32(lanes, _mm512_set1_epi32((int)n_row)), first, sizeof(int32_t));
}

/* The lower or the upper 16 columns in both halves of each lane. */
static inline __m512i half_of(__m512i bits, unsigned half)
{
	return half == 0 ? _mm512_or_si512(_mm512_slli_epi32(bits, 16),
				   _mm512_and_si512(bits, _mm512_set1_epi32(0xffff)))
			 : _mm512_or_si512(_mm512_srli_epi32(bits, 16),
				   _mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000)));
}

struct cursor {
	const uint16_t *from;
	uint16_t *to;
};

static inline void turn_line(struct cursor *cursor, uint16_t *line, __mmask32 was, __mmask32 will)
{
	__m512i value = _mm512_mask_expandloadu_epi16(_mm512_loadu_si512(line), was, cursor->from);

	_mm512_storeu_si512(cursor->to, _mm512_maskz_compress_epi16(will, value));
	_mm512_storeu_si512(line, _mm512_maskz_mov_epi16(~will, value));
	cursor->from += __builtin_popcount(was);
	cursor->to += __builtin_popcount(will);
}

static inline void turn_tile(
	struct cursor *cursor, uint16_t *data, const __m512i *now, const __m512i *next)
{
	for (unsigned half = 0; half < 2; half++) {
		__m512i pair = _mm512_set1_epi32(0x00020001), was[N_LINES], will[N_LINES];

		for (unsigned q = 0; q < N_LINES; q++) {
			was[q] = half_of(now[q], half);
			will[q] = half_of(next[q], half);
		}
		for (unsigned k = 0; k < N_HALF; k++) {
			for (unsigned q = 0; q < N_LINES; q++, data += TILE_LINE) {
				/* The tile behind this one. */
				__builtin_prefetch(data + TILE_LINES * TILE_LINE, 1);
				turn_line(cursor, data, _mm512_testn_epi16_mask(was[q], pair),
					_mm512_testn_epi16_mask(will[q], pair));
			}
			pair = _mm512_slli_epi16(pair, 2);
		}
	}
}

void kern_tiles_turn_avx512(const struct tile_turn *turn)
{
	struct cursor cursor = { turn->from, turn->to };
	uint16_t *data = turn->data;

	for (uint32_t row = 0; row < turn->n_rows; row += TILE_ROWS)
		for (uint32_t c = 0; c < turn->n_columns; c += TILE_COLUMNS) {
			__m512i now[N_LINES], next[N_LINES];

			for (unsigned q = 0; q < N_LINES; q++) {
				now[q] =
					load_bits(turn->now, row + q * N_LANES, turn->n_columns, c);
				next[q] = load_bits(
					turn->next, row + q * N_LANES, turn->n_columns, c);
			}
			turn_tile(&cursor, data, now, next);
			data += TILE_LINES * TILE_LINE;
		}
}

uint32_t kern_tiles_lacking_avx512(uint32_t *found, const uint64_t *words, uint32_t n)
{
	const __m512i all = _mm512_set1_epi64(-1);
	__m512i at = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
	uint32_t n_found = 0;

	for (uint32_t i = 0; i < n; i += 8) {
		const __mmask8 there = n - i < 8 ? (__mmask8)((1U << (n - i)) - 1) : 0xff;
		const __mmask8 lacks = _mm512_mask_cmpneq_epi64_mask(
			there, _mm512_maskz_loadu_epi64(there, words + i), all);

		_mm512_mask_cvtepi64_storeu_epi32(found + n_found,
			(__mmask8)((1U << __builtin_popcount(lacks)) - 1),
			_mm512_maskz_compress_epi64(lacks, at));
		n_found += (uint32_t)__builtin_popcount(lacks);
		at = _mm512_add_epi64(at, _mm512_set1_epi64(8));
	}
	return n_found;
}
