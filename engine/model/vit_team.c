/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vit_team.h"

#include <errno.h>
#include <omp.h>
#include <string.h>

#include "model/vit_team_internal.h"

#define MOST_IMAGE_LANES 16u
/* Each reads all weights: two gain by it, more than four are not asked to (chosen, not measured).
 * Matmul's attention would copy each head's keys and values in every lane: where it is no convolution,
 * lanes share heads and columns. */
#define MOST_ROW_LANES 4u

static void carve(struct vit_team *team, struct vit_carver *carver)
{
	const struct vit_shape *shape = &team->vit->shape;
	const enum precision precision = team->precision;
	const size_t rows = (size_t)team->n * team->n_tokens;
	const size_t n_keys = (size_t)team->n * team->n_keys * shape->width;
	const size_t n_logits = (size_t)team->n_tokens * team->n_keys;

	team->x = vit_carve(carver, rows * shape->width);
	team->y = vit_carve_in(carver, rows * shape->width, precision);
	team->q = vit_carve_in(carver, rows * shape->width, precision);
	for (unsigned i = 0; i < ARRAY_SIZE(team->k); i++) {
		const bool own = i == 0 || (team->by_rows && !team->by_images);

		team->k[i] = own ? vit_carve_in(carver, n_keys, precision) : team->k[0];
		team->v[i] = own ? vit_carve_in(carver, n_keys, precision) : team->v[0];
	}
	team->hidden = vit_carve_in(carver, rows * shape->mlp, precision);
	team->last = vit_carve(carver, team->n * shape->width);
	team->last_y = vit_carve_in(carver, team->n * shape->width, precision);
	team->last_hidden = vit_carve_in(carver, team->n * shape->mlp, precision);
	if (team->whole)
		team->class_probs = vit_carve_in(
			carver, (size_t)team->n * shape->n_heads * team->n_keys, precision);
	for (unsigned l = 0; l < team->n_lanes; l++) {
		struct team_lane *lane = &team->lanes[l];

		lane->panel = vit_carve(carver, team_panel_values(team));
		lane->logits = vit_carve(carver, n_logits);
		lane->probs = precision == PRECISION_F32
				      ? lane->logits
				      : vit_carve_in(carver, n_logits, precision);
	}
}

static int place(struct vit_team *team)
{
	struct vit_carver carver = { 0 };
	int r;

	carve(team, &carver);
	r = arena_new(&team->arena, carver.n_bytes);
	if (r < 0)
		return r;
	carver.arena = team->arena;
	carve(team, &carver);
	return 0;
}

/* Where each lane gets as many, or nearly so: who has fewer waits at the end, which must not take longer
 * than the lanes' waiting for each other all the way (about a sixth, by columns). */
static bool shares_images(uint32_t n, unsigned n_lanes)
{
	const uint32_t most = (n + n_lanes - 1) / n_lanes;

	/* Each lane has the pieces of all: so many primitives take long to make. */
	return n_lanes <= MOST_IMAGE_LANES && most * n_lanes - n <= n / 6;
}

/* oneDNN divides a primitive among the threads that there are when it is made. */
static int lanes_init(struct vit_team *team)
{
	const int n_threads = omp_get_max_threads();
	int r = 0;

	omp_set_num_threads(1);
	for (unsigned l = 0; l < team->n_lanes && r == 0; l++)
		r = team_lane_init(team, l);
	omp_set_num_threads(n_threads);
	return r;
}

int vit_team_new(
	struct vit_team **ret_team, const struct vit *vit, const struct vit_stem *stem, bool whole)
{
	const unsigned n_lanes = (unsigned)omp_get_max_threads();
	_cleanup_(vit_team_freep) struct vit_team *team =
		calloc(1, sizeof(*team) + n_lanes * sizeof(*team->lanes));
	int r;

