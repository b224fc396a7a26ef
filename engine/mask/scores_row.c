/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. */
#include <string.h>

#include "mask/scores.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

#define N_BLOCK 64 /* one word of the mask */
#define N_LANES 16
#define N_BYTES 8

/* Sixteen partial sums of a block, then those: the order is the same on every vector width. */
static inline double block_sum(const float *products)
{
	float lanes[N_LANES] = { 0 };
	double sum = 0;

	for (size_t i = 0; i < N_BLOCK; i += N_LANES)
		for (size_t j = 0; j < N_LANES; j++)
			lanes[j] += products[i + j];
	for (size_t j = 0; j < N_LANES; j++)
		sum += (double)lanes[j];
	return sum;
}

static inline double kept_of_block(const float *grad, const float *weight, uint64_t word, size_t n)
{
	float products[N_BLOCK] = { 0 };

	for (size_t i = 0; i < n; i++)
		products[i] = word >> i & 1 ? grad[i] * weight[i] : 0;
	return block_sum(products);
}

double NAME(kern_scores_kept_, KERN_ISA)(
	const float *grad, const float *weight, const uint64_t *words, size_t n)
{
	double sum = 0;
	size_t at = 0;

	for (; at + N_BLOCK <= n; at += N_BLOCK) {
		float products[N_BLOCK];

		/* Most words keep all. */
		if (words[at / N_BLOCK] != UINT64_MAX) {
			sum += kept_of_block(grad + at, weight + at, words[at / N_BLOCK], N_BLOCK);
			continue;
		}
		for (size_t i = 0; i < N_BLOCK; i++)
			products[i] = grad[at + i] * weight[at + i];
		sum += block_sum(products);
	}
	if (at < n)
		sum += kept_of_block(grad + at, weight + at, words[at / N_BLOCK], n - at);
	return sum;
}

void NAME(kern_scores_grad_, KERN_ISA)(float *dscores, const float *grad,
	const float *restrict weight, size_t n, float inverse, float shared)
{
	/* Without a promise that they differ: where dscores is grad, one by one is right too. */
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		dscores[i] = grad[i] * weight[i] * inverse - shared;
}

/* The lowest bit of each byte, the first byte's lowest. */
static inline uint64_t gather_bits(const uint8_t *bytes)
{
	uint64_t eight;

	memcpy(&eight, bytes, sizeof(eight));
	return eight * UINT64_C(0x0102040810204080) >> 56;
}

static inline uint64_t word_of(const float *scores, size_t n, float threshold)
{
	uint8_t above[N_BLOCK] = { 0 };
	uint64_t word = 0;

	for (size_t i = 0; i < n; i++)
		above[i] = scores[i] > threshold;
	for (size_t i = 0; i < N_BLOCK / N_BYTES; i++)
		word |= gather_bits(above + i * N_BYTES) << i * N_BYTES;
	return word;
}

size_t NAME(kern_scores_bits_, KERN_ISA)(
	uint64_t *words, const float *scores, size_t n, float threshold)
{
	size_t n_on = 0;

	for (size_t at = 0; at < n; at += N_BLOCK) {
		uint64_t word = n - at >= N_BLOCK ? word_of(scores + at, N_BLOCK, threshold)
						  : word_of(scores + at, n - at, threshold);

		words[at / N_BLOCK] = word;
		n_on += (size_t)__builtin_popcountll(word);
	}
	return n_on;
}
