/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_VIT_TEAM_INTERNAL_H
#define KAMEN_MODEL_VIT_TEAM_INTERNAL_H

#include "base/spread.h"
#include "model/row_wide.h"
#include "model/vit_team.h"

/* The products with packed weights, image by image, whose part of the result stays near by. In the last
 * block class tokens alone go on: LAST_KV is still of all tokens, LAST_Q of an image's class token; a whole
 * team then has REST_Q of all. Those from LAST_PROJ on are of the class tokens of all images at once. */
enum team_layer {
	TEAM_QKV,
	TEAM_PROJ,
	TEAM_FC1,
	TEAM_FC2,
	TEAM_PATCH,
	TEAM_LAST_KV,
	TEAM_REST_Q,
	TEAM_LAST_Q,
	TEAM_LAST_PROJ,
	TEAM_LAST_FC1,
	TEAM_LAST_FC2,
	TEAM_N_LAYERS,
};

/* A rectangle of a product's result. */
struct team_piece {
	struct op *op; /* NULL: nothing */
	uint32_t row, n_rows, column, n_columns;
};

/* Whole heads of images from item on, or some queries of them. */
struct team_heads {
	struct op *scores, *mix; /* NULL: nothing */
	size_t item, n_items;
	uint32_t row, n_rows;
};

/* What is left where lanes do not divide the columns, or heads, is shared by rows. By rows all is whole:
 * a lane's rows. */
enum { TEAM_WHOLE, TEAM_REST, TEAM_N_PIECES };

/* Keys, or a head's columns, that lie together where attention's products are convolutions; keys are
 * turned so many at a time. */
#define TEAM_KEY_BLOCK TURN_ROWS

struct team_lane {
	struct onednn *onednn;
	uint32_t first, end;                      /* images that it computes, or has a share of */
	struct team_piece *pieces[TEAM_N_LAYERS]; /* (n_pieces) each */
	unsigned n_pieces;
	struct team_heads *heads, *last_heads; /* (n_pieces) each */
	void *k, *v;                           /* of the block where it is */
	void *panel;                           /* a piece's result */
	float *logits;                         /* (T, n_keys) */
	void *probs;                           /* likewise; in f32 logits */
	int error;
};

struct vit_team {
	const struct vit *vit;
	const struct vit_stem *stem;
	enum precision precision;
	uint32_t n, n_tokens, n_keys;
	bool by_images; /* lanes share images: nobody waits for anybody */
	bool by_rows; /* images are cut up by tokens, not columns, until class tokens go on alone */
	bool in_blocks; /* keys and values lie as packed weights: (n_keys / 8, D / H, 8) and
			 * (D / H / 8, n_keys, 8) a head */
	struct arena *arena;
	float *x; /* (n, T, D) */
	void *y;  /* (n, T, D) a norm's result; then attention's */
	void *q;  /* (n, H, T, D / H) */
	/* (n, H, n_keys, D / H) whose rest is 0, of this block and of the next: by rows a lane may be there
	 * while another still looks at these. Else both are one. */
	void *k[2], *v[2];
	void *hidden; /* (n, T, mlp) */
	/* Behind the last block's attention, of class tokens alone: (n, D) twice, (n, mlp). Memory of
	 * their own: a lane may be there while another is not. */
	float *last;
	void *last_y, *last_hidden;
	void *class_probs; /* (n, H, n_keys), or NULL: not whole */
	bool whole;        /* all tokens pass the last block, after the class tokens */
	struct spread *spread;
	const struct kern_row_impl *narrow;
	const struct kern_wide_impl *wide;
	unsigned n_lanes;
	struct team_lane lanes[];
};

/* Of n things in order, those of one of n_lanes. */
static inline size_t team_share(size_t n, unsigned lane, unsigned n_lanes)
{
	return n * lane / n_lanes;
}

/* Where what is i values behind data lies. */
static inline void *team_at(const struct vit_team *team, void *data, size_t i)
{
	return (char *)data + i * precision_bytes(team->precision);
}

/* vit_team_ops.c */
int team_lane_init(struct vit_team *team, unsigned lane);
void team_lane_done(struct team_lane *lane);
/** Values of the largest panel. */
size_t team_panel_values(const struct vit_team *team);

static inline void *team_y(const struct vit_team *team, bool last)
{
	return last ? team->last_y : team->y;
}

/* Columns of one head that a product made, of a piece's rows. */
struct team_columns {
	const void *src;
	size_t stride;      /* from row to row, in values */
	size_t item;        /* image and head */
	uint32_t column, n; /* of the head's */
};

/* vit_team_keys.c: how attention's operands lie */
int team_choose_keys(struct vit_team *team);
void team_put_queries(
	struct vit_team *team, const struct team_piece *piece, const struct team_columns *columns);
void team_put_keys(struct vit_team *team, void *k, const struct team_piece *piece,
	const struct team_columns *columns);
void team_put_values(struct vit_team *team, void *v, const struct team_piece *piece,
	const struct team_columns *columns);

/* vit_team_attention.c: q, k and v to y, one lane's share of the heads from `item` on */
int team_attend(struct vit_team *team, struct team_lane *lane, size_t item, bool last);

#endif
