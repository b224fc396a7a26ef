/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_KMASK_H
#define KAMEN_MASK_KMASK_H

#include "base/diag.h"
#include "mask/bits.h"

/** What a .kmask says about its mask, beside the bits. */
struct kmask_header {
	struct digest base; /* digest of the frozen model's file */
	struct digest prep; /* preprocessing it was learnt for */
	struct digest mask; /* mask_digest() of the bits; filled by the reader */
	uint64_t seed;
	uint32_t steps;
	uint32_t n_tensors;  /* filled by the reader */
	uint64_t n_elements; /* filled by the reader */
	uint64_t n_kept;     /* filled by the reader */
};

/**
 * Encodes to the file format of kamen-mask(5): fixed little-endian header, per-tensor table
 * (index, n, n_on, bytes, checksum), entropy-coded bits (static binary range coder, one
 * probability per tensor; coded size within 1 % of the entropy bound plus 64 bytes a tensor),
 * a checksum over the whole, room for a signature.
 *
 * @param ret_data  malloc'ed
 */
int kmask_encode(const struct mask *mask, const struct kmask_header *header, void **ret_data,
	size_t *ret_n_bytes);

/** Header and checksums only, without a model: what `kamenctl mask verify` does. -EBADMSG: damaged */
int kmask_verify(
	const void *data, size_t n_bytes, struct kmask_header *ret_header, struct diag *diag);

/**
 * @return 0, -EBADMSG: damaged, -EXDEV: for another base or layout (diag says which), -ENOMEM
 */
int kmask_decode(struct mask **ret_mask, struct kmask_header *ret_header,
	const struct mask_layout *layout, const struct digest *base, const void *data,
	size_t n_bytes, struct diag *diag);

#endif
