/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/vit_internal.h"

/* y = x W'^T + b': dW' += dy^T x, db' += 1^T dy, dx = dy W', times the norm's gamma where x comes
 * from a norm. dy and dx as views, x in dy's precision. */
static int layer_init(struct vit_layer_grad *layer, const struct vit *vit, struct view dy,
	struct view dx, bool gamma)
{
	_cleanup_(packed_freep) struct packed *packed = NULL;
	const int64_t rows = dy.dims[0], n_out = dy.dims[1], n_in = dx.dims[1];
	int r;

	r = packed_new(&packed, vit->onednn, n_out, n_in, PACKED_K_BY_N, dy.precision);
	if (r < 0)
		return r;
	r = op_matmul_new(&layer->dx, vit->onednn,
		&(struct op_matmul){
			.src = dy,
			.packed = packed,
			.dst = dx,
			.scale = true,
			.columns = gamma,
		});
	if (r < 0)
		return r;
	r = op_matmul_new(&layer->dw, vit->onednn,
		&(struct op_matmul){
			.src = vit_view_transposed(dy),
			.weights = view_in(dx, dy.precision),
			.dst = view_2d(n_out, n_in),
			.then = OP_THEN_ADD,
		});
	if (r < 0)
		return r;
	return op_matmul_new(&layer->db, vit->onednn,
		&(struct op_matmul){
			.src = view_in(view_2d(1, rows), dy.precision),
			.weights = dy,
			.dst = view_2d(1, n_out),
			.then = OP_THEN_ADD,
		});
}

static int layers_init(struct vit_block_grad *grad, const struct vit *vit)
{
	const struct vit_extent *e = &grad->extent;
	const int64_t width = vit->shape.width, mlp = vit->shape.mlp;
	const int64_t all = (int64_t)e->n * e->n_tokens, rows = (int64_t)e->n * e->n_queries;
	const struct view g = view_in(view_2d(rows, width), e->precision);
	const struct view hidden = view_in(view_2d(rows, mlp), e->precision);
	const struct view qkv = view_in(view_2d(all, 3 * width), e->precision);
	struct vit_layer_grad *layers = grad->layers;
	int r;

	r = layer_init(&layers[VIT_QKV], vit, qkv, view_2d(all, width), true);
	if (r == 0)
		r = layer_init(&layers[VIT_PROJ], vit, g, g, false);
	if (r == 0)
		r = layer_init(&layers[VIT_FC1], vit, hidden, view_2d(rows, width), true);
	if (r == 0)
		r = layer_init(&layers[VIT_FC2], vit, g, hidden, false);
	if (r < 0 || e->precision == PRECISION_F32)
		return r;
	return op_round_new(&grad->round_g, vit->onednn, rows, width, e->precision);
}

int vit_block_grad_init(
	struct vit_block_grad *grad, const struct vit *vit, struct vit_extent extent)
{
	const struct vit_shape *shape = &vit->shape;
	const int64_t width = shape->width;
	const int64_t all = (int64_t)extent.n * extent.n_tokens;
	const int64_t rows = (int64_t)extent.n * extent.n_queries;
	int r;

	grad->extent = extent;
	r = layers_init(grad, vit);
	if (r == 0 && extent.precision == PRECISION_F32)
		r = op_gelu_backward_new(&grad->gelu, vit->onednn, rows, shape->mlp);
	if (r == 0)
		r = op_norm_backward_new(&grad->norm2, vit->onednn, rows, width, shape->norm_eps);
	if (r == 0)
		r = op_norm_backward_new(&grad->norm1, vit->onednn, all, width, shape->norm_eps);
	if (r == 0)
		r = op_add_new(&grad->add, vit->onednn, rows, width);
	return r == 0 ? vit_attention_grad_init(&grad->attention, vit, extent) : r;
}

void vit_block_grad_done(struct vit_block_grad *grad)
{
	for (int layer = 0; layer < VIT_N_LAYERS; layer++) {
		op_free(grad->layers[layer].dx);
		op_free(grad->layers[layer].dw);
		op_free(grad->layers[layer].db);
	}
	op_free(grad->gelu);
	op_free(grad->round_g);
	op_free(grad->norm2);
	op_free(grad->norm1);
	op_free(grad->add);
	vit_attention_grad_done(&grad->attention);
}

int vit_run_norm_backward(struct op *op, const float *src, const float *mean, const float *variance,
	const float *d_dst, float *d_src)
{
	op_bind(op, OP_SRC, src);
	op_bind(op, OP_MEAN, mean);
	op_bind(op, OP_VARIANCE, variance);
	op_bind(op, OP_DIFF_DST, d_dst);
	op_bind(op, OP_DIFF_SRC, d_src);
	return op_run(op);
}

