/* SPDX-License-Identifier: Apache-2.0 */
#include "classify/prototype.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "classify/cosine.h"

/* How far a class spreads is said by its own supports and as if by so many more that are as far as the
 * usual ones: of five it is hardly known. */
#define USUAL_SUPPORTS 8

void prototypes_free(struct prototypes *prototypes)
{
	if (!prototypes)
		return;
	free(prototypes->rows);
	free(prototypes->means);
	free(prototypes->n_supports);
	free(prototypes->spreads);
	free(prototypes->worth);
	free(prototypes);
}

static int make_room(struct prototypes *p)
{
	const size_t n = (size_t)p->n_classes * p->dim;

	p->rows = calloc(n, sizeof(*p->rows));
	p->means = calloc(n, sizeof(*p->means));
	p->n_supports = calloc(p->n_classes, sizeof(*p->n_supports));
	p->spreads = malloc(p->n_classes * sizeof(*p->spreads));
	if (!p->rows || !p->means || !p->n_supports || !p->spreads)
		return -ENOMEM;
	for (uint32_t c = 0; c < p->n_classes; c++)
		p->spreads[c] = 1;
	return 0;
}

/* units (n, dim): features of length 1 */
static int average(struct prototypes *p, const float *units, const uint32_t *labels, uint32_t n)
{
	const size_t dim = p->dim;

	for (uint32_t i = 0; i < n; i++) {
		if (labels[i] >= p->n_classes)
			return -EINVAL;
		p->n_supports[labels[i]]++;
		for (size_t d = 0; d < dim; d++)
			p->means[labels[i] * dim + d] += units[i * dim + d];
	}
	for (uint32_t c = 0; c < p->n_classes; c++) {
		if (p->n_supports[c] == 0)
			return -EINVAL;
		for (size_t d = 0; d < dim; d++)
			p->means[c * dim + d] /= (float)p->n_supports[c];
	}
	cosine_normalise(p->rows, p->means, p->n_classes, p->dim);
	return 0;
}

/* Cosine of a support of class c, of length 1, to its class's mean without it. room (dim) */
static float own_cosine(const struct prototypes *p, uint32_t c, const float *unit, float *room)
{
	const size_t dim = p->dim;
	const float n = (float)p->n_supports[c];

	for (size_t d = 0; d < dim; d++)
		room[d] = p->means[c * dim + d] * n - unit[d];
	cosine_normalise(room, room, 1, p->dim);
	return cosine_dot(room, unit, p->dim);
}

static int measure_spreads(
	struct prototypes *p, const float *units, const uint32_t *labels, uint32_t n)
{
	_cleanup_(freep) double *sums = calloc(p->n_classes, sizeof(*sums));
	_cleanup_(freep) float *room = malloc(p->dim * sizeof(*room));
	double usual = 0;
	uint32_t n_left = 0;

	if (!sums || !room)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t c = labels[i];

		if (p->n_supports[c] < 2)
			continue;
		/* Rounding may make it less than none. */
		sums[c] += fmax(1 - (double)own_cosine(p, c, units + (size_t)i * p->dim, room), 0);
		n_left++;
	}
	for (uint32_t c = 0; c < p->n_classes; c++)
		usual += sums[c] / fmax(n_left, 1);
	for (uint32_t c = 0; usual > 0 && c < p->n_classes; c++)
		if (p->n_supports[c] > 1)
			p->spreads[c] = (float)((sums[c] / usual + USUAL_SUPPORTS) /
						(p->n_supports[c] + USUAL_SUPPORTS));
	return 0;
}

/* What supports left out of their own class are like to every class: (n_left, n_classes). */
struct left_out {
	float *cosines;
	uint32_t *labels;
	uint32_t n;
};

static void left_out_done(struct left_out *left)
{
	free(left->cosines);
	free(left->labels);
}

