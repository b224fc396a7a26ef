/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_VIT_INTERNAL_H
#define KAMEN_MODEL_VIT_INTERNAL_H

#include <math.h>

#include "base/arena.h"
#include "mask/slot_internal.h"
#include "model/params.h"
#include "model/row.h"
#include "model/row_grad.h"
#include "model/row_int8.h"
#include "model/vit.h"
#include "onednn/op.h"

/* The maskable layers of a block. Layer i of block b is slot layer 4 b + i; its weight is tensor
 * 2 (4 b + i) of the mask layout, its bias the one behind. */
enum vit_layer { VIT_QKV, VIT_PROJ, VIT_FC1, VIT_FC2, VIT_N_LAYERS };
/** What timm calls them. */
extern const char *const vit_layer_names[VIT_N_LAYERS];

/* No model is larger, and no batch. */
enum {
	VIT_MAX_WIDTH = 16384,
	VIT_MAX_DEPTH = 256,
	VIT_MAX_PATCH = 64,
	VIT_MAX_GRID = 256,
	VIT_MAX_BATCH = 65536,
};

static inline unsigned vit_layer_index(uint32_t block, enum vit_layer layer)
{
	return block * VIT_N_LAYERS + layer;
}

static inline float vit_attention_factor(const struct vit_shape *shape)
{
	const uint32_t head = shape->width / shape->n_heads;

	return 1 / sqrtf((float)head);
}

struct vit_norm {
	const float *weight, *bias; /* (width) */
};

/* Tensors: borrowed from the base where it holds aligned f32, else in the arena. */
struct vit {
	const struct base *base; /* NULL: what is learnt has none */
	struct params *params;   /* what is learnt; NULL: frozen */
	float *values;           /* (params->n_values): every tensor below is a part of it */
	struct digest digest;    /* of the base's file; of the values that learning starts at */
	struct vit_shape shape;
	struct onednn *onednn;
	struct arena *arena;
	struct mask_layout *layout;
	const float **weights;                /* (n_tensors) */
	struct vit_norm *norm1, *norm2;       /* (depth) */
	struct vit_norm norm;                 /* the last one */
	const float *class_token;             /* (width) */
	const float *positions;               /* (1 + grid^2, width) */
	const float *late_positions;          /* the same, added where a late class token enters */
	const float *patch_weight;            /* (width, 3, patch, patch) */
	const float *patch_bias;              /* (width) */
	const float *head_weight;             /* (n_classes, width) or NULL */
	const float *head_bias;               /* (n_classes) */
	struct packed *patches[N_PRECISIONS]; /* NULL: this CPU has it not, or int8 */
};

/** Where a tensor's gradient lies among all of them; NULL: it is frozen, or not learnt. */
static inline float *vit_grad_of(const struct vit *vit, float *grad, const float *tensor)
{
	return vit->params ? grad + (tensor - vit->values) : NULL;
}

/* vit_embed.c */
static inline size_t vit_patch_values(const struct vit_shape *shape)
{
	return (size_t)3 * shape->patch * shape->patch;
}
/** Position embedding for a grid of another side, class token first and added to its own position:
 * (1 + grid^2, width). Bicubic as PyTorch's interpolate(align_corners=False), a = -0.75. */
void vit_positions(const struct vit *vit, uint32_t grid, float *dst);
/** The same of one of the tables. */
void vit_positions_of(const struct vit *vit, const float *table, uint32_t grid, float *dst);
/** Its way back: d (1 + grid^2, width) adds to grad, (1 + native grid^2, width). */
void vit_positions_grad(const struct vit *vit, uint32_t grid, const float *d, float *grad);
/** Cuts (n, 3, px, px) into patches: (n, T, 3 patch^2), rounded to the precision. Where the class
 * token would be nothing is written. */
void vit_columns(const struct vit_shape *shape, uint32_t n, uint32_t px, const float *pixels,
	enum precision precision, void *dst);
/** The same of n_kept patches an image alone: kept (n, n_kept), dst (n, 1 + n_kept, 3 patch^2). */
void vit_columns_of(const struct vit_shape *shape, uint32_t n, uint32_t px, const float *pixels,
	const uint32_t *kept, uint32_t n_kept, enum precision precision, void *dst);
