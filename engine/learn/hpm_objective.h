/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_HPM_OBJECTIVE_H
#define KAMEN_LEARN_HPM_OBJECTIVE_H

#include "learn/hardness_file.h"
#include "learn/objective.h"
#include "model/vit_decoder.h"

/**
 * Hard Patches Mining (algorithms.md 2): the student sees some patches, two decoders of one input say
 * what the hidden ones look like and how hard that was to say; the teacher, who sees the whole image,
 * says beforehand which patches are to be hidden.
 *
 * Branches: the teacher's, with all patches, and the student's, with those that are kept. The
 * decoders take HPM_PART images at a time, and pairs of patches are averaged over each part, as the
 * authors do over what one of their devices has of a batch.
 */
#define HPM_PART 8u

/** Which trunk of the decoder is which. */
enum { HPM_PIXELS, HPM_RANKS };

struct hpm {
	struct objective base;
	struct recipe recipe;
	struct vit *vit;
	struct vit_decoder_shape shape;
	uint32_t n_patches, n_kept, n_hidden, n_part;
	/* What says what hidden patches are, and how hard that is but where there is `whole`. */
	struct vit_decoder *decoder;
	struct vit_decoder *whole; /* its patches all come from the teacher; NULL: hpm_asked=kept */
	struct hardness *hardness; /* the teacher's predictor */
	const struct params *params;
	struct arena *arena;

	/* The state: (n_values) each. */
	float *values, *first, *second, *teacher;

	/* Scratch of one step. L patches, of which M are hidden; P images are a part, B the batch. */
	uint32_t *order;               /* (B, L): the kept patches, then the hidden ones */
	uint32_t *kept;                /* (P, n_kept) of a part that is not full */
	float *grad;                   /* (n_values) */
	float *exported;               /* the teacher's, as a .khard has them */
	float *map;                    /* (B, L) */
	float *tokens;                 /* (P, T', D) of a part that is not full, and the gradient */
	float *d_tokens;               /* (P, T', D) */
	float *out, *d_out;            /* (2, P, L, n_out) */
	float *target;                 /* (P, L, n_out) */
	float *rows, *wanted, *d_rows; /* (P M, n_out) of the hidden ones */
	float *losses, *predicted, *d_predicted; /* (P, M) */
};

#endif
