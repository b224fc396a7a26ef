/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_PRETRAIN_OPTIONS_H
#define KAMEN_PRETRAIN_OPTIONS_H

#include "cli.h"
#include "learn/folder.h"
#include "model/vit.h"

/** What is asked for; strings are the command line's. */
struct pretrain_options {
	const char *folder, *out, *from;
	const char *checkpoint; /* path, or NULL: OUT.round */
	const char *recipe;     /* "" or changes to it */
	struct vit_shape shape; /* whose patch is 16 unless told; without --from */
	bool has_class_block;
	enum recipe_objective objective;
	enum folder_part part;
	uint32_t px;           /* 0: the model's own, or 96 */
	uint32_t steps, batch; /* 0: by the recipe */
	uint64_t seed;
	uint32_t every_s; /* between checkpoints */
	uint32_t report;  /* steps between rows */
	bool teacher;     /* the moving average is written, not what learnt */
	bool worth;       /* of the held part, before and after; then part is LEARN */
	bool anew;
};

/** @return true: go on; else the status of a command line that is wrong or asks for help */
bool pretrain_options_parse(struct pretrain_options *ret_options, struct ctl *ctl, int argc,
	char **argv, int *ret_status);

#endif
