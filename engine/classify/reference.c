/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "classify/cosine.h"
#include "classify/reference.h"

static int compare_float(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

int reference_new(struct reference **ret_reference, const float *embeddings, uint32_t n,
	const float *held, uint32_t n_held, uint32_t dim, const struct digest *space)
{
	_cleanup_(reference_freep) struct reference *reference = calloc(1, sizeof(*reference));
	uint32_t n_kept = n < REFERENCE_MAX ? n : REFERENCE_MAX;

	if (!reference)
		return -ENOMEM;
	if (n == 0 || dim == 0)
		return -EINVAL;
	reference->embeddings = malloc((size_t)n_kept * dim * sizeof(*reference->embeddings));
	reference->held = malloc(((size_t)n_held + 1) * sizeof(*reference->held));
	if (!reference->embeddings || !reference->held)
		return -ENOMEM;

	for (uint32_t i = 0; i < n_kept; i++)
		cosine_normalise(reference->embeddings + (size_t)i * dim,
			embeddings + (uint64_t)i * n / n_kept * dim, 1, dim);
	for (uint32_t i = 0; i < n_held; i++) {
		if (!isfinite(held[i]))
			return -EINVAL;
		reference->held[i] = held[i];
	}
	qsort(reference->held, n_held, sizeof(*reference->held), compare_float);
	reference->n = n_kept;
	reference->dim = dim;
	reference->k = n_kept < REFERENCE_K ? n_kept : REFERENCE_K;
	reference->n_held = n_held;
	reference->space = *space;
	*ret_reference = TAKE_PTR(reference);
	return 0;
}

void reference_free(struct reference *reference)
{
	if (!reference)
		return;
	free(reference->embeddings);
	free(reference->held);
	free(reference);
}

static float length_of(const float *embedding, uint32_t dim)
{
	return sqrtf(cosine_dot(embedding, embedding, dim));
}

float reference_distance(const struct reference *reference, const float *embedding)
{
	/* No direction, no likeness: cosine 0 to everything. */
	float length = length_of(embedding, reference->dim);
	float scale = length > 0 && isfinite(length) ? 1 / length : 0;
	float best[REFERENCE_K];
	float sum = 0;

	for (uint32_t i = 0; i < reference->k; i++)
		best[i] = -2;
	for (uint32_t i = 0; i < reference->n; i++) {
		const float *row = reference->embeddings + (size_t)i * reference->dim;
		float dot = scale > 0 ? cosine_dot(row, embedding, reference->dim) * scale : 0;
		uint32_t at = reference->k;

		for (; at > 0 && best[at - 1] < dot; at--)
			if (at < reference->k)
				best[at] = best[at - 1];
		if (at < reference->k)
			best[at] = dot;
	}
	for (uint32_t i = 0; i < reference->k; i++)
		sum += 1 - best[i];
	return sum / (float)reference->k;
}

static uint32_t n_smaller(const struct reference *reference, float distance)
{
	uint32_t lo = 0, hi = reference->n_held;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (reference->held[mid] < distance)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

float reference_novelty(const struct reference *reference, float distance)
{
	uint32_t rank = n_smaller(reference, distance);
	float last, excess, rise;

	if (rank < reference->n_held)
		return (float)rank / (float)(reference->n_held + 1);

	/* Beyond everything held: the last rank's interval is spread over all larger distances. */
	last = reference->n_held ? reference->held[reference->n_held - 1] : 0;
	excess = distance > last ? distance - last : 0;
	rise = excess / (excess + (last > 0 ? last : 1));
	return ((float)rank + rise) / (float)(reference->n_held + 1);
}
