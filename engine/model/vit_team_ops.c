/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "model/vit_team_internal.h"

struct layer_size {
	uint32_t rows, k, n;
	bool adds;       /* its result is added to something in f32 */
	uint32_t column; /* of the weights, where its own begin */
	uint32_t all;    /* columns that the weights have; 0: n */
};

static struct layer_size size_of(const struct vit_team *team, enum team_layer layer)
{
	const struct vit_shape *shape = &team->vit->shape;
	const uint32_t width = shape->width, mlp = shape->mlp, t = team->n_tokens, n = team->n;
	const struct layer_size sizes[TEAM_N_LAYERS] = {
		[TEAM_QKV] = { t, width, 3 * width, false },
		[TEAM_PROJ] = { t, width, width, true },
		[TEAM_FC1] = { t, width, mlp, false },
		[TEAM_FC2] = { t, mlp, width, true },
		[TEAM_PATCH] = { t, (uint32_t)vit_patch_values(shape), width, true },
		[TEAM_LAST_KV] = { t, width, 2 * width, false, width, 3 * width },
		[TEAM_REST_Q] = { team->whole ? t : 0, width, width, false, 0, 3 * width },
		[TEAM_LAST_Q] = { 1, width, width, false, 0, 3 * width },
		[TEAM_LAST_PROJ] = { n, width, width, true },
		[TEAM_LAST_FC1] = { n, width, mlp, false },
		[TEAM_LAST_FC2] = { n, mlp, width, true },
	};

	return sizes[layer];
}

size_t team_panel_values(const struct vit_team *team)
{
	size_t most = 0;

	for (enum team_layer layer = 0; layer < TEAM_N_LAYERS; layer++) {
		struct layer_size size = size_of(team, layer);
		size_t n = (size_t)size.rows * size.n;

		most = n > most ? n : most;
	}
	return most;
}

static int op_error(int r, const struct op *op)
{
	return r == 0 && op_is_slow(op) ? -EOPNOTSUPP : r;
}

static int piece_init(struct vit_team *team, struct team_lane *lane, enum team_layer layer,
	struct team_piece *piece, const struct packed *packed)
{
	const struct layer_size size = size_of(team, layer);
	int r;

	if (piece->n_rows == 0 || piece->n_columns == 0)
		return 0;
	r = op_matmul_new(&piece->op, lane->onednn,
		&(struct op_matmul){
			.src = view_in(view_2d(piece->n_rows, size.k), team->precision),
			.packed = packed,
			.n_columns = piece->n_columns,
			.dst = view_in(view_2d(piece->n_rows, piece->n_columns),
				size.adds ? PRECISION_F32 : team->precision),
			.bias = true,
			.scale = layer != TEAM_PATCH,
		});
	return op_error(r, piece->op);
}

static struct team_piece some_rows(uint32_t rows, unsigned l, unsigned n_lanes)
{
	const uint32_t row = (uint32_t)team_share(rows, l, n_lanes);

	return (struct team_piece){
		.row = row,
		.n_rows = (uint32_t)team_share(rows, l + 1, n_lanes) - row,
	};
}

/* The pieces of lane l among n_lanes, of so many rows. */
static void cut_columns(struct team_piece *pieces, const struct layer_size *size, uint32_t block,
	unsigned l, unsigned n_lanes)
{
	const uint32_t n_blocks = size->n / block, n_whole = n_blocks / n_lanes;

	pieces[TEAM_WHOLE] = (struct team_piece){
		.n_rows = size->rows,
		.column = size->column + l * n_whole * block,
		.n_columns = n_whole * block,
	};
	pieces[TEAM_REST] = some_rows(size->rows, l, n_lanes);
	pieces[TEAM_REST].column = size->column + n_lanes * n_whole * block;
	pieces[TEAM_REST].n_columns = n_blocks % n_lanes * block;
}

