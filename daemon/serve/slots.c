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
	struct weight_slot *slots; /* (n), of which memory may not allow all */
	uint32_t n;
	uint64_t held;              /* bytes */
	uint64_t one[N_PRECISIONS]; /* bytes of a slot, 0: none was made yet */
	struct mask *awake;         /* room for bits of a mask that is at rest */
	uint64_t clock;
};

static void slot_drop(struct slots *slots, struct weight_slot *s)
{
	if (s->slot) {
		atomic_fetch_sub(slots->options.n_bytes, slot_bytes(s->slot));
		slots->held -= slot_bytes(s->slot);
	}
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

/* The one used least recently, but not keep; of a precision, or N_PRECISIONS: any. NULL: none. */
static struct weight_slot *oldest(
	const struct slots *slots, enum precision precision, const struct weight_slot *keep)
{
	struct weight_slot *found = NULL;

	for (uint32_t i = 0; i < slots->n; i++) {
		struct weight_slot *s = &slots->slots[i];

		if (!s->slot || s == keep)
			continue;
		if (precision != N_PRECISIONS && slot_precision(s->slot) != precision)
			continue;
		if (!found || s->last < found->last)
			found = s;
	}
	return found;
}

static struct weight_slot *unmade(const struct slots *slots)
{
	for (uint32_t i = 0; i < slots->n; i++)
		if (!slots->slots[i].slot)
			return &slots->slots[i];
	return NULL;
}

static bool fits(const struct slots *slots, enum precision precision)
{
	const uint64_t memory = slots->options.memory;

	return memory == 0 || slots->held + slots->one[precision] <= memory;
}

/* How large the first one of a precision is shows only when it is there. */
static int make(struct slots *slots, struct weight_slot *s, enum precision precision)
{
	const uint64_t memory = slots->options.memory;
	struct weight_slot *last;
	int r = vit_slot_new(&s->slot, slots->options.vit, slot_use_in(SLOT_INFER, precision));

	if (r < 0)
		return r;
	slots->one[precision] = slot_bytes(s->slot);
	slots->held += slots->one[precision];
	atomic_fetch_add(slots->options.n_bytes, slots->one[precision]);
	while (memory > 0 && slots->held > memory && (last = oldest(slots, N_PRECISIONS, s)))
		slot_drop(slots, last);
	return 0;
}

/* One to apply a mask to. Making is dear: while there is no room, a precision goes on with the slots
 * that it has. */
static int provide(struct slots *slots, enum precision precision, struct weight_slot **ret_slot)
{
	struct weight_slot *s = unmade(slots);

	if (!s || !fits(slots, precision)) {
		s = oldest(slots, precision, NULL);
		if (s) {
			*ret_slot = s;
			return 0;
		}
	}
	while (!(s = unmade(slots)) || !fits(slots, precision)) {
		struct weight_slot *last = oldest(slots, N_PRECISIONS, NULL);

		if (!last)
			break;
		slot_drop(slots, last);
	}
	*ret_slot = s;
	return make(slots, s, precision);
}

int slots_take(struct slots *slots, const struct mask_set *set, uint32_t m,
	enum precision precision, struct slot **ret_slot)
{
	struct weight_slot *s;
	int r;

	for (uint32_t i = 0; i < slots->n; i++) {
		s = &slots->slots[i];
		if (s->used && digest_equal(&s->mask_id, &set->ids[m]) &&
			slot_precision(s->slot) == precision) {
			s->last = ++slots->clock;
			*ret_slot = s->slot;
			return 0;
		}
	}
	r = provide(slots, precision, &s);
	if (r < 0)
		return r;
	/* A switch that fails half way leaves weights that belong to no mask. */
	s->used = false;
	r = mask_set_apply(set, m, s->slot, slots->awake);
	if (r < 0)
		return r;
	s->mask_id = set->ids[m];
	s->used = true;
	s->last = ++slots->clock;
	atomic_fetch_add(slots->options.n_switches, 1);
	*ret_slot = s->slot;
	return 0;
}
