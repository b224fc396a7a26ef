/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "learn/head.h"
#include "learn/micm.h"
#include "learn/warm.h"

/* Units 0..dim-1 of a hidden layer carry y, the next dim -y; what is more keeps its random start and
 * is not listened to yet. */
static void pass_on(const struct micm_head_shape *shape, float *w, uint32_t n_rows)
{
	uint32_t dim = shape->dim;

	for (uint32_t i = 0; i < n_rows && i < 2 * dim; i++) {
		float *row = w + (size_t)i * shape->hidden, sign = i < dim ? 1 : -1;

		memset(row, 0, shape->hidden * sizeof(*row));
		row[i % dim] = sign;
		row[dim + i % dim] = -sign;
	}
}

static void set_first(const struct micm_head_shape *shape, const struct micm_head_values *values,
	const struct head *linear)
{
	size_t n = (size_t)shape->dim * shape->width;

	memcpy(values->w1, linear->weight, n * sizeof(*values->w1));
	memcpy(values->b1, linear->bias, shape->dim * sizeof(*values->b1));
	for (size_t i = 0; i < n; i++)
		values->w1[n + i] = -linear->weight[i];
	for (uint32_t i = 0; i < shape->dim; i++)
		values->b1[shape->dim + i] = -linear->bias[i];
}

int micm_head_warm(const struct micm_head_shape *shape, float *flat, const float *features,
	uint32_t n, uint64_t seed)
{
	const struct micm_head_values values = micm_head_map(shape, flat);
	_cleanup_(freep) float *linear_values = malloc(
		head_size(shape->width, shape->dim, shape->n_outputs) * sizeof(*linear_values));
	struct head linear;
	int r;

	if (!linear_values)
		return -ENOMEM;
	if (shape->hidden < 2 * shape->dim)
		return -EINVAL;
	linear = head_map(linear_values, shape->width, shape->dim, shape->n_outputs);
	r = warm_start(&linear, features, n, seed);
	if (r < 0)
		return r;
	set_first(shape, &values, &linear);
	pass_on(shape, values.w2, shape->hidden);
	pass_on(shape, values.w3, shape->dim);
	memcpy(values.v, linear.prototypes,
		(size_t)shape->n_outputs * shape->dim * sizeof(*values.v));
	return 0;
}