static int leave_out(struct left_out *left, const struct prototypes *p, const float *units,
	const uint32_t *labels, uint32_t n)
{
	const size_t k = p->n_classes, dim = p->dim;
	_cleanup_(freep) float *room = malloc(dim * sizeof(*room));

	left->cosines = malloc(n * k * sizeof(*left->cosines));
	left->labels = malloc(n * sizeof(*left->labels));
	if (!room || !left->cosines || !left->labels)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		const float *unit = units + i * dim;
		float *cosines = left->cosines + left->n * k;

		if (p->n_supports[labels[i]] < 2)
			continue;
		for (size_t c = 0; c < k; c++)
			cosines[c] = cosine_dot(p->rows + c * dim, unit, p->dim);
		cosines[labels[i]] = own_cosine(p, labels[i], unit, room);
		left->labels[left->n++] = labels[i];
	}
	return 0;
}

/* What being of class c costs is norm - cosines[c] / temperature; this is the norm. */
static double norm_of(const float *cosines, uint32_t n_classes, double temperature)
{
	double top = (double)cosines[0], sum = 0;

	for (uint32_t c = 1; c < n_classes; c++)
		top = fmax(top, (double)cosines[c]);
	for (uint32_t c = 0; c < n_classes; c++)
		sum += exp(((double)cosines[c] - top) / temperature);
	return log(sum) + top / temperature;
}

/* What the left-out supports cost, and one more like them of which nobody knows the class: a few that
 * are all right would else be sure of everything. */
static double cost_of(const struct left_out *left, uint32_t n_classes, double temperature)
{
	double cost = 0, spread = 0;

	for (uint32_t i = 0; i < left->n; i++) {
		const float *cosines = left->cosines + (size_t)i * n_classes;
		const double norm = norm_of(cosines, n_classes, temperature);
		double mean = 0;

		for (uint32_t c = 0; c < n_classes; c++)
			mean += (double)cosines[c] / n_classes;
		cost += norm - (double)cosines[left->labels[i]] / temperature;
		spread += norm - mean / temperature;
	}
	return cost + spread / left->n;
}

/* Some steps of a fifth between sure of everything and of nothing. */
static float best_temperature(const struct left_out *left, uint32_t n_classes)
{
	float best = PROTOTYPE_TEMPERATURE;
	double least = INFINITY;

	for (double t = .005; t < .5; t *= 1.2) {
		const double cost = cost_of(left, n_classes, t);

		if (cost < least) {
			least = cost;
			best = (float)t;
		}
	}
	return best;
}

/* How sure they are of what they are, class by class. */
static void judge(struct prototypes *p, const struct left_out *left)
{
	const uint32_t k = p->n_classes;

	for (uint32_t i = 0; i < left->n; i++) {
		const float *cosines = left->cosines + (size_t)i * k;
		const uint32_t label = left->labels[i];
		const double t = (double)p->temperature;
		bool is_right = true;

		for (uint32_t c = 0; c < k; c++)
			is_right &= c == label || cosines[c] < cosines[label];
		p->worth[label].n_right += is_right;
		p->worth[label].n_judged++;
		p->worth[label].confidence +=
			(float)exp((double)cosines[label] / t - norm_of(cosines, k, t));
	}
	for (uint32_t c = 0; c < k; c++)
		p->worth[c].confidence =
			p->worth[c].n_judged > 0
				? p->worth[c].confidence / (float)p->worth[c].n_judged
				: NAN;
}

static int learn_from_left_out(
	struct prototypes *p, const float *units, const uint32_t *labels, uint32_t n)
{
	_cleanup_(left_out_done) struct left_out left = { 0 };
	uint32_t n_judged = 0;
	int r;

	p->worth = calloc(p->n_classes, sizeof(*p->worth));
	if (!p->worth)
		return -ENOMEM;
	p->temperature = PROTOTYPE_TEMPERATURE;
	for (uint32_t c = 0; c < p->n_classes; c++)
		n_judged += p->n_supports[c] > 1;
	/* A class alone is sure of everything. */
	if (p->n_classes > 1 && n_judged > 0) {
		r = leave_out(&left, p, units, labels, n);
		if (r < 0)
			return r;
	}
	if (n_judged > 1)
		p->temperature = best_temperature(&left, p->n_classes);
	judge(p, &left);
	return 0;
}

