/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_ONEDNN_ONEDNN_H
#define KAMEN_ONEDNN_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

/**
 * oneDNN's CPU engine, its stream, and one scratchpad that all primitives share. One thread makes
 * it and is the only one to use it; every op and packed weight must be freed before it.
 */
struct onednn;

/** What products read: f32, bf16 with sums in f32, or u8 activations and s8 weights with exact sums
 * in s32. */
enum precision { PRECISION_F32, PRECISION_BF16, PRECISION_INT8, N_PRECISIONS };

/** "f32", "bf16", "int8" */
const char *precision_name(enum precision precision);
/** @return 0, -EINVAL: none of that name */
int precision_parse(enum precision *ret_precision, const char *name);
static inline size_t precision_bytes(enum precision precision)
{
	return precision == PRECISION_INT8 ? 1 : precision == PRECISION_BF16 ? 2 : 4;
}

/** @return 0, -ENOMEM, -EIO: oneDNN refused */
int onednn_new(struct onednn **ret_onednn);
void onednn_free(struct onednn *onednn);
DEFINE_CLEANUP(struct onednn *, onednn_free)

/** Instruction set that oneDNN dispatches to on this machine, e.g. "avx512_core". */
const char *onednn_isa(const struct onednn *onednn);

/** Whether this CPU has instructions for it; bf16 without them is slower than f32, or impossible,
 * int8 without VNNI not exact. */
bool onednn_has(const struct onednn *onednn, enum precision precision);

/** What lies between layers of a precision: bf16 (else f32) between those of int8, of others the same. */
enum precision onednn_between(const struct onednn *onednn, enum precision precision);

/** How many ops were made so far that oneDNN has no fast implementation for. */
unsigned onednn_n_slow(const struct onednn *onednn);

#endif
