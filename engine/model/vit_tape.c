/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "model/row_grad.h"
#include "model/vit_internal.h"

struct vit_tape {
	const struct vit *vit;
	struct arena *arena;
	struct vit_tape_options options;
	struct vit_stem stem;
	struct vit_stem_grad stem_grad; /* of a model that is learnt, where pixels enter */
	struct vit_block blocks, last;  /* every block but the last shares its ops */
	struct vit_block_grad grads, last_grad;
	struct vit_late late; /* class_block > 0 only; its first blocks have ops of their own */
	struct vit_block early;
	struct vit_block_grad early_grad;
	struct vit_block_data *data; /* (depth) */
	struct vit_grad_data d;
	enum precision precision;
	struct vit_drop drop;
	/* What one block leaves to the next in bf16. */
	void *qkv;     /* (n, T, 3 D) */
	bf16 *out;     /* (n, H, T, D / H) of attention, and its gradient */
	float *logits; /* (n, H, T, T) */
	struct op *norm;
	/* Of what leaves: one row an image, or T. */
	float *mean, *variance; /* (rows) of the last norm */
	float *d_last;          /* (rows, D) */
	uint32_t end;           /* block at which the way back ends */
};

static size_t n_entering(const struct vit_tape *tape)
{
	return (size_t)tape->stem.n * tape->stem.n_tokens;
}

static size_t n_leaving(const struct vit_tape *tape)
{
	return tape->options.all_out ? n_entering(tape) : tape->stem.n;
}

/* In bf16 the way back reads the copies of the heads, so that one qkv does for all blocks. */
static void carve_attention(
	struct vit_tape *tape, struct vit_block_data *data, struct vit_carver *carver, size_t rows)
{
	const struct vit_shape *shape = &tape->vit->shape;
	const size_t all = n_entering(tape);
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
	const size_t all = n_entering(tape);
	const size_t rows = is_last ? n_leaving(tape) : all;
	struct vit_block_data *data = &tape->data[b];

	if (b == 0)
		data->x = vit_carve(carver, all * shape->width);
	/* Without a way back every block writes over the one before. */
	if (b > 0 && tape->options.forward_only) {
		*data = tape->data[0];
		if (rows < all)
			data->mid = data->out = vit_carve(carver, rows * shape->width);
		return;
	}
	data->y1 = vit_carve_in(carver, all * shape->width, precision);
	data->mean1 = vit_carve(carver, all);
	data->var1 = vit_carve(carver, all);
	carve_attention(tape, data, carver, rows);
	if (tape->options.forward_only && rows == all)
		data->mid = data->x;
	else
		data->mid = vit_carve(carver, rows * shape->width);
	data->y2 = vit_carve_in(carver, rows * shape->width, precision);
	data->mean2 = vit_carve(carver, rows);
	data->var2 = vit_carve(carver, rows);
	data->pre = vit_carve_in(carver, rows * shape->mlp, precision);
	data->hidden = vit_carve_in(carver, rows * shape->mlp, precision);
	data->out = tape->options.forward_only ? data->mid : vit_carve(carver, rows * shape->width);
	if (!is_last)
		data[1].x = data->out;
}

static void carve_gradients(struct vit_tape *tape, struct vit_carver *carver)
{
	const struct vit_shape *shape = &tape->vit->shape;
	const size_t all = n_entering(tape);
	const size_t n_qkv = all * 3 * shape->width, n_hidden = all * shape->mlp;
	struct vit_grad_data *d = &tape->d;

	tape->d_last = vit_carve(carver, n_leaving(tape) * shape->width);
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
	if (tape->options.drops)
		d->dropped = vit_carve_in(carver, all * shape->width, tape->precision);
}

static bool learns_stem(const struct vit_tape *tape)
{
	return tape->vit->params && tape->options.px > 0 && !tape->options.forward_only;
}

