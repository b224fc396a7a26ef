/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_VIT_TEAM_H
#define KAMEN_MODEL_VIT_TEAM_H

#include "model/vit_internal.h"

/**
 * A forward pass in one parallel region. Each thread, a lane, has primitives of its own that run on it
 * alone. Where there are images enough, lanes share these, and never wait for each other: a block's
 * weights stay near by from image to image, and what an image is within a block. Else, where products are
 * convolutions, up to four lanes share an image's tokens: they wait for each other once a block, for keys
 * and values, and at the end, where class tokens go on alone; what is of one token stays with its lane.
 * Otherwise they share a product's columns, do what follows in them at once (GELU, residual, heads), and
 * wait for each other where a product needs all columns of the one before. Of an image the bits are the
 * same in any batch while the number of lanes is.
 */
struct vit_team;

/** Reads stem's columns and positions, which must outlive it. As many lanes as OpenMP has threads.
 * @param whole  every token passes the last block too, see vit_team_tokens()
 * @return 0, -EOPNOTSUPP: not in this precision, or oneDNN's layout of weights has no
 * columns that lie together, -ENOMEM, -EIO */
int vit_team_new(
	struct vit_team **ret_team, const struct vit *vit, const struct vit_stem *stem, bool whole);
void vit_team_free(struct vit_team *team);
DEFINE_CLEANUP(struct vit_team *, vit_team_free)

/** stem's columns to the class tokens (n, D) before the last norm, which are the team's. */
int vit_team_forward(struct vit_team *team, const struct slot *slot, const float **ret_tokens);

/** Of a whole team's last forward: all tokens (n, T, D) before the last norm, which the caller may
 * change, and the class tokens' attention in the last block. Both are the team's. */
float *vit_team_tokens(struct vit_team *team);
struct vit_class_probs vit_team_class_probs(const struct vit_team *team);

#endif