	if (!team)
		return -ENOMEM;
	team->spread = spread_new(n_lanes);
	if (!team->spread)
		return -ENOMEM;
	/* Its lanes are of one number of tokens. */
	if ((stem->precision != PRECISION_F32 && stem->precision != PRECISION_BF16) ||
		vit->shape.class_block > 0)
		return -EOPNOTSUPP;
	team->vit = vit;
	team->stem = stem;
	team->precision = stem->precision;
	team->n = stem->n;
	team->n_tokens = stem->n_tokens;
	team->narrow = kern_row_fastest();
	team->wide = kern_wide_fastest();
	team->whole = whole;
	team->n_lanes = n_lanes;
	team->by_images = shares_images(team->n, n_lanes);
	r = team_choose_keys(team);
	team->by_rows = team->in_blocks && n_lanes <= MOST_ROW_LANES;
	if (r == 0)
		r = lanes_init(team);
	if (r == 0)
		r = place(team);
	if (r < 0)
		return r;
	*ret_team = TAKE_PTR(team);
	return 0;
}

void vit_team_free(struct vit_team *team)
{
	if (!team)
		return;
	for (unsigned l = 0; l < team->n_lanes; l++)
		team_lane_done(&team->lanes[l]);
	arena_free(team->arena);
	free(team->spread);
	free(team);
}

/* ---- what follows a product, on the lane's panel, a piece of image i */

typedef void then_fn(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i);

static void then_embed(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i)
{
	const size_t width = team->vit->shape.width;

	for (size_t j = 0; j < piece->n_rows; j++) {
		const size_t t = piece->row + j;
		const float *position = team->stem->positions + t * width + piece->column;
		float *x = team->x + (i * team->n_tokens + t) * width + piece->column;

		/* The class token is its position alone. */
		if (t == 0)
			memcpy(x, position, piece->n_columns * sizeof(float));
		else
			team->wide->add(x, (const float *)lane->panel + j * piece->n_columns,
				position, piece->n_columns);
	}
}

/* Columns (3, H, D / H) of some tokens to heads. */
static void then_split(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i)
{
	const struct vit_shape *shape = &team->vit->shape;
	const uint32_t width = shape->width, head = width / shape->n_heads;
	const uint32_t end = piece->column + piece->n_columns;
	const size_t size = precision_bytes(team->precision);

	for (uint32_t c = piece->column, n; c < end; c += n) {
		const uint32_t part = c / width;
		struct team_columns columns = {
			.src = (const char *)lane->panel + (c - piece->column) * size,
			.stride = piece->n_columns,
			.item = i * shape->n_heads + c % width / head,
			.column = c % head,
		};

		n = head - columns.column < end - c ? head - columns.column : end - c;
		columns.n = n;
		if (part == 0)
			team_put_queries(team, piece, &columns);
		else if (part == 1)
			team_put_keys(team, lane->k, piece, &columns);
		else
			team_put_values(team, lane->v, piece, &columns);
	}
}

static void then_add(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i)
{
	const size_t width = team->vit->shape.width;

	for (size_t j = 0; j < piece->n_rows; j++) {
		float *x = team->x + (i * team->n_tokens + piece->row + j) * width + piece->column;

		team->wide->add(
			x, x, (const float *)lane->panel + j * piece->n_columns, piece->n_columns);
	}
}

/* Behind the last block's attention rows are images: their class tokens go on alone. */
static void then_add_first(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i)
{
	const size_t width = team->vit->shape.width;

	(void)i;
	for (size_t j = 0; j < piece->n_rows; j++) {
		const size_t row = piece->row + j;

		team->wide->add(team->last + row * width + piece->column,
			team->x + row * team->n_tokens * width + piece->column,
			(const float *)lane->panel + j * piece->n_columns, piece->n_columns);
	}
}

static void then_add_last(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i)
{
	const size_t width = team->vit->shape.width;

	(void)i;
	for (size_t j = 0; j < piece->n_rows; j++) {
		float *last = team->last + (piece->row + j) * width + piece->column;

		team->wide->add(last, last, (const float *)lane->panel + j * piece->n_columns,
			piece->n_columns);
	}
}

static void gelu_to(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i, void *dst)
{
	const size_t mlp = team->vit->shape.mlp, n = piece->n_columns;
	const size_t first = i * team->n_tokens + piece->row;

	for (size_t j = 0; j < piece->n_rows; j++) {
		void *at = team_at(team, dst, (first + j) * mlp + piece->column);

		if (team->precision == PRECISION_F32)
			team->wide->gelu(at, (const float *)lane->panel + j * n, n);
		else
			team->narrow->gelu(at, (const bf16 *)lane->panel + j * n, n);
	}
}

