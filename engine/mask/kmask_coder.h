/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_KMASK_CODER_H
#define KAMEN_MASK_KMASK_CODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * A static binary range coder: 32-bit range, carry propagation through a cached byte (Martin 1979,
 * in the form that Subbotin and LZMA made common), one probability for the whole run of bits.
 */

/** Share of a range that stands for a dropped bit, in 1/2^32, of n_off bits in n; 0 < n_off < n. */
static inline uint32_t coder_probability(uint32_t n_off, uint32_t n)
{
	return (uint32_t)(((uint64_t)n_off << 32) / n);
}

/**
 * Codes n bits of words.
 *
 * @param dst  room for coder_max_bytes(n, p_off) bytes
 * @return bytes written
 */
size_t coder_encode(uint8_t *dst, const uint64_t *words, uint32_t n, uint32_t p_off);

/** More than coder_encode() can need, for n_off dropped bits of n. */
size_t coder_max_bytes(uint32_t n_off, uint32_t n);

/**
 * Reads n bits into words (every word of them is written, bits past n are 0).
 *
 * @return false where the bytes do not end exactly with the last bit
 */
bool coder_decode(uint64_t *words, uint32_t n, uint32_t p_off, const uint8_t *src, size_t n_bytes);

#endif
