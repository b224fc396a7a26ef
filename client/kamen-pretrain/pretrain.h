/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_PRETRAIN_H
#define KAMEN_PRETRAIN_H

#include "learn/folder.h"
#include "learn/round.h"
#include "options.h"

/** A model on its way: its images, the round over them. */
struct pretrain {
	struct folder *folder;
	struct vit *vit;
	struct vit_shape shape;
	struct prep prep;
	struct recipe recipe;
	struct round *round;
	bool fixed_positions;
};

/**
 * Reads the images, makes the model at its start and the round.
 *
 * @param p  zeroed; to be given to pretrain_done() in any case
 * @return 0, or a negative errno with diag
 */
int pretrain_init(struct pretrain *p, const struct pretrain_options *options, struct diag *diag);
void pretrain_done(struct pretrain *p);

/** Writes the present weights as a model. */
int pretrain_write(const struct pretrain *p, const char *path, bool teacher, size_t *ret_n_bytes);

/** What a model is worth on labelled images: worth.c. */
struct figures;
/** By the held part of the folder, of the present weights. -ENODATA: it has no two classes there */
int pretrain_worth(struct figures *ret_figures, const struct pretrain *p,
	const struct pretrain_options *options, bool teacher, struct diag *diag);

#endif
