/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/rng.h"
#include "classify/figures.h"

#define N_RESAMPLES 2000

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int figures_interval(struct figures_diff *ret_diff, const double *differences, uint32_t n,
	uint64_t seed, uint32_t stream)
{
	_cleanup_(freep) double *means = malloc(N_RESAMPLES * sizeof(*means));
	double sum = 0;

	if (!means)
		return -ENOMEM;
	if (n == 0)
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++)
		sum += differences[i];
	for (uint32_t b = 0; b < N_RESAMPLES; b++) {
		struct rng rng = rng_stream(seed, stream, b, 0);
		double resampled = 0;

		for (uint32_t i = 0; i < n; i++)
			resampled += differences[rng_below(&rng, n)];
		means[b] = resampled / n;
	}
	qsort(means, N_RESAMPLES, sizeof(*means), compare_double);
	*ret_diff = (struct figures_diff){
		.diff = sum / n,
		.lo = means[N_RESAMPLES / 40],
		.hi = means[N_RESAMPLES - 1 - N_RESAMPLES / 40],
	};
	return 0;
}

int figures_compare(struct figures_diff *ret_knn, struct figures_diff *ret_shot1,
	struct figures_diff *ret_shot5, const struct figures_detail *a,
	const struct figures_detail *b, uint32_t n, uint64_t seed)
{
	uint32_t n_max = n > a->n_episodes ? n : a->n_episodes;
	_cleanup_(freep) double *differences = malloc(n_max * sizeof(*differences));
	struct figures_diff knn, shot1, shot5;
	int r;

	if (!differences)
		return -ENOMEM;
	if (n == 0 || a->n_episodes == 0 || a->n_episodes != b->n_episodes)
		return -EINVAL;

	for (uint32_t i = 0; i < n; i++)
		differences[i] = (double)b->knn_right[i] - a->knn_right[i];
	r = figures_interval(&knn, differences, n, seed, 0);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < a->n_episodes; i++)
		differences[i] = b->shot1[i] - a->shot1[i];
	r = figures_interval(&shot1, differences, a->n_episodes, seed, 1);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < a->n_episodes; i++)
		differences[i] = b->shot5[i] - a->shot5[i];
	r = figures_interval(&shot5, differences, a->n_episodes, seed, 2);
	if (r < 0)
		return r;

	*ret_knn = knn;
	*ret_shot1 = shot1;
	*ret_shot5 = shot5;
	return 0;
}

/* Which images an episode asks depends on labels and seed alone: a and b asked the same. */
static int compare_queries(struct figures_diff *ret_diff, const double *a, const double *b,
	const uint32_t *labels, uint32_t n, uint32_t n_classes, uint64_t seed, uint32_t stream)
{
	_cleanup_(freep) double *differences = malloc((n + 1) * sizeof(*differences));
	_cleanup_(freep) uint32_t *sizes = calloc((size_t)n_classes + 1, sizeof(*sizes));
	uint32_t n_asked = 0, n_seen = 0;

	if (!differences || !sizes)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		if (labels[i] >= n_classes)
			return -EINVAL;
		if (isnan(a[i]) || isnan(b[i]))
			continue;
		n_seen += sizes[labels[i]]++ == 0;
		n_asked++;
	}
	for (uint32_t i = 0, at = 0; i < n; i++)
		if (!isnan(a[i]) && !isnan(b[i]))
			differences[at++] = (b[i] - a[i]) * n_asked / n_seen / sizes[labels[i]];
	return figures_interval(ret_diff, differences, n_asked, seed, stream);
}

int figures_compare_queries(struct figures_diff *ret_shot1, struct figures_diff *ret_shot5,
	const struct figures_detail *a, const struct figures_detail *b, const uint32_t *labels,
	uint32_t n, uint32_t n_classes, uint64_t seed)
{
	struct figures_diff shot1;
	int r;

	r = compare_queries(&shot1, a->query1, b->query1, labels, n, n_classes, seed, 3);
	if (r == 0)
		r = compare_queries(ret_shot5, a->query5, b->query5, labels, n, n_classes, seed, 4);
	if (r < 0)
		return r;
	*ret_shot1 = shot1;
	return 0;
}

struct scored {
	double score;
	uint8_t positive;
};

static int compare_scored(const void *a, const void *b)
{
	return compare_double(
		&((const struct scored *)a)->score, &((const struct scored *)b)->score);
}

double figures_auroc(const double *scores, const uint8_t *positive, size_t n)
{
	_cleanup_(freep) struct scored *sorted = malloc((n + 1) * sizeof(*sorted));
	double n_positive = 0, n_negative = 0, wins = 0;

	if (!sorted)
		return -1;
	for (size_t i = 0; i < n; i++)
		sorted[i] = (struct scored){ scores[i], positive[i] != 0 };
	qsort(sorted, n, sizeof(*sorted), compare_scored);

	for (size_t i = 0; i < n;) {
		double tied_positive = 0, tied_negative = 0;
		size_t j = i;

		for (; j < n && sorted[j].score == sorted[i].score; j++) {
			tied_positive += sorted[j].positive;
			tied_negative += !sorted[j].positive;
		}
		wins += tied_positive * (n_negative + tied_negative / 2);
		n_positive += tied_positive;
		n_negative += tied_negative;
		i = j > i ? j : i + 1;
	}
	return n_positive > 0 && n_negative > 0 ? wins / (n_positive * n_negative) : .5;
}