static void then_gelu(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i)
{
	gelu_to(team, lane, piece, i, team->hidden);
}

static void then_gelu_last(struct vit_team *team, const struct team_lane *lane,
	const struct team_piece *piece, size_t i)
{
	gelu_to(team, lane, piece, i, team->last_hidden);
}

/* ---- phases: between two of them lanes that share columns wait for each other */

struct layer_run {
	enum team_layer layer;
	const struct packed *packed;
	const float *bias, *scale; /* scale NULL: none */
	void *src;                 /* (chunks, rows, k), of which those from first to end */
	size_t first, end, rows, k;
	then_fn *then;
};

static int run_layer(struct vit_team *team, struct team_lane *lane, const struct layer_run *run)
{
	int r = 0;

	for (size_t i = run->first; i < run->end; i++)
		for (unsigned p = 0; p < lane->n_pieces && r == 0; p++) {
			const struct team_piece *piece = &lane->pieces[run->layer][p];

			if (!piece->op)
				continue;
			op_bind(piece->op, OP_SRC,
				team_at(team, run->src, (i * run->rows + piece->row) * run->k));
			op_use_columns(piece->op, run->packed, piece->column);
			op_bind(piece->op, OP_BIAS, run->bias + piece->column);
			if (run->scale)
				op_bind(piece->op, OP_SCALE, run->scale);
			op_bind(piece->op, OP_DST, lane->panel);
			r = op_run(piece->op);
			if (r == 0)
				run->then(team, lane, piece, i);
		}
	return r;
}

/* Where a pass is. */
struct step {
	struct vit_team *team;
	const struct slot_entry *layers; /* of the block */
	uint32_t block, first, end;      /* images */
	bool last;
	bool rest; /* the last block once more, for all tokens */
};

typedef int phase_fn(const struct step *step, unsigned l);

/* Of all tokens of the step's images, by the block's weights of that name. */
static struct layer_run run_of_tokens(
	const struct step *step, enum vit_layer of, void *src, size_t k)
{
	const struct slot_entry *entry = &step->layers[of];

	return (struct layer_run){
		.packed = entry->forward,
		.bias = entry->bias,
		.scale = &entry->scale,
		.src = src,
		.first = step->first,
		.end = step->end,
		.rows = step->team->n_tokens,
		.k = k,
	};
}

static int run_linear(const struct step *step, unsigned l, enum vit_layer of, void *src, size_t k)
{
	static const struct {
		enum team_layer layer;
		then_fn *then;
	} table[VIT_N_LAYERS][2] = {
		[VIT_QKV] = { { TEAM_QKV, then_split }, { TEAM_LAST_KV, then_split } },
		[VIT_PROJ] = { { TEAM_PROJ, then_add }, { TEAM_LAST_PROJ, then_add_first } },
		[VIT_FC1] = { { TEAM_FC1, then_gelu }, { TEAM_LAST_FC1, then_gelu_last } },
		[VIT_FC2] = { { TEAM_FC2, then_add }, { TEAM_LAST_FC2, then_add_last } },
	};
	struct vit_team *team = step->team;
	struct layer_run run = run_of_tokens(step, of, src, k);

	run.layer = table[of][step->last].layer;
	run.then = table[of][step->last].then;
	/* The last block's keys and values are of all tokens still. */
	if (step->last && of != VIT_QKV) {
		run.first = 0;
		run.end = 1;
		run.rows = team->n;
	}
	return run_layer(team, &team->lanes[l], &run);
}

/* Rows of a norm that a lane makes, of those from `first` on, of so many. */
static void norm_rows(const struct step *step, size_t first, size_t end,
	const struct vit_norm *norm, const float *src, void *to)
{
	const struct vit_team *team = step->team;
	const size_t width = team->vit->shape.width;
	const struct row_norm row = { norm->weight, norm->bias, team->vit->shape.norm_eps, width };

	for (size_t i = first; i < end; i++) {
		void *dst = team_at(team, to, i * width);
		float stats[2];

		if (team->precision == PRECISION_F32)
			team->wide->norm(dst, src + i * width, &row);
		else
			team->narrow->norm(dst, src + i * width, &row, stats);
	}
}

