/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_SWAV_H
#define KAMEN_LEARN_SWAV_H

#include <stdint.h>

/** The first two views are the large crops, whose assignments are the targets. */
#define SWAV_TARGETS 2u

struct swav_shape {
	uint32_t batch, n_views, n_prototypes;
	float temperature;
};

/**
 * Swapped prediction (algorithms.md 1.6): every view but the target's own predicts its assignment.
 *
 * @param o    (n_views, batch, n_prototypes) cosines
 * @param q    (SWAV_TARGETS, batch, n_prototypes) assignments, no gradient
 * @param d_o  like o, overwritten
 * @return the loss
 */
double swav_loss(const struct swav_shape *shape, const float *o, const float *q, float *d_o);

#endif