static void cut(const struct vit_team *team, struct team_piece *pieces, enum team_layer layer,
	const struct layer_size *size, uint32_t block, unsigned l)
{
	if (layer >= TEAM_LAST_Q || !team->by_rows) {
		cut_columns(pieces, size, block, l, team->n_lanes);
		return;
	}
	pieces[TEAM_WHOLE] = some_rows(size->rows, l, team->n_lanes);
	pieces[TEAM_WHOLE].column = size->column;
	pieces[TEAM_WHOLE].n_columns = size->n;
}

/* Lanes that share images cut these up all the same: an op of another size may round otherwise. */
static void cut_all(struct vit_team *team, struct team_lane *lane, enum team_layer layer,
	struct layer_size size, uint32_t block)
{
	const bool last = layer >= TEAM_LAST_PROJ;

	if (last)
		size.rows = lane->end - lane->first;
	for (unsigned l = 0; l < team->n_lanes; l++) {
		struct team_piece *pieces = &lane->pieces[layer][TEAM_N_PIECES * l];

		cut(team, pieces, layer, &size, block, l);
		for (unsigned i = 0; last && i < TEAM_N_PIECES; i++)
			pieces[i].row += lane->first;
	}
}

static int layer_init(struct vit_team *team, unsigned l, enum team_layer layer)
{
	const struct layer_size size = size_of(team, layer);
	struct team_lane *lane = &team->lanes[l];
	_cleanup_(packed_freep) struct packed *packed = NULL;
	uint32_t block;
	int r;

	lane->pieces[layer] = calloc(lane->n_pieces, sizeof(*lane->pieces[layer]));
	if (!lane->pieces[layer])
		return -ENOMEM;
	r = packed_new(&packed, lane->onednn, size.k, size.all ? size.all : size.n, PACKED_N_BY_K,
		team->precision);
	if (r < 0)
		return r;
	block = packed_column_block(packed);
	if (block == 0 || size.column % block != 0 || size.n % block != 0)
		return -EOPNOTSUPP;
	if (team->by_images)
		cut_all(team, lane, layer, size, block);
	else
		cut(team, lane->pieces[layer], layer, &size, block, l);
	for (unsigned i = 0; i < lane->n_pieces && r == 0; i++)
		r = piece_init(team, lane, layer, &lane->pieces[layer][i], packed);
	return r;
}

/* k and v: how keys and values lie, NULL: dense */
static int heads_ops(struct vit_team *team, struct team_lane *lane, struct team_heads *heads,
	const struct packed *k, const struct packed *v)
{
	const struct vit_shape *shape = &team->vit->shape;
	const int64_t head = shape->width / shape->n_heads, rows = heads->n_rows;
	const int64_t t = team->n_keys;
	const struct view keys = view_in(view_2d(t, head), team->precision);
	const struct view probs = view_in(view_2d(rows, t), team->precision);
	int r;

	if (heads->n_items == 0 || rows == 0)
		return 0;
	r = op_matmul_new(&heads->scores, lane->onednn,
		&(struct op_matmul){
			.src = view_in(view_2d(rows, head), team->precision),
			.weights = vit_view_transposed(keys),
			.packed = k,
			.dst = view_2d(rows, t),
			.factor = vit_attention_factor(shape),
		});
	if (r == 0)
		r = op_error(r, heads->scores);
	if (r == 0)
		r = op_matmul_new(&heads->mix, lane->onednn,
			&(struct op_matmul){
				.src = probs,
				.weights = keys,
				.packed = v,
				.dst = view_in(view_2d(rows, head), team->precision),
			});
	return r < 0 ? r : op_error(r, heads->mix);
}

/* A lane's rows of every head from item 0 on. */
static struct team_heads rows_of_heads(
	const struct vit_team *team, unsigned l, size_t n_items, uint32_t rows)
{
	const struct team_piece piece = some_rows(rows, l, team->n_lanes);

	return (struct team_heads){
		.n_items = n_items,
		.row = piece.row,
		.n_rows = piece.n_rows,
	};
}