static void carve(struct vit_tape *tape, struct vit_carver *carver)
{
	const struct vit_shape *shape = &tape->vit->shape;
	const size_t all = n_entering(tape), rows = n_leaving(tape);

	if (tape->options.px > 0)
		vit_stem_carve(&tape->stem, tape->vit, carver);
	if (tape->vit->shape.class_block > 0)
		vit_late_carve(&tape->late, &tape->stem, tape->vit, carver);
	if (tape->options.n_kept > 0)
		tape->stem.kept = vit_carve_bytes(carver,
			(size_t)tape->stem.n * tape->options.n_kept * sizeof(*tape->stem.kept));
	if (tape->precision != PRECISION_F32) {
		tape->qkv = vit_carve_in(carver, all * 3 * shape->width, tape->precision);
		tape->out = vit_carve_in(carver, all * shape->width, tape->precision);
		tape->logits = vit_carve(carver, all * shape->n_heads * tape->stem.n_tokens);
	}
	for (uint32_t b = 0; b < shape->depth; b++)
		carve_block(tape, b, carver);
	tape->mean = vit_carve(carver, rows);
	tape->variance = vit_carve(carver, rows);
	if (!tape->options.forward_only)
		carve_gradients(tape, carver);
	if (learns_stem(tape))
		vit_stem_grad_carve(&tape->stem_grad, &tape->stem, tape->vit, carver);
}

static int init_memory(struct vit_tape *tape)
{
	struct vit_carver carver = { 0 };
	int r;

	tape->data = calloc(tape->vit->shape.depth, sizeof(*tape->data));
	if (!tape->data)
		return -ENOMEM;
	carve(tape, &carver);
	r = arena_new(&tape->arena, carver.n_bytes);
	if (r < 0)
		return r;
	carver.arena = tape->arena;
	carve(tape, &carver);
	return 0;
}

/* Of the blocks before the class token enters. */
static int init_early(struct vit_tape *tape, struct vit_extent extent)
{
	const struct vit *vit = tape->vit;
	int r;

	if (vit->shape.class_block == 0)
		return 0;
	extent.n_tokens = extent.n_queries = extent.n_keys = extent.n_tokens - 1;
	vit_late_init(&tape->late, &tape->stem, vit);
	r = vit_block_init(&tape->early, vit, extent, true);
	return r < 0 || tape->options.forward_only
		       ? r
		       : vit_block_grad_init(&tape->early_grad, vit, extent);
}

static int init_ops(struct vit_tape *tape)
{
	const struct vit *vit = tape->vit;
	const int64_t width = vit->shape.width;
	const float eps = vit->shape.norm_eps;
	const bool back = !tape->options.forward_only;
	struct vit_extent extent = {
		.n = tape->stem.n,
		.n_tokens = tape->stem.n_tokens,
		.n_queries = tape->stem.n_tokens,
		.n_keys = tape->stem.n_tokens,
		.precision = tape->precision,
	};
	int r = 0;

	if (tape->options.px > 0)
		r = vit_stem_init(&tape->stem, vit);
	if (r == 0)
		r = vit_block_init(&tape->blocks, vit, extent, true);
	if (r == 0 && back)
		r = vit_block_grad_init(&tape->grads, vit, extent);
	if (r == 0)
		r = init_early(tape, extent);
	if (!tape->options.all_out)
		extent.n_queries = 1;
	if (r == 0)
		r = vit_block_init(&tape->last, vit, extent, true);
	if (r == 0 && back)
		r = vit_block_grad_init(&tape->last_grad, vit, extent);
	if (r == 0 && learns_stem(tape))
		r = vit_stem_grad_init(&tape->stem_grad, &tape->stem, vit);
	if (r == 0)
		r = op_norm_new(
			&tape->norm, vit->onednn, (int64_t)n_leaving(tape), width, eps, true);
	return r;
}

/* Everything that the size of its memory depends on. */
static int set_options(
	struct vit_tape *tape, const struct vit *vit, const struct vit_tape_options *options)
{
	int r;

