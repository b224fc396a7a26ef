/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <string.h>

#include "learn/queue.h"

void queue_push(struct queue *queue, const float *rows, uint32_t n)
{
	size_t row_bytes = queue->dim * sizeof(*rows);
	uint32_t n_new = n < queue->n_max ? n : queue->n_max;
	uint32_t n_room = queue->n_max - n_new;
	uint32_t n_old = queue->n < n_room ? queue->n : n_room;

	memmove(queue->rows + (size_t)n_new * queue->dim, queue->rows, n_old * row_bytes);
	memcpy(queue->rows, rows, n_new * row_bytes);
	queue->n = n_new + n_old;
}
