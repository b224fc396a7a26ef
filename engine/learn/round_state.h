/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_ROUND_STATE_H
#define KAMEN_LEARN_ROUND_STATE_H

#include "base/arena.h"
#include "learn/head.h"
#include "learn/queue.h"
#include "learn/round.h"
#include "learn/swav.h"
#include "learn/views.h"

/** What a round is made of; its checkpoint is `step`, the queues' n and the floats of `state`. */
struct round {
	struct vit *vit;
	struct recipe recipe;
	struct prep prep; /* the site's at large_px */
	struct image_source source;
	struct vit_tape *large, *small; /* small: NULL without small crops */
	struct slot *slot;
	struct mask *mask;
	struct mask *selection; /* on where a bit may flip; NULL: everywhere */
	struct views *views;
	struct arena *arena;

	uint32_t step; /* done */
	bool is_warm;  /* the head has been started */
	struct queue queues[SWAV_TARGETS];

	float *state; /* (n_state), in this order: */
	size_t n_state;
	float *scores;          /* (n_elements) */
	float *first, *second;  /* (n_elements) moments; second: NULL with SGD */
	float *head_values;     /* (n_head) */
	float *head_velocities; /* (n_head) */
	struct head head;
	size_t n_head;
	float *losses;     /* (n_losses) ring: step s (from 0) at s % n_losses */
	uint32_t n_losses; /* what progress is the mean of */

	/* Scratch of one step; R = n_views * batch rows. */
	float *grad;           /* (n_elements) */
	float *head_gradients; /* (n_head) */
	float *f, *d_f;        /* (R, width) */
	float *z, *d_z;        /* (R, head_dim) */
	float *lengths;        /* (R) */
	float *o, *d_o;        /* (R, n_prototypes) */
	float *q;              /* (SWAV_TARGETS, batch, n_prototypes) */
	float *queued;         /* (queue + batch, n_prototypes) */
};

/**
 * The step itself, from the views that lie in the tapes' inputs: large (2, batch, 3, px, px), small
 * (n_small, batch, 3, px, px). The head has been started.
 */
int round_learn(struct round *round);

/** The mask anew from the scores. */
void round_take_scores(struct round *round);

#endif
