/* SPDX-License-Identifier: Apache-2.0 */
#include "classify/opta.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "classify/cosine.h"

/* algorithms.md 4.5 */
#define EPSILON .05
#define TINY 1e-8
#define MAX_ROUNDS 1000
#define STILL 1e-4

/* Tuned on NEU and CIFAR-10's own held images (tests/slow/few.c), so what is measured there says little
 * of other sites: what loses nothing against plain prototypes at shares of 10:1, and what balanced
 * batches mostly stay below. */
#define MIXTURE_TEMPERATURE .05F
#define MIXTURE_HOLD 6
#define MIXTURE_ROUNDS 8
#define IMBALANCE_AT_BEST .05
#define IMBALANCE_OF_ONE .07

struct opta {
	uint32_t max_classes, max_queries, dim;
	double *cost;   /* (k, n), then the transport */
	double *u, *v;  /* (k), (n) */
	double *moved;  /* (k, dim) */
	float *units;   /* (n, dim) queries of length 1 */
	float *seen;    /* (n, dim) the same from the middle */
	float *starts;  /* (k, dim) prototypes from the middle */
	float *rows;    /* (k, dim) prototypes, moved */
	float *shares;  /* (k) of one query */
	double *totals; /* (k) of all */
};

static bool fits(uint64_t a, uint64_t b)
{
	return a > 0 && b > 0 && a <= (SIZE_MAX >> 8) / b;
}

int opta_new(struct opta **ret_opta, uint32_t max_classes, uint32_t max_queries, uint32_t dim)
{
	const size_t k = max_classes, n = max_queries;
	_cleanup_(opta_freep) struct opta *opta = calloc(1, sizeof(*opta));

	if (!opta)
		return -ENOMEM;
	if (!fits(k, n) || !fits(k, dim) || !fits(n, dim))
		return -EINVAL;
	opta->max_classes = max_classes;
	opta->max_queries = max_queries;
	opta->dim = dim;
	opta->cost = malloc(k * n * sizeof(*opta->cost));
	opta->u = malloc(k * sizeof(*opta->u));
	opta->v = malloc(n * sizeof(*opta->v));
	opta->moved = malloc(k * dim * sizeof(*opta->moved));
	opta->units = malloc(n * dim * sizeof(*opta->units));
	opta->seen = malloc(n * dim * sizeof(*opta->seen));
	opta->starts = malloc(k * dim * sizeof(*opta->starts));
	opta->rows = malloc(k * dim * sizeof(*opta->rows));
	opta->shares = malloc(k * sizeof(*opta->shares));
	opta->totals = malloc(k * sizeof(*opta->totals));
	if (!opta->cost || !opta->u || !opta->v || !opta->moved || !opta->units || !opta->seen ||
		!opta->starts || !opta->rows || !opta->shares || !opta->totals)
		return -ENOMEM;
	*ret_opta = TAKE_PTR(opta);
	return 0;
}

void opta_free(struct opta *opta)
{
	if (!opta)
		return;
	free(opta->cost);
	free(opta->u);
	free(opta->v);
	free(opta->moved);
	free(opta->units);
	free(opta->seen);
	free(opta->starts);
	free(opta->rows);
	free(opta->shares);
	free(opta->totals);
	free(opta);
}

/* ---- the transport */

/* Squared distances (k, n) as shares of the largest. */
static void measure(struct opta *opta, uint32_t k, const float *queries, uint32_t n)
{
	const size_t dim = opta->dim;
	double largest = 0;

	for (size_t i = 0; i < k; i++)
		for (size_t j = 0; j < n; j++) {
			double sum = 0;

			for (size_t d = 0; d < dim; d++) {
				const double off =
					opta->moved[i * dim + d] - (double)queries[j * dim + d];

				sum += off * off;
			}
			opta->cost[i * n + j] = sum;
			largest = fmax(largest, sum);
		}
	for (size_t i = 0; i < (size_t)k * n && largest > 0; i++)
		opta->cost[i] /= largest;
}

/* Logarithm of the sum of exp((u + v - cost) / epsilon) over n entries, stride apart: along a row the
 * others' potentials move, its own stays. */
