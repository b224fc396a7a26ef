/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "classify/cosine.h"
#include "classify/figures_internal.h"

#define KNN_K 20
#define KNN_TEMPERATURE .1
#define N_EPISODES 200u

static void set_done(struct figures_set *set)
{
	free(set->rows);
	free(set->order);
	free(set->first);
}

static int sort_by_class(struct figures_set *set)
{
	for (uint32_t i = 0; i < set->n; i++) {
		if (set->labels[i] >= set->n_classes)
			return -EINVAL;
		set->first[set->labels[i] + 1]++;
	}
	for (uint32_t c = 0; c < set->n_classes; c++) {
		if (set->first[c + 1] < 2)
			return -EINVAL;
		set->first[c + 1] += set->first[c];
	}
	for (uint32_t i = 0; i < set->n; i++)
		set->order[set->first[set->labels[i]]++] = i;
	/* Every start has moved to its end, which is the next one's start. */
	memmove(set->first + 1, set->first, set->n_classes * sizeof(*set->first));
	set->first[0] = 0;
	return 0;
}

static int set_init(struct figures_set *set, const float *embeddings)
{
	set->rows = malloc((size_t)set->n * set->dim * sizeof(*set->rows));
	set->order = malloc((size_t)set->n * sizeof(*set->order));
	set->first = calloc((size_t)set->n_classes + 1, sizeof(*set->first));
	if (!set->rows || !set->order || !set->first)
		return -ENOMEM;
	cosine_normalise(set->rows, embeddings, set->n, set->dim);
	return sort_by_class(set);
}

struct neighbour {
	float similarity;
	uint32_t index;
};

/* Keeps the list descending; equal similarities keep the smaller index first. */
static uint32_t insert(struct neighbour *list, uint32_t n, struct neighbour item)
{
	uint32_t at = n < KNN_K ? n : KNN_K - 1;

	if (n == KNN_K && item.similarity <= list[KNN_K - 1].similarity)
		return n;
	for (; at > 0 && list[at - 1].similarity < item.similarity; at--)
		list[at] = list[at - 1];
	list[at] = item;
	return n < KNN_K ? n + 1 : n;
}

static uint32_t knn_vote(const struct figures_set *set, uint32_t i, double *votes)
{
	struct neighbour list[KNN_K];
	uint32_t n = 0;

	for (uint32_t j = 0; j < set->n; j++) {
		if (j == i)
			continue;
		n = insert(list, n,
			(struct neighbour){ cosine_dot(set->rows + (size_t)i * set->dim,
						    set->rows + (size_t)j * set->dim, set->dim),
				j });
	}
	memset(votes, 0, set->n_classes * sizeof(*votes));
	for (uint32_t j = 0; j < n; j++)
		votes[set->labels[list[j].index]] += exp(list[j].similarity / KNN_TEMPERATURE);
	return figures_argmax(votes, set->n_classes);
}

static int knn(const struct figures_set *set, uint8_t *right)
{
	_cleanup_(freep) double *votes = malloc(set->n_classes * sizeof(*votes));

	if (!votes)
		return -ENOMEM;
	for (uint32_t i = 0; i < set->n; i++)
		right[i] = knn_vote(set, i, votes) == set->labels[i];
	return 0;
}

static double mean_of(const double *values, uint32_t n)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += values[i];
	return sum / n;
}

static double half_width(const double *values, uint32_t n)
{
	double mean = mean_of(values, n), sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += (values[i] - mean) * (values[i] - mean);
	return 1.96 * sqrt(sum / (n - 1) / n);
}

static int detail_new(struct figures_detail *detail, uint32_t n, uint32_t n_episodes)
{
	detail->n_episodes = n_episodes;
	detail->knn_right = malloc(n);
	detail->shot1 = malloc(n_episodes * sizeof(*detail->shot1));
	detail->shot5 = malloc(n_episodes * sizeof(*detail->shot5));
	detail->query1 = malloc(n * sizeof(*detail->query1));
	detail->query5 = malloc(n * sizeof(*detail->query5));
	return detail->knn_right && detail->shot1 && detail->shot5 && detail->query1 &&
			       detail->query5
		       ? 0
		       : -ENOMEM;
}

void figures_detail_done(struct figures_detail *detail)
{
	free(detail->knn_right);
	free(detail->shot1);
	free(detail->shot5);
	free(detail->query1);
	free(detail->query5);
	*detail = (struct figures_detail){ 0 };
}

