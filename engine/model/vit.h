/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_VIT_H
#define KAMEN_MODEL_VIT_H

#include "image/prep.h"
#include "mask/slot.h"
#include "model/base.h"
#include "onednn/onednn.h"

/** Shape of a ViT of the timm/DeiT/AugReg family: pre-norm, class token first, exact GELU; or of
 * MICM's, whose class token enters behind the first blocks. */
struct vit_shape {
	uint32_t width, depth, n_heads, mlp;
	uint32_t patch;     /* 0: blocks and the last norm alone, whose input is tokens */
	uint32_t grid;      /* side of the native position grid: native px = grid * patch */
	uint32_t n_classes; /* 0: no head */
	float norm_eps;
	/* Blocks that see the patches alone; before the next one the class token enters and a second
	 * table of positions is added (metadata class_block, tensor pos_embed_class). 0: none */
	uint32_t class_block;
};

/**
 * A frozen ViT: its frozen tensors in f32, the canonical list of maskable tensors (per block:
 * qkv.weight, qkv.bias, proj.weight, proj.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias, in
 * this order), and the oneDNN engine. The base must outlive it. Only the thread that made it may
 * call functions that take it and compute.
 */
struct vit;

/**
 * Recognises the family from tensor names and shapes, or checks the given one ("vit"). n_heads is
 * metadata `num_heads` where the file has it, else width / 64 (at least 1).
 *
 * @param family  NULL: recognise
 * @return 0, -EBADMSG: a tensor is missing or has another shape (diag), -EOPNOTSUPP: no known
 *         family, -ENOMEM
 */
int vit_new(struct vit **ret_vit, const struct base *base, const char *family, struct diag *diag);
void vit_free(struct vit *vit);
DEFINE_CLEANUP(struct vit *, vit_free)

const struct vit_shape *vit_shape(const struct vit *vit);
const struct mask_layout *vit_layout(const struct vit *vit);
/** Of the base file; of a model that is learnt (model/vit_params.h) of the values it began with. */
const struct digest *vit_digest(const struct vit *vit);
/** (n_tensors) pointers to the frozen values, in the layout's order. */
const float *const *vit_weights(const struct vit *vit);
/** The model's own preprocessing: metadata of the file (vit_prep.c lists the keys), else AugReg's:
 * centre crop of 224/248 of the shorter side, mean = std = 0.5, native size. */
struct prep vit_native_prep(const struct vit *vit);
/** Name of the instruction set that oneDNN runs on here, e.g. "avx512_core". */
const char *vit_isa(const struct vit *vit);

/** Whether this CPU multiplies in it fast. */
bool vit_has(const struct vit *vit, enum precision precision);

/** (width) what a patch gives whose pixels are all 0, the mean colour; NULL: the model has no stem. */
const float *vit_patch_bias(const struct vit *vit);
/** Its own, for layers that are learnt beside it. */
struct onednn *vit_onednn(const struct vit *vit);

/** Errors as slot_new(). */
int vit_slot_new(struct slot **ret_slot, struct vit *vit, enum slot_use use);

/** Primitives and memories for one (batch, px): built once, nothing is allocated per image. */
struct vit_plan;
struct vit_plan_options {
	uint32_t batch, px;
	/** What the products read; the residual, norms and all sums are f32 either way. In int8 that is
	 * the layers' products; attention's and the patches' are in bf16 where the CPU has it, else in f32. */
	enum precision precision;
	/** The last block is computed for every token, no longer for the class token alone, after which
	 * vit_plan_tokens() has them. The embeddings keep their bits. */
	bool tokens_out;
	/** As tokens_out, and vit_plan_features() has what few-shot classification compares. */
	bool pooled;
};
/**
 * @return 0, -EINVAL: px is no multiple of the patch, or too large, -EOPNOTSUPP: !vit_has(),
 *         -ENOMEM, -EIO
 */
int vit_plan_open(
	struct vit_plan **ret_plan, struct vit *vit, const struct vit_plan_options *options);
/** Of embeddings alone. */
int vit_plan_new(struct vit_plan **ret_plan, struct vit *vit, uint32_t batch, uint32_t px,
	enum precision precision);
void vit_plan_free(struct vit_plan *plan);
DEFINE_CLEANUP(struct vit_plan *, vit_plan_free)
/** Where the caller puts its pixels: (batch, 3, px, px). */
float *vit_plan_input(struct vit_plan *plan);

/**
 * @param embeddings  (batch, width): class token after the last norm
 * @return 0, -EINVAL: the slot is of another precision, or -EIO: oneDNN refused (embeddings are
 *         then undefined)
 */
int vit_forward(struct vit_plan *plan, const struct slot *slot, float *embeddings);
/** Of the last vit_forward(), the plan's, until the next one: (batch, 1 + grid^2, width), every token
 * after the last norm, the class token first. NULL: opened without tokens_out. */
const float *vit_plan_tokens(const struct vit_plan *plan);
/** Likewise (batch, 2 width): the class token and the patches as it looks at them, both after the last
 * norm and of length 1. A patch weighs what the class token's attention in the last block gives it,
 * mean over the heads, of what all patches get. NULL: opened without pooled. */
const float *vit_plan_features(const struct vit_plan *plan);