int prototypes_new(struct prototypes **ret_prototypes, const float *features,
	const uint32_t *labels, uint32_t n, uint32_t dim, uint32_t n_classes)
{
	_cleanup_(prototypes_freep) struct prototypes *p = NULL;
	_cleanup_(freep) float *units = NULL;
	int r;

	if (n_classes == 0 || n == 0 || dim == 0)
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	units = malloc((size_t)n * dim * sizeof(*units));
	if (!p || !units)
		return -ENOMEM;
	p->n_classes = n_classes;
	p->dim = dim;
	r = make_room(p);
	if (r < 0)
		return r;
	cosine_normalise(units, features, n, dim);
	r = average(p, units, labels, n);
	if (r == 0)
		r = measure_spreads(p, units, labels, n);
	if (r == 0)
		r = learn_from_left_out(p, units, labels, n);
	if (r < 0)
		return r;
	*ret_prototypes = TAKE_PTR(p);
	return 0;
}

int prototypes_of_means(struct prototypes **ret_prototypes, const float *means,
	const uint32_t *n_supports, uint32_t n_classes, uint32_t dim, float temperature)
{
	_cleanup_(prototypes_freep) struct prototypes *p = NULL;
	int r;

	if (n_classes == 0 || dim == 0)
		return -EINVAL;
	for (uint32_t c = 0; c < n_classes; c++)
		if (n_supports[c] == 0)
			return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->n_classes = n_classes;
	p->dim = dim;
	p->temperature = temperature;
	r = make_room(p);
	if (r < 0)
		return r;
	memcpy(p->means, means, (size_t)n_classes * dim * sizeof(*means));
	memcpy(p->n_supports, n_supports, n_classes * sizeof(*n_supports));
	cosine_normalise(p->rows, means, n_classes, dim);
	*ret_prototypes = TAKE_PTR(p);
	return 0;
}

/* 0: no direction */
static float inverse_length(const float *feature, uint32_t dim)
{
	double sum = 0;

	for (uint32_t d = 0; d < dim; d++)
		sum += (double)feature[d] * feature[d];
	return sum > 0 && isfinite(sum) ? (float)(1 / sqrt(sum)) : 0;
}

struct prototype_answer prototypes_classify(
	const struct prototypes *prototypes, const float *feature, float *confidences)
{
	const uint32_t n = prototypes->n_classes, dim = prototypes->dim;
	const float scale = inverse_length(feature, dim), t = prototypes->temperature;
	struct prototype_answer answer = { .cosine = -INFINITY };
	float sum = 0;

	for (uint32_t c = 0; c < n; c++) {
		const float *row = prototypes->rows + (size_t)c * dim;
		float cosine = scale > 0 ? cosine_dot(row, feature, dim) * scale : 0;

		if (confidences)
			confidences[c] = cosine;
		/* Of the sum what came before shrinks as the largest grows. */
		if (cosine > answer.cosine) {
			sum = sum * expf((answer.cosine - cosine) / t) + 1;
			answer.cosine = cosine;
			answer.class = c;
		} else
			sum += expf((cosine - answer.cosine) / t);
	}
	answer.confidence = 1 / sum;
	answer.distance = (1 - answer.cosine) / prototypes->spreads[answer.class];
	for (uint32_t c = 0; confidences && c < n; c++)
		confidences[c] = expf((confidences[c] - answer.cosine) / t) / sum;
	return answer;
}

int prototypes_leave_one_out(const struct prototypes *prototypes, const float *features,
	const uint32_t *labels, uint32_t n, float *distances)
{
	_cleanup_(freep) float *room = malloc(2 * (size_t)prototypes->dim * sizeof(*room));
	float *unit = room + prototypes->dim;
	int n_left = 0;

	if (!room)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		if (prototypes->n_supports[labels[i]] < 2)
			continue;
		cosine_normalise(unit, features + (size_t)i * prototypes->dim, 1, prototypes->dim);
		distances[n_left++] = (1 - own_cosine(prototypes, labels[i], unit, room)) /
				      prototypes->spreads[labels[i]];
	}
	return n_left;
}
