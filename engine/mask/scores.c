/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "mask/scores.h"

#define N_BLOCK 64 /* one word of the mask */
#define N_LANES 16

/* product = grad * weight over one block; returns the sum over the kept ones. */
static double block_products(float *product, const float *grad, const float *weight,
	const uint64_t *word, size_t n, kern_mask_row_fn *mask_row)
{
	float kept[N_BLOCK] = { 0 };
	float lanes[N_LANES] = { 0 };
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		product[i] = grad[i] * weight[i];
	mask_row(kept, product, word, n);
	for (size_t i = 0; i < N_BLOCK; i += N_LANES)
		for (size_t j = 0; j < N_LANES; j++)
			lanes[j] += kept[i + j];
	for (size_t j = 0; j < N_LANES; j++)
		sum += lanes[j];
	return sum;
}

static void tensor_backward(float *dscores, const float *grad, const float *weights,
	const struct mask *mask, unsigned t, bool alpha_term)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	const uint64_t *words = mask->words + tensor->word;
	kern_mask_row_fn *mask_row = kern_mask_row();
	double alpha = mask_alpha(mask, t);
	float inverse = (float)(1 / alpha);
	double kept = 0;
	float shared;

	for (size_t i = 0; i < tensor->n; i += N_BLOCK) {
		size_t n = tensor->n - i < N_BLOCK ? tensor->n - i : N_BLOCK;

		kept += block_products(
			dscores + i, grad + i, weights + i, words + i / N_BLOCK, n, mask_row);
	}
	/* alpha = m^(1/2), so m^(-3/2) is its inverse cubed. */
	shared = alpha_term ? (float)(kept / (2 * (double)tensor->n * alpha * alpha * alpha)) : 0;
	for (size_t i = 0; i < tensor->n; i++)
		dscores[i] = dscores[i] * inverse - shared;
}

void scores_backward(float *dscores, const float *grad, const float *const *weights,
	const struct mask *mask, bool alpha_term)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		size_t offset = mask->layout->tensors[t].offset;

		tensor_backward(dscores + offset, grad + offset, weights[t], mask, t, alpha_term);
	}
}

void scores_confine(float *values, const struct mask *mask)
{
	kern_mask_row_fn *mask_row = kern_mask_row();

	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &mask->layout->tensors[t];

		mask_row(values + tensor->offset, values + tensor->offset,
			mask->words + tensor->word, tensor->n);
	}
}

/* ---- the other rule */

#define N_BITS 32
#define RADIX_BITS 8
#define N_BUCKETS (1u << RADIX_BITS)

/** One tensor's scores and which of them count; words NULL: all. */
struct field {
	const float *scores;
	const uint64_t *words;
	size_t n;
};

static bool counts(const struct field *field, size_t i)
{
	return !field->words || field->words[i / 64] >> (i % 64) & 1;
}

/* Of the same order as the score; both zeros are one. */
static uint32_t key_of(float score)
{
	uint32_t bits;

	score += 0.f;
	memcpy(&bits, &score, sizeof(bits));
	return bits & UINT32_C(1) << 31 ? ~bits : bits | UINT32_C(1) << 31;
}

/* The key of the score that has rank others below it, digit by digit; *ret_n_equal of its equals
 * are among these. */
static uint32_t key_at(const struct field *field, size_t rank, size_t *ret_n_equal)
{
	uint32_t key = 0;

	for (int shift = N_BITS - RADIX_BITS; shift >= 0; shift -= RADIX_BITS) {
		size_t n_in[N_BUCKETS] = { 0 };
		uint32_t digit = 0;

		for (size_t i = 0; i < field->n; i++) {
			uint32_t own = key_of(field->scores[i]);

			if (counts(field, i) && (own ^ key) >> shift < N_BUCKETS)
				n_in[own >> shift & (N_BUCKETS - 1)]++;
		}
		while (rank >= n_in[digit])
			rank -= n_in[digit++];
		key |= digit << shift;
	}
	*ret_n_equal = rank;
	return key;
}

/* As the text of a recipe has it: .1f is meant as .1. What 1 - keep rounds to is left as it is. */
static size_t share_dropped(float keep, size_t n)
{
	double exact = round((double)keep * 1e6) / 1e6;

	return (size_t)((1 - exact) * (double)n);
}

static void drop_lowest(struct mask *mask, unsigned t, const struct field *field, size_t n_drop)
{
	size_t n_equal;
	uint32_t key = key_at(field, n_drop, &n_equal);

	for (size_t i = 0; i < field->n; i++) {
		uint32_t own = key_of(field->scores[i]);

		if (!counts(field, i) || own > key)
			continue;
		if (own == key && n_equal == 0)
			continue;
		n_equal -= own == key;
		mask_put(mask, t, i, false);
	}
}

void scores_keep_top(
	struct mask *mask, const float *scores, float keep, const struct mask *may_drop)
{
	mask_fill(mask);
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &mask->layout->tensors[t];
		const struct field field = {
			.scores = scores + tensor->offset,
			.words = may_drop ? may_drop->words + tensor->word : NULL,
			.n = tensor->n,
		};
		size_t n_drop = share_dropped(keep, may_drop ? may_drop->n_on[t] : tensor->n);

		if (n_drop > 0)
			drop_lowest(mask, t, &field, n_drop);
	}
}
