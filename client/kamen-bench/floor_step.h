/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_FLOOR_STEP_H
#define KAMEN_BENCH_FLOOR_STEP_H

#include "floor.h"

#define FLOOR_N_SIZES 2

/** The products of one learning step: each size's views forward, the head, each size's way back. */
struct floor_step;

struct floor_step_options {
	const struct vit_shape *shape;
	enum floor_layout layout;
	enum precision precision; /* the head is in f32 */
	struct {
		uint32_t n, px;
	} views[FLOOR_N_SIZES]; /* n 0: none */
	struct {
		uint32_t n_queued, dim, n_prototypes; /* n_queued: past embeddings of a step */
	} head;
};

int floor_step_new(struct floor_step **ret_step, const struct floor_step_options *options);
void floor_step_free(struct floor_step *step);
DEFINE_CLEANUP(struct floor_step *, floor_step_free)

/** One step. @return 0 or -EIO */
int floor_step_run(struct floor_step *step);

#endif
