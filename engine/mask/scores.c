/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

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
