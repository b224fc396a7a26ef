/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vit_decoder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "model/dense.h"
#include "model/sincos.h"
#include "model/vit_internal.h"
#include "model/vit_params.h"

/* Where no patch of the encoder's goes. */
#define NOT_KEPT UINT32_MAX

struct trunk {
	struct vit *vit;
	struct slot *slot;
	struct vit_tape *tape;
	struct dense *exit;
	/* Offsets among all values. */
	size_t at, weight, bias;
};

struct vit_decoder {
	struct vit_decoder_shape shape;
	struct vit_decoder_options options;
	struct params *params;
	struct trunk trunks[VIT_DECODER_MAX_TRUNKS];
	struct dense *entry;
	size_t entry_weight, entry_bias, mask_token;
	struct arena *arena;
	float *values;    /* (n_values) */
	float *positions; /* (1 + L, width) */
	uint32_t *place;  /* (batch, L): which of the kept ones a patch is, or NOT_KEPT */
	float *entered;   /* (batch, 1 + n_kept, width), and its gradient */
	float *sequence;  /* (batch, 1 + L, width), and its gradient */
	float *left;      /* (batch, 1 + L, width) of a trunk, and its gradient */
	float *rows[VIT_DECODER_MAX_TRUNKS]; /* (batch, L, width) that an exit reads */
	float *d_rows;                       /* the same's gradient */
	const float *tokens;                 /* the caller's of the last forward */
};

static uint32_t n_patches(const struct vit_decoder_shape *shape)
{
	return shape->grid * shape->grid;
}

static uint32_t n_kept(const struct vit_decoder *decoder)
{
	return decoder->options.n_kept ? decoder->options.n_kept : n_patches(&decoder->shape);
}

static bool is_asked(const struct vit_decoder *decoder, uint32_t trunk)
{
	return decoder->options.trunks == 0 || decoder->options.trunks >> trunk & 1;
}

static struct vit_shape trunk_shape(const struct vit_decoder_shape *shape)
{
	return (struct vit_shape){
		.width = shape->width,
		.depth = shape->depth,
		.n_heads = shape->n_heads,
		.mlp = shape->mlp,
	};
}

/* ---- what it learns */

static int add_trunk(struct params *params, const struct vit_decoder_shape *shape, uint32_t trunk)
{
	const struct vit_shape blocks = trunk_shape(shape);
	_cleanup_(params_freep) struct params *own = NULL;
	char name[16];
	int r;

	r = vit_params_new(&own, &blocks, false);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "trunk%u", trunk);
	r = params_append(params, name, own);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "exit%u", trunk);
	return params_add_linear(params, name, shape->n_out, shape->width);
}

int vit_decoder_params_new(struct params **ret_params, const struct vit_decoder_shape *shape)
{
	_cleanup_(params_freep) struct params *params = NULL;
	int r;

	if (shape->n_in == 0 || shape->n_out == 0 || shape->width % 4 || shape->grid == 0 ||
		shape->grid > VIT_MAX_GRID || shape->n_trunks == 0 ||
		shape->n_trunks > VIT_DECODER_MAX_TRUNKS)
		return -EINVAL;
	r = params_new(&params);
	if (r == 0)
		r = params_add_linear(params, "entry", shape->width, shape->n_in);
	if (r == 0)
		r = params_add(params, "mask_token", 1, (uint64_t[]){ shape->width });
	for (uint32_t t = 0; r == 0 && t < shape->n_trunks; t++)
		r = add_trunk(params, shape, t);
	if (r < 0)
		return r;

	*ret_params = TAKE_PTR(params);
	return 0;
}

void vit_decoder_start(const struct params *params, float *values, uint64_t seed)
{
	for (unsigned i = 0; i < params->n_tensors; i++) {
		const struct param *param = &params->tensors[i];

		if (param->decays)
			param_start_xavier(param, values, seed);
		else if (strcmp(param->name, "mask_token") == 0)
			param_start_normal(param, values, .02F, seed);
		else
			param_start_with(param, values, param_is_norm_weight(param));
	}
}

static size_t offset_of(const struct params *params, const char *stem, uint32_t i, const char *rest)
{
	char name[PARAM_NAME_CHARS];

	(void)snprintf(name, sizeof(name), "%s%u.%s", stem, i, rest);
	return params_find(params, name)->offset;
}

static void find_values(struct vit_decoder *decoder)
{
	const struct params *params = decoder->params;

	decoder->entry_weight = params_find(params, "entry.weight")->offset;
	decoder->entry_bias = params_find(params, "entry.bias")->offset;
	decoder->mask_token = params_find(params, "mask_token")->offset;
	for (uint32_t t = 0; t < decoder->shape.n_trunks; t++) {
		struct trunk *trunk = &decoder->trunks[t];

		trunk->at = offset_of(params, "trunk", t, "blocks.0.attn.qkv.weight");
		trunk->weight = offset_of(params, "exit", t, "weight");
		trunk->bias = offset_of(params, "exit", t, "bias");
	}
}

