/* SPDX-License-Identifier: Apache-2.0 */
#include "model/row_grad.h"
#include "model/vit_internal.h"

/* y = x W'^T + b': dW' += dy^T x, dx = dy W'. dy and dx as views, x in dy's precision. */
static int layer_init(
	struct vit_layer_grad *layer, const struct vit *vit, struct view dy, struct view dx)
{
	_cleanup_(packed_freep) struct packed *packed = NULL;
	const int64_t n_out = dy.dims[1], n_in = dx.dims[1];
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
		});
	if (r < 0)
		return r;
	return op_matmul_new(&layer->dw, vit->onednn,
		&(struct op_matmul){
			.src = vit_view_transposed(dy),
			.weights = view_in(dx, dy.precision),
			.dst = view_2d(n_out, n_in),
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

	r = layer_init(&layers[VIT_QKV], vit, qkv, view_2d(all, width));
	if (r == 0)
		r = layer_init(&layers[VIT_PROJ], vit, g, g);
	if (r == 0)
		r = layer_init(&layers[VIT_FC1], vit, hidden, view_2d(rows, width));
	return r == 0 ? layer_init(&layers[VIT_FC2], vit, g, hidden) : r;
}

int vit_block_grad_init(
	struct vit_block_grad *grad, const struct vit *vit, struct vit_extent extent)
{
	const struct vit_shape *shape = &vit->shape;
	const int64_t rows = (int64_t)extent.n * extent.n_queries;
	int r;

	grad->extent = extent;
	r = layers_init(grad, vit);
	if (r == 0 && extent.precision == PRECISION_F32)
		r = op_gelu_backward_new(&grad->gelu, vit->onednn, rows, shape->mlp);
	return r == 0 ? vit_attention_grad_init(&grad->attention, vit, extent) : r;
}

void vit_norm_sums(const struct vit *vit, float *grad, const struct vit_norm *norm,
	const struct norm_sums *sums)
{
	struct norm_sums job = *sums;

	if (!vit->params || !grad)
		return;
	job.d_gamma = vit_grad_of(vit, grad, norm->weight);
	job.d_beta = vit_grad_of(vit, grad, norm->bias);
	job.eps = vit->shape.norm_eps;
	job.n = vit->shape.width;
	row_norm_sums(&job);
}

void vit_block_grad_done(struct vit_block_grad *grad)
{
	for (int layer = 0; layer < VIT_N_LAYERS; layer++) {
		op_free(grad->layers[layer].dx);
		op_free(grad->layers[layer].dw);
	}
	op_free(grad->gelu);
	vit_attention_grad_done(&grad->attention);
}

/* What a layer's backward pass needs to know beside its operands. */
struct pass {
	struct vit_block_grad *grad;
	const struct vit *vit;
	const struct slot_entry *entries; /* (VIT_N_LAYERS) of this block */
	const struct vit_grad_data *d;
	unsigned first_tensor; /* of this block */
};

/* dx NULL: not wanted */
static int run_layer(
	const struct pass *p, enum vit_layer layer, const void *x, const void *dy, void *dx)
{
	const struct mask_tensor *tensor =
		&p->vit->layout->tensors[p->first_tensor + 2 * (unsigned)layer];
	const struct vit_extent *e = &p->grad->extent;
	const size_t n_rows = (size_t)e->n * (layer == VIT_QKV ? e->n_tokens : e->n_queries);
	struct vit_layer_grad *ops = &p->grad->layers[layer];
	float *grad = p->d->grad;
	int r = 0;

	if (grad) {
		row_column_sums(grad + tensor[1].offset, dy, n_rows, tensor[1].n, e->precision);
		r = op_run_on(ops->dw, dy, x, grad + tensor[0].offset);
	}
	if (r < 0 || !dx)
		return r;
	op_bind(ops->dx, OP_SRC, dy);
	op_use(ops->dx, p->entries[layer].backward);
	op_bind(ops->dx, OP_SCALE, &p->entries[layer].scale);
	op_bind(ops->dx, OP_DST, dx);
	return op_run(ops->dx);
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

/* Of a norm that is learnt: dy, of what left it. */
static void add_norm_sums(const struct pass *p, const struct vit_norm *norm, const float *x,
	const float *mean, const float *variance, size_t rows)
{
	vit_norm_sums(p->vit, p->d->grad, norm,
		&(struct norm_sums){
			.dy = p->d->y,
			.x = x,
			.mean = mean,
			.variance = variance,
			.rows = rows,
		});
}

/* Through norm2 and past it: d->g, of the block's output, becomes that of mid. */
static void run_norm2(const struct pass *p, uint32_t b, const struct vit_block_data *data)
{
	const struct vit_extent *e = &p->grad->extent;
	const struct vit_operand *g = &p->d->g;

	add_norm_sums(p, &p->vit->norm2[b], data->mid, data->mean2, data->var2,
		(size_t)e->n * e->n_queries);
	row_norm_grad(&(struct row_norm_grad){
		.dst = g->values,
		.rounded = e->precision == PRECISION_F32 ? NULL : g->rounded,
		.residual = g->values,
		.every = 1,
		.dy = p->d->y,
		.x = data->mid,
		.mean = data->mean2,
		.variance = data->var2,
		.gamma = p->vit->norm2[b].weight,
		.eps = p->vit->shape.norm_eps,
		.rows = (size_t)e->n * e->n_queries,
		.n = p->vit->shape.width,
	});
}

/* Through norm1 and past it: d->g, of mid, to d->below. What has no query has no residual. */
static void run_norm1(const struct pass *p, uint32_t b, const struct vit_block_data *data)
{
	const struct vit_extent *e = &p->grad->extent;
	const struct vit_operand *g = &p->d->g;

	add_norm_sums(
		p, &p->vit->norm1[b], data->x, data->mean1, data->var1, (size_t)e->n * e->n_tokens);
	row_norm_grad(&(struct row_norm_grad){
		.dst = p->d->below,
		.rounded = e->precision == PRECISION_F32 ? NULL : g->rounded,
		.residual = g->values,
		.every = e->n_queries == e->n_tokens ? 1 : e->n_tokens,
		.dy = p->d->y,
		.x = data->x,
		.mean = data->mean1,
		.variance = data->var1,
		.gamma = p->vit->norm1[b].weight,
		.eps = p->vit->shape.norm_eps,
		.rows = (size_t)e->n * e->n_tokens,
		.n = p->vit->shape.width,
	});
}

/* Of what a layer gave, from that of the sum: the same but for what was dropped. */
static const void *branch_gradient(
	const struct pass *p, enum vit_layer layer, const struct vit_block_data *data)
{
	if (!data->drop)
		return p->d->g.rounded;
	vit_drop_grad(data->drop, &p->vit->shape, p->grad->extent,
		p->first_tensor / 2 + (unsigned)layer, p->d->g.values, p->d->dropped);
	return p->d->dropped;
}

static int run_mlp(const struct pass *p, uint32_t b, const struct vit_block_data *data)
{
	const struct vit_grad_data *d = p->d;
	int r = run_layer(p, VIT_FC2, data->hidden, branch_gradient(p, VIT_FC2, data), d->hidden);

	if (r == 0)
		r = run_gelu(p, data);
	if (r == 0)
		r = run_layer(p, VIT_FC1, data->y2, d->hidden, d->y);
	if (r == 0)
		run_norm2(p, b, data);
	return r;
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
		r = run_layer(&p, VIT_PROJ, data->att, branch_gradient(&p, VIT_PROJ, data), d->att);
	if (r == 0)
		r = vit_attention_backward(&grad->attention, vit, grad->extent, data, d);
	if (r == 0)
		r = run_layer(&p, VIT_QKV, data->y1, d->qkv, below ? d->y : NULL);
	if (r == 0 && below)
		run_norm1(&p, b, data);
	return r;
}
