/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_SLOT_H
#define KAMEN_MASK_SLOT_H

#include "mask/bits.h"
#include "mask/rest.h"
#include "onednn/onednn.h"

/** One maskable linear layer: y = x W'^T + b'. Tensor indices into the layout. */
struct slot_layer {
	unsigned weight, bias;      /* tensors of the layout */
	uint32_t n_out, n_in;       /* weight is (n_out, n_in) row-major */
	const float *weight_values; /* frozen, borrowed from the base */
	const float *bias_values;   /* (n_out) */
};

/**
 * A weight slot: one packed copy of the maskable layers with one mask applied (design.md section 4).
 * The packed weight is W * M; 1 / alpha_w is a binary-mul post-op of the product, so the bias is
 * held as b * M_b * alpha_w / alpha_b. All bits kept gives the frozen model bit for bit. In int8 the
 * steps of a weight's rows are the base's, whatever the mask: mask/quantise.h.
 * Not thread-safe; belongs to the thread that owns oneDNN.
 */
struct slot;

enum slot_use {
	SLOT_INFER = 1, /* packed for the forward product */
	SLOT_LEARN = 2, /* also packed transposed, for the backward product of the activations */
	SLOT_BF16 = 4,  /* packed in bf16, not f32 */
	SLOT_INT8 = 8,  /* packed in s8, and not for SLOT_LEARN */
};

static inline enum slot_use slot_use_in(enum slot_use use, enum precision precision)
{
	return precision == PRECISION_INT8   ? use | SLOT_INT8
	       : precision == PRECISION_BF16 ? use | SLOT_BF16
					     : use;
}

/** @return 0, -EINVAL: there is no such use, -ENOMEM, -EIO */
int slot_new(struct slot **ret_slot, struct onednn *onednn, const struct mask_layout *layout,
	const struct slot_layer *layers, unsigned n_layers, enum slot_use use);
void slot_free(struct slot *slot);
DEFINE_CLEANUP(struct slot *, slot_free)

/** Applies a mask (NULL: all kept). Only what differs from the present mask is written, in place; a
 * tensor of which much differs, or whose packed layout is not understood, is packed whole. Allocates
 * nothing.
 * @return 0, or -EIO: oneDNN refused; the slot is good again after the next success */
int slot_apply(struct slot *slot, const struct mask *mask);
/** The same of a mask at rest, without waking what need not be; room: of its layout, left with some of
 * its bits. */
int slot_apply_rest(struct slot *slot, const struct mask_rest *rest, struct mask *room);

/** Packs all anew with that mask: after the values themselves changed. -EINVAL: in int8, whose steps
 * are those of the values at first; else as slot_apply(). */
int slot_reload(struct slot *slot, const struct mask *mask);

/** What it takes of memory; the same for all of one model and use. */
size_t slot_bytes(const struct slot *slot);
/** What it is packed in: SLOT_BF16, SLOT_INT8 or f32. */
enum precision slot_precision(const struct slot *slot);

#endif
