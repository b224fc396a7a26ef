/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "mask/scores.h"

const struct kern_scores_impl kern_scores_impls[] = {
#ifdef KAMEN_X86
	{ "avx512", "avx512bw", kern_scores_kept_avx512, kern_scores_grad_avx512,
		kern_scores_bits_avx512 },
	{ "avx2", "avx2", kern_scores_kept_avx2, kern_scores_grad_avx2, kern_scores_bits_avx2 },
#endif
	{ "c", NULL, kern_scores_kept_c, kern_scores_grad_c, kern_scores_bits_c },
	{ NULL, NULL, NULL, NULL, NULL },
};

const struct kern_scores_impl *kern_scores(void)
{
	return cpu_fastest(kern_scores_impls);
}

struct scores_term scores_term(const float *grad, const float *weight, const struct mask *mask,
	unsigned t, bool alpha_term)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	const double alpha = mask_alpha(mask, t);
	double kept = 0;

	if (alpha_term)
		kept = kern_scores()->kept(grad, weight, mask->words + tensor->word, tensor->n);
	/* alpha = m^(1/2), so m^(-3/2) is its inverse cubed. */
	return (struct scores_term){
		.inverse = (float)(1 / alpha),
		.shared = (float)(kept / (2 * (double)tensor->n * alpha * alpha * alpha)),
	};
}

void scores_backward(float *dscores, const float *grad, const float *const *weights,
	const struct mask *mask, bool alpha_term)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &mask->layout->tensors[t];
		const float *g = grad + tensor->offset;
		const struct scores_term term = scores_term(g, weights[t], mask, t, alpha_term);

		kern_scores()->grad(dscores + tensor->offset, g, weights[t], tensor->n,
			term.inverse, term.shared);
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
