/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "classify/cosine.h"
#include "learn/head.h"

#define MIN_LENGTH 1e-12f

struct head head_map(float *flat, uint32_t width, uint32_t dim, uint32_t n_prototypes)
{
	return (struct head){
		.width = width,
		.dim = dim,
		.n_prototypes = n_prototypes,
		.weight = flat,
		.bias = flat + (size_t)dim * width,
		.prototypes = flat + (size_t)dim * width + dim,
	};
}

void head_renormalise(const struct head *head)
{
	cosine_normalise(head->prototypes, head->prototypes, head->n_prototypes, head->dim);
}

/* dst[i] = dot(rows[i], x) for n_rows rows. */
static void dots(float *dst, const float *rows, uint32_t n_rows, const float *x, uint32_t n)
{
	for (uint32_t i = 0; i < n_rows; i++)
		dst[i] = cosine_dot(rows + (size_t)i * n, x, n);
}

static void add_scaled(float *dst, const float *x, float scale, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		dst[i] += scale * x[i];
}

/* dst = sum_i weights[i] * rows[i]. */
static void combine(
	float *dst, const float *rows, const float *weights, uint32_t n_rows, uint32_t n)
{
	memset(dst, 0, n * sizeof(*dst));
	for (uint32_t i = 0; i < n_rows; i++)
		add_scaled(dst, rows + (size_t)i * n, weights[i], n);
}

/* rows[i] += weights[i] * x. */
static void add_outer(
	float *rows, const float *weights, uint32_t n_rows, const float *x, uint32_t n)
{
	for (uint32_t i = 0; i < n_rows; i++)
		add_scaled(rows + (size_t)i * n, x, weights[i], n);
}

void head_project(const struct head *head, const float *f, uint32_t n, float *z, float *lengths)
{
#pragma omp parallel for schedule(static)
	for (uint32_t i = 0; i < n; i++) {
		float *y = z + (size_t)i * head->dim;
		float length;

		dots(y, head->weight, head->dim, f + (size_t)i * head->width, head->width);
		add_scaled(y, head->bias, 1, head->dim);
		length = sqrtf(cosine_dot(y, y, head->dim));
		lengths[i] = length > MIN_LENGTH ? length : MIN_LENGTH;
		for (uint32_t j = 0; j < head->dim; j++)
			y[j] /= lengths[i];
	}
}

void head_score(const struct head *head, const float *z, uint32_t n, float *o)
{
#pragma omp parallel for schedule(static)
	for (uint32_t i = 0; i < n; i++)
		dots(o + (size_t)i * head->n_prototypes, head->prototypes, head->n_prototypes,
			z + (size_t)i * head->dim, head->dim);
}

void head_score_backward(float *d_prototypes, float *d_z, const struct head *head, const float *z,
	const float *d_o, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const float *d_o_i = d_o + (size_t)i * head->n_prototypes;

		add_outer(d_prototypes, d_o_i, head->n_prototypes, z + (size_t)i * head->dim,
			head->dim);
		combine(d_z + (size_t)i * head->dim, head->prototypes, d_o_i, head->n_prototypes,
			head->dim);
	}
}

/* d_z becomes dL/dy: what lies along z cannot change a direction. */
static void normalise_backward(float *d_z, const float *z, float length, uint32_t dim)
{
	float along = cosine_dot(d_z, z, dim);

	for (uint32_t j = 0; j < dim; j++)
		d_z[j] = (d_z[j] - along * z[j]) / length;
}

void head_backward(const struct head *grad, float *d_f, const struct head *head, const float *f,
	const float *z, const float *lengths, const float *d_o, uint32_t n, float *d_z)
{
	memset(grad->weight, 0,
		head_size(head->width, head->dim, head->n_prototypes) * sizeof(*grad->weight));
	head_score_backward(grad->prototypes, d_z, head, z, d_o, n);
	for (uint32_t i = 0; i < n; i++) {
		float *d_y = d_z + (size_t)i * head->dim;

		normalise_backward(d_y, z + (size_t)i * head->dim, lengths[i], head->dim);
		add_outer(grad->weight, d_y, head->dim, f + (size_t)i * head->width, head->width);
		add_scaled(grad->bias, d_y, 1, head->dim);
		combine(d_f + (size_t)i * head->width, head->weight, d_y, head->dim, head->width);
	}
}