static double log_sum(const double *cost, size_t stride, const double *others, double own, size_t n)
{
	double top = -INFINITY, sum = 0;

	for (size_t i = 0; i < n; i++)
		top = fmax(top, others[i] - cost[i * stride]);
	for (size_t i = 0; i < n; i++)
		sum += exp((others[i] - cost[i * stride] - top) / EPSILON);
	return (top + own) / EPSILON + log(sum);
}

/* Sinkhorn between equal shares: opta->cost becomes the transport. */
static void transport(struct opta *opta, uint32_t k, uint32_t n)
{
	const double mu = log(1. / k + TINY), nu = log(1. / n + TINY);
	double *u = opta->u, *v = opta->v, *cost = opta->cost;

	memset(u, 0, k * sizeof(*u));
	memset(v, 0, n * sizeof(*v));
	for (int round = 0; round < MAX_ROUNDS; round++) {
		double change = 0;

		for (size_t i = 0; i < k; i++) {
			const double step = EPSILON * (mu - log_sum(cost + i * n, 1, v, u[i], n));

			u[i] += step;
			change += fabs(step);
		}
		for (size_t j = 0; j < n; j++)
			v[j] += EPSILON * (nu - log_sum(cost + j, n, u, v[j], k));
		if (change < STILL)
			break;
	}
	for (size_t i = 0; i < k; i++)
		for (size_t j = 0; j < n; j++)
			cost[i * n + j] = exp((u[i] + v[j] - cost[i * n + j]) / EPSILON);
}

/* Every prototype to the mean of the queries by its row of the transport. */
static void follow(struct opta *opta, uint32_t k, const float *queries, uint32_t n)
{
	const size_t dim = opta->dim;

	memset(opta->moved, 0, k * dim * sizeof(*opta->moved));
	for (size_t i = 0; i < k; i++) {
		const double *row = opta->cost + i * n;
		double *to = opta->moved + i * dim, total = 0;

		for (size_t j = 0; j < n; j++)
			total += row[j];
		for (size_t j = 0; j < n; j++)
			for (size_t d = 0; d < dim; d++)
				to[d] += row[j] / total * (double)queries[j * dim + d];
	}
}

void opta_move(struct opta *opta, const float *means, uint32_t n_classes, const float *queries,
	uint32_t n, uint32_t n_passes, float *moved)
{
	const size_t n_values = (size_t)n_classes * opta->dim;

	for (size_t i = 0; i < n_values; i++)
		opta->moved[i] = (double)means[i];
	for (uint32_t pass = 0; pass < n_passes; pass++) {
		measure(opta, n_classes, queries, n);
		transport(opta, n_classes, n);
		follow(opta, n_classes, queries, n);
	}
	for (size_t i = 0; i < n_values; i++)
		moved[i] = (float)opta->moved[i];
}

/* ---- the mixture */

/* src (n, dim) less the middle of the classes, to length 1. */
static void look_from_middle(const struct opta *opta, const float *src, uint32_t n, float *dst)
{
	const size_t dim = opta->dim;

	for (size_t i = 0; i < n; i++)
		for (size_t d = 0; d < dim; d++)
			dst[i * dim + d] = src[i * dim + d] - (float)opta->moved[d];
	cosine_normalise(dst, dst, n, opta->dim);
}

static void find_middle(struct opta *opta, const float *means, uint32_t k)
{
	const size_t dim = opta->dim;

	memset(opta->moved, 0, dim * sizeof(*opta->moved));
	for (size_t i = 0; i < k; i++)
		for (size_t d = 0; d < dim; d++)
			opta->moved[d] += (double)means[i * dim + d] / k;
}

/* The nearest of k rows; opta->shares becomes softmax(cosines / temperature). */
static struct prototype_answer weigh(
	struct opta *opta, uint32_t k, const float *query, float temperature)
{
	struct prototype_answer answer = { .cosine = -INFINITY };
	float sum = 0;