/** Positions on top of what the patches gave, tokens (n, T, width); the class token is its position
 * alone. kept (n, T - 1): which patches they are, NULL: all, in their order. */
void vit_add_positions(const struct vit_shape *shape, uint32_t n, uint32_t n_tokens,
	const float *positions, const uint32_t *kept, float *tokens);

/* vit_block.c */

/** Extent of one pass: n images of n_tokens; n_queries is n_tokens, or 1 in the last block, where
 * only the class token is of use behind the keys and values. precision: what the products read;
 * the residual, norms and all sums are f32. */
struct vit_extent {
	uint32_t n, n_tokens, n_queries;
	/* Rows of a dense head's keys and values, n_tokens or more: what is more is 0, and fills what
	 * the product's tiles would else be cut for. Called T below where it is about logits, probs, k, v. */
	uint32_t n_keys;
	enum precision precision;
};

/** Of an image, for a forward pass: whole tiles of AMX in bf16, where 197 take twice as long as 224. */
static inline uint32_t vit_n_keys(enum precision precision, uint32_t n_tokens)
{
	return precision == PRECISION_F32 ? n_tokens : (n_tokens + 31) / 32 * 32;
}

/** What a layer's gradient reads: f32 values, and the same in the layers' precision; one buffer if
 * that is f32 too. */
struct vit_operand {
	float *values;
	void *rounded;
};

/* vit_heads.c: (n, tokens, parts D) with D = (H, D / H) and one dense matrix a head */

/** The operands of attention's products, each head dense. */
struct vit_heads {
	bf16 *q, *k, *v; /* (n, H, Q, D / H), (n, H, T, D / H) twice, from zeroed memory */
	bf16 *out;       /* (n, H, Q, D / H) */
};
/** qkv (n, T, 3 D) to q, k and v; of q the first Q tokens. */
void vit_heads_split(const struct vit_shape *shape, struct vit_extent extent, const bf16 *qkv,
	const struct vit_heads *heads);
/** The other way; what has no query gets 0. */
void vit_heads_join(const struct vit_shape *shape, struct vit_extent extent,
	const struct vit_heads *heads, bf16 *qkv);
/** att (n, Q, D) to out, and back */
void vit_heads_take(const struct vit_shape *shape, struct vit_extent extent, const bf16 *att,
	const struct vit_heads *heads);
void vit_heads_give(const struct vit_shape *shape, struct vit_extent extent,
	const struct vit_heads *heads, bf16 *att);

/** Where a block reads and writes. In a plan y1 = y2, and so on; a tape keeps what the way back reads
 * of each of them. void: in the layers' precision. */
struct vit_block_data {
	float *x;               /* (n, T, D) input */
	void *y1;               /* (n, T, D) after the first norm */
	float *mean1, *var1;    /* (n T), tape only */
	void *qkv;              /* (n, T, 3 D) */
	struct vit_heads heads; /* bf16 only */
	float *logits; /* (n, H, Q, T) of which bf16 may use a part; in f32 the same as probs */
	void *probs;   /* (n, H, Q, T) */
	void *att;     /* (n, Q, D) */
	float *mid;    /* (n, Q, D) x + attention; may be x where Q = T */
	void *y2;      /* (n, Q, D) */
	float *mean2, *var2;         /* (n Q), tape only */
	void *pre;                   /* (n, Q, mlp) before the GELU; may be hidden */
	void *hidden;                /* (n, Q, mlp) */
	float *out;                  /* (n, Q, D) mid + mlp; may be mid */
	const struct vit_drop *drop; /* NULL: none; then neither mid nor out is another buffer */
};

/* vit_drop.c: of what proj and fc2 give */

/** branch (n, Q, D) becomes residual + what is kept of it; residual (n, Q, D), or the first Q tokens
 * of (n, T, D) where it has more. */
void vit_drop_add(const struct vit_drop *drop, const struct vit_shape *shape,
	struct vit_extent extent, unsigned layer, const float *residual, uint32_t n_residual,
	float *branch);
