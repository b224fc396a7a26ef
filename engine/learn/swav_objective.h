/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_SWAV_OBJECTIVE_H
#define KAMEN_LEARN_SWAV_OBJECTIVE_H

#include "learn/head.h"
#include "learn/objective.h"
#include "learn/plot.h"
#include "learn/queue.h"
#include "learn/swav.h"

/** SwAV with a warm-started head (algorithms.md 1.6, design.md section 5). */
struct swav_objective {
	struct objective base;
	struct recipe recipe;
	struct arena *arena;

	/* State. */
	float *values, *velocities; /* (n_head) of the head */
	struct queue queues[SWAV_TARGETS];
	struct head head;
	size_t n_head;

	/* Scratch of one step; R = n_views * batch rows. */
	float *gradients; /* (n_head) */
	float *z, *d_z;   /* (R, head_dim) */
	float *lengths;   /* (R) */
	float *o, *d_o;   /* (R, n_prototypes) */
	float *q;         /* (SWAV_TARGETS, batch, n_prototypes) */
	float *queued;    /* (queue + batch, n_prototypes) */
};

#endif
