/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SLOTS_H
#define KAMEN_SERVE_SLOTS_H

#include <stdatomic.h>

#include "engine.h"

/** Weight slots of one thread that computes; the one that was used least recently goes. */
struct slots;

struct slots_options {
	struct vit *vit; /* borrowed */
	uint32_t n;      /* at most so many */
	uint64_t memory; /* of them together, of which there is one at least; 0: any */
	_Atomic uint64_t *n_switches, *n_bytes; /* counted here */
};

int slots_new(struct slots **ret_slots, const struct slots_options *options);
void slots_free(struct slots *slots);

/**
 * A slot with mask m of the set in a precision; it stays until the next call. The set is looked at
 * only here.
 *
 * @return 0, -ENOMEM, -EIO: oneDNN refused
 */
int slots_take(struct slots *slots, const struct mask_set *set, uint32_t m,
	enum precision precision, struct slot **ret_slot);

#endif