/* ---- making it */

static void carve(struct vit_decoder *decoder, struct vit_carver *carver)
{
	const size_t n = decoder->options.batch, width = decoder->shape.width;
	const size_t n_rows = n_patches(&decoder->shape);

	decoder->values = vit_carve(carver, decoder->params->n_values);
	decoder->positions = vit_carve(carver, (1 + n_rows) * width);
	decoder->place = vit_carve_bytes(carver, n * n_rows * sizeof(*decoder->place));
	decoder->entered = vit_carve(carver, n * (1 + n_kept(decoder)) * width);
	decoder->sequence = vit_carve(carver, n * (1 + n_rows) * width);
	decoder->left = vit_carve(carver, n * (1 + n_rows) * width);
	for (uint32_t t = 0; t < decoder->shape.n_trunks; t++)
		if (is_asked(decoder, t))
			decoder->rows[t] = vit_carve(carver, n * n_rows * width);
	decoder->d_rows = vit_carve(carver, n * n_rows * width);
}

static int init_memory(struct vit_decoder *decoder)
{
	const struct vit_decoder_shape *shape = &decoder->shape;
	struct vit_carver carver = { 0 };
	int r;

	carve(decoder, &carver);
	r = arena_new(&decoder->arena, carver.n_bytes);
	if (r < 0)
		return r;
	carver.arena = decoder->arena;
	carve(decoder, &carver);
	sincos_positions_like(decoder->positions, shape->width, shape->grid,
		shape->native_grid ? shape->native_grid : shape->grid);
	return 0;
}

static struct vit_tape_options trunk_options(const struct vit_decoder *decoder)
{
	return (struct vit_tape_options){
		.batch = decoder->options.batch,
		.n_tokens = 1 + n_patches(&decoder->shape),
		.precision = decoder->options.precision,
		.all_out = true,
		.forward_only = decoder->options.forward_only,
	};
}

static int init_trunk(struct vit_decoder *decoder, struct trunk *trunk)
{
	const struct vit_decoder_options *options = &decoder->options;
	const struct vit_tape_options tape = trunk_options(decoder);
	const struct vit_shape shape = trunk_shape(&decoder->shape);
	const uint32_t n_rows = n_patches(&decoder->shape);
	const enum slot_use use = options->forward_only ? SLOT_INFER : SLOT_LEARN;
	struct diag diag = { "" };
	int r;

	r = vit_over(&trunk->vit, &shape, false, decoder->values + trunk->at, &diag);
	if (r == 0 && !vit_has(trunk->vit, options->precision))
		r = -EOPNOTSUPP;
	if (r == 0)
		r = vit_slot_new(&trunk->slot, trunk->vit, slot_use_in(use, options->precision));
	if (r == 0)
		r = vit_tape_open(&trunk->tape, trunk->vit, &tape);
	return r < 0 ? r
		     : dense_new(&trunk->exit, trunk->vit,
			       &(struct dense_shape){
				       .n_rows = options->batch * n_rows,
				       .n_out = decoder->shape.n_out,
				       .n_in = decoder->shape.width,
				       .forward_only = options->forward_only,
			       });
}

/* All that is known before anything is built. */
static int describe(struct vit_decoder *decoder, const struct vit_decoder_shape *shape,
	const struct vit_decoder_options *options)
{
	int r = vit_decoder_params_new(&decoder->params, shape);

	if (r < 0)
		return r;
	if (options->batch == 0 || options->batch > VIT_MAX_BATCH ||
		options->n_kept > n_patches(shape) || options->precision == PRECISION_INT8 ||
		options->trunks >> shape->n_trunks)
		return -EINVAL;
	decoder->shape = *shape;
	decoder->options = *options;
	find_values(decoder);
	return 0;
}

static int init_entry(struct vit_decoder *decoder)
{
	const struct vit *vit = decoder->trunks[is_asked(decoder, 0) ? 0 : 1].vit;

	return dense_new(&decoder->entry, vit,
		&(struct dense_shape){
			.n_rows = decoder->options.batch * (1 + n_kept(decoder)),
			.n_out = decoder->shape.width,
			.n_in = decoder->shape.n_in,
			.forward_only = decoder->options.forward_only,
		});
}

