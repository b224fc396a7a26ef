/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "classify/cosine.h"
#include "learn/micm_head.h"
#include "learn/plot.h"
#include "learn/streams.h"
#include "model/dense.h"
#include "onednn/op.h"

/* Rows that go through a product at a time: how many there are differs from step to step. */
#define ROWS 128u
#define N_PLOTS 15
#define START_DEVIATION .02f

struct micm_head {
	struct micm_head_shape shape;
	uint32_t max_rows; /* whole ROWS */
	struct dense *first, *second, *third, *last;
	struct op *gelu, *gelu_backward;
	struct arena *arena;

	float *x, *d_x;     /* (max_rows, width) */
	float *a1, *h1;     /* (max_rows, hidden) before and behind the GELU */
	float *a2, *h2;     /* (max_rows, hidden) */
	float *z;           /* (max_rows, dim) */
	float *lengths;     /* (max_rows) of z before it was a direction */
	float *o, *d_o;     /* (max_rows, n_outputs) */
	float *effective;   /* (n_outputs, dim): gain * V / |V| */
	float *d_effective; /* like it */
	float *d_h1, *d_h2; /* (ROWS, hidden) */
	float *d_z;         /* (ROWS, dim) */
};

size_t micm_head_size(const struct micm_head_shape *shape)
{
	size_t hidden = shape->hidden;

	return hidden * (shape->width + 1) + hidden * (hidden + 1) + shape->dim * (hidden + 1) +
	       (size_t)shape->n_outputs * (shape->dim + 1);
}

struct micm_head_values micm_head_map(const struct micm_head_shape *shape, float *flat)
{
	size_t hidden = shape->hidden;
	struct micm_head_values values;

	values.w1 = flat;
	values.b1 = values.w1 + hidden * shape->width;
	values.w2 = values.b1 + hidden;
	values.b2 = values.w2 + hidden * hidden;
	values.w3 = values.b2 + hidden;
	values.b3 = values.w3 + shape->dim * hidden;
	values.v = values.b3 + shape->dim;
	values.gain = values.v + (size_t)shape->n_outputs * shape->dim;
	return values;
}

static void draw_weights(struct rng *rng, float *w, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float value;

		do
			value = rng_normal(rng);
		while (fabsf(value) > 2);
		w[i] = START_DEVIATION * value;
	}
}

void micm_head_draw(const struct micm_head_shape *shape, float *flat, uint64_t seed)
{
	struct micm_head_values values = micm_head_map(shape, flat);
	struct rng rng = rng_stream(seed, 0, 0, STREAM_HEAD);
	float bound = 1 / sqrtf((float)shape->dim);

	memset(flat, 0, micm_head_size(shape) * sizeof(*flat));
	draw_weights(&rng, values.w1, (size_t)shape->hidden * shape->width);
	draw_weights(&rng, values.w2, (size_t)shape->hidden * shape->hidden);
	draw_weights(&rng, values.w3, (size_t)shape->dim * shape->hidden);
	for (size_t i = 0; i < (size_t)shape->n_outputs * shape->dim; i++)
		values.v[i] = rng_range(&rng, -bound, bound);
	for (uint32_t k = 0; k < shape->n_outputs; k++)
		values.gain[k] = 1;
}

static int make_ops(struct micm_head *head, struct vit *vit)
{
	const struct micm_head_shape *shape = &head->shape;
	struct onednn *onednn = vit_onednn(vit);
	const struct {
		struct dense **ret_dense;
		struct dense_shape shape;
	} layers[] = {
		{ &head->first, { ROWS, shape->hidden, shape->width } },
		{ &head->second, { ROWS, shape->hidden, shape->hidden } },
		{ &head->third, { ROWS, shape->dim, shape->hidden } },
		{ &head->last, { ROWS, shape->n_outputs, shape->dim, .no_bias = true } },
	};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(layers); i++)
		r = dense_new(layers[i].ret_dense, vit, &layers[i].shape);
	if (r == 0)
		r = op_gelu_new(&head->gelu, onednn, ROWS, shape->hidden);
	return r < 0 ? r : op_gelu_backward_new(&head->gelu_backward, onednn, ROWS, shape->hidden);
}

