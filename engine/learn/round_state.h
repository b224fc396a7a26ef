/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_ROUND_STATE_H
#define KAMEN_LEARN_ROUND_STATE_H

#include "learn/embed.h"
#include "learn/objective.h"
#include "learn/pass.h"
#include "learn/plot.h"
#include "learn/views.h"

/** What of the network a round moves; the rest of it goes by this table, and only this may look at the
 * fields below that are the drive's. */
struct drive {
	/** Floats of the state. */
	size_t (*n_state)(const struct round *round);
	/** Takes them. @return what lies behind */
	float *(*map)(struct round *round, float *state);
	/** Before anything else, with the state mapped and 0: where it starts, and the slots. */
	int (*make)(struct round *round);
	void (*free)(struct round *round);
	/** What the state says, into the slots of student and teacher. */
	int (*apply)(struct round *round);
	/** A step of the student along grad. */
	void (*update)(struct round *round);
	/** The teacher follows the student. */
	void (*teach)(struct round *round, float decay);
	/** The state was written from elsewhere. */
	void (*resumed)(struct round *round);
};

/** drive_scores.c: one score a maskable weight */
extern const struct drive drive_scores;
/** drive_weights.c: every value of a model that is learnt (model/vit_params.h), by AdamW */
extern const struct drive drive_weights;

/** What a round is made of; its checkpoint is `step` and the floats of `state`. */
struct round {
	struct vit *vit;
	struct recipe recipe;
	struct prep prep;           /* the site's at large_px */
	struct image_source source; /* its manifest with the labels, where they count */
	struct objective *objective;
	const struct drive *drive;
	struct pass *passes[BRANCHES_MAX]; /* of the objective's branches */
	struct views *views;
	struct arena *arena;

	/* The drive's. */
	struct slot *slot, *teacher_slot; /* teacher: NULL without */
	struct mask *mask, *teacher_mask;
	struct mask *selection;  /* on where a bit may flip; NULL: everywhere */
	struct vit *teacher_vit; /* what the teacher's branches pass; scores: the same model */
	struct params *params;   /* weights: what of it moves */

	uint32_t step;   /* done */
	bool is_started; /* the objective is */
	bool goes_on;    /* from another round's scores */
	bool has_teacher;

	float *state; /* (n_state), in this order: */
	size_t n_state;
	/* N is n_elements of the mask layout where scores are driven, else n_values of the model. */
	float *scores, *weights; /* (N) one of them, the other NULL */
	float *first, *second;   /* (N) moments; second: NULL with SGD */
	float *teacher;          /* (N) the moving average of what is driven; NULL: there is none */
	/* What the objective keeps, then: */
	float *losses;     /* (n_losses) ring: step s (from 0) at s % n_losses */
	float *figures;    /* (n_losses, n_figures) likewise */
	uint32_t n_losses; /* what progress is the mean of */
	uint32_t n_figures;

	/* Scratch of one step. */
	uint32_t *images;              /* (batch) */
	float *large, *small;          /* (views of that size, batch, 3, px, px) */
	float *grad;                   /* of a model that is learnt (n_values), else (n_elements) */
	float *d_entry[BRANCHES_MAX];  /* what of the batch is const there */
	float *outputs[BRANCHES_MAX];  /* (rows, O, width) */
	struct objective_batch passed; /* what lies in all of these */
};

/** round_new() by a kind of objective that no recipe names, a test's. NULL: the recipe's. */
int round_new_of(struct round **ret_round, const struct objective_kind *kind, struct vit *vit,
	const struct recipe *recipe, const struct prep *prep, const struct image_source *source,
	struct diag *diag);

/** Starts the objective: the first step does it. */
int round_start(struct round *round);
/** The step itself, from the views that lie in large and small. The objective has been started. */
int round_learn(struct round *round);

/** The masks anew from the scores, and the teacher where there is one. */
void round_take_scores(struct round *round);

#endif
