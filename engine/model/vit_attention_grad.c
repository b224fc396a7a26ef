/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/row_grad.h"
#include "model/vit_internal.h"

/* What the five products read and write; they differ in nothing else between the precisions. */
struct operands {
	struct view q, k, v; /* of each head; a gradient lies as what it is one of */
	struct view out;     /* attention's result */
	struct view probs;
};

static struct operands operands_of(const struct vit_shape *shape, struct vit_extent extent)
{
	const uint32_t head = shape->width / shape->n_heads;
	const uint32_t q = extent.n_queries, t = extent.n_tokens;
	struct operands o;

	if (extent.precision == PRECISION_F32) {
		o.q = vit_view_qkv(shape, extent, q);
		o.k = vit_view_qkv(shape, extent, t);
		o.out = vit_view_heads(shape, extent);
		o.probs = vit_view_probs(shape, extent);
	} else {
		o.q = vit_view_dense(shape, extent, q, head);
		o.k = vit_view_dense(shape, extent, t, head);
		o.out = o.q;
		o.probs = vit_view_dense(shape, extent, q, t);
	}
	o.v = o.k;
	return o;
}

int vit_attention_grad_init(
	struct vit_attention_grad *grad, const struct vit *vit, struct vit_extent extent)
{
	const struct vit_shape *shape = &vit->shape;
	const struct operands o = operands_of(shape, extent);
	const struct view probs_t = vit_view_transposed(o.probs);
	const float factor = vit_attention_factor(shape);
	const struct {
		struct op **op;
		struct op_matmul matmul;
	} products[] = {
		{ &grad->dprobs,
			{ .src = o.out, .weights = vit_view_transposed(o.v), .dst = o.probs } },
		{ &grad->dv, { .src = probs_t, .weights = o.out, .dst = o.v } },
		{ &grad->dq, { .src = o.probs, .weights = o.k, .dst = o.q, .factor = factor } },
		{ &grad->dk, { .src = probs_t, .weights = o.q, .dst = o.k, .factor = factor } },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(products); i++)
		r = op_matmul_new(products[i].op, vit->onednn, &products[i].matmul);
	if (r < 0 || extent.precision != PRECISION_F32)
		return r;
	return op_softmax_backward_new(&grad->softmax, vit->onednn,
		(int64_t)extent.n * shape->n_heads * extent.n_queries, extent.n_tokens);
}

void vit_attention_grad_done(struct vit_attention_grad *grad)
{
	op_free(grad->dprobs);
	op_free(grad->dv);
	op_free(grad->softmax);
	op_free(grad->dq);
	op_free(grad->dk);
}

/* Where the products' operands lie. */
struct places {
	const void *q, *k, *v, *d_out;
	void *dq, *dk, *dv;
};

/* d_probs: of the probabilities to of the logits */
static int run_softmax(
	struct vit_attention_grad *grad, size_t rows, size_t n, const void *probs, void *d_probs)
{
	if (!grad->softmax) {
		row_softmax_grad(d_probs, probs, rows, n);
		return 0;
	}
	op_bind(grad->softmax, OP_DST, probs);
	op_bind(grad->softmax, OP_DIFF_DST, d_probs);
	op_bind(grad->softmax, OP_DIFF_SRC, d_probs);
	return op_run(grad->softmax);
}

static int run(struct vit_attention_grad *grad, const struct places *at, size_t rows, size_t n,
	const void *probs, void *d_probs)
{
	int r;

	r = op_run_on(grad->dprobs, at->d_out, at->v, d_probs);
	if (r == 0)
		r = op_run_on(grad->dv, probs, at->d_out, at->dv);
	if (r == 0)
		r = run_softmax(grad, rows, n, probs, d_probs);
	if (r == 0)
		r = op_run_on(grad->dq, d_probs, at->k, at->dq);
	return r == 0 ? op_run_on(grad->dk, d_probs, at->q, at->dk) : r;
}

static size_t n_rows(const struct vit *vit, struct vit_extent extent)
{
	return (size_t)extent.n * vit->shape.n_heads * extent.n_queries;
}

static int backward_strided(struct vit_attention_grad *grad, const struct vit *vit,
	struct vit_extent extent, const struct vit_block_data *data, const struct vit_grad_data *d)
{
	const size_t width = vit->shape.width;
	const float *qkv = data->qkv;
	float *d_qkv = d->qkv;

	/* Queries that nobody asked for have no gradient. */
	if (extent.n_queries < extent.n_tokens)
		memset(d_qkv, 0, (size_t)extent.n * extent.n_tokens * 3 * width * sizeof(*d_qkv));
	return run(grad,
		&(struct places){
			.q = qkv,
			.k = qkv + width,
			.v = qkv + 2 * width,
			.d_out = d->att,
			.dq = d_qkv,
			.dk = d_qkv + width,
			.dv = d_qkv + 2 * width,
		},
		n_rows(vit, extent), extent.n_tokens, data->probs, d->probs);
}

static int backward_dense(struct vit_attention_grad *grad, const struct vit *vit,
	struct vit_extent extent, const struct vit_block_data *data, const struct vit_grad_data *d)
{
	const struct vit_heads *heads = &data->heads;
	int r;

	vit_heads_take(&vit->shape, extent, d->att, &d->heads);
	r = run(grad,
		&(struct places){
			.q = heads->q,
			.k = heads->k,
			.v = heads->v,
			.d_out = d->heads.out,
			.dq = d->heads.q,
			.dk = d->heads.k,
			.dv = d->heads.v,
		},
		n_rows(vit, extent), extent.n_tokens, data->probs, d->probs);
	if (r < 0)
		return r;
	vit_heads_join(&vit->shape, extent, &d->heads, d->qkv);
	return 0;
}

int vit_attention_backward(struct vit_attention_grad *grad, const struct vit *vit,
	struct vit_extent extent, const struct vit_block_data *data, const struct vit_grad_data *d)
{
	return extent.precision == PRECISION_F32 ? backward_strided(grad, vit, extent, data, d)
						 : backward_dense(grad, vit, extent, data, d);
}
