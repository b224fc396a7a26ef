/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/vit_team_internal.h"

static uint32_t head_of(const struct vit_team *team)
{
	return team->vit->shape.width / team->vit->shape.n_heads;
}

/* Where a convolution is the faster product, it is so for attention's as well: its weights are an
 * image's keys and values, which are written where it wants them to begin with. */
int team_choose_keys(struct vit_team *team)
{
	_cleanup_(packed_freep) struct packed *k = NULL, *v = NULL;
	const uint32_t head = head_of(team);
	const uint32_t n = (team->n_tokens + TEAM_KEY_BLOCK - 1) / TEAM_KEY_BLOCK * TEAM_KEY_BLOCK;
	int r;

	team->n_keys = vit_n_keys(team->precision, team->n_tokens);
	if (team->precision != PRECISION_F32 || head % TEAM_KEY_BLOCK != 0)
		return 0;
	r = packed_new(&k, team->vit->onednn, head, n, PACKED_N_BY_K, PRECISION_F32);
	if (r == 0)
		r = packed_new(&v, team->vit->onednn, n, head, PACKED_N_BY_K, PRECISION_F32);
	if (r < 0)
		return r;
	team->in_blocks =
		packed_has_panels(k, TEAM_KEY_BLOCK) && packed_has_panels(v, TEAM_KEY_BLOCK);
	if (team->in_blocks)
		team->n_keys = n;
	return 0;
}

/* As dense heads (rows, D / H). */
static void put_rows(struct vit_team *team, void *dst, size_t rows, const struct team_piece *piece,
	const struct team_columns *columns)
{
	const size_t head = head_of(team), size = precision_bytes(team->precision);
	const size_t first = columns->item * rows + piece->row;

	for (size_t j = 0; j < piece->n_rows; j++)
		memcpy(team_at(team, dst, (first + j) * head + columns->column),
			(const char *)columns->src + j * columns->stride * size, columns->n * size);
}

void team_put_queries(
	struct vit_team *team, const struct team_piece *piece, const struct team_columns *columns)
{
	put_rows(team, team->q, team->n_tokens, piece, columns);
}

void team_put_keys(struct vit_team *team, void *k, const struct team_piece *piece,
	const struct team_columns *columns)
{
	const size_t head = head_of(team);
	float *dst = k;

	if (!team->in_blocks) {
		put_rows(team, k, team->n_keys, piece, columns);
		return;
	}
	dst += columns->item * team->n_keys * head + (size_t)columns->column * TEAM_KEY_BLOCK;
	for (uint32_t j = 0, n; j < piece->n_rows; j += n) {
		const uint32_t t = piece->row + j;
		const float *src = (const float *)columns->src + j * columns->stride;
		float *to = dst + t / TEAM_KEY_BLOCK * TEAM_KEY_BLOCK * head + t % TEAM_KEY_BLOCK;

		if (t % TEAM_KEY_BLOCK == 0 && piece->n_rows - j >= TEAM_KEY_BLOCK) {
			n = TEAM_KEY_BLOCK;
			team->wide->turn(to, src, columns->stride, columns->n);
			continue;
		}
		n = 1;
		for (uint32_t d = 0; d < columns->n; d++)
			to[(size_t)d * TEAM_KEY_BLOCK] = src[d];
	}
}

void team_put_values(struct vit_team *team, void *v, const struct team_piece *piece,
	const struct team_columns *columns)
{
	const size_t head = head_of(team), n_keys = team->n_keys;
	float *dst = v;

	if (!team->in_blocks) {
		put_rows(team, v, n_keys, piece, columns);
		return;
	}
	dst += columns->item * n_keys * head;
	for (size_t j = 0; j < piece->n_rows; j++) {
		const float *src = (const float *)columns->src + j * columns->stride;
		const size_t at = (piece->row + j) * TEAM_KEY_BLOCK;

		/* A piece has whole blocks. */
		for (uint32_t d = 0; d < columns->n; d += TEAM_KEY_BLOCK)
			memcpy(dst + (columns->column + d) * n_keys + at, src + d,
				TEAM_KEY_BLOCK * sizeof(float));
	}
}
