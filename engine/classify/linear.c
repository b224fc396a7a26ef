/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "classify/linear.h"

#define MAX_ITERATIONS 500u
#define MAX_HALVINGS 40u
#define N_PAIRS 12u
#define PENALTY .01
#define FLAT 1e-7    /* largest entry of a gradient that counts as 0 */
#define ENOUGH 1e-4  /* of the descent that the slope promises (Armijo) */
#define CURVED 1e-10 /* a step along which the gradient turns less says nothing */

/** One problem and what a look at it needs. */
struct descent {
	const float *rows;
	const uint32_t *labels;
	uint32_t n, dim, n_classes;
	double lambda;
	double *scores; /* (n_classes) */
};

/** The last steps and what they did to the gradient, newest at (n - 1) % N_PAIRS. */
struct memory {
	double *steps, *turns; /* (N_PAIRS, size) */
	double inverse[N_PAIRS];
	size_t size;
	uint32_t n;
};

static double dot(const double *a, const double *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

static double score(const double *weights, const float *row, uint32_t dim)
{
	double sum = weights[dim];

	for (uint32_t j = 0; j < dim; j++)
		sum += weights[j] * (double)row[j];
	return sum;
}

/* Scores become probabilities. @return the logarithm of the label's */
static double softmax(double *scores, uint32_t n, uint32_t label)
{
	double largest = scores[0], own, sum = 0;

	for (uint32_t c = 1; c < n; c++)
		largest = fmax(largest, scores[c]);
	own = scores[label] - largest;
	for (uint32_t c = 0; c < n; c++) {
		scores[c] = exp(scores[c] - largest);
		sum += scores[c];
	}
	for (uint32_t c = 0; c < n; c++)
		scores[c] /= sum;
	return own - log(sum);
}

/* The loss at weights; gradient (n_classes, dim + 1) is overwritten. */
static double look(const struct descent *d, const double *weights, double *gradient)
{
	size_t stride = d->dim + 1u, size = d->n_classes * stride;
	double loss = 0;

	memset(gradient, 0, size * sizeof(*gradient));
	for (uint32_t i = 0; i < d->n; i++) {
		const float *row = d->rows + (size_t)i * d->dim;

		for (uint32_t c = 0; c < d->n_classes; c++)
			d->scores[c] = score(weights + c * stride, row, d->dim);
		loss -= softmax(d->scores, d->n_classes, d->labels[i]);
		d->scores[d->labels[i]] -= 1;
		for (uint32_t c = 0; c < d->n_classes; c++) {
			double *to = gradient + c * stride, error = d->scores[c] / d->n;

			for (uint32_t j = 0; j < d->dim; j++)
				to[j] += error * (double)row[j];
			to[d->dim] += error;
		}
	}
	for (size_t i = 0; i < size; i++)
		gradient[i] += d->lambda * weights[i];
	return loss / d->n + d->lambda / 2 * dot(weights, weights, size);
}

static double largest_entry(const double *values, size_t n)
{
	double largest = 0;

	for (size_t i = 0; i < n; i++)
		largest = fmax(largest, fabs(values[i]));
	return largest;
}

/* The two loops of L-BFGS: direction = -H gradient. */
static void aim(double *direction, const struct memory *memory, const double *gradient)
{
	uint32_t first = memory->n > N_PAIRS ? memory->n - N_PAIRS : 0;
	double shares[N_PAIRS];
	size_t size = memory->size;

	for (size_t i = 0; i < size; i++)
		direction[i] = -gradient[i];
	for (uint32_t k = memory->n; k-- > first;) {
		const double *step = memory->steps + (k % N_PAIRS) * size;
		const double *turn = memory->turns + (k % N_PAIRS) * size;
		double share = memory->inverse[k % N_PAIRS] * dot(step, direction, size);

		shares[k % N_PAIRS] = share;
		for (size_t i = 0; i < size; i++)
			direction[i] -= share * turn[i];
	}
	if (memory->n > 0) {
		uint32_t last = (memory->n - 1) % N_PAIRS;
		const double *turn = memory->turns + last * size;
		double scale = 1 / (memory->inverse[last] * dot(turn, turn, size));

		for (size_t i = 0; i < size; i++)
			direction[i] *= scale;
	}
	for (uint32_t k = first; k < memory->n; k++) {
		const double *step = memory->steps + (k % N_PAIRS) * size;
		const double *turn = memory->turns + (k % N_PAIRS) * size;
		double back = memory->inverse[k % N_PAIRS] * dot(turn, direction, size);

		for (size_t i = 0; i < size; i++)
			direction[i] += step[i] * (shares[k % N_PAIRS] - back);
	}
}

static void remember(struct memory *memory, const double *from, const double *to,
	const double *gradient, const double *next_gradient)
{
	uint32_t at = memory->n % N_PAIRS;
	double *step = memory->steps + at * memory->size;
	double *turn = memory->turns + at * memory->size;
	double along;

	for (size_t i = 0; i < memory->size; i++) {
		step[i] = to[i] - from[i];
		turn[i] = next_gradient[i] - gradient[i];
	}
	along = dot(step, turn, memory->size);
	if (!(along > CURVED * dot(turn, turn, memory->size))) {
		/* The slot held the oldest pair, which is lost: start over rather than mix. */
		memory->n = 0;
		return;
	}
	memory->inverse[at] = 1 / along;
	memory->n++;
}

/** Where the descent is, where it looks next; each (size). */
struct place {
	double *weights, *gradient;
	double loss;
};

/* Halves the step until the loss falls. @return false: it does not, at any length */
static bool walk(struct place *next, const struct place *here, const struct descent *d,
	const double *direction, size_t size, double length)
{
	double slope = dot(here->gradient, direction, size);

	for (uint32_t k = 0; k < MAX_HALVINGS; k++, length /= 2) {
		for (size_t i = 0; i < size; i++)
			next->weights[i] = here->weights[i] + length * direction[i];
		next->loss = look(d, next->weights, next->gradient);
		if (next->loss <= here->loss + ENOUGH * length * slope)
			return true;
	}
	return false;
}

static int descend(struct linear *linear, const struct descent *d, double *room)
{
	size_t size = (size_t)d->n_classes * (d->dim + 1u);
	struct memory memory = { .steps = room, .turns = room + N_PAIRS * size, .size = size };
	struct place here = { linear->weights, room + 2 * N_PAIRS * size, 0 };
	struct place next = { here.gradient + size, here.gradient + 2 * size, 0 };
	double *direction = here.gradient + 3 * size;

	here.loss = look(d, here.weights, here.gradient);
	linear->slope = largest_entry(here.gradient, size);
	while (linear->slope > FLAT && linear->n_iterations < MAX_ITERATIONS) {
		aim(direction, &memory, here.gradient);
		/* Without a memory the gradient's own length says nothing about a step's. */
		if (!walk(&next, &here, d, direction, size,
			    memory.n ? 1 : fmin(1, 1 / linear->slope)))
			break;
		remember(&memory, here.weights, next.weights, here.gradient, next.gradient);
		memcpy(here.weights, next.weights, size * sizeof(*here.weights));
		memcpy(here.gradient, next.gradient, size * sizeof(*here.gradient));
		here.loss = next.loss;
		linear->slope = largest_entry(here.gradient, size);
		linear->n_iterations++;
	}
	linear->loss = here.loss;
	return isfinite(here.loss) ? 0 : -EDOM;
}

static int check(const struct descent *d)
{
	if (d->n == 0 || d->dim == 0 || d->n_classes < 2)
		return -EINVAL;
	for (uint32_t i = 0; i < d->n; i++)
		if (d->labels[i] >= d->n_classes)
			return -EINVAL;
	for (size_t i = 0; i < (size_t)d->n * d->dim; i++)
		if (!isfinite(d->rows[i]))
			return -EDOM;
	return 0;
}

int linear_fit(struct linear **ret_linear, const float *rows, const uint32_t *labels, uint32_t n,
	uint32_t dim, uint32_t n_classes)
{
	struct descent d = { rows, labels, n, dim, n_classes, PENALTY / (n ? n : 1), NULL };
	size_t size = (size_t)n_classes * (dim + 1u);
	_cleanup_(linear_freep) struct linear *linear = calloc(1, sizeof(*linear));
	_cleanup_(freep) double *room = NULL, *scores = NULL;
	int r;

	r = check(&d);
	if (r < 0)
		return r;
	room = malloc((2 * N_PAIRS + 4) * size * sizeof(*room));
	scores = malloc(n_classes * sizeof(*scores));
	if (!linear || !room || !scores)
		return -ENOMEM;
	d.scores = scores;
	linear->dim = dim;
	linear->n_classes = n_classes;
	linear->weights = calloc(size, sizeof(*linear->weights));
	if (!linear->weights)
		return -ENOMEM;
	r = descend(linear, &d, room);
	if (r < 0)
		return r;
	*ret_linear = TAKE_PTR(linear);
	return 0;
}

void linear_free(struct linear *linear)
{
	if (!linear)
		return;
	free(linear->weights);
	free(linear);
}

uint32_t linear_classify(const struct linear *linear, const float *row)
{
	uint32_t best = 0;
	double highest = 0;

	for (uint32_t c = 0; c < linear->n_classes; c++) {
		double here =
			score(linear->weights + (size_t)c * (linear->dim + 1u), row, linear->dim);

		if (c == 0 || here > highest) {
			highest = here;
			best = c;
		}
	}
	return best;
}
