/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/vit_team_internal.h"

static void soften(struct vit_team *team, struct team_lane *lane, uint32_t n_rows)
{
	const uint32_t t = team->n_tokens, n_keys = team->n_keys;

	for (size_t i = 0; i < n_rows; i++)
		if (team->precision == PRECISION_F32)
			team->wide->softmax(lane->logits + i * n_keys, t);
		else
			team->narrow->softmax((bf16 *)lane->probs + i * n_keys,
				lane->logits + i * n_keys, t, n_keys);
}

/* The panel (rows, D / H) to its columns of y (n, Q, D). */
static void give(struct vit_team *team, struct team_lane *lane, const struct team_heads *heads,
	size_t item, bool last)
{
	const struct vit_shape *shape = &team->vit->shape;
	const uint32_t h = shape->n_heads, head = shape->width / h;
	const size_t n_bytes = head * precision_bytes(team->precision);
	const size_t row = item / h * (last ? 1 : team->n_tokens) + heads->row;

	for (uint32_t i = 0; i < heads->n_rows; i++)
		memcpy(team_at(team, team_y(team, last),
			       (row + i) * shape->width + item % h * head),
			(const char *)lane->panel + i * n_bytes, n_bytes);
}

/* Of the last block's only row of logits. */
static void keep(struct vit_team *team, const struct team_lane *lane, size_t item)
{
	memcpy(team_at(team, team->class_probs, item * team->n_keys), lane->probs,
		team->n_keys * precision_bytes(team->precision));
}

int team_attend(struct vit_team *team, struct team_lane *lane, size_t item, bool last)
{
	const size_t head = team->vit->shape.width / team->vit->shape.n_heads;
	const size_t n_q = team->n_tokens * head, n_k = team->n_keys * head;
	int r = 0;

	for (unsigned p = 0; p < lane->n_pieces && r == 0; p++) {
		const struct team_heads *heads = last ? &lane->last_heads[p] : &lane->heads[p];
		const size_t begin = item + heads->item;

		if (!heads->mix)
			continue;
		for (size_t i = begin; i < begin + heads->n_items && r == 0; i++) {
			r = op_run_on(heads->scores,
				team_at(team, team->q, i * n_q + heads->row * head),
				team_at(team, lane->k, i * n_k), lane->logits);
			if (r < 0)
				return r;
			soften(team, lane, heads->n_rows);
			if (last && team->whole)
				keep(team, lane, i);
			r = op_run_on(heads->mix, lane->probs, team_at(team, lane->v, i * n_k),
				lane->panel);
			if (r == 0)
				give(team, lane, heads, i, last);
		}
	}
	return r;
}