/* Those of an image: which one is said when it is its turn. Cut up as by lanes that share rows. */
static void share_images(const struct vit_team *team, struct team_heads *heads, uint32_t rows)
{
	const size_t n_heads = team->vit->shape.n_heads;

	if (!team->by_rows || rows == 1)
		heads[TEAM_WHOLE] = (struct team_heads){ .n_items = n_heads, .n_rows = rows };
	else
		for (unsigned l = 0; l < team->n_lanes; l++)
			heads[l] = rows_of_heads(team, l, n_heads, rows);
}

static void share_heads(
	const struct vit_team *team, unsigned l, struct team_heads *heads, uint32_t rows)
{
	const size_t n_items = (size_t)team->n * team->vit->shape.n_heads;
	const size_t n_whole = n_items / team->n_lanes;

	if (team->by_rows && rows > 1) {
		heads[TEAM_WHOLE] = rows_of_heads(team, l, n_items, rows);
		return;
	}
	heads[TEAM_WHOLE] = (struct team_heads){
		.item = l * n_whole,
		.n_items = n_whole,
		.n_rows = rows,
	};
	heads[TEAM_REST] = rows_of_heads(team, l, n_items % team->n_lanes, rows);
	heads[TEAM_REST].item = team->n_lanes * n_whole;
}

static int heads_init(
	struct vit_team *team, unsigned l, struct team_heads **ret_heads, uint32_t rows)
{
	struct team_lane *lane = &team->lanes[l];
	const uint32_t head = team->vit->shape.width / team->vit->shape.n_heads;
	struct team_heads *heads = calloc(lane->n_pieces, sizeof(*heads));
	_cleanup_(packed_freep) struct packed *k = NULL, *v = NULL;
	int r = 0;

	*ret_heads = heads;
	if (!heads)
		return -ENOMEM;
	if (team->by_images)
		share_images(team, heads, rows);
	else
		share_heads(team, l, heads, rows);
	if (team->in_blocks)
		r = packed_new(
			&k, lane->onednn, head, team->n_keys, PACKED_N_BY_K, team->precision);
	if (team->in_blocks && r == 0)
		r = packed_new(
			&v, lane->onednn, team->n_keys, head, PACKED_N_BY_K, team->precision);
	for (unsigned i = 0; i < lane->n_pieces && r == 0; i++)
		r = heads_ops(team, lane, &heads[i], k, v);
	return r;
}

int team_lane_init(struct vit_team *team, unsigned l)
{
	struct team_lane *lane = &team->lanes[l];
	int r = onednn_new(&lane->onednn);

	lane->n_pieces = TEAM_N_PIECES * (team->by_images ? team->n_lanes : 1);
	lane->first = team->by_images ? (uint32_t)team_share(team->n, l, team->n_lanes) : 0;
	lane->end = team->by_images ? (uint32_t)team_share(team->n, l + 1, team->n_lanes) : team->n;
	for (enum team_layer layer = 0; layer < TEAM_N_LAYERS && r == 0; layer++)
		r = layer_init(team, l, layer);
	if (r == 0)
		r = heads_init(team, l, &lane->heads, team->n_tokens);
	if (r == 0)
		r = heads_init(team, l, &lane->last_heads, 1);
	return r;
}

static void heads_done(struct team_heads *heads, unsigned n)
{
	for (unsigned i = 0; heads && i < n; i++) {
		op_free(heads[i].scores);
		op_free(heads[i].mix);
	}
	free(heads);
}

void team_lane_done(struct team_lane *lane)
{
	for (enum team_layer layer = 0; layer < TEAM_N_LAYERS; layer++) {
		for (unsigned i = 0; lane->pieces[layer] && i < lane->n_pieces; i++)
			op_free(lane->pieces[layer][i].op);
		free(lane->pieces[layer]);
	}
	heads_done(lane->heads, lane->n_pieces);
	heads_done(lane->last_heads, lane->n_pieces);
	onednn_free(lane->onednn);
}
