/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "model/vit_internal.h"
#include "model/vit_team.h"

struct vit_plan {
	const struct vit *vit;
	struct arena *arena;
	struct vit_stem stem;
	struct vit_block blocks, last; /* every block but the last shares its buffers and ops */
	struct vit_block_data data, last_data;
	struct vit_late late; /* class_block > 0 only: what comes before has its own */
	struct vit_block early;
	struct vit_block_data early_data;
	enum precision precision; /* of the layers */
	enum precision between;   /* of what is no layer */
	struct vit_int8 int8;
	struct op *norm;
	struct vit_team *team; /* NULL: blocks do it; else they have nothing */

	bool tokens_out, pooled, whole; /* whole: all tokens pass the last block */
	struct op *norm_all;            /* whole only */
	float *tokens;                  /* (n, T, D) the blocks' or the team's */
	float *weights;                 /* (n, T - 1), and */
	float *features;                /* (n, 2 D): pooled only */
};

static struct vit_extent extent_of(const struct vit_plan *plan, bool last)
{
	return (struct vit_extent){
		.n = plan->stem.n,
		.n_tokens = plan->stem.n_tokens,
		.n_queries = last ? 1 : plan->stem.n_tokens,
		.n_keys = vit_n_keys(plan->between, plan->stem.n_tokens),
		.precision = plan->between,
	};
}

/* Of the blocks before a late class token. */
static struct vit_extent early_extent(const struct vit_plan *plan)
{
	struct vit_extent extent = extent_of(plan, false);

	extent.n_queries = --extent.n_tokens;
	extent.n_keys = vit_n_keys(plan->between, extent.n_tokens);
	return extent;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static void carve_int8(struct vit_plan *plan, struct vit_carver *carver)
{
	const struct vit_shape *shape = &plan->vit->shape;
	const size_t rows = (size_t)plan->stem.n * plan->stem.n_tokens;
	const struct vit_int8_parts all = vit_int8_parts(shape, extent_of(plan, false));
	const struct vit_int8_parts last = vit_int8_parts(shape, extent_of(plan, true));
	const struct vit_int8_parts early = vit_int8_parts(shape, early_extent(plan));
	const size_t at_once = larger(all.rest, early.rest);
	const size_t n_rest = larger(at_once * plan->stem.n_tokens, last.rest);
	const size_t n_qkv = larger(all.qkv, early.qkv) * plan->stem.n_tokens * 3 * shape->width;
	const size_t n_acc = larger(n_qkv, n_rest * larger(shape->mlp, shape->width));

	plan->int8 = (struct vit_int8){
		.narrow = vit_carve_in(carver, rows * shape->width, PRECISION_INT8),
		.hidden = vit_carve_in(carver, n_rest * shape->mlp, PRECISION_INT8),
		.steps = vit_carve_bytes(carver, rows * sizeof(struct row_steps)),
		.acc = vit_carve_bytes(carver, n_acc * sizeof(int32_t)),
	};
}

/* All but the heads, whose padding must stay 0. */
static void carve_early(struct vit_plan *plan, struct vit_carver *carver, bf16 *att)
{
	const struct vit_extent extent = early_extent(plan);
	const size_t width = plan->vit->shape.width;

	vit_late_carve(&plan->late, &plan->stem, plan->vit, carver);
	plan->early_data = plan->data;
	plan->early_data.heads = vit_carve_heads(carver, (size_t)extent.n * extent.n_tokens * width,
		(size_t)extent.n * extent.n_keys * width, plan->between, att);
}

static void carve(struct vit_plan *plan, struct vit_carver *carver)
{
	const struct vit_shape *shape = &plan->vit->shape;
	const size_t n = plan->stem.n, rows = n * plan->stem.n_tokens;
	const size_t n_keys = n * vit_n_keys(plan->between, plan->stem.n_tokens),
		     n_probs =
			     rows * shape->n_heads * vit_n_keys(plan->between, plan->stem.n_tokens);
	const enum precision precision = plan->between;
	const bool is_int8 = plan->precision == PRECISION_INT8;
	struct vit_block_data *data = &plan->data;
	bf16 *att = NULL;

	vit_stem_carve(&plan->stem, plan->vit, carver);
	if (plan->pooled) {
		plan->weights = vit_carve(carver, rows - n);
		plan->features = vit_carve(carver, n * 2 * shape->width);
	}
	if (plan->team)
		return;
	if (precision != PRECISION_F32)
		att = vit_carve_in(carver, rows * shape->width, precision);
	data->x = vit_carve(carver, rows * shape->width);
	data->y1 = vit_carve_in(carver, rows * shape->width, precision);
	data->qkv = vit_carve_in(carver, rows * 3 * shape->width, precision);
	data->heads =
		vit_carve_heads(carver, rows * shape->width, n_keys * shape->width, precision, att);
	data->probs = vit_carve_in(carver, n_probs, precision);
	data->logits = precision == PRECISION_F32 ? data->probs : vit_carve(carver, n_probs);
	data->hidden = is_int8 ? NULL : vit_carve_in(carver, rows * shape->mlp, precision);
	if (is_int8)
		carve_int8(plan, carver);
	data->pre = data->hidden;
	/* The norm's output is read by one product, before attention's result is written. */
	data->att = data->y1;
	data->y2 = data->y1;
	data->mid = data->x;
	data->out = data->x;

	if (shape->class_block > 0)
		carve_early(plan, carver, att);
	plan->last_data = *data;
	plan->last_data.mid = vit_carve(carver, n * shape->width);
	plan->last_data.out = plan->last_data.mid;
}

static int init_block(
	const struct vit_plan *plan, struct vit_block *block, struct vit_extent extent)
{
	return plan->precision == PRECISION_INT8 ? vit_block_int8_init(block, plan->vit, extent)
						 : vit_block_init(block, plan->vit, extent, false);
}

static int init_ops(struct vit_plan *plan)
{
	const struct vit *vit = plan->vit;
	int r;

	r = vit_stem_init(&plan->stem, vit);
	if (r == 0 && !plan->team)
		r = init_block(plan, &plan->blocks, extent_of(plan, false));
	if (r == 0 && !plan->team)
		r = init_block(plan, &plan->last, extent_of(plan, true));
	if (r == 0 && vit->shape.class_block > 0) {
		vit_late_init(&plan->late, &plan->stem, vit);
		r = init_block(plan, &plan->early, early_extent(plan));
	}
	if (r == 0)
		r = op_norm_new(&plan->norm, vit->onednn, plan->stem.n, vit->shape.width,
			vit->shape.norm_eps, false);
	if (r == 0 && plan->whole)
		r = op_norm_new(&plan->norm_all, vit->onednn,
			(int64_t)plan->stem.n * plan->stem.n_tokens, vit->shape.width,
			vit->shape.norm_eps, false);
	return r;
}

int vit_plan_open(
	struct vit_plan **ret_plan, struct vit *vit, const struct vit_plan_options *options)
{
	const enum precision precision = options->precision;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = calloc(1, sizeof(*plan));
	struct vit_carver carver = { 0 };
	int r;

