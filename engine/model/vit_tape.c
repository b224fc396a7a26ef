/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "model/row_grad.h"
#include "model/vit_internal.h"

struct vit_tape {
	const struct vit *vit;
	struct arena *arena;
	struct vit_stem stem;
	struct vit_block blocks, last; /* every block but the last shares its ops */
	struct vit_block_grad grads, last_grad;
	struct vit_block_data *data; /* (depth) */
	struct vit_grad_data d;
	enum precision precision;
	/* What one block leaves to the next in bf16. */
	void *qkv;     /* (n, T, 3 D) */
	bf16 *out;     /* (n, H, T, D / H) of attention, and its gradient */
	float *logits; /* (n, H, T, T) */
	struct op *norm;
	float *mean, *variance; /* (n) of the last norm */
	float *d_class;         /* (n, D) */
	uint32_t end;           /* block at which the way back ends */
};

/* In bf16 the way back reads the copies of the heads, so that one qkv does for all blocks. */
static void carve_attention(
	struct vit_tape *tape, struct vit_block_data *data, struct vit_carver *carver, size_t rows)
{
	const struct vit_shape *shape = &tape->vit->shape;
	const size_t all = (size_t)tape->stem.n * tape->stem.n_tokens;
	const size_t n_probs = rows * shape->n_heads * tape->stem.n_tokens;

	data->probs = vit_carve_in(carver, n_probs, tape->precision);
	data->att = vit_carve_in(carver, rows * shape->width, tape->precision);
	if (tape->precision == PRECISION_F32) {
		data->qkv = vit_carve(carver, all * 3 * shape->width);
		data->logits = data->probs;
		return;
	}
	data->qkv = tape->qkv;
	data->logits = tape->logits;
	data->heads = vit_carve_heads(
		carver, all * shape->width, all * shape->width, tape->precision, tape->out);
}

static void carve_block(struct vit_tape *tape, uint32_t b, struct vit_carver *carver)
{
	const struct vit_shape *shape = &tape->vit->shape;
	const enum precision precision = tape->precision;
	const bool is_last = b + 1 == shape->depth;
	const size_t all = (size_t)tape->stem.n * tape->stem.n_tokens;
	const size_t rows = is_last ? tape->stem.n : all;
	struct vit_block_data *data = &tape->data[b];

	if (b == 0)
		data->x = vit_carve(carver, all * shape->width);
	data->y1 = vit_carve_in(carver, all * shape->width, precision);
	data->mean1 = vit_carve(carver, all);
	data->var1 = vit_carve(carver, all);
	carve_attention(tape, data, carver, rows);
	data->mid = vit_carve(carver, rows * shape->width);
	data->y2 = vit_carve_in(carver, rows * shape->width, precision);
	data->mean2 = vit_carve(carver, rows);
	data->var2 = vit_carve(carver, rows);
	data->pre = vit_carve_in(carver, rows * shape->mlp, precision);
	data->hidden = vit_carve_in(carver, rows * shape->mlp, precision);
	data->out = vit_carve(carver, rows * shape->width);
	if (!is_last)
		data[1].x = data->out;
}

static void carve_gradients(struct vit_tape *tape, struct vit_carver *carver)
{
	const struct vit_shape *shape = &tape->vit->shape;
	const size_t n = tape->stem.n, all = n * tape->stem.n_tokens;
	const size_t n_qkv = all * 3 * shape->width, n_hidden = all * shape->mlp;
	struct vit_grad_data *d = &tape->d;

	tape->d_class = vit_carve(carver, n * shape->width);
	d->below = vit_carve(carver, all * shape->width);
	d->g = (struct vit_operand){ d->below, d->below };
	d->y = vit_carve(carver, all * shape->width);
	d->hidden = vit_carve_in(carver, n_hidden > n_qkv ? n_hidden : n_qkv, tape->precision);
	d->qkv = d->hidden;
	d->att = d->y;
	if (tape->precision != PRECISION_F32) {
		d->g.rounded = vit_carve_in(carver, all * shape->width, tape->precision);
		d->att = vit_carve_in(carver, all * shape->width, tape->precision);
	}
	d->heads = vit_carve_heads(
		carver, all * shape->width, all * shape->width, tape->precision, tape->out);
	d->probs =
		vit_carve_in(carver, all * shape->n_heads * tape->stem.n_tokens, tape->precision);
}

static void carve(struct vit_tape *tape, struct vit_carver *carver)
{
	const struct vit_shape *shape = &tape->vit->shape;
	const size_t n = tape->stem.n, all = n * tape->stem.n_tokens;

	vit_stem_carve(&tape->stem, tape->vit, carver);
	if (tape->precision != PRECISION_F32) {
		tape->qkv = vit_carve_in(carver, all * 3 * shape->width, tape->precision);
		tape->out = vit_carve_in(carver, all * shape->width, tape->precision);
		tape->logits = vit_carve(carver, all * shape->n_heads * tape->stem.n_tokens);
	}
	for (uint32_t b = 0; b < shape->depth; b++)
		carve_block(tape, b, carver);
	tape->mean = vit_carve(carver, n);
	tape->variance = vit_carve(carver, n);
	carve_gradients(tape, carver);
}

static int init_memory(struct vit_tape *tape)
{
	struct vit_carver carver = { 0 };
	size_t n_bytes;
	int r;

	tape->data = calloc(tape->vit->shape.depth, sizeof(*tape->data));
	if (!tape->data)
		return -ENOMEM;
	carve(tape, &carver);
	n_bytes = carver.n_bytes;
	r = arena_new(&tape->arena, n_bytes);
	if (r < 0)
		return r;
	carver.arena = tape->arena;
	carve(tape, &carver);
	/* A hint only: a tape is hundreds of MB, walked from end to end twice a step. */
	(void)madvise(tape->stem.input, n_bytes, MADV_HUGEPAGE);
	return 0;
}

