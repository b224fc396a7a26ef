/* SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "learn/patch_mask.h"

/* What a ratio of two places may lack as a float: .6 of 10 patches would leave 3.9999998. */
#define LACK (.25 * FLT_EPSILON)

uint32_t patch_mask_n_kept(uint32_t n_patches, float ratio)
{
	uint32_t n = (uint32_t)((double)n_patches * (1 - (double)ratio + LACK));

	if (n == 0)
		return 1;
	return n < n_patches ? n : n_patches;
}

double patch_mask_share(float first, float last, uint32_t step, uint32_t steps)
{
	return first + ((double)last - first) * (step + 1) / steps;
}

uint32_t patch_mask_n_hard(uint32_t n_hidden, double share)
{
	uint32_t n = (uint32_t)(n_hidden * (share + LACK));

	return n < n_hidden ? n : n_hidden;
}

static float rank_of(float hardness)
{
	return isnan(hardness) ? -INFINITY : hardness;
}

/* The hardest first, of equal ones the first. Selection by qsort_r: its order is total. */
static int compare_hardness(const void *a, const void *b, void *hardness)
{
	const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
	const float x = rank_of(((const float *)hardness)[i]);
	const float y = rank_of(((const float *)hardness)[j]);

	if (x != y)
		return x > y ? -1 : 1;
	return i < j ? -1 : 1;
}

static int compare_index(const void *a, const void *b)
{
	const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;

	return i < j ? -1 : i > j;
}

static void swap(uint32_t *a, uint32_t *b)
{
	uint32_t was = *a;

	*a = *b;
	*b = was;
}

void patch_mask_choose(
	const struct patch_mask *mask, const float *hardness, struct rng *rng, uint32_t *order)
{
	const uint32_t n_free = mask->n_patches - mask->n_hard;

	for (uint32_t i = 0; i < mask->n_patches; i++)
		order[i] = i;
	if (mask->n_hard > 0) {
		qsort_r(order, mask->n_patches, sizeof(*order), compare_hardness, (void *)hardness);
		/* The hardest to the back, where the hidden ones lie. */
		for (uint32_t i = 0; i < mask->n_patches / 2; i++)
			swap(&order[i], &order[mask->n_patches - 1 - i]);
	}
	for (uint32_t i = 0; i < mask->n_kept; i++)
		swap(&order[i], &order[i + rng_below(rng, n_free - i)]);
	qsort(order, mask->n_kept, sizeof(*order), compare_index);
	qsort(order + mask->n_kept, mask->n_patches - mask->n_kept, sizeof(*order), compare_index);
}
