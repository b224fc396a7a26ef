/* SPDX-License-Identifier: Apache-2.0 */
#include "floor_step.h"

#include <errno.h>
#include <stdlib.h>

#include "onednn/op.h"

/* y = A f + b, o = C z, past o, and the gradients of C, z, A and f. */
enum { N_HEAD_PRODUCTS = 7 };

/* dst (m, n) = a (m, k) b (k, n), each with the largest there is of its kind. */
struct head {
	struct onednn *onednn;
	struct op *products[N_HEAD_PRODUCTS];
	float *a, *b, *dst;
};

struct floor_step {
	struct floor *floors[FLOOR_N_SIZES];
	struct head head;
};

struct extent {
	int64_t m, k, n;
};

static float *filled(size_t n)
{
	float *values = malloc(n * sizeof(*values));

	for (size_t i = 0; values && i < n; i++)
		values[i] = (float)(i % 127) / 1024;
	return values;
}

static size_t larger(size_t a, int64_t m, int64_t n)
{
	return a > (size_t)(m * n) ? a : (size_t)(m * n);
}

static int head_init(struct head *head, const struct floor_step_options *options)
{
	const int64_t rows = (int64_t)options->views[0].n + options->views[1].n;
	const int64_t width = options->shape->width, dim = options->head.dim;
	const int64_t k = options->head.n_prototypes;
	const struct extent extents[N_HEAD_PRODUCTS] = { { rows, width, dim }, { rows, dim, k },
		{ options->head.n_queued, dim, k }, { k, rows, dim }, { rows, k, dim },
		{ dim, rows, width }, { rows, dim, width } };
	size_t n_a = 0, n_b = 0, n_dst = 0;
	int r = onednn_new(&head->onednn);

	for (unsigned i = 0; i < N_HEAD_PRODUCTS && r == 0; i++) {
		const struct extent *e = &extents[i];

		n_a = larger(n_a, e->m, e->k);
		n_b = larger(n_b, e->k, e->n);
		n_dst = larger(n_dst, e->m, e->n);
		if (e->m > 0)
			r = op_matmul_new(&head->products[i], head->onednn,
				&(struct op_matmul){
					.src = view_2d(e->m, e->k),
					.weights = view_2d(e->k, e->n),
					.dst = view_2d(e->m, e->n),
				});
	}
	if (r < 0)
		return r;
	head->a = filled(n_a);
	head->b = filled(n_b);
	head->dst = filled(n_dst);
	return head->a && head->b && head->dst ? 0 : -ENOMEM;
}

static void head_done(struct head *head)
{
	for (unsigned i = 0; i < N_HEAD_PRODUCTS; i++)
		op_free(head->products[i]);
	free(head->a);
	free(head->b);
	free(head->dst);
	onednn_free(head->onednn);
}

int floor_step_new(struct floor_step **ret_step, const struct floor_step_options *options)
{
	_cleanup_(floor_step_freep) struct floor_step *step = calloc(1, sizeof(*step));
	int r;

	if (!step)
		return -ENOMEM;
	r = head_init(&step->head, options);
	for (unsigned i = 0; i < FLOOR_N_SIZES && r == 0; i++)
		if (options->views[i].n > 0)
			r = floor_new(&step->floors[i], &(struct floor_options){
								.shape = options->shape,
								.batch = options->views[i].n,
								.px = options->views[i].px,
								.layout = options->layout,
								.precision = options->precision,
								.back = true,
							});
	if (r < 0)
		return r;
	*ret_step = TAKE_PTR(step);
	return 0;
}

void floor_step_free(struct floor_step *step)
{
	if (!step)
		return;
	for (unsigned i = 0; i < FLOOR_N_SIZES; i++)
		floor_free(step->floors[i]);
	head_done(&step->head);
	free(step);
}

int floor_step_run(struct floor_step *step)
{
	const struct head *head = &step->head;
	int r = 0;

	for (unsigned i = 0; i < FLOOR_N_SIZES && r == 0; i++)
		if (step->floors[i])
			r = floor_run(step->floors[i]);
	for (unsigned i = 0; i < N_HEAD_PRODUCTS && r == 0; i++)
		if (head->products[i])
			r = op_run_on(head->products[i], head->a, head->b, head->dst);
	for (unsigned i = 0; i < FLOOR_N_SIZES && r == 0; i++)
		if (step->floors[i])
			r = floor_run_back(step->floors[i]);
	return r;
}
