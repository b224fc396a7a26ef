/* SPDX-License-Identifier: Apache-2.0 */
#include "learn/update.h"

#include "learn/optimiser.h"
#include "mask/scores.h"

/* A piece: whole words of the mask, and small enough to stay in the nearest cache. */
#define N_PIECE ((size_t)2048)

struct kernels {
	const struct kern_scores_impl *scores;
	const struct kern_optimiser_impl *optimiser;
	kern_mask_row_fn *mask_row;
	struct kern_adam_step adam;
};

/* Of tensor t from element `at`. @return how many bits are on */
static size_t update_piece(const struct update *u, const struct kernels *k,
	const struct scores_term *term, unsigned t, size_t at, size_t n)
{
	const struct mask_tensor *tensor = &u->mask->layout->tensors[t];
	const size_t place = tensor->offset + at, word = tensor->word + at / 64;
	float dscores[N_PIECE];

	k->scores->grad(
		dscores, u->grad + place, u->weights[t] + at, n, term->inverse, term->shared);
	if (u->selection)
		k->mask_row(dscores, dscores, u->selection->words + word, n);
	if (u->second)
		k->optimiser->adam(u->scores + place, u->first + place, u->second + place, dscores,
			n, &k->adam);
	else
		k->optimiser->sgd(
			u->scores + place, u->first + place, dscores, n, u->lr, OPTIMISER_MOMENTUM);
	if (!u->bits)
		return 0;
	return k->scores->bits(u->mask->words + word, u->scores + place, n, u->threshold);
}

static void update_tensor(const struct update *u, const struct kernels *k, unsigned t)
{
	const struct mask_tensor *tensor = &u->mask->layout->tensors[t];
	/* Over the whole tensor, before its first bit changes. */
	const struct scores_term term =
		scores_term(u->grad + tensor->offset, u->weights[t], u->mask, t, u->alpha_term);
	size_t n_on = 0;

	for (size_t at = 0; at < tensor->n; at += N_PIECE)
		n_on += update_piece(
			u, k, &term, t, at, tensor->n - at < N_PIECE ? tensor->n - at : N_PIECE);
	if (u->bits)
		u->mask->n_on[t] = n_on;
}

void update_scores(const struct update *u)
{
	const struct kernels kernels = {
		.scores = kern_scores(),
		.optimiser = kern_optimiser(),
		.mask_row = kern_mask_row(),
		.adam = optimiser_adam_step(u->lr, u->step),
	};

	/* Nothing is shared between tensors: who takes which does not show. */
#pragma omp parallel for schedule(dynamic)
	for (unsigned t = 0; t < u->mask->layout->n_tensors; t++)
		update_tensor(u, &kernels, t);
}