int vit_decoder_new(struct vit_decoder **ret_decoder, const struct vit_decoder_shape *shape,
	const struct vit_decoder_options *options)
{
	_cleanup_(vit_decoder_freep) struct vit_decoder *decoder = calloc(1, sizeof(*decoder));
	int r;

	if (!decoder)
		return -ENOMEM;
	r = describe(decoder, shape, options);
	if (r == 0)
		r = init_memory(decoder);
	for (uint32_t t = 0; r == 0 && t < shape->n_trunks; t++)
		if (is_asked(decoder, t))
			r = init_trunk(decoder, &decoder->trunks[t]);
	if (r == 0)
		r = init_entry(decoder);
	if (r < 0)
		return r;

	*ret_decoder = TAKE_PTR(decoder);
	return 0;
}

size_t vit_decoder_bytes(
	const struct vit_decoder_shape *shape, const struct vit_decoder_options *options)
{
	_cleanup_(vit_decoder_freep) struct vit_decoder *decoder = calloc(1, sizeof(*decoder));
	const struct vit vit = { .shape = trunk_shape(shape) };
	struct vit_carver carver = { 0 };
	struct vit_tape_options tape;

	if (!decoder || describe(decoder, shape, options) < 0)
		return 0;
	carve(decoder, &carver);
	tape = trunk_options(decoder);
	for (uint32_t t = 0; t < shape->n_trunks; t++)
		if (is_asked(decoder, t))
			carver.n_bytes += vit_tape_bytes(&vit, &tape);
	return carver.n_bytes;
}

void vit_decoder_free(struct vit_decoder *decoder)
{
	if (!decoder)
		return;
	dense_free(decoder->entry);
	for (uint32_t t = 0; t < VIT_DECODER_MAX_TRUNKS; t++) {
		struct trunk *trunk = &decoder->trunks[t];

		dense_free(trunk->exit);
		vit_tape_free(trunk->tape);
		slot_free(trunk->slot);
		vit_free(trunk->vit);
	}
	params_free(decoder->params);
	arena_free(decoder->arena);
	free(decoder);
}

const struct params *vit_decoder_params(const struct vit_decoder *decoder)
{
	return decoder->params;
}

int vit_decoder_load(struct vit_decoder *decoder, const float *values)
{
	int r = 0;

	memcpy(decoder->values, values, decoder->params->n_values * sizeof(*values));
	for (uint32_t t = 0; r == 0 && t < decoder->shape.n_trunks; t++) {
		struct trunk *trunk = &decoder->trunks[t];

		if (!is_asked(decoder, t))
			continue;
		r = vit_load(trunk->vit, decoder->values + trunk->at);
		if (r == 0)
			r = slot_reload(trunk->slot, NULL);
	}
	return r;
}

/* ---- forward */

static int place_patches(struct vit_decoder *decoder, const uint32_t *kept)
{
	const uint32_t n_rows = n_patches(&decoder->shape), n = n_kept(decoder);

	if (!kept && n != n_rows)
		return -EINVAL;
	for (uint32_t i = 0; i < decoder->options.batch; i++) {
		uint32_t *place = decoder->place + (size_t)i * n_rows;

		memset(place, 0xff, n_rows * sizeof(*place));
		for (uint32_t k = 0; k < n; k++) {
			const uint32_t patch = kept ? kept[(size_t)i * n + k] : k;

			if (patch >= n_rows || place[patch] != NOT_KEPT)
				return -EINVAL;
			place[patch] = k;
		}
	}
	return 0;
}

/* Row of what entered that stands at a place of an image's sequence, the class token at 0; NULL: the
 * mask token does. */
static float *entered_at(const struct vit_decoder *decoder, uint32_t image, uint32_t at)
{
	const size_t n_rows = n_patches(&decoder->shape), n = 1 + n_kept(decoder);
	uint32_t k = 0;

	if (at > 0) {
		k = decoder->place[image * n_rows + at - 1];
		if (k == NOT_KEPT)
			return NULL;
		k++;
	}
	return decoder->entered + (image * n + k) * decoder->shape.width;
}

static void lay_sequence(const struct vit_decoder *decoder)
{
	const uint32_t n = 1 + n_patches(&decoder->shape), width = decoder->shape.width;
	const float *mask_token = decoder->values + decoder->mask_token;

#pragma omp parallel for schedule(static)
	for (uint32_t i = 0; i < decoder->options.batch; i++)
		for (uint32_t at = 0; at < n; at++) {
			const float *entered = entered_at(decoder, i, at);
			const float *token = entered ? entered : mask_token;
			const float *position = decoder->positions + (size_t)at * width;
			float *dst = decoder->sequence + ((size_t)i * n + at) * width;

			for (uint32_t d = 0; d < width; d++)
				dst[d] = token[d] + position[d];
		}
}

