/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/later.h"

#include <stddef.h>

#include "serve/limits.h"
#include "serve/quota.h"

void later_init(struct later *later, enum later_what what)
{
	*later = (struct later){ .what = what };
	later->tail = &later->head;
}

bool later_waits(const struct later *later)
{
	return later->head;
}

static uint64_t *turn_of(struct later *later, const struct later_item *item)
{
	return item->user ? &item->user->turns[later->what] : &later->turn_of_nobody;
}

void later_add(struct later *later, struct later_item *item)
{
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

void later_forget(struct later *later, struct later_item *item)
{
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

struct later_item *later_take(struct later *later)
{
	struct later_item *next = later->head;

	if (!next)
		return NULL;
	for (struct later_item *item = next->next; item; item = item->next)
		if (*turn_of(later, item) < *turn_of(later, next))
			next = item;
	later->turn = (*turn_of(later, next))++;
	later_forget(later, next);
	return next;
}

void later_run(struct later *later, bool was_event)
{
	struct later_item *next;

	if (!later->head) {
		later->n_events = 0;
		return;
	}
	if (was_event && ++later->n_events < SERVE_LATER_EVENTS)
		return;
	later->n_events = 0;
	next = later_take(later);
	next->run(next->owner);
}