	for (uint32_t i = 0; i < k; i++) {
		const float cosine =
			cosine_dot(opta->rows + (size_t)i * opta->dim, query, opta->dim);

		opta->shares[i] = cosine;
		if (cosine > answer.cosine) {
			answer.cosine = cosine;
			answer.class = i;
		}
	}
	for (uint32_t i = 0; i < k; i++) {
		opta->shares[i] = expf((opta->shares[i] - answer.cosine) / temperature);
		sum += opta->shares[i];
	}
	for (uint32_t i = 0; i < k; i++)
		opta->shares[i] /= sum;
	answer.confidence = 1 / sum;
	return answer;
}

/* Each prototype to the mean of what is its own, supports first. */
static void mix(struct opta *opta, const uint32_t *n_supports, uint32_t k, uint32_t n)
{
	const size_t dim = opta->dim;

	memset(opta->totals, 0, k * sizeof(*opta->totals));
	for (size_t i = 0; i < k; i++)
		for (size_t d = 0; d < dim; d++)
			opta->moved[i * dim + d] = MIXTURE_HOLD * (double)n_supports[i] *
						   (double)opta->starts[i * dim + d];
	for (size_t j = 0; j < n; j++) {
		const float *query = opta->seen + j * dim;

		(void)weigh(opta, k, query, MIXTURE_TEMPERATURE);
		for (size_t i = 0; i < k; i++) {
			opta->totals[i] += (double)opta->shares[i];
			for (size_t d = 0; d < dim; d++)
				opta->moved[i * dim + d] += (double)(opta->shares[i] * query[d]);
		}
	}
	for (size_t i = 0; i < k * dim; i++)
		opta->rows[i] = (float)opta->moved[i];
	cosine_normalise(opta->rows, opta->rows, k, opta->dim);
}

double opta_mixture(struct opta *opta, const float *means, const uint32_t *n_supports,
	uint32_t n_classes, const float *queries, uint32_t n, struct prototype_answer *answers)
{
	double imbalance = 0;

	find_middle(opta, means, n_classes);
	look_from_middle(opta, means, n_classes, opta->starts);
	look_from_middle(opta, queries, n, opta->seen);
	memcpy(opta->rows, opta->starts, (size_t)n_classes * opta->dim * sizeof(*opta->rows));
	for (int round = 0; round < MIXTURE_ROUNDS; round++)
		mix(opta, n_supports, n_classes, n);
	for (uint32_t i = 0; i < n_classes; i++) {
		const double share = opta->totals[i] / n;

		imbalance += share > 0 ? share * log(share * n_classes) : 0;
	}
	for (uint32_t j = 0; answers && j < n; j++)
		answers[j] = weigh(
			opta, n_classes, opta->seen + (size_t)j * opta->dim, MIXTURE_TEMPERATURE);
	return imbalance;
}

/* ---- both */

static double mean_supports(const struct prototypes *prototypes)
{
	double sum = 0;

	for (uint32_t c = 0; c < prototypes->n_classes; c++)
		sum += prototypes->n_supports[c];
	return sum / prototypes->n_classes;
}

void opta_classify(struct opta *opta, const struct prototypes *prototypes, const float *features,
	uint32_t n, struct prototype_answer *answers, struct opta_report *ret_report)
{
	const uint32_t k = prototypes->n_classes;
	const double n_shots = mean_supports(prototypes);
	struct opta_report report = {
		.most_imbalance = IMBALANCE_AT_BEST + IMBALANCE_OF_ONE / n_shots,
	};

	cosine_normalise(opta->units, features, n, opta->dim);
	if (k > 1) {
		report.imbalance = opta_mixture(opta, prototypes->means, prototypes->n_supports, k,
			opta->units, n, answers);
		report.is_balanced = report.imbalance <= report.most_imbalance;
		if (report.is_balanced)
			opta_move(opta, prototypes->means, k, opta->units, n,
				opta_passes((uint32_t)n_shots), opta->rows);
	} else
		memcpy(opta->rows, prototypes->rows, opta->dim * sizeof(*opta->rows));
	if (k == 1 || report.is_balanced) {
		cosine_normalise(opta->rows, opta->rows, k, opta->dim);
		for (uint32_t j = 0; j < n; j++)
			answers[j] = weigh(opta, k, opta->units + (size_t)j * opta->dim,
				prototypes->temperature);
	}
	*ret_report = report;
}
