/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/row_bf16.h"
#include "model/vit_internal.h"

static float prob_at(const struct vit_class_probs *probs, size_t i)
{
	return probs->precision == PRECISION_F32 ? ((const float *)probs->probs)[i]
						 : bf16_widen(((const bf16 *)probs->probs)[i]);
}

void vit_pool_weights(const struct vit_class_probs *probs, float *weights)
{
	const size_t n_patches = probs->n_tokens - 1;

	for (size_t i = 0; i < probs->n; i++, weights += n_patches) {
		float total = 0;

		memset(weights, 0, n_patches * sizeof(*weights));
		for (size_t h = 0; h < probs->n_heads; h++)
			for (size_t t = 0; t < n_patches; t++)
				weights[t] += prob_at(
					probs, (i * probs->n_heads + h) * probs->stride + 1 + t);
		for (size_t t = 0; t < n_patches; t++)
			total += weights[t];
		/* Where the class token looks at itself alone there is nothing to pool: 0. */
		for (size_t t = 0; t < n_patches && total > 0; t++)
			weights[t] /= total;
	}
}

static void to_length_one(float *dst, const float *src, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)src[i] * src[i];
	for (size_t i = 0; i < n; i++)
		dst[i] = sum > 0 && isfinite(sum) ? (float)(src[i] / sqrt(sum)) : 0;
}

void vit_pool(const float *embedding, const float *patches, const float *weights,
	uint32_t n_patches, uint32_t width, float *feature)
{
	float *pooled = feature + width;

	memset(pooled, 0, width * sizeof(*pooled));
	for (size_t p = 0; p < n_patches; p++) {
#pragma omp simd
		for (size_t d = 0; d < width; d++)
			pooled[d] += weights[p] * patches[p * width + d];
	}
	to_length_one(feature, embedding, width);
	to_length_one(pooled, pooled, width);
}