static int init_ops(struct vit_tape *tape)
{
	const struct vit *vit = tape->vit;
	const int64_t width = vit->shape.width;
	const float eps = vit->shape.norm_eps;
	struct vit_extent extent = {
		.n = tape->stem.n,
		.n_tokens = tape->stem.n_tokens,
		.n_queries = tape->stem.n_tokens,
		.n_keys = tape->stem.n_tokens,
		.precision = tape->precision,
	};
	int r;

	r = vit_stem_init(&tape->stem, vit);
	if (r == 0)
		r = vit_block_init(&tape->blocks, vit, extent, true);
	if (r == 0)
		r = vit_block_grad_init(&tape->grads, vit, extent);
	extent.n_queries = 1;
	if (r == 0)
		r = vit_block_init(&tape->last, vit, extent, true);
	if (r == 0)
		r = vit_block_grad_init(&tape->last_grad, vit, extent);
	if (r == 0)
		r = op_norm_new(&tape->norm, vit->onednn, extent.n, width, eps, true);
	return r;
}

int vit_tape_new(struct vit_tape **ret_tape, struct vit *vit, uint32_t batch, uint32_t px,
	enum precision precision)
{
	_cleanup_(vit_tape_freep) struct vit_tape *tape = calloc(1, sizeof(*tape));
	int r;

	if (!tape)
		return -ENOMEM;
	if (precision == PRECISION_INT8)
		return -EINVAL;
	tape->vit = vit;
	tape->precision = precision;
	r = vit_stem_size(&tape->stem, vit, batch, px, precision);
	if (r < 0)
		return r;
	r = init_memory(tape);
	if (r < 0)
		return r;
	r = init_ops(tape);
	if (r < 0)
		return r;

	*ret_tape = TAKE_PTR(tape);
	return 0;
}

size_t vit_tape_bytes(const struct vit *vit, uint32_t batch, uint32_t px, enum precision precision)
{
	_cleanup_(vit_tape_freep) struct vit_tape *tape = calloc(1, sizeof(*tape));
	struct vit_carver carver = { 0 };

	if (!tape)
		return 0;
	tape->vit = vit;
	tape->precision = precision;
	tape->data = calloc(vit->shape.depth, sizeof(*tape->data));
	if (precision == PRECISION_INT8 || !tape->data ||
		vit_stem_size(&tape->stem, vit, batch, px, precision) < 0)
		return 0;
	carve(tape, &carver);
	return carver.n_bytes;
}

void vit_tape_free(struct vit_tape *tape)
{
	if (!tape)
		return;
	vit_stem_done(&tape->stem);
	vit_block_done(&tape->blocks);
	vit_block_done(&tape->last);
	vit_block_grad_done(&tape->grads);
	vit_block_grad_done(&tape->last_grad);
	op_free(tape->norm);
	arena_free(tape->arena);
	free(tape->data);
	free(tape);
}

float *vit_tape_input(struct vit_tape *tape)
{
	return tape->stem.input;
}

int vit_tape_forward(struct vit_tape *tape, const struct slot *slot, float *embeddings)
{
	const struct vit *vit = tape->vit;
	const uint32_t last = vit->shape.depth - 1;
	int r;

	if (slot_precision(slot) != tape->precision)
		return -EINVAL;
	r = vit_stem_forward(&tape->stem, vit, tape->data[0].x);
	for (uint32_t b = 0; r == 0 && b < last; b++)
		r = vit_block_forward(&tape->blocks, vit, slot, b, &tape->data[b]);
	if (r == 0)
		r = vit_block_forward(&tape->last, vit, slot, last, &tape->data[last]);
	if (r == 0)
		r = vit_run_norm(tape->norm, &vit->norm, tape->data[last].out, tape->mean,
			tape->variance, embeddings);
	return r < 0 ? -EIO : 0;
}

void vit_tape_end_at(struct vit_tape *tape, uint32_t block)
{
	tape->end = block;
}

/* d_embeddings to g, of what the last block gives. */
static void run_norm_grad(
	const struct vit_tape *tape, const float *d_embeddings, const struct vit_operand *g)
{
	const struct vit *vit = tape->vit;

	row_norm_grad(&(struct row_norm_grad){
		.dst = g->values,
		.rounded = tape->precision == PRECISION_F32 ? NULL : g->rounded,
		.dy = d_embeddings,
		.x = tape->data[vit->shape.depth - 1].out,
		.mean = tape->mean,
		.variance = tape->variance,
		.gamma = vit->norm.weight,
		.eps = vit->shape.norm_eps,
		.rows = tape->stem.n,
		.n = vit->shape.width,
	});
}

int vit_tape_backward(
	struct vit_tape *tape, const struct slot *slot, const float *d_embeddings, float *grad)
{
	const struct vit *vit = tape->vit;
	const uint32_t last = vit->shape.depth - 1;
	struct vit_grad_data d = tape->d;
	int r;

	/* A slot made for inference alone holds no transposed weights. */
	if (!slot_entry(slot, 0)->backward || slot_precision(slot) != tape->precision)
		return -EINVAL;
	d.grad = grad;
	d.g.values = tape->d_class;
	if (tape->precision == PRECISION_F32)
		d.g.rounded = tape->d_class;
	run_norm_grad(tape, d_embeddings, &d.g);
	r = vit_block_backward(
		&tape->last_grad, vit, slot, last, &tape->data[last], &d, last > tape->end);
	d.g = tape->d.g;
	for (uint32_t b = last; r == 0 && b-- > tape->end;)
		r = vit_block_backward(
			&tape->grads, vit, slot, b, &tape->data[b], &d, b > tape->end);
	return r;
}
