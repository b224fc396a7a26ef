/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/later.h"

#include "serve/limits.h"
#include "serve/serve.h"

void later_init(struct later *later)
{
	*later = (struct later){ .head = NULL };
	later->tail = &later->head;
}

bool later_waits(const struct serve *serve)
{
	return serve->later.head;
}

static uint64_t *turn_of(struct later *later, const struct later_item *item)
{
	return item->user ? &item->user->later_turn : &later->turn_of_nobody;
}

void later_add(struct serve *serve, struct later_item *item)
{
	struct later *later = &serve->later;
	uint64_t *turn = turn_of(later, item);

	if (item->waits)
		return;
	/* Turns that were not taken while there was nothing to do are not made up for. */
	if (*turn < later->turn)
		*turn = later->turn;
	item->waits = true;
	item->next = NULL;
	*later->tail = item;
	later->tail = &item->next;
}

void later_forget(struct serve *serve, struct later_item *item)
{
	struct later *later = &serve->later;
	struct later_item **at = &later->head;

	if (!item->waits)
		return;
	while (*at != item)
		at = &(*at)->next;
	*at = item->next;
	if (later->tail == &item->next)
		later->tail = at;
	item->next = NULL;
	item->waits = false;
}

void later_run(struct serve *serve, bool was_event)
{
	struct later *later = &serve->later;
	struct later_item *next = later->head;

	if (!next) {
		later->n_events = 0;
		return;
	}
	if (was_event && ++later->n_events < SERVE_LATER_EVENTS)
		return;
	later->n_events = 0;
	for (struct later_item *item = next->next; item; item = item->next)
		if (*turn_of(later, item) < *turn_of(later, next))
			next = item;
	later->turn = (*turn_of(later, next))++;
	later_forget(serve, next);
	next->run(next->owner);
}
