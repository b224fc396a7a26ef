/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_ROUND_STATE_H
#define KAMEN_LEARN_ROUND_STATE_H

#include "learn/objective.h"
#include "learn/pass.h"
#include "learn/plot.h"
#include "learn/views.h"

/** What a round is made of; its checkpoint is `step` and the floats of `state`. */
struct round {
	struct vit *vit;
	struct recipe recipe;
	struct prep prep;           /* the site's at large_px */
	struct image_source source; /* its manifest with the labels, where they count */
	struct objective *objective;
	struct pass *large, *small; /* small: NULL without small crops */
	struct slot *slot;
	struct mask *mask;
	struct mask *selection; /* on where a bit may flip; NULL: everywhere */
	struct views *views;
	struct arena *arena;

	uint32_t step;   /* done */
	bool is_started; /* the objective is */
	bool goes_on;    /* from another round's scores */

	float *state; /* (n_state), in this order: */
	size_t n_state;
	float *scores;         /* (n_elements) */
	float *first, *second; /* (n_elements) moments; second: NULL with SGD */
	/* What the objective keeps, then: */
	float *losses;     /* (n_losses) ring: step s (from 0) at s % n_losses */
	uint32_t n_losses; /* what progress is the mean of */

	/* Scratch of one step; R = n_views * batch rows. */
	uint32_t *images; /* (batch) */
	float *grad;      /* (n_elements) */
	float *f, *d_f;   /* (R, width) */
};

/** Starts the objective: the first step does it. */
int round_start(struct round *round);
/**
 * The step itself, from the views that lie in the passes' inputs: large (n_large, batch, 3, px, px),
 * small (n_small, batch, 3, px, px). The objective has been started.
 */
int round_learn(struct round *round);

/** The mask anew from the scores. */
void round_take_scores(struct round *round);

#endif
