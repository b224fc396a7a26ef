/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/rng.h"
#include "classify/cosine.h"
#include "classify/figures.h"

#define KNN_K 20
#define KNN_TEMPERATURE .1
#define N_EPISODES 200
#define N_QUERIES 15

/** The images sorted by class: members of class c are order[first[c]] .. order[first[c + 1] - 1]. */
struct figures_set {
	float *rows; /* (n, dim), normalised */
	const uint32_t *labels;
	uint32_t *order; /* (n) */
	uint32_t *first; /* (n_classes + 1) */
	uint32_t n, dim, n_classes;
};

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

static uint32_t argmax(const double *values, uint32_t n)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < n; i++)
		if (values[i] > values[best])
			best = i;
	return best;
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
	return argmax(votes, set->n_classes);
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

/** What one episode needs: a drawing order of every class's members and the class means. */
struct episode {
	uint32_t *drawn; /* (n), by class as in figures_set.order */
	float *means;    /* (n_classes, dim) */
	double *similarity;
	uint32_t *asked, *right; /* (n): how often an image was a query, and answered right */
};

static uint32_t class_size(const struct figures_set *set, uint32_t c)
{
	return set->first[c + 1] - set->first[c];
}

/* A class with too few members still keeps one query. */
static uint32_t n_supports(const struct figures_set *set, uint32_t c, uint32_t shots)
{
	uint32_t size = class_size(set, c);

	return shots < size ? shots : size - 1;
}

static void draw(struct episode *e, const struct figures_set *set, uint32_t shots, uint32_t number,
	uint64_t seed)
{
	memset(e->means, 0, (size_t)set->n_classes * set->dim * sizeof(*e->means));
	for (uint32_t c = 0; c < set->n_classes; c++) {
		struct rng rng = rng_stream(seed, shots, number, c);
		float *mean = e->means + (size_t)c * set->dim;
		uint32_t *drawn = e->drawn + set->first[c];

		rng_permutation(&rng, drawn, class_size(set, c));
		for (uint32_t i = 0; i < class_size(set, c); i++)
			drawn[i] = set->order[set->first[c] + drawn[i]];
		for (uint32_t i = 0; i < n_supports(set, c, shots); i++)
			for (uint32_t j = 0; j < set->dim; j++)
				mean[j] += set->rows[(size_t)drawn[i] * set->dim + j];
	}
	/* The nearest mean by cosine: its length must not count. */
	cosine_normalise(e->means, e->means, set->n_classes, set->dim);
}

static uint32_t classify(struct episode *e, const struct figures_set *set, uint32_t image)
{
	for (uint32_t c = 0; c < set->n_classes; c++)
		e->similarity[c] = cosine_dot(set->rows + (size_t)image * set->dim,
			e->means + (size_t)c * set->dim, set->dim);
	return argmax(e->similarity, set->n_classes);
}

static double episode_run(struct episode *e, const struct figures_set *set, uint32_t shots,
	uint32_t number, uint64_t seed)
{
	uint32_t n = 0, n_right = 0;

	draw(e, set, shots, number, seed);
	for (uint32_t c = 0; c < set->n_classes; c++) {
		uint32_t begin = n_supports(set, c, shots);
		uint32_t end = class_size(set, c);

		if (end > begin + N_QUERIES)
			end = begin + N_QUERIES;
		for (uint32_t i = begin; i < end; i++) {
			uint32_t image = e->drawn[set->first[c] + i];
			bool is_right = classify(e, set, image) == c;

			e->asked[image]++;
			e->right[image] += is_right;
			n_right += is_right;
		}
		n += end - begin;
	}
	return (double)n_right / n;
}

static int shots_run(const struct figures_set *set, uint32_t shots, uint64_t seed, double *accuracy,
	double *queries)
{
	_cleanup_(freep) uint32_t *drawn = malloc((size_t)set->n * sizeof(*drawn));
	_cleanup_(freep) float *means = malloc((size_t)set->n_classes * set->dim * sizeof(*means));
	_cleanup_(freep) double *similarity = malloc(set->n_classes * sizeof(*similarity));
	_cleanup_(freep) uint32_t *asked = calloc(set->n, sizeof(*asked));
	_cleanup_(freep) uint32_t *right = calloc(set->n, sizeof(*right));
	struct episode e = { drawn, means, similarity, asked, right };

	if (!drawn || !means || !similarity || !asked || !right)
		return -ENOMEM;
	for (uint32_t i = 0; i < N_EPISODES; i++)
		accuracy[i] = episode_run(&e, set, shots, i, seed);
	for (uint32_t i = 0; i < set->n; i++)
		queries[i] = asked[i] > 0 ? (double)right[i] / asked[i] : NAN;
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

static int detail_new(struct figures_detail *detail, uint32_t n)
{
	detail->n_episodes = N_EPISODES;
	detail->knn_right = malloc(n);
	detail->shot1 = malloc(N_EPISODES * sizeof(*detail->shot1));
	detail->shot5 = malloc(N_EPISODES * sizeof(*detail->shot5));
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

static int compute(struct figures_detail *detail, struct figures_set *set, const float *embeddings,
	uint64_t seed)
{
	int r;

	r = set_init(set, embeddings);
	if (r < 0)
		return r;
	r = detail_new(detail, set->n);
	if (r < 0)
		return r;
	r = knn(set, detail->knn_right);
	if (r < 0)
		return r;
	r = shots_run(set, 1, seed, detail->shot1, detail->query1);
	if (r < 0)
		return r;
	return shots_run(set, 5, seed, detail->shot5, detail->query5);
}

static struct figures summarise(const struct figures_detail *detail, const struct figures_set *set)
{
	uint32_t n_right = 0;

	for (uint32_t i = 0; i < set->n; i++)
		n_right += detail->knn_right[i];
	return (struct figures){
		.n = set->n,
		.n_classes = set->n_classes,
		.knn = (double)n_right / set->n,
		.shot1 = mean_of(detail->shot1, N_EPISODES),
		.shot1_ci = half_width(detail->shot1, N_EPISODES),
		.shot5 = mean_of(detail->shot5, N_EPISODES),
		.shot5_ci = half_width(detail->shot5, N_EPISODES),
	};
}

int figures_compute(struct figures *ret_figures, struct figures_detail *ret_detail,
	const float *embeddings, const uint32_t *labels, uint32_t n, uint32_t dim,
	uint32_t n_classes, uint64_t seed)
{
	struct figures_set set = { .labels = labels, .n = n, .dim = dim, .n_classes = n_classes };
	struct figures_detail detail = { 0 };
	int r;

	if (n_classes < 2 || n / 2 < n_classes || dim == 0)
		return -EINVAL;
	r = compute(&detail, &set, embeddings, seed);
	if (r == 0) {
		*ret_figures = summarise(&detail, &set);
		if (ret_detail) {
			*ret_detail = detail;
			detail = (struct figures_detail){ 0 };
		}
	}
	set_done(&set);
	figures_detail_done(&detail);
	return r;
}
