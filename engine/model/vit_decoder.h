/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_VIT_DECODER_H
#define KAMEN_MODEL_VIT_DECODER_H

#include "model/params.h"
#include "model/vit.h"

#define VIT_DECODER_MAX_TRUNKS 2u

/**
 * A small trainable decoder behind an encoder, as MAE and HPM have it: one linear layer n_in -> width,
 * a mask token where a patch did not enter the encoder, fixed positions of sines; then one trunk or
 * two of the same input, each `depth` blocks, a norm and a linear layer width -> n_out for every patch.
 */
struct vit_decoder_shape {
	uint32_t n_in; /* the encoder's width */
	uint32_t width, depth, n_heads, mlp;
	uint32_t grid; /* side: L = grid^2 patches */
	/* Side of the grid that its values were learnt on, whose positions the patches of this one
	 * have; 0: this one. */
	uint32_t native_grid;
	uint32_t n_out;
	uint32_t n_trunks; /* 1 or 2 */
};

struct vit_decoder_options {
	uint32_t batch;
	uint32_t n_kept;          /* patches of an image that come from the encoder; 0: all L */
	enum precision precision; /* of the trunks' products */
	bool forward_only;
	/* A bit for each trunk that is asked, 0: all. The others are not built, and their part of out
	 * and d_out is neither written nor read. */
	uint32_t trunks;
};

/** The list of its values: "entry", "mask_token", "trunk0...", "exit0", and so on. -EINVAL, -ENOMEM */
int vit_decoder_params_new(struct params **ret_params, const struct vit_decoder_shape *shape);
/** Values to start at, as MAE's: Xavier, biases 0, norms 1, the mask token normal. */
void vit_decoder_start(const struct params *params, float *values, uint64_t seed);

/** Belongs to the thread that made it, like a model. */
struct vit_decoder;
/** It has no values before vit_decoder_load(). @return 0, -EINVAL, -EOPNOTSUPP: this CPU has not the
 * precision, -ENOMEM, -EIO */
int vit_decoder_new(struct vit_decoder **ret_decoder, const struct vit_decoder_shape *shape,
	const struct vit_decoder_options *options);
void vit_decoder_free(struct vit_decoder *decoder);
DEFINE_CLEANUP(struct vit_decoder *, vit_decoder_free)

/** What it would take, in bytes, but for its weights as they are packed; 0: there is none of this
 * kind. */
size_t vit_decoder_bytes(
	const struct vit_decoder_shape *shape, const struct vit_decoder_options *options);

/** What is learnt of it; the decoder keeps it. */
const struct params *vit_decoder_params(const struct vit_decoder *decoder);
/** Takes a copy of the values, and again after every step. -ENOMEM, -EIO */
int vit_decoder_load(struct vit_decoder *decoder, const float *values);

/**
 * @param tokens  (batch, 1 + n_kept, n_in) as they left the encoder, the class token first; borrowed
 *                until vit_decoder_backward()
 * @param kept    (batch, n_kept): which patches they are; NULL where all are there, in their order
 * @param out     (n_trunks, batch, L, n_out), of every patch, kept or not
 * @return 0, -EINVAL: a patch is kept that is none, or twice, -EIO
 */
int vit_decoder_forward(
	struct vit_decoder *decoder, const float *tokens, const uint32_t *kept, float *out);
/**
 * @param d_out     like out
 * @param grad      (n_values), added to
 * @param d_tokens  like tokens, overwritten; NULL: not wanted
 * @return 0, -EINVAL: it was made for the forward alone, -EIO
 */
int vit_decoder_backward(
	struct vit_decoder *decoder, const float *d_out, float *grad, float *d_tokens);

#endif
