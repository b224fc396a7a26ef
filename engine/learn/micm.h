/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_MICM_H
#define KAMEN_LEARN_MICM_H

#include "learn/micm_head.h"
#include "learn/micm_loss.h"
#include "learn/objective.h"
#include "learn/plot.h"
#include "model/dense.h"
#include "model/params.h"

/**
 * Masked image contrastive modelling (algorithms.md 4): the student sees two large views with blocks
 * of patches replaced by a mask token, and small ones whole; the teacher, its moving average, sees the
 * large ones whole. Class tokens agree across views, masked patches with the teacher's at the same
 * place, and from the tokens of masked patches their pixels are to be told. The last share of a round
 * may be its stage two, which has nearest neighbours agree instead.
 *
 * A model that is adapted has its class token from the first block on: the one that comes late (4.2)
 * belongs to models that are learnt from scratch as such. Head, mask token and the layer that tells
 * pixels are thrown away after the round.
 */
struct micm {
	struct objective base;
	struct recipe recipe;
	uint32_t width, patch, grid;
	uint32_t n_tokens; /* of a large view: 1 + grid^2 */
	uint32_t n_views;  /* of the student */
	uint32_t n_pixels; /* of a patch */
	uint32_t max_masked;
	struct micm_head_shape head_shape;
	size_t n_head;
	const float *grey;     /* (width) what the mask token begins as; the model's */
	struct params *params; /* of values */
	struct micm_head *head;
	struct dense *telling; /* patch token to pixels */
	struct arena *arena;

	/* State. */
	float *values, *first, *second; /* (n_values): head, mask token, telling; moments */
	float *teacher;                 /* (n_head) the moving average of the head */
	float *centre, *patch_centre;   /* (n_outputs) of the teacher's outputs */

	/* Scratch of one step. */
	float *grad;                    /* (n_values) */
	float *raw, *t;                 /* (MICM_TARGETS, batch, n_outputs) the teacher's classes */
	float *patch_t;                 /* (max_masked, n_outputs) */
	float *class_sum, *patch_sum;   /* (n_outputs) of all of the teacher's outputs */
	float *x, *d_x, *told, *wanted; /* (MICM_ROWS, width) twice, (MICM_ROWS, n_pixels) twice */
	uint32_t *samples, *patches;    /* (max_masked) which view * batch + b, which of its grid */
	uint32_t *nearest;              /* (MICM_TARGETS, batch) */
	uint32_t n_masked;
	double guess; /* what who guesses would have paid: the loss is told as a share of it */
};

/** Rows that are told pixels at a time. */
#define MICM_ROWS 128u

enum micm_figure {
	MICM_FIGURE_CLASS,
	MICM_FIGURE_PATCH,
	MICM_FIGURE_PIXEL,
	MICM_FIGURE_PSEUDO,
	MICM_FIGURE_MASKED,  /* share of the patches */
	MICM_FIGURE_ENTROPY, /* of the teacher's classes by ln K: 1 says nothing of an image */
	MICM_N_FIGURES
};

/** Branches of a step; the small one is there where the recipe has small views. */
enum micm_branch { MICM_LARGE, MICM_TEACHER, MICM_SMALL };

/* micm_step.c: as the objective's */
int micm_choose(struct objective *objective, struct objective_batch *batch);
int micm_step_loss(
	struct objective *objective, const struct objective_batch *batch, double *ret_loss);
/** The gradient of the mask token, from what entered the first block. */
void micm_mask_token_backward(struct micm *micm, const struct objective_rows *large);

static inline struct micm *micm_of(struct objective *objective)
{
	return (struct micm *)objective;
}

/** Of the mask token and of the telling layer in values. */
static inline size_t micm_mask_token_at(const struct micm *micm)
{
	return micm->n_head;
}

static inline size_t micm_telling_at(const struct micm *micm)
{
	return micm->n_head + micm->width;
}

/** Whether a step is one of stage two. */
bool micm_is_second(const struct recipe *recipe, uint32_t step);
/** The teacher's, of a step. */
float micm_temperature(const struct recipe *recipe, uint32_t step);

/**
 * A head that begins as SwAV's does: principal directions and k-means of the frozen features
 * (learn/warm.h). A pair of GELUs gives back what went in, gelu(y) - gelu(-y) = y, so that the two
 * hidden layers begin as none.
 *
 * @param features  (n, width)
 */
int micm_head_warm(const struct micm_head_shape *shape, float *flat, const float *features,
	uint32_t n, uint64_t seed);

#endif
