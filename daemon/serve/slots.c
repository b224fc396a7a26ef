/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/slots.h"

#include <errno.h>

struct weight_slot {
	struct slot *slot;
	struct digest mask_id;
	bool used;
	uint64_t last;
};

struct slots {
	struct slots_options options;
	struct weight_slot *slots; /* (options.n), of which memory allows n */
	uint32_t n;
	struct mask *awake; /* bits of a mask that is otherwise at rest */
	uint64_t clock;
};

static void slot_drop(struct slots *slots, struct weight_slot *s)
{
	if (s->slot)
		atomic_fetch_sub(slots->options.n_bytes, slot_bytes(s->slot));
	slot_free(s->slot);
	*s = (struct weight_slot){ .slot = NULL };
}

void slots_free(struct slots *slots)
{
	if (!slots)
		return;
	for (uint32_t i = 0; slots->slots && i < slots->n; i++)
		slot_drop(slots, &slots->slots[i]);
	free(slots->slots);
	mask_free(slots->awake);
	free(slots);
}

int slots_new(struct slots **ret_slots, const struct slots_options *options)
{
	struct slots *slots = calloc(1, sizeof(*slots));
	int r;

	if (!slots)
		return -ENOMEM;
	slots->options = *options;
	slots->n = options->n > 0 ? options->n : 1;
	slots->slots = calloc(slots->n, sizeof(*slots->slots));
	r = slots->slots ? mask_new(&slots->awake, vit_layout(options->vit)) : -ENOMEM;
	if (r < 0) {
		slots_free(slots);
		return r;
	}
	*ret_slots = slots;
	return 0;
}

/* All slots of a precision are of one size, which the first one tells: then those go for which there
 * is no room beside it. Returns where it is. */
static struct weight_slot *slots_bound(struct slots *slots, struct weight_slot *made)
{
	const uint64_t memory = slots->options.memory, n_bytes = slot_bytes(made->slot);
	struct weight_slot *first = &slots->slots[0], other = *first;

	if (memory == 0 || memory / n_bytes >= slots->n)
		return made;
	*first = *made;
	*made = made == first ? *first : other;
	while (slots->n > 1 && slots->n > memory / n_bytes)
		slot_drop(slots, &slots->slots[--slots->n]);
	return first;
}

static int slot_make(struct slots *slots, struct weight_slot **slot, enum precision precision)
{
	struct weight_slot *made = *slot;
	int r;

	slot_drop(slots, made);
	r = vit_slot_new(&made->slot, slots->options.vit, slot_use_in(SLOT_INFER, precision));
	if (r < 0)
		return r;
	atomic_fetch_add(slots->options.n_bytes, slot_bytes(made->slot));
	*slot = slots_bound(slots, made);
	return 0;
}

int slots_take(struct slots *slots, const struct mask_set *set, uint32_t m,
	enum precision precision, struct slot **ret_slot)
{
	struct weight_slot *best = &slots->slots[0];
	int r;

	for (uint32_t i = 0; i < slots->n; i++) {
		struct weight_slot *s = &slots->slots[i];

		if (s->used && digest_equal(&s->mask_id, &set->ids[m]) &&
			slot_precision(s->slot) == precision) {
			s->last = ++slots->clock;
			*ret_slot = s->slot;
			return 0;
		}
		if (s->last < best->last)
			best = s;
	}
	if (!best->slot || slot_precision(best->slot) != precision) {
		r = slot_make(slots, &best, precision);
		if (r < 0)
			return r;
	}
	/* A switch that fails half way leaves weights that belong to no mask. */
	best->used = false;
	r = slot_apply(best->slot, mask_set_mask(set, m, slots->awake));
	if (r < 0)
		return r;
	best->mask_id = set->ids[m];
	best->used = true;
	best->last = ++slots->clock;
	atomic_fetch_add(slots->options.n_switches, 1);
	*ret_slot = best->slot;
	return 0;
}