/** Head of the pretrained classes, for checks only: logits (n, n_classes). -ENODATA: no head. */
int vit_logits(const struct vit *vit, const float *embeddings, uint32_t n, float *logits);

/** A plan that keeps what the backward pass needs. In f32 the same output as vit_forward() to 1e-5;
 * in bf16 (mean cosine of the ViT-Tiny's embeddings .9999) with a slot that has SLOT_BF16. */
struct vit_tape;
struct vit_tape_options {
	uint32_t batch;
	uint32_t px;       /* of the images; 0: tokens enter, and no pixels */
	uint32_t n_tokens; /* px 0: tokens of an image, the first taken for its class token */
	enum precision precision;
	/* Patches of an image that enter beside the class token, which always does; 0: all. */
	uint32_t n_kept;
	bool all_out;      /* every token leaves through the last norm, not the class token alone */
	bool forward_only; /* there is no way back, and the memory of one block does for all */
	bool borrows;      /* the pixels are vit_tape_read()'s: the tape has no room for them */
	bool drops;        /* vit_tape_drop() may be called */
};
/** precision and errors as vit_plan_new(); -EINVAL also: no learning in int8, more patches kept than
 * there are, or options that exclude each other */
int vit_tape_open(
	struct vit_tape **ret_tape, struct vit *vit, const struct vit_tape_options *options);
/** What one of them holds, in bytes; 0: there is none of this kind. */
size_t vit_tape_bytes(const struct vit *vit, const struct vit_tape_options *options);
void vit_tape_free(struct vit_tape *tape);
DEFINE_CLEANUP(struct vit_tape *, vit_tape_free)
/** (batch, 3, px, px), or (batch, n_tokens, width), positions added; NULL: it borrows. */
float *vit_tape_input(struct vit_tape *tape);
/** Of a tape that borrows: what the next forwards read, (batch, 3, px, px). */
void vit_tape_read(struct vit_tape *tape, const float *pixels);
/** Which patches of each image enter, in this order: (batch, n_kept) indices into its grid, set by the
 * caller before a forward. NULL: all do. */
uint32_t *vit_tape_kept(struct vit_tape *tape);
/** T': tokens of an image that enter, the class token among them. */
uint32_t vit_tape_n_tokens(const struct vit_tape *tape);
/**
 * What the next forwards put in the place of patches' embeddings, before positions are added.
 *
 * @param replaced  (batch, grid^2), by the patch's place in the grid, kept or not; NULL: none
 * @param vector    (width); both are borrowed
 */
void vit_tape_replace(struct vit_tape *tape, const bool *replaced, const float *vector);

/** Dropping of what a block's two branches (attention's projection, the second layer of the MLP) add
 * to the residual: single values, and whole branches of an image. What is left is scaled up. */
struct vit_drop {
	float rate, path; /* below 1: of the values; of the branches */
	/* Row i of a tape's batch is image images[r % n_images] with r = first + i, and draws from
	 * rng_stream(seed, step, image, stream + r / n_images). */
	uint64_t seed;
	uint32_t step, stream;
	const uint32_t *images; /* borrowed */
	uint32_t n_images, first;
};
/** What the next forward drops, and its way back; NULL: nothing. */
void vit_tape_drop(struct vit_tape *tape, const struct vit_drop *drop);

/**
 * @param out  (batch, width): class tokens after the last norm, or (batch, T', width)
 * @return 0, -EINVAL: the slot is of another precision, or a patch is kept that is none, -EIO: oneDNN
 *         refused
 */
int vit_tape_forward(struct vit_tape *tape, const struct slot *slot, float *out);
/** The way back ends at this block (0 at first): what lies below gets no gradient. */
void vit_tape_end_at(struct vit_tape *tape, uint32_t block);
/**
 * @param d_out    like out
 * @param grad     flat, in the layout's order: dL/dW' of every maskable tensor is added to it; of a
 *                 model that is learnt (model/vit_params.h) the gradients of all its values, n_values
 * @param d_entry  (batch, T', width), overwritten: of what entered the first block, wherever the way
 *                 back of the gradients ends; what was replaced and what positions were added is
 *                 trained by that. NULL: not wanted
 * @return 0, -EINVAL: the slot is not one for SLOT_LEARN in the tape's precision, or the tape has no
 *         way back, -EIO: oneDNN refused
 */
int vit_tape_backward(struct vit_tape *tape, const struct slot *slot, const float *d_out,
	float *grad, float *d_entry);

/** The same forward in plain C, one image, straight from the base: the slow twin.
 * pixels (3, px, px), embedding (width); mask NULL: all kept. */
int vit_reference(const struct vit *vit, const struct mask *mask, const float *pixels, uint32_t px,
	float *embedding);
/** What a plan with tokens_out and pooled gives of one image: tokens (1 + grid^2, width), feature
 * (2 width). */
int vit_reference_tokens(const struct vit *vit, const struct mask *mask, const float *pixels,
	uint32_t px, float *tokens, float *feature);
/** Runs a small input through vit_forward() and vit_reference(), with and without a mask.
 * @return 0, -EIO: oneDNN fails here (diag says how far off), -ENOMEM */
int vit_selftest(struct vit *vit, enum precision precision, struct diag *diag);

#endif