	if (!plan)
		return -ENOMEM;
	if (!onednn_has(vit->onednn, precision))
		return -EOPNOTSUPP;
	plan->vit = vit;
	plan->precision = precision;
	plan->between = onednn_between(vit->onednn, precision);
	plan->tokens_out = options->tokens_out;
	plan->pooled = options->pooled;
	plan->whole = options->tokens_out || options->pooled;
	r = vit_stem_size(&plan->stem, vit, options->batch, options->px, plan->between);
	if (r == 0 && plan->between == precision)
		r = vit_team_new(&plan->team, vit, &plan->stem, plan->whole);
	if (r < 0 && r != -EOPNOTSUPP)
		return r;
	carve(plan, &carver);
	r = arena_new(&plan->arena, carver.n_bytes);
	if (r < 0)
		return r;
	carver.arena = plan->arena;
	carve(plan, &carver);
	r = init_ops(plan);
	if (r < 0)
		return r;
	plan->tokens = plan->team ? vit_team_tokens(plan->team) : plan->data.x;

	*ret_plan = TAKE_PTR(plan);
	return 0;
}

int vit_plan_new(struct vit_plan **ret_plan, struct vit *vit, uint32_t batch, uint32_t px,
	enum precision precision)
{
	return vit_plan_open(ret_plan, vit,
		&(struct vit_plan_options){ .batch = batch, .px = px, .precision = precision });
}

void vit_plan_free(struct vit_plan *plan)
{
	if (!plan)
		return;
	vit_team_free(plan->team);
	vit_stem_done(&plan->stem);
	vit_block_done(&plan->blocks);
	vit_block_done(&plan->early);
	vit_block_done(&plan->last);
	op_free(plan->norm);
	op_free(plan->norm_all);
	arena_free(plan->arena);
	free(plan);
}

float *vit_plan_input(struct vit_plan *plan)
{
	return plan->stem.input;
}

static int look(struct vit_plan *plan, struct vit_block *block, const struct slot *slot, uint32_t b,
	const struct vit_block_data *data)
{
	return plan->precision == PRECISION_INT8
		       ? vit_block_int8_look(block, plan->vit, slot, b, data, &plan->int8)
		       : vit_block_look(block, plan->vit, slot, b, data);
}

static int think(struct vit_plan *plan, struct vit_block *block, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data)
{
	return plan->precision == PRECISION_INT8
		       ? vit_block_int8_think(block, plan->vit, slot, b, data, &plan->int8)
		       : vit_block_think(block, plan->vit, slot, b, data);
}

static int forward_block(struct vit_plan *plan, struct vit_block *block, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data)
{
	int r = look(plan, block, slot, b, data);

	return r < 0 ? r : think(plan, block, slot, b, data);
}

static void begin(struct vit_plan *plan, uint32_t b, uint32_t n_tokens)
{
	if (plan->precision == PRECISION_INT8)
		vit_block_int8_begin(
			plan->vit, b, (size_t)plan->stem.n * n_tokens, &plan->data, &plan->int8);
}

/* What the last block's class tokens have just looked at. */
static void weigh_blocks(struct vit_plan *plan)
{
	vit_pool_weights(
		&(struct vit_class_probs){
			.probs = plan->last_data.probs,
			.precision = plan->between,
			.n = plan->stem.n,
			.n_heads = plan->vit->shape.n_heads,
			.n_tokens = plan->stem.n_tokens,
			.stride = plan->last.extent.n_keys,
		},
		plan->weights);
}

/* The last block for all tokens, in place: what the class tokens had of it lies elsewhere, and the
 * queries, keys and values of all are still there. */
static int run_rest(struct vit_plan *plan, const struct slot *slot)
{
	if (plan->pooled)
		weigh_blocks(plan);
	return think(plan, &plan->blocks, slot, plan->vit->shape.depth - 1, &plan->data);
}

/* From what the stem gave to what enters with the class token. */
static int run_early(struct vit_plan *plan, const struct slot *slot)
{
	const struct vit_stem *stem = &plan->stem;
	int r = 0;

	vit_class_leave(plan->data.x, &plan->vit->shape, stem->n, stem->n_tokens, PRECISION_F32);
	begin(plan, 0, stem->n_tokens - 1);
	for (uint32_t b = 0; r == 0 && b < plan->vit->shape.class_block; b++)
		r = forward_block(plan, &plan->early, slot, b, &plan->early_data);
	vit_late_enter(&plan->late, stem, plan->vit, plan->data.x);
	return r;
}

static int run_blocks(struct vit_plan *plan, const struct slot *slot, const float **ret_tokens)
{
	const struct vit *vit = plan->vit;
	const uint32_t depth = vit->shape.depth;
	int r = vit_stem_forward(&plan->stem, vit, plan->data.x);

	if (r == 0 && vit->shape.class_block > 0)
		r = run_early(plan, slot);
	if (r == 0)
		begin(plan, vit->shape.class_block, plan->stem.n_tokens);
	for (uint32_t b = vit->shape.class_block; r == 0 && b + 1 < depth; b++)
		r = forward_block(plan, &plan->blocks, slot, b, &plan->data);
	if (r == 0)
		r = forward_block(plan, &plan->last, slot, depth - 1, &plan->last_data);
	if (r == 0 && plan->whole)
		r = run_rest(plan, slot);
	*ret_tokens = plan->last_data.out;
	return r;
}

static int run_team(struct vit_plan *plan, const struct slot *slot, const float **ret_tokens)
{
	const struct vit_stem *stem = &plan->stem;
	struct vit_class_probs probs;
	int r;

	vit_columns(
		&plan->vit->shape, stem->n, stem->px, stem->input, stem->precision, stem->columns);
	r = vit_team_forward(plan->team, slot, ret_tokens);
	if (r < 0 || !plan->pooled)
		return r;
	probs = vit_team_class_probs(plan->team);
	vit_pool_weights(&probs, plan->weights);
	return 0;
}

/* All tokens after the last norm, and what is made of them. */
static int run_whole(struct vit_plan *plan, const float *embeddings)
{
	const size_t n_tokens = plan->stem.n_tokens, width = plan->vit->shape.width;
	int r = vit_run_norm(
		plan->norm_all, &plan->vit->norm, plan->tokens, NULL, NULL, plan->tokens);

	for (size_t i = 0; r == 0 && i < plan->stem.n; i++) {
		float *tokens = plan->tokens + i * n_tokens * width;

		/* Products of other sizes may round otherwise: one class token, one value. */
		memcpy(tokens, embeddings + i * width, width * sizeof(float));
		if (plan->pooled)
			vit_pool(tokens, tokens + width, plan->weights + i * (n_tokens - 1),
				(uint32_t)n_tokens - 1, (uint32_t)width,
				plan->features + i * 2 * width);
	}
	return r;
}

int vit_forward(struct vit_plan *plan, const struct slot *slot, float *embeddings)
{
	const struct vit *vit = plan->vit;
	const float *tokens;
	int r;

	if (slot_precision(slot) != plan->precision)
		return -EINVAL;
	r = plan->team ? run_team(plan, slot, &tokens) : run_blocks(plan, slot, &tokens);
	if (r == 0)
		r = vit_run_norm(plan->norm, &vit->norm, tokens, NULL, NULL, embeddings);
	if (r == 0 && plan->whole)
		r = run_whole(plan, embeddings);
	return r < 0 ? -EIO : 0;
}

const float *vit_plan_tokens(const struct vit_plan *plan)
{
	return plan->tokens_out ? plan->tokens : NULL;
}

const float *vit_plan_features(const struct vit_plan *plan)
{
	return plan->features;
}