/* What a layer's backward pass needs to know beside its operands. */
struct pass {
	struct vit_block_grad *grad;
	const struct vit *vit;
	const struct slot_entry *entries; /* (VIT_N_LAYERS) of this block */
	const struct vit_grad_data *d;
	unsigned first_tensor; /* of this block */
};

/* dx NULL: not wanted; norm: where x comes from, or NULL */
static int run_layer(const struct pass *p, enum vit_layer layer, const void *x, const void *dy,
	void *dx, const struct vit_norm *norm)
{
	const struct mask_tensor *tensor =
		&p->vit->layout->tensors[p->first_tensor + 2 * (unsigned)layer];
	struct vit_layer_grad *ops = &p->grad->layers[layer];
	int r;

	r = op_run_on(ops->dw, dy, x, p->d->grad + tensor[0].offset);
	if (r == 0)
		r = op_run_on(ops->db, p->d->ones, dy, p->d->grad + tensor[1].offset);
	if (r < 0 || !dx)
		return r;
	op_bind(ops->dx, OP_SRC, dy);
	op_use(ops->dx, p->entries[layer].backward);
	op_bind(ops->dx, OP_SCALE, &p->entries[layer].scale);
	if (norm)
		op_bind(ops->dx, OP_COLUMNS, norm->weight);
	op_bind(ops->dx, OP_DST, dx);
	return op_run(ops->dx);
}

static int add_to(struct op *add, float *dst, const float *src)
{
	return op_run_on(add, dst, src, dst);
}

/* d->hidden: of what leaves the GELU to of what enters it */
static int run_gelu(const struct pass *p, const struct vit_block_data *data)
{
	const struct vit_extent *e = &p->grad->extent;
	struct op *gelu = p->grad->gelu;

	if (!gelu) {
		row_gelu_grad(
			p->d->hidden, data->pre, (size_t)e->n * e->n_queries * p->vit->shape.mlp);
		return 0;
	}
	op_bind(gelu, OP_SRC, data->pre);
	op_bind(gelu, OP_DIFF_DST, p->d->hidden);
	op_bind(gelu, OP_DIFF_SRC, p->d->hidden);
	return op_run(gelu);
}

/* d->g.values: of the block's output to of mid */
static int run_mlp(const struct pass *p, uint32_t b, const struct vit_block_data *data)
{
	const struct vit_grad_data *d = p->d;
	int r;

	r = vit_round(p->grad->round_g, &d->g);
	if (r == 0)
		r = run_layer(p, VIT_FC2, data->hidden, d->g.rounded, d->hidden, NULL);
	if (r < 0)
		return r;
	r = run_gelu(p, data);
	if (r == 0)
		r = run_layer(p, VIT_FC1, data->y2, d->hidden, d->y, &p->vit->norm2[b]);
	if (r == 0)
		r = vit_run_norm_backward(
			p->grad->norm2, data->mid, data->mean2, data->var2, d->y, d->y);
	return r == 0 ? add_to(p->grad->add, d->g.values, d->y) : r;
}

/* The residual's gradient joins that of the first norm, in d->below. */
static int join_residual(const struct pass *p)
{
	const struct vit_extent *e = &p->grad->extent;
	const struct vit_grad_data *d = p->d;
	const size_t width = p->vit->shape.width;

	if (e->n_queries == e->n_tokens)
		return add_to(p->grad->add, d->below, d->y);
	memcpy(d->below, d->y, (size_t)e->n * e->n_tokens * width * sizeof(float));
	for (size_t i = 0; i < e->n; i++)
		for (size_t j = 0; j < width; j++)
			d->below[i * e->n_tokens * width + j] += d->g.values[i * width + j];
	return 0;
}

int vit_block_backward(struct vit_block_grad *grad, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_grad_data *d, bool below)
{
	const struct pass p = {
		.grad = grad,
		.vit = vit,
		.entries = slot_entry(slot, vit_layer_index(b, VIT_QKV)),
		.d = d,
		.first_tensor = 2 * vit_layer_index(b, VIT_QKV),
	};
	int r;

	r = run_mlp(&p, b, data);
	if (r == 0)
		r = vit_round(grad->round_g, &d->g);
	if (r == 0)
		r = run_layer(&p, VIT_PROJ, data->att, d->g.rounded, d->att, NULL);
	if (r == 0)
		r = vit_attention_backward(&grad->attention, vit, grad->extent, data, d);
	if (r == 0)
		r = run_layer(&p, VIT_QKV, data->y1, d->qkv, below ? d->y : NULL, &vit->norm1[b]);
	if (r < 0 || !below)
		return r;
	r = vit_run_norm_backward(grad->norm1, data->x, data->mean1, data->var1, d->y, d->y);
	return r == 0 ? join_residual(&p) : r;
}
