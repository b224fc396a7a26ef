/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_KMASK_CODER_H
#define KAMEN_MASK_KMASK_CODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Gaps between the rarer bits of a tensor through a binary range coder (Martin 1979, carries passed on
 * through a cached byte). With one probability p per tensor a gap is geometric, and then the binary
 * digits of its low part are independent of each other and of the rest: digit j is 1 with chance
 * x / (1 + x), x = (1 - p)^(2^j). So a gap costs about log2(1/p) + 2 decisions, none of them far from
 * one half, and whatever the gaps are, the whole costs no more than the tensor's entropy.
 */
#define CODER_MAX_DIGITS 32

struct coder_model {
	unsigned n_digits;
	uint32_t zero[CODER_MAX_DIGITS]; /* chance of a 0, in 1/2^32, by digit */
	uint32_t stop;                   /* chance that no further 2^n_digits are skipped */
};

/** For n_rare rarer bits among n; 0 < n_rare <= n / 2, n < 2^31. Integers only: same everywhere. */
struct coder_model coder_model(uint32_t n, uint32_t n_rare);

/** At least what coder_encode() writes. */
size_t coder_max_bytes(uint32_t n, uint32_t n_rare);

/**
 * Codes the positions of the bits that are `on`, n_rare of the n in words.
 *
 * @param dst  room for coder_max_bytes()
 * @return bytes written
 */
size_t coder_encode(uint8_t *dst, const uint64_t *words, uint32_t n, uint32_t n_rare, bool on);

/** Reads positions one after the other; touches nothing but the payload. */
struct coder_reader {
	struct coder_model model;
	const uint8_t *src, *end;
	uint32_t code, range;
	uint32_t n, n_left;
	uint32_t at; /* the lowest position that may come */
	unsigned n_padded;
	bool damaged;
};

void coder_open(struct coder_reader *reader, uint32_t n, uint32_t n_rare, const uint8_t *src,
	size_t n_bytes);
/** The next positions, ascending. @return how many, fewer than max at the end and where damaged */
size_t coder_read(struct coder_reader *reader, uint32_t *positions, size_t max);
/** Whether all positions came and the payload ends with the last of them. */
bool coder_is_whole(const struct coder_reader *reader);

#endif