/* `rows` of each image. */
static void run_norm(const struct step *step, unsigned l, const struct vit_norm *norm,
	const float *src, void *to, size_t rows)
{
	const struct vit_team *team = step->team;
	const unsigned n_lanes = team->n_lanes;
	const size_t first = step->first * rows, n = (step->end - step->first) * rows;

	if (team->by_images)
		norm_rows(step, first, first + n, norm, src, to);
	else if (team->by_rows && rows == team->n_tokens)
		for (size_t i = step->first; i < step->end; i++)
			norm_rows(step, i * rows + team_share(rows, l, n_lanes),
				i * rows + team_share(rows, l + 1, n_lanes), norm, src, to);
	else
		norm_rows(step, first + team_share(n, l, n_lanes),
			first + team_share(n, l + 1, n_lanes), norm, src, to);
}

static int embed(const struct step *step, unsigned l)
{
	struct vit_team *team = step->team;

	return run_layer(team, &team->lanes[l],
		&(struct layer_run){
			.layer = TEAM_PATCH,
			.packed = team->vit->patches[team->precision],
			.bias = team->vit->patch_bias,
			.src = team->stem->columns,
			.first = step->first,
			.end = step->end,
			.rows = team->n_tokens,
			.k = vit_patch_values(&team->vit->shape),
			.then = then_embed,
		});
}

static int norm1(const struct step *step, unsigned l)
{
	struct vit_team *team = step->team;

	run_norm(step, l, &team->vit->norm1[step->block], team->x, team->y, team->n_tokens);
	return 0;
}

/* Of the last block, whose keys and values are made apart. */
static int run_queries(const struct step *step, unsigned l, enum team_layer layer)
{
	struct vit_team *team = step->team;
	struct layer_run run = run_of_tokens(step, VIT_QKV, team->y, team->vit->shape.width);

	run.layer = layer;
	run.then = then_split;
	return run_layer(team, &team->lanes[l], &run);
}

static int qkv(const struct step *step, unsigned l)
{
	struct vit_team *team = step->team;
	int r;

	/* What they are asked for is there. */
	if (step->rest)
		return run_queries(step, l, TEAM_REST_Q);
	team->lanes[l].k = team->k[step->block % ARRAY_SIZE(team->k)];
	team->lanes[l].v = team->v[step->block % ARRAY_SIZE(team->v)];
	r = run_linear(step, l, VIT_QKV, team->y, team->vit->shape.width);
	return r < 0 || !step->last ? r : run_queries(step, l, TEAM_LAST_Q);
}

static int attend(const struct step *step, unsigned l)
{
	struct vit_team *team = step->team;
	const uint32_t n_heads = team->vit->shape.n_heads;
	int r = 0;

	if (!team->by_images)
		return team_attend(team, &team->lanes[l], 0, step->last);
	for (uint32_t i = step->first; i < step->end && r == 0; i++)
		r = team_attend(team, &team->lanes[l], (size_t)i * n_heads, step->last);
	return r;
}

static int proj(const struct step *step, unsigned l)
{
	return run_linear(
		step, l, VIT_PROJ, team_y(step->team, step->last), step->team->vit->shape.width);
}

static int norm2(const struct step *step, unsigned l)
{
	struct vit_team *team = step->team;

	run_norm(step, l, &team->vit->norm2[step->block], step->last ? team->last : team->x,
		team_y(team, step->last), step->last ? 1 : team->n_tokens);
	return 0;
}

static int fc1(const struct step *step, unsigned l)
{
	return run_linear(
		step, l, VIT_FC1, team_y(step->team, step->last), step->team->vit->shape.width);
}

static int fc2(const struct step *step, unsigned l)
{
	struct vit_team *team = step->team;

	return run_linear(step, l, VIT_FC2, step->last ? team->last_hidden : team->hidden,
		team->vit->shape.mlp);
}

struct phase {
	phase_fn *run;
	bool meets; /* lanes that share rows need of each other what it made: keys and values */
};

static const struct phase block_phases[] = { { norm1, false }, { qkv, true }, { attend, false },
	{ proj, false }, { norm2, false }, { fc1, false }, { fc2, false } };
/* Without the first norm, which is done. */
static const struct phase *const rest_phases = block_phases + 1;
#define N_PHASES ARRAY_SIZE(block_phases)
#define N_REST_PHASES (N_PHASES - 1)

