/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_QUEUE_H
#define KAMEN_LEARN_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

/** Past normalised embeddings of one target view, newest first; rows are the caller's memory. */
struct queue {
	float *rows; /* (n_max, dim) */
	uint32_t n_max, n, dim;
};

static inline bool queue_is_full(const struct queue *queue)
{
	return queue->n_max > 0 && queue->n == queue->n_max;
}

/** Puts n rows in front; what no longer fits behind is forgotten. */
void queue_push(struct queue *queue, const float *rows, uint32_t n);

#endif