/** The gradient of the branch from that of the sum, g (n, Q, D): dst in the extent's precision. */
void vit_drop_grad(const struct vit_drop *drop, const struct vit_shape *shape,
	struct vit_extent extent, unsigned layer, const float *g, void *dst);

/* vit_attention.c */

/** Softmax(q k^T / sqrt(D / H)) v. In f32 the operands are views of the qkv layer's result; in bf16
 * oneDNN has fast products for dense operands alone, so every head is copied out and back. */
struct vit_attention {
	struct op *scores, *softmax, *mix; /* softmax: f32 only */
	uint32_t at_once;                  /* bf16: images whose logits are kept near by */
};
/** Parts of the fused (n, T, 3 D) buffer and of (n, Q, D), as (n, H, rows, D / H). */
struct view vit_view_qkv(const struct vit_shape *shape, struct vit_extent extent, uint32_t rows);
struct view vit_view_heads(const struct vit_shape *shape, struct vit_extent extent);
struct view vit_view_probs(const struct vit_shape *shape, struct vit_extent extent);
/** In bf16: (n H, rows, cols), dense. */
struct view vit_view_dense(
	const struct vit_shape *shape, struct vit_extent extent, uint32_t rows, uint32_t cols);
struct view vit_view_transposed(struct view view);
int vit_attention_init(
	struct vit_attention *attention, const struct vit *vit, struct vit_extent extent);
void vit_attention_done(struct vit_attention *attention);
/** data->qkv to data->att */
int vit_attention_forward(struct vit_attention *attention, const struct vit *vit,
	struct vit_extent extent, const struct vit_block_data *data);

/* vit_block.c */

struct vit_block {
	struct vit_extent extent;
	struct vit_attention attention;
	struct op *norm1, *norm2; /* f32 only: else a row's */
	struct op *qkv, *proj, *fc1, *fc2;
	struct op *gelu; /* f32 tape only: else it is part of fc1, or a row's */
};

/** keep: for a tape (statistics and values before the GELU are kept). */
int vit_block_init(
	struct vit_block *block, const struct vit *vit, struct vit_extent extent, bool keep);
void vit_block_done(struct vit_block *block);
int vit_run_norm(struct op *op, const struct vit_norm *norm, const float *src, float *mean,
	float *variance, float *dst);
/** Its two halves: data->x to data->qkv, and that, which is left as it is, to data->out. */
int vit_block_look(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data);
int vit_block_think(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data);
int vit_block_forward(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data);

/* vit_block_int8.c: the four layers in int8; attention, norms and the residual as in a plan of the
 * precision that lies between (the extent's) */

/** Images whose sums are kept near by: qkv takes so many at once, and all that follows on attention. */
struct vit_int8_parts {
	uint32_t qkv, rest;
};
struct vit_int8_parts vit_int8_parts(const struct vit_shape *shape, struct vit_extent extent);

/** What an int8 pass has besides a plan's buffers; of these it needs neither y1, y2 nor hidden. */
struct vit_int8 {
	uint8_t *narrow; /* (n, T, D): what qkv, proj and fc1 read */
	uint8_t *hidden; /* (rows at once, mlp): what fc2 reads */
	struct row_steps
		*steps; /* (n, T): of what a row's last product read, or its next one reads */
	int32_t *acc;   /* (rows at once, 3 D or mlp): what a product gave */
};

int vit_block_int8_init(struct vit_block *block, const struct vit *vit, struct vit_extent extent);
/** Of data->x (rows, D) what block b reads; a block leaves it for the next one. */
void vit_block_int8_begin(const struct vit *vit, uint32_t b, size_t rows,
	const struct vit_block_data *data, const struct vit_int8 *int8);
/** vit_block_look() and vit_block_think() from and to int8->narrow. */
int vit_block_int8_look(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_int8 *int8);
int vit_block_int8_think(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_int8 *int8);

/* vit_carve.c */

/** Hands out parts of an arena, or (arena NULL) only adds up what they will need. */
struct vit_carver {
	struct arena *arena;
	size_t n_bytes;
};
void *vit_carve_bytes(struct vit_carver *carver, size_t n_bytes);
float *vit_carve(struct vit_carver *carver, size_t n);
/** n values in a precision. */
void *vit_carve_in(struct vit_carver *carver, size_t n, enum precision precision);
/** q of n values, k and v of n_keys; out is given, nobody keeps it. Nothing in f32. */
struct vit_heads vit_carve_heads(
	struct vit_carver *carver, size_t n, size_t n_keys, enum precision precision, bf16 *out);