static void fill_plots(struct micm_head *head, struct plot *plots)
{
	const struct micm_head_shape *shape = &head->shape;
	size_t rows = head->max_rows, hidden = rows * shape->hidden;
	size_t n_last = (size_t)shape->n_outputs * shape->dim;
	const struct plot all[N_PLOTS] = {
		{ &head->x, rows * shape->width },
		{ &head->d_x, rows * shape->width },
		{ &head->a1, hidden },
		{ &head->h1, hidden },
		{ &head->a2, hidden },
		{ &head->h2, hidden },
		{ &head->z, rows * shape->dim },
		{ &head->lengths, rows },
		{ &head->o, rows * shape->n_outputs },
		{ &head->d_o, rows * shape->n_outputs },
		{ &head->effective, n_last },
		{ &head->d_effective, n_last },
		{ &head->d_h1, (size_t)ROWS * shape->hidden },
		{ &head->d_h2, (size_t)ROWS * shape->hidden },
		{ &head->d_z, (size_t)ROWS * shape->dim },
	};

	memcpy(plots, all, sizeof(all));
}

static int allocate(struct micm_head *head)
{
	struct plot plots[N_PLOTS];

	fill_plots(head, plots);
	return plot_lay_out(&head->arena, plots, N_PLOTS);
}

static uint32_t whole_rows(uint32_t n)
{
	return (n + ROWS - 1) / ROWS * ROWS;
}

size_t micm_head_bytes(const struct micm_head_shape *shape, uint32_t max_rows)
{
	struct micm_head head = { .shape = *shape, .max_rows = whole_rows(max_rows) };
	struct plot plots[N_PLOTS];

	fill_plots(&head, plots);
	return plot_bytes(plots, N_PLOTS);
}

int micm_head_new(struct micm_head **ret_head, struct vit *vit, const struct micm_head_shape *shape,
	uint32_t max_rows)
{
	_cleanup_(micm_head_freep) struct micm_head *head = calloc(1, sizeof(*head));
	int r;

	if (!head)
		return -ENOMEM;
	head->shape = *shape;
	head->max_rows = whole_rows(max_rows);
	r = allocate(head);
	if (r == 0)
		r = make_ops(head, vit);
	if (r < 0)
		return r;
	*ret_head = TAKE_PTR(head);
	return 0;
}

void micm_head_free(struct micm_head *head)
{
	if (!head)
		return;
	op_free(head->gelu_backward);
	op_free(head->gelu);
	dense_free(head->last);
	dense_free(head->third);
	dense_free(head->second);
	dense_free(head->first);
	arena_free(head->arena);
	free(head);
}

float *micm_head_input(struct micm_head *head)
{
	return head->x;
}

const float *micm_head_outputs(const struct micm_head *head)
{
	return head->o;
}

float *micm_head_d_outputs(struct micm_head *head)
{
	return head->d_o;
}

const float *micm_head_d_input(const struct micm_head *head)
{
	return head->d_x;
}

static void normalise_last(struct micm_head *head, const struct micm_head_values *values)
{
	uint32_t dim = head->shape.dim;

	for (uint32_t k = 0; k < head->shape.n_outputs; k++) {
		const float *v = values->v + (size_t)k * dim;
		float *w = head->effective + (size_t)k * dim;
		float scale = values->gain[k] / cosine_length(v, dim);

		for (uint32_t j = 0; j < dim; j++)
			w[j] = scale * v[j];
	}
}

/* z of the block's rows becomes a direction. */
static void normalise_rows(struct micm_head *head, size_t row)
{
	uint32_t dim = head->shape.dim;

	for (size_t i = row; i < row + ROWS; i++) {
		float *z = head->z + i * dim;

		head->lengths[i] = cosine_length(z, dim);
		for (uint32_t j = 0; j < dim; j++)
			z[j] /= head->lengths[i];
	}
}

static int gelu(struct micm_head *head, const float *a, float *h)
{
	op_bind(head->gelu, OP_SRC, a);
	op_bind(head->gelu, OP_DST, h);
	return op_run(head->gelu);
}

static int forward_block(struct micm_head *head, const struct micm_head_values *values, size_t row)
{
	const struct micm_head_shape *shape = &head->shape;
	float *a1 = head->a1 + row * shape->hidden, *h1 = head->h1 + row * shape->hidden;
	float *a2 = head->a2 + row * shape->hidden, *h2 = head->h2 + row * shape->hidden;
	float *z = head->z + row * shape->dim;
	int r;

	r = dense_forward(head->first, values->w1, values->b1, head->x + row * shape->width, a1);
	if (r == 0)
		r = gelu(head, a1, h1);
	if (r == 0)
		r = dense_forward(head->second, values->w2, values->b2, h1, a2);
	if (r == 0)
		r = gelu(head, a2, h2);
	if (r == 0)
		r = dense_forward(head->third, values->w3, values->b3, h2, z);
	if (r < 0)
		return r;
	normalise_rows(head, row);
	return dense_forward(
		head->last, head->effective, NULL, z, head->o + row * shape->n_outputs);
}

