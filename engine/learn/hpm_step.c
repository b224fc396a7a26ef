/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "learn/hpm_step.h"
#include "learn/patch_loss.h"

/** Some images of a batch, in the decoders' arrays. */
struct part {
	struct hpm *hpm;
	uint32_t first, n;
	float share; /* of the batch */
	const float *tokens;
	float *d_tokens; /* NULL: the student's own */
	const uint32_t *kept;
};

static uint32_t hidden_at(const struct part *part, uint32_t i, uint32_t j)
{
	const struct hpm *hpm = part->hpm;

	return hpm->order[(size_t)(part->first + i) * hpm->n_patches + hpm->n_kept + j];
}

/* Row of the j-th hidden patch of image i in a trunk's (P, L, n_out). */
static size_t row_at(const struct part *part, uint32_t i, uint32_t j)
{
	const struct hpm *hpm = part->hpm;

	return ((size_t)i * hpm->n_patches + hidden_at(part, i, j)) * hpm->shape.n_out;
}

static size_t n_of_trunk(const struct hpm *hpm)
{
	return (size_t)hpm->n_part * hpm->n_patches * hpm->shape.n_out;
}

/* A part that is not full is filled up by images that nobody asks about. */
static struct part take_part(struct hpm *hpm, const struct objective_rows *student, uint32_t first)
{
	const uint32_t left = hpm->recipe.batch - first;
	const size_t n_tokens = (size_t)student->n_tokens * hpm->shape.n_in;
	struct part part = {
		.hpm = hpm,
		.first = first,
		.n = left < hpm->n_part ? left : hpm->n_part,
		.tokens = student->out + first * n_tokens,
		.kept = student->kept + (size_t)first * hpm->n_kept,
	};

	part.share = (float)part.n / (float)hpm->recipe.batch;
	if (part.n == hpm->n_part)
		return part;
	memcpy(hpm->tokens, part.tokens, part.n * n_tokens * sizeof(float));
	for (uint32_t i = 0; i < hpm->n_part; i++)
		for (uint32_t k = 0; k < hpm->n_kept; k++)
			hpm->kept[i * hpm->n_kept + k] =
				i < part.n ? part.kept[i * hpm->n_kept + k] : k;
	part.tokens = hpm->tokens;
	part.kept = hpm->kept;
	part.d_tokens = hpm->d_tokens;
	return part;
}

/* What every patch of the part is to be: (P, L, n_out). */
static void fill_target(const struct part *part, const struct objective_rows *teacher,
	const struct objective_rows *student)
{
	struct hpm *hpm = part->hpm;
	const struct vit_shape *shape = vit_shape(hpm->vit);
	const uint32_t px = hpm->shape.grid * shape->patch;
	const size_t n_rows = (size_t)hpm->n_patches * hpm->shape.n_out;

	for (uint32_t i = 0; i < part->n; i++) {
		const size_t image = part->first + i;

		if (hpm->recipe.hpm_target == RECIPE_HPM_FEATURES)
			memcpy(hpm->target + i * n_rows,
				teacher->out + image * (n_rows + shape->width) + shape->width,
				n_rows * sizeof(float));
		else
			patch_cut(hpm->target + i * n_rows, student->pixels + image * 3 * px * px,
				px, shape->patch);
	}
	if (hpm->recipe.hpm_target == RECIPE_HPM_NORMALISED)
		patch_normalise(hpm->target, part->n * hpm->n_patches, hpm->shape.n_out);
}

/* The hidden patches' rows of a (P, L, n_out) one behind the other, and back. */
static void gather(const struct part *part, float *rows, const float *all)
{
	const struct hpm *hpm = part->hpm;
	const size_t n_out = hpm->shape.n_out;

	for (uint32_t i = 0; i < part->n; i++)
		for (uint32_t j = 0; j < hpm->n_hidden; j++)
			memcpy(rows + ((size_t)i * hpm->n_hidden + j) * n_out,
				all + row_at(part, i, j), n_out * sizeof(*rows));
}

static void scatter(const struct part *part, float *all, const float *rows)
{
	const struct hpm *hpm = part->hpm;
	const size_t n_out = hpm->shape.n_out;

	for (uint32_t i = 0; i < part->n; i++)
		for (uint32_t j = 0; j < hpm->n_hidden; j++) {
			const float *row = rows + ((size_t)i * hpm->n_hidden + j) * n_out;
			float *dst = all + row_at(part, i, j);

			for (size_t d = 0; d < n_out; d++)
				dst[d] = part->share * row[d];
		}
}

static void reconstruct(const struct part *part, struct hpm_cost *cost)
{
	struct hpm *hpm = part->hpm;
	const struct patch_rows rows = { part->n * hpm->n_hidden, hpm->shape.n_out, hpm->rows,
		hpm->wanted };
	const bool of_features = hpm->recipe.hpm_target == RECIPE_HPM_FEATURES;
	double loss;

	gather(part, hpm->rows, hpm->out + HPM_PIXELS * n_of_trunk(hpm));
	gather(part, hpm->wanted, hpm->target);
	cost->guess += part->share *
		       (of_features ? patch_feature_guess(&rows, hpm->d_rows) : patch_guess(&rows));
	loss = of_features ? patch_feature_loss(&rows, hpm->losses, hpm->d_rows)
			   : patch_loss(&rows, hpm->losses, hpm->d_rows);
	cost->reconstruction += part->share * loss;
	scatter(part, hpm->d_out + HPM_PIXELS * n_of_trunk(hpm), hpm->d_rows);
}