/* vit_stem.c: pixels to tokens */
struct vit_stem {
	uint32_t n, px, grid;
	uint32_t n_tokens; /* that enter, the class token first */
	enum precision precision;
	bool borrows;        /* there is no input: pixels is set before each forward */
	float *input;        /* (n, 3, px, px) */
	const float *pixels; /* of the caller's; NULL: input */
	uint32_t *kept;      /* (n, T - 1) patches that enter; NULL: all of the grid */
	/* (n, grid^2) whose patches are replaced by the vector (D); NULL: none */
	const bool *replaced;
	const float *replacement;
	/* (n T, 3 patch^2) in the precision. With a row for the class token: of 196 rows oneDNN makes
	 * blocks of 49, which take half as long again. */
	void *columns;
	float *positions; /* (1 + grid^2, D) */
	struct op *patch;
};

/** @return 0, or -EINVAL: px is no multiple of the patch, or too large */
int vit_stem_size(struct vit_stem *stem, const struct vit *vit, uint32_t n, uint32_t px,
	enum precision precision);
/** Of tokens that come from elsewhere: the sizes alone. */
int vit_stem_of_tokens(
	struct vit_stem *stem, uint32_t n, uint32_t n_tokens, enum precision precision);
/** Whether all patches that are kept lie in the grid. */
bool vit_stem_is_whole(const struct vit_stem *stem);
void vit_stem_carve(struct vit_stem *stem, const struct vit *vit, struct vit_carver *carver);
int vit_stem_init(struct vit_stem *stem, const struct vit *vit);
void vit_stem_done(struct vit_stem *stem);
int vit_stem_forward(struct vit_stem *stem, const struct vit *vit, float *tokens);

/* vit_stem_grad.c: of a model that is learnt */
struct vit_stem_grad {
	void *d;          /* (n, T, D) in the precision: 0 where no pixels entered */
	float *positions; /* (1 + grid^2, D) */
	struct op *weight;
};
void vit_stem_grad_carve(struct vit_stem_grad *grad, const struct vit_stem *stem,
	const struct vit *vit, struct vit_carver *carver);
int vit_stem_grad_init(
	struct vit_stem_grad *grad, const struct vit_stem *stem, const struct vit *vit);
void vit_stem_grad_done(struct vit_stem_grad *grad);
/** What d_tokens (n, T, D) says of the class token and of a table of positions: added to grad
 * (n_values). places (1 + grid^2, D): scratch. */
void vit_places_grad(const struct vit_stem *stem, const struct vit *vit, const float *table,
	const float *d_tokens, float *places, float *grad);
/** After a forward: d_tokens (n, T, D) of what entered the first block; adds to grad (n_values). */
int vit_stem_backward(struct vit_stem_grad *stem_grad, const struct vit_stem *stem,
	const struct vit *vit, const float *d_tokens, float *grad);

/* vit_late.c: a class token that enters behind the first blocks (shape.class_block). Their tokens are
 * the patches alone, (n, T - 1, D) of a pass of T; what a stem puts in its place before is left out. */
struct vit_late {
	float *positions; /* (1 + grid^2, D) */
};
/** (n, T, D) to (n, T - 1, D), in place. */
void vit_class_leave(void *rows, const struct vit_shape *shape, uint32_t n, uint32_t n_tokens,
	enum precision precision);
/** The other way, with 0 for the class tokens. */
void vit_class_return(float *rows, const struct vit_shape *shape, uint32_t n, uint32_t n_tokens);
void vit_late_carve(struct vit_late *late, const struct vit_stem *stem, const struct vit *vit,
	struct vit_carver *carver);
void vit_late_init(const struct vit_late *late, const struct vit_stem *stem, const struct vit *vit);
/** tokens (n, T - 1, D) to (n, T, D), in place: class token and positions. */
void vit_late_enter(const struct vit_late *late, const struct vit_stem *stem, const struct vit *vit,
	float *tokens);