	if (options->precision == PRECISION_INT8 || (options->forward_only && options->drops))
		return -EINVAL;
	if (options->px == 0 && vit->shape.class_block > 0)
		return -EINVAL;
	tape->vit = vit;
	tape->options = *options;
	tape->precision = options->precision;
	tape->stem.borrows = options->borrows;
	r = options->px > 0 ? vit_stem_size(&tape->stem, vit, options->batch, options->px,
				      options->precision)
			    : vit_stem_of_tokens(&tape->stem, options->batch, options->n_tokens,
				      options->precision);
	if (r < 0 || options->n_kept == 0)
		return r;
	if (options->px == 0 || options->n_kept > tape->stem.grid * tape->stem.grid)
		return -EINVAL;
	tape->stem.n_tokens = 1 + options->n_kept;
	return 0;
}

int vit_tape_open(
	struct vit_tape **ret_tape, struct vit *vit, const struct vit_tape_options *options)
{
	_cleanup_(vit_tape_freep) struct vit_tape *tape = calloc(1, sizeof(*tape));
	int r;

	if (!tape)
		return -ENOMEM;
	r = set_options(tape, vit, options);
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

size_t vit_tape_bytes(const struct vit *vit, const struct vit_tape_options *options)
{
	_cleanup_(vit_tape_freep) struct vit_tape *tape = calloc(1, sizeof(*tape));
	struct vit_carver carver = { 0 };

	if (!tape)
		return 0;
	tape->data = calloc(vit->shape.depth, sizeof(*tape->data));
	if (!tape->data || set_options(tape, vit, options) < 0)
		return 0;
	carve(tape, &carver);
	return carver.n_bytes;
}

void vit_tape_free(struct vit_tape *tape)
{
	if (!tape)
		return;
	vit_stem_done(&tape->stem);
	vit_stem_grad_done(&tape->stem_grad);
	vit_block_done(&tape->blocks);
	vit_block_done(&tape->early);
	vit_block_grad_done(&tape->early_grad);
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
	return tape->options.px > 0 ? tape->stem.input : tape->data[0].x;
}

void vit_tape_read(struct vit_tape *tape, const float *pixels)
{
	tape->stem.pixels = pixels;
}

uint32_t *vit_tape_kept(struct vit_tape *tape)
{
	return tape->stem.kept;
}

uint32_t vit_tape_n_tokens(const struct vit_tape *tape)
{
	return tape->stem.n_tokens;
}

void vit_tape_replace(struct vit_tape *tape, const bool *replaced, const float *vector)
{
	tape->stem.replaced = replaced;
	tape->stem.replacement = vector;
}

void vit_tape_drop(struct vit_tape *tape, const struct vit_drop *drop)
{
	if (drop)
		tape->drop = *drop;
	for (uint32_t b = 0; b < tape->vit->shape.depth; b++)
		tape->data[b].drop = drop && tape->options.drops ? &tape->drop : NULL;
}

static int run_blocks(struct vit_tape *tape, const struct slot *slot)
{
	const struct vit *vit = tape->vit;
	const uint32_t last = vit->shape.depth - 1, class_block = vit->shape.class_block;
	const struct vit_stem *stem = &tape->stem;
	int r = 0;

	if (class_block > 0)
		vit_class_leave(
			tape->data[0].x, &vit->shape, stem->n, stem->n_tokens, PRECISION_F32);
	for (uint32_t b = 0; r == 0 && b < class_block; b++)
		r = vit_block_forward(&tape->early, vit, slot, b, &tape->data[b]);
	if (class_block > 0)
		vit_late_enter(&tape->late, stem, vit, tape->data[class_block].x);
	for (uint32_t b = class_block; r == 0 && b < last; b++)
		r = vit_block_forward(&tape->blocks, vit, slot, b, &tape->data[b]);
	return r < 0 ? r : vit_block_forward(&tape->last, vit, slot, last, &tape->data[last]);
}

int vit_tape_forward(struct vit_tape *tape, const struct slot *slot, float *out)
{
	const struct vit *vit = tape->vit;
	const uint32_t last = vit->shape.depth - 1;
	int r;

	if (slot_precision(slot) != tape->precision || !vit_stem_is_whole(&tape->stem))
		return -EINVAL;
	r = tape->options.px > 0 ? vit_stem_forward(&tape->stem, vit, tape->data[0].x) : 0;
	if (r == 0)
		r = run_blocks(tape, slot);
	if (r == 0)
		r = vit_run_norm(tape->norm, &vit->norm, tape->data[last].out, tape->mean,
			tape->variance, out);
	return r < 0 ? -EIO : 0;
}

void vit_tape_end_at(struct vit_tape *tape, uint32_t block)
{
	tape->end = block;
}

/* d_out to g, of what the last block gives. */
static void run_norm_grad(
	const struct vit_tape *tape, const float *d_out, float *grad, const struct vit_operand *g)
{
	const struct vit *vit = tape->vit;
	const float *x = tape->data[vit->shape.depth - 1].out;

	vit_norm_sums(vit, grad, &vit->norm,
		&(struct norm_sums){
			.dy = d_out,
			.x = x,
			.mean = tape->mean,
			.variance = tape->variance,
			.rows = n_leaving(tape),
		});
	row_norm_grad(&(struct row_norm_grad){
		.dst = g->values,
		.rounded = tape->precision == PRECISION_F32 ? NULL : g->rounded,
		.dy = d_out,
		.x = x,
		.mean = tape->mean,
		.variance = tape->variance,
		.gamma = vit->norm.weight,
		.eps = vit->shape.norm_eps,
		.rows = n_leaving(tape),
		.n = vit->shape.width,
	});
}

/* Of what entered with the class token, d->below, to what the patches alone brought. */
static void leave_class(const struct vit_tape *tape, const struct vit_grad_data *d)
{
	const struct vit_shape *shape = &tape->vit->shape;
	const uint32_t n = tape->stem.n, n_tokens = tape->stem.n_tokens;

	vit_late_backward(&tape->late, &tape->stem, tape->vit, d->below, d->grad);
	vit_class_leave(d->below, shape, n, n_tokens, PRECISION_F32);
	if (tape->precision != PRECISION_F32)
		vit_class_leave(d->g.rounded, shape, n, n_tokens, tape->precision);
}

int vit_tape_backward(struct vit_tape *tape, const struct slot *slot, const float *d_out,
	float *grad, float *d_entry)
{
	const struct vit *vit = tape->vit;
	const uint32_t last = vit->shape.depth - 1, end = d_entry ? 0 : tape->end;
	/* A first norm that is learnt needs what only the way to the entry computes. */
	const bool enters = d_entry || vit->params;
	struct vit_grad_data d = tape->d;
	int r;

	/* A slot made for inference alone holds no transposed weights. */
	if (!slot_entry(slot, 0)->backward || slot_precision(slot) != tape->precision ||
		tape->options.forward_only)
		return -EINVAL;
	d.grad = grad;
	d.g.values = tape->d_last;
	if (tape->precision == PRECISION_F32)
		d.g.rounded = tape->d_last;
	run_norm_grad(tape, d_out, grad, &d.g);
	r = vit_block_backward(
		&tape->last_grad, vit, slot, last, &tape->data[last], &d, last > end || enters);
	d.g = tape->d.g;
	for (uint32_t b = last; r == 0 && b-- > end;) {
		const bool is_early = b < vit->shape.class_block;

		d.grad = b >= tape->end ? grad : NULL;
		if (b + 1 == vit->shape.class_block)
			leave_class(tape, &d);
		r = vit_block_backward(is_early ? &tape->early_grad : &tape->grads, vit, slot, b,
			&tape->data[b], &d, b > end || enters);
	}
	if (end == 0 && vit->shape.class_block > 0)
		vit_class_return(d.below, &vit->shape, tape->stem.n, tape->stem.n_tokens);
	if (r == 0 && tape->end == 0 && learns_stem(tape))
		r = vit_stem_backward(&tape->stem_grad, &tape->stem, vit, d.below, grad);
	if (r == 0 && d_entry)
		memcpy(d_entry, d.below, n_entering(tape) * vit->shape.width * sizeof(*d_entry));
	return r;
}