/* The share of all pairs of unequal losses that are told apart rightly. */
static double agreement(const struct part *part)
{
	const struct hpm *hpm = part->hpm;
	uint64_t n = 0, n_right = 0;

	for (uint32_t i = 0; i < part->n; i++) {
		const float *p = hpm->predicted + (size_t)i * hpm->n_hidden;
		const float *l = hpm->losses + (size_t)i * hpm->n_hidden;

		for (uint32_t a = 0; a < hpm->n_hidden; a++)
			for (uint32_t b = a + 1; b < hpm->n_hidden; b++) {
				n += l[a] != l[b];
				n_right += l[a] != l[b] && (l[a] < l[b]) == (p[a] < p[b]);
			}
	}
	return n > 0 ? (double)n_right / (double)n : .5;
}

/* The prediction is the mean of a patch's outputs. */
static void rank(const struct part *part, const float *out, float *d_out, struct hpm_cost *cost)
{
	struct hpm *hpm = part->hpm;
	const uint32_t n_out = hpm->shape.n_out;
	const struct patch_ranks ranks = { part->n, hpm->n_hidden, hpm->predicted, hpm->losses };
	double loss;

	for (uint32_t i = 0; i < part->n; i++)
		for (uint32_t j = 0; j < hpm->n_hidden; j++) {
			const float *row = out + row_at(part, i, j);
			double sum = 0;

			for (uint32_t d = 0; d < n_out; d++)
				sum += row[d];
			hpm->predicted[(size_t)i * hpm->n_hidden + j] = (float)(sum / n_out);
		}
	loss = hpm->recipe.hpm_ranks == RECIPE_HPM_RELATIVE
		       ? patch_rank_loss(&ranks, hpm->d_predicted)
		       : patch_score_loss(&ranks, hpm->d_predicted);
	for (uint32_t i = 0; i < part->n; i++)
		for (uint32_t j = 0; j < hpm->n_hidden; j++) {
			const size_t at = (size_t)i * hpm->n_hidden + j;
			float *dst = d_out + row_at(part, i, j);

			for (uint32_t d = 0; d < n_out; d++)
				dst[d] = part->share * hpm->d_predicted[at] / (float)n_out;
		}
	cost->ranking += part->share * loss;
	cost->pairs += part->share * agreement(part);
}

/* Asked about whole images, as it will be, the predictor learns from the teacher's tokens: what it is
 * told then does not reach the student. */
static int rank_whole(
	const struct part *part, const struct objective_rows *teacher, struct hpm_cost *cost)
{
	struct hpm *hpm = part->hpm;
	const size_t n_image = (size_t)teacher->n_tokens * hpm->shape.n_in;
	_cleanup_(freep) float *padded = NULL;
	const float *tokens = teacher->out + part->first * n_image;
	int r;

	if (part->n < hpm->n_part) {
		padded = calloc(hpm->n_part, n_image * sizeof(*padded));
		if (!padded)
			return -ENOMEM;
		memcpy(padded, tokens, part->n * n_image * sizeof(*padded));
		tokens = padded;
	}
	r = vit_decoder_forward(hpm->whole, tokens, NULL, hpm->out);
	if (r < 0)
		return r;
	memset(hpm->d_out, 0, 2 * n_of_trunk(hpm) * sizeof(float));
	rank(part, hpm->out + HPM_RANKS * n_of_trunk(hpm), hpm->d_out + HPM_RANKS * n_of_trunk(hpm),
		cost);
	return vit_decoder_backward(hpm->whole, hpm->d_out, hpm->grad, NULL);
}

int hpm_step_part(struct hpm *hpm, const struct objective_rows *teacher,
	const struct objective_rows *student, uint32_t first, struct hpm_cost *cost)
{
	const size_t n_tokens = (size_t)student->n_tokens * hpm->shape.n_in;
	const struct part part = take_part(hpm, student, first);
	float *d_tokens = student->d_out + first * n_tokens;
	int r;

	fill_target(&part, teacher, student);
	r = vit_decoder_forward(hpm->decoder, part.tokens, part.kept, hpm->out);
	if (r < 0)
		return r;
	memset(hpm->d_out, 0, 2 * n_of_trunk(hpm) * sizeof(float));
	reconstruct(&part, cost);
	if (!hpm->whole)
		rank(&part, hpm->out + HPM_RANKS * n_of_trunk(hpm),
			hpm->d_out + HPM_RANKS * n_of_trunk(hpm), cost);
	r = vit_decoder_backward(
		hpm->decoder, hpm->d_out, hpm->grad, part.d_tokens ? part.d_tokens : d_tokens);
	if (r == 0 && part.d_tokens)
		memcpy(d_tokens, part.d_tokens, part.n * n_tokens * sizeof(float));
	if (r == 0 && hpm->whole)
		r = rank_whole(&part, teacher, cost);
	return r;
}
