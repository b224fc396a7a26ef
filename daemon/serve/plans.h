/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_PLANS_H
#define KAMEN_SERVE_PLANS_H

#include <stdatomic.h>

#include "engine.h"

/** Plans of one thread that computes, for what it was asked lately. */
struct plans;

/** max_batch: what bounds their activations, with SERVE_MAX_PX; n_made is counted up. */
int plans_new(
	struct plans **ret_plans, struct vit *vit, uint32_t max_batch, _Atomic uint64_t *n_made);
void plans_free(struct plans *plans);

/** A plan that stays until the next call. @return 0, -ENOMEM, -EIO: oneDNN refused */
int plans_take(
	struct plans *plans, const struct vit_plan_options *options, struct vit_plan **ret_plan);

#endif
