/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_VERDICT_H
#define KAMEN_SERVE_VERDICT_H

#include "serve/embedding.h"
#include "serve/request.h"
#include "serve/serving.h"

/** Novelty, distance and verdict by the version's references; without any, unknown. */
void verdict_judge(struct answer *answer, const float *embedding, const struct serving *serving);

/**
 * What is said of an image: how far it is from what the version knows, and of which class it is.
 *
 * @param request    its answer and values are written; the hardness map is not
 * @param embedding  (width)
 * @param feature    (embedding_dim()) what classes are compared by; may be NULL where there are none
 *                   and nobody asks for it
 */
void verdict_write(struct request *request, const float *embedding, const float *feature,
	const struct serving *serving);

#endif
