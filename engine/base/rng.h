/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_RNG_H
#define KAMEN_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/**
 * Counter-based randomness: Philox4x32-10 (Salmon et al., SC 2011). A stream is a pure function of
 * (seed, a, b, c), by convention (seed, step, image, view), so that any draw can be made again, in
 * any order, on any thread, after any restart. Plain value; copy freely; one thread per stream.
 */
struct rng {
	uint32_t key[2];
	uint32_t counter[4];
	uint32_t block[4];
	unsigned n_used;
};

struct rng rng_stream(uint64_t seed, uint32_t a, uint32_t b, uint32_t c);
/** The same stream from its number 4 `block` on. */
struct rng rng_stream_at(uint64_t seed, uint32_t a, uint32_t b, uint32_t c, uint32_t block);

uint32_t rng_u32(struct rng *rng);
/** Uniform in [0, 1), 24 bits. */
float rng_uniform(struct rng *rng);
/** Uniform in [lo, hi). */
float rng_range(struct rng *rng, float lo, float hi);
/** Uniform in [0, n), without modulo bias; n > 0. */
uint32_t rng_below(struct rng *rng, uint32_t n);
/** Standard normal (Box-Muller). */
float rng_normal(struct rng *rng);
/** Fisher-Yates: a random order of 0..n-1. */
void rng_permutation(struct rng *rng, uint32_t *ret_order, uint32_t n);

#endif