/** Adds what d_tokens (n, T, D) says of both to grad (n_values), where they are learnt. */
void vit_late_backward(const struct vit_late *late, const struct vit_stem *stem,
	const struct vit *vit, const float *d_tokens, float *grad);

/** Gradients on their way down; shared by all blocks. void: in the layers' precision. */
struct vit_grad_data {
	/* (n, T, D), or (n, Q, D): gradient of what leaves the block; rounded is the next one's too */
	struct vit_operand g;
	float *below; /* (n, T, D): where the gradient of what entered it goes; may be g.values if Q = T */
	float *y;               /* (n, T, D) */
	void *hidden;           /* (n, Q, mlp) */
	void *att;              /* (n, Q, D); in f32 y */
	struct vit_heads heads; /* bf16 only */
	void *qkv;              /* (n, T, 3 D); may be hidden */
	void *probs;            /* (n, H, Q, T) */
	void *dropped;          /* (n, Q, D): of what proj or fc2 gave, where some is dropped */
	float *grad; /* the caller's, of all maskable tensors; NULL: only what lies below is wanted */
};

/* vit_attention_grad.c */
struct vit_attention_grad {
	struct op *dprobs, *dv, *softmax, *dq, *dk;
};
int vit_attention_grad_init(
	struct vit_attention_grad *grad, const struct vit *vit, struct vit_extent extent);
void vit_attention_grad_done(struct vit_attention_grad *grad);
/** d->att to d->qkv */
int vit_attention_backward(struct vit_attention_grad *grad, const struct vit *vit,
	struct vit_extent extent, const struct vit_block_data *data, const struct vit_grad_data *d);

/* vit_block_grad.c */
struct vit_layer_grad {
	struct op *dx, *dw;
};

struct vit_block_grad {
	struct vit_extent extent;
	struct vit_layer_grad layers[VIT_N_LAYERS];
	struct op *gelu; /* f32 only: else it is a row's */
	struct vit_attention_grad attention;
};

/** Adds a norm's own gradient, where it is learnt: of sums dy, x, mean, variance and rows. */
void vit_norm_sums(const struct vit *vit, float *grad, const struct vit_norm *norm,
	const struct norm_sums *sums);
int vit_block_grad_init(
	struct vit_block_grad *grad, const struct vit *vit, struct vit_extent extent);
void vit_block_grad_done(struct vit_block_grad *grad);
/** @param below  false: the block is the first, what lies below it is frozen */
int vit_block_backward(struct vit_block_grad *grad, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_grad_data *d, bool below);

/* vit_pool.c */

/** Rows of softmax that the class tokens of n images have of every head: (n, H, stride) of which
 * n_tokens count. */
struct vit_class_probs {
	const void *probs;
	enum precision precision;
	uint32_t n, n_heads, n_tokens, stride;
};
/** weights (n, n_tokens - 1): mean over the heads, of what all patches get. */
void vit_pool_weights(const struct vit_class_probs *probs, float *weights);
/**
 * @param embedding  (width) class token
 * @param patches    (n_patches, width)
 * @param feature    (2 width): both of length 1, or 0 where there is no direction
 */
void vit_pool(const float *embedding, const float *patches, const float *weights,
	uint32_t n_patches, uint32_t width, float *feature);

/* vit_reference.c */

/** A step of W' of one tensor, masking done: what a central difference moves. */
struct vit_nudge {
	unsigned tensor;
	const float *direction; /* of the tensor's size */
	double step;
};
/** What enters the first block, (T, D), positions added; T to ret_n. */
int vit_reference_enter(
	const struct vit *vit, const float *pixels, uint32_t px, double *tokens, uint32_t *ret_n);
/** n tokens (n, D) through the blocks and the last norm, in place; nudge may be NULL. */
int vit_reference_run(const struct vit *vit, const struct mask *mask, const struct vit_nudge *nudge,
	double *tokens, size_t n);
/** vit_reference() in double throughout; nudge may be NULL. */
int vit_reference_nudged(const struct vit *vit, const struct mask *mask,
	const struct vit_nudge *nudge, const float *pixels, uint32_t px, double *embedding);

#endif