/* (batch, 1 + L, width) without the class tokens, and the other way with zeros for them. */
static void take_patches(const struct vit_decoder *decoder, float *rows)
{
	const size_t n = (size_t)n_patches(&decoder->shape) * decoder->shape.width;

	for (uint32_t i = 0; i < decoder->options.batch; i++)
		memcpy(rows + i * n,
			decoder->left + i * (n + decoder->shape.width) + decoder->shape.width,
			n * sizeof(*rows));
}

static void give_patches(const struct vit_decoder *decoder, const float *rows)
{
	const size_t n = (size_t)n_patches(&decoder->shape) * decoder->shape.width;

	for (uint32_t i = 0; i < decoder->options.batch; i++) {
		float *dst = decoder->left + i * (n + decoder->shape.width);

		memset(dst, 0, decoder->shape.width * sizeof(*dst));
		memcpy(dst + decoder->shape.width, rows + i * n, n * sizeof(*rows));
	}
}

static int run_trunk(struct vit_decoder *decoder, uint32_t t, float *out)
{
	const size_t n_rows = 1 + (size_t)n_patches(&decoder->shape);
	struct trunk *trunk = &decoder->trunks[t];
	int r;

	memcpy(vit_tape_input(trunk->tape), decoder->sequence,
		decoder->options.batch * n_rows * decoder->shape.width * sizeof(float));
	r = vit_tape_forward(trunk->tape, trunk->slot, decoder->left);
	if (r < 0)
		return r;
	take_patches(decoder, decoder->rows[t]);
	return dense_forward(trunk->exit, decoder->values + trunk->weight,
		decoder->values + trunk->bias, decoder->rows[t], out);
}

static size_t n_out(const struct vit_decoder *decoder)
{
	return (size_t)decoder->options.batch * n_patches(&decoder->shape) * decoder->shape.n_out;
}

int vit_decoder_forward(
	struct vit_decoder *decoder, const float *tokens, const uint32_t *kept, float *out)
{
	int r = place_patches(decoder, kept);

	if (r < 0)
		return r;
	decoder->tokens = tokens;
	r = dense_forward(decoder->entry, decoder->values + decoder->entry_weight,
		decoder->values + decoder->entry_bias, tokens, decoder->entered);
	if (r < 0)
		return r;
	lay_sequence(decoder);
	for (uint32_t t = 0; r == 0 && t < decoder->shape.n_trunks; t++)
		if (is_asked(decoder, t))
			r = run_trunk(decoder, t, out + t * n_out(decoder));
	return r;
}

/* ---- and back */

/* d_out to the gradient of what entered the trunk, into left. */
static int return_trunk(struct vit_decoder *decoder, uint32_t t, const float *d_out, float *grad)
{
	struct trunk *trunk = &decoder->trunks[t];
	int r;

	r = dense_backward(trunk->exit, decoder->values + trunk->weight, decoder->rows[t], d_out,
		grad + trunk->weight, grad + trunk->bias, decoder->d_rows);
	if (r < 0)
		return r;
	give_patches(decoder, decoder->d_rows);
	return vit_tape_backward(
		trunk->tape, trunk->slot, decoder->left, grad + trunk->at, decoder->left);
}

/* The sequence's gradient to that of what entered and of the mask token. */
static void split_sequence(const struct vit_decoder *decoder, float *d_mask_token)
{
	const uint32_t n = 1 + n_patches(&decoder->shape), width = decoder->shape.width;

	for (uint32_t i = 0; i < decoder->options.batch; i++)
		for (uint32_t at = 0; at < n; at++) {
			const float *d = decoder->sequence + ((size_t)i * n + at) * width;
			float *entered = entered_at(decoder, i, at);

			if (entered)
				memcpy(entered, d, width * sizeof(*d));
			else
				row_add(d_mask_token, d, width);
		}
}

int vit_decoder_backward(
	struct vit_decoder *decoder, const float *d_out, float *grad, float *d_tokens)
{
	const size_t n = (size_t)decoder->options.batch * (1 + n_patches(&decoder->shape)) *
			 decoder->shape.width;
	int r = 0;

	if (decoder->options.forward_only)
		return -EINVAL;
	memset(decoder->sequence, 0, n * sizeof(float));
	for (uint32_t t = 0; r == 0 && t < decoder->shape.n_trunks; t++) {
		if (!is_asked(decoder, t))
			continue;
		r = return_trunk(decoder, t, d_out + t * n_out(decoder), grad);
		if (r == 0)
			row_add(decoder->sequence, decoder->left, n);
	}
	if (r < 0)
		return r;
	split_sequence(decoder, grad + decoder->mask_token);
	return dense_backward(decoder->entry, decoder->values + decoder->entry_weight,
		decoder->tokens, decoder->entered, grad + decoder->entry_weight,
		grad + decoder->entry_bias, d_tokens);
}