/* 0 in the rows from n to the end of its block, where nobody has put anything. */
static void blank(float *rows, uint32_t n, size_t width)
{
	size_t n_all = (n + ROWS - 1) / ROWS * ROWS;

	memset(rows + n * width, 0, (n_all - n) * width * sizeof(*rows));
}

int micm_head_forward(struct micm_head *head, const float *flat, uint32_t n)
{
	const struct micm_head_values values = micm_head_map(&head->shape, (float *)flat);
	int r = 0;

	normalise_last(head, &values);
	blank(head->x, n, head->shape.width);
	for (size_t row = 0; r == 0 && row < n; row += ROWS)
		r = forward_block(head, &values, row);
	return r;
}

/* d_z becomes the gradient of what the direction was taken of: what lies along z has no say. */
static void normalise_backward(struct micm_head *head, size_t row)
{
	uint32_t dim = head->shape.dim;

	for (size_t i = 0; i < ROWS; i++) {
		const float *z = head->z + (row + i) * dim;
		float *d_z = head->d_z + i * dim;
		float along = cosine_dot(d_z, z, dim);

		for (uint32_t j = 0; j < dim; j++)
			d_z[j] = (d_z[j] - along * z[j]) / head->lengths[row + i];
	}
}

static int gelu_backward(struct micm_head *head, const float *a, float *d)
{
	op_bind(head->gelu_backward, OP_SRC, a);
	op_bind(head->gelu_backward, OP_DIFF_DST, d);
	op_bind(head->gelu_backward, OP_DIFF_SRC, d);
	return op_run(head->gelu_backward);
}

static int backward_block(struct micm_head *head, const struct micm_head_values *values,
	const struct micm_head_values *grad, size_t row)
{
	const struct micm_head_shape *shape = &head->shape;
	const size_t hidden = row * shape->hidden;
	int r;

	r = dense_backward(head->last, head->effective, head->z + row * shape->dim,
		head->d_o + row * shape->n_outputs, head->d_effective, NULL, head->d_z);
	if (r < 0)
		return r;
	normalise_backward(head, row);
	r = dense_backward(head->third, values->w3, head->h2 + hidden, head->d_z, grad->w3,
		grad->b3, head->d_h2);
	if (r == 0)
		r = gelu_backward(head, head->a2 + hidden, head->d_h2);
	if (r == 0)
		r = dense_backward(head->second, values->w2, head->h1 + hidden, head->d_h2,
			grad->w2, grad->b2, head->d_h1);
	if (r == 0)
		r = gelu_backward(head, head->a1 + hidden, head->d_h1);
	if (r < 0)
		return r;
	return dense_backward(head->first, values->w1, head->x + row * shape->width, head->d_h1,
		grad->w1, grad->b1, head->d_x + row * shape->width);
}

static void last_backward(struct micm_head *head, const struct micm_head_values *values,
	const struct micm_head_values *grad)
{
	uint32_t dim = head->shape.dim;

	for (uint32_t k = 0; k < head->shape.n_outputs; k++) {
		const float *v = values->v + (size_t)k * dim;
		const float *d = head->d_effective + (size_t)k * dim;
		float length = cosine_length(v, dim), scale = values->gain[k] / length;
		float along = cosine_dot(d, v, dim) / length;

		grad->gain[k] = along;
		for (uint32_t j = 0; j < dim; j++)
			grad->v[(size_t)k * dim + j] = scale * (d[j] - along * v[j] / length);
	}
}

int micm_head_backward(struct micm_head *head, const float *flat, uint32_t n, float *grad)
{
	const struct micm_head_values values = micm_head_map(&head->shape, (float *)flat);
	const struct micm_head_values gradients = micm_head_map(&head->shape, grad);
	size_t n_last = (size_t)head->shape.n_outputs * head->shape.dim;
	int r = 0;

	memset(grad, 0, micm_head_size(&head->shape) * sizeof(*grad));
	memset(head->d_effective, 0, n_last * sizeof(*head->d_effective));
	blank(head->d_o, n, head->shape.n_outputs);
	for (size_t row = 0; r == 0 && row < n; row += ROWS)
		r = backward_block(head, &values, &gradients, row);
	if (r == 0)
		last_backward(head, &values, &gradients);
	return r;
}