static void step_to(struct step *step, const struct slot *slot, uint32_t block)
{
	step->block = block;
	step->layers = slot_entry(slot, vit_layer_index(block, VIT_QKV));
	step->last = block + 1 == step->team->vit->shape.depth;
}

/* ---- lanes that share columns or rows: by every thread; where there are fewer than lanes, some take
 * several. After an error nothing more is computed, but all still meet. */

static void run_together(const struct step *step, const struct phase *phases, unsigned n_phases)
{
	struct vit_team *team = step->team;
	/* Class tokens that go on alone are shared by columns. */
	const bool by_rows = team->by_rows && !step->last;

	for (unsigned i = 0; i < n_phases; i++) {
		for (unsigned l = (unsigned)omp_get_thread_num(); l < team->n_lanes;
			l += (unsigned)omp_get_num_threads())
			if (team->lanes[l].error == 0)
				team->lanes[l].error = phases[i].run(step, l);
		if (phases[i].meets || !by_rows) {
#pragma omp barrier
			spread_pass(team->spread, (unsigned)omp_get_thread_num());
		}
	}
}

static void forward_together(struct vit_team *team, const struct slot *slot)
{
	static const struct phase start = { embed, false };
	struct step step = { .team = team, .end = team->n };

	run_together(&step, &start, 1);
	for (uint32_t b = 0; b < team->vit->shape.depth; b++) {
		step_to(&step, slot, b);
		run_together(&step, block_phases, N_PHASES);
	}
	step.last = false;
	step.rest = true;
	if (team->whole)
		run_together(&step, rest_phases, N_REST_PHASES);
}

/* ---- lanes that share images */

static int run_phases(
	const struct step *step, unsigned l, const struct phase *phases, unsigned n_phases)
{
	int r = 0;

	for (unsigned i = 0; i < n_phases && r == 0; i++)
		r = phases[i].run(step, l);
	return r;
}

/* The lane's images one after the other. */
static int run_each(
	const struct step *all, unsigned l, const struct phase *phases, unsigned n_phases)
{
	struct step one = *all;
	int r = 0;

	for (uint32_t i = all->first; i < all->end && r == 0; i++) {
		one.first = i;
		one.end = i + 1;
		r = run_phases(&one, l, phases, n_phases);
	}
	return r;
}

/* A block's weights stay near by from image to image, and what an image is within a block. */
static int forward_images(struct vit_team *team, const struct slot *slot, unsigned l)
{
	const struct team_lane *lane = &team->lanes[l];
	struct step all = { .team = team, .first = lane->first, .end = lane->end };
	int r = embed(&all, l);

	for (uint32_t b = 0; b < team->vit->shape.depth && r == 0; b++) {
		step_to(&all, slot, b);
		r = all.last ? run_phases(&all, l, block_phases, N_PHASES)
			     : run_each(&all, l, block_phases, N_PHASES);
	}
	all.last = false;
	all.rest = true;
	return r < 0 || !team->whole ? r : run_each(&all, l, rest_phases, N_REST_PHASES);
}

int vit_team_forward(struct vit_team *team, const struct slot *slot, const float **ret_tokens)
{
	int r = 0;

	for (unsigned l = 0; l < team->n_lanes; l++)
		team->lanes[l].error = 0;
	spread_begin(team->spread);
#pragma omp parallel num_threads((int)team->n_lanes)
	{
		spread_pass(team->spread, (unsigned)omp_get_thread_num());
		if (team->by_images) {
#pragma omp for schedule(static, 1)
			for (unsigned l = 0; l < team->n_lanes; l++)
				team->lanes[l].error = forward_images(team, slot, l);
		} else
			forward_together(team, slot);
	}
	for (unsigned l = 0; l < team->n_lanes && r == 0; l++)
		r = team->lanes[l].error;
	*ret_tokens = team->last;
	return r;
}

float *vit_team_tokens(struct vit_team *team)
{
	return team->x;
}

struct vit_class_probs vit_team_class_probs(const struct vit_team *team)
{
	return (struct vit_class_probs){
		.probs = team->class_probs,
		.precision = team->precision,
		.n = team->n,
		.n_heads = team->vit->shape.n_heads,
		.n_tokens = team->n_tokens,
		.stride = team->n_keys,
	};
}