static int gain(struct figures_diff *ret_gain, const double *values, const double *plain,
	uint32_t n, uint64_t seed)
{
	_cleanup_(freep) double *differences = malloc(n * sizeof(*differences));

	if (!differences)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		differences[i] = values[i] - plain[i];
	return figures_interval(ret_gain, differences, n, seed, 0);
}

static int summarise_batch(struct figures_batch *ret_batch, const struct figures_episodes *episodes,
	const struct figures_options *options)
{
	const uint32_t n = options->n_episodes;
	struct figures_batch batch = {
		.opta = mean_of(episodes->opta, n),
		.opta_ci = half_width(episodes->opta, n),
		.guarded = mean_of(episodes->guarded, n),
		.guarded_ci = half_width(episodes->guarded, n),
		.balanced = (double)episodes->n_balanced / n,
	};
	int r = gain(&batch.opta_gain, episodes->opta, episodes->plain, n, options->seed);

	if (r == 0)
		r = gain(&batch.guarded_gain, episodes->guarded, episodes->plain, n, options->seed);
	if (r == 0)
		*ret_batch = batch;
	return r;
}

/* The accuracies go to plain and queries, the caller's. */
static int run_episodes(const struct figures_set *set, uint32_t shots,
	const struct figures_options *options, double *plain, double *queries,
	struct figures_batch *ret_batch)
{
	struct figures_episodes episodes = { .plain = plain, .queries = queries };
	_cleanup_(freep) double *room = NULL;
	int r;

	if (options->opta) {
		room = malloc((size_t)2 * options->n_episodes * sizeof(*room));
		if (!room)
			return -ENOMEM;
		episodes.opta = room;
		episodes.guarded = room + options->n_episodes;
	}
	r = figures_episodes_run(&episodes, set, shots, options);
	return r < 0 || !options->opta ? r : summarise_batch(ret_batch, &episodes, options);
}

static int compute(struct figures *figures, struct figures_detail *detail, struct figures_set *set,
	const float *embeddings, const struct figures_options *options)
{
	int r;

	r = set_init(set, embeddings);
	if (r < 0)
		return r;
	r = detail_new(detail, set->n, options->n_episodes);
	if (r < 0)
		return r;
	r = knn(set, detail->knn_right);
	if (r == 0)
		r = run_episodes(set, 1, options, detail->shot1, detail->query1, &figures->batch1);
	return r < 0 ? r
		     : run_episodes(
			       set, 5, options, detail->shot5, detail->query5, &figures->batch5);
}

static void summarise(
	struct figures *figures, const struct figures_detail *detail, const struct figures_set *set)
{
	uint32_t n_right = 0;

	for (uint32_t i = 0; i < set->n; i++)
		n_right += detail->knn_right[i];
	figures->n = set->n;
	figures->n_classes = set->n_classes;
	figures->knn = (double)n_right / set->n;
	figures->shot1 = mean_of(detail->shot1, detail->n_episodes);
	figures->shot1_ci = half_width(detail->shot1, detail->n_episodes);
	figures->shot5 = mean_of(detail->shot5, detail->n_episodes);
	figures->shot5_ci = half_width(detail->shot5, detail->n_episodes);
}

int figures_measure(struct figures *ret_figures, struct figures_detail *ret_detail,
	const float *embeddings, const uint32_t *labels, uint32_t n, uint32_t dim,
	uint32_t n_classes, const struct figures_options *options)
{
	struct figures_set set = { .labels = labels, .n = n, .dim = dim, .n_classes = n_classes };
	_cleanup_(figures_detail_done) struct figures_detail detail = { 0 };
	struct figures_options chosen = *options;
	struct figures figures = { 0 };
	int r;

	if (n_classes < 2 || n / 2 < n_classes || dim == 0)
		return -EINVAL;
	if (chosen.n_episodes == 0)
		chosen.n_episodes = N_EPISODES;
	r = compute(&figures, &detail, &set, embeddings, &chosen);
	if (r == 0) {
		summarise(&figures, &detail, &set);
		*ret_figures = figures;
		if (ret_detail) {
			*ret_detail = detail;
			detail = (struct figures_detail){ 0 };
		}
	}
	set_done(&set);
	return r;
}

int figures_compute(struct figures *ret_figures, struct figures_detail *ret_detail,
	const float *embeddings, const uint32_t *labels, uint32_t n, uint32_t dim,
	uint32_t n_classes, uint64_t seed)
{
	return figures_measure(ret_figures, ret_detail, embeddings, labels, n, dim, n_classes,
		&(struct figures_options){ .seed = seed });
}
