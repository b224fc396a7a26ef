/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_KMASK_H
#define KAMEN_MASK_KMASK_H

#include "base/diag.h"
#include "mask/bits.h"

/** An ed25519 public key. */
struct kmask_key {
	uint8_t bytes[32];
};

/** What a .kmask says about its mask, beside the bits. */
struct kmask_header {
	struct digest base; /* digest of the frozen model's file */
	struct digest prep; /* preprocessing it was learnt for */
	struct digest mask; /* mask_digest() of the bits; filled by the reader */
	uint64_t seed;
	uint32_t steps;
	/* From here on filled by the reader. */
	uint32_t n_tensors;
	uint64_t n_elements;
	uint64_t n_kept;
	size_t n_bytes;       /* of the whole file */
	size_t table_bytes;   /* all that is neither payload nor signature */
	size_t payload_bytes; /* the coded bits */
	bool is_signed;
	struct kmask_key signer; /* the signature has been checked, whether to trust it has not */
};

/** One tensor of a file: a row of its table. */
struct kmask_tensor {
	uint32_t n, n_off;
	size_t at;        /* of its payload */
	uint32_t n_bytes; /* of it */
};

/** A file whose sums, table and signature hold. Borrows the bytes. */
struct kmask {
	const uint8_t *data;
	struct kmask_header header;
	struct kmask_tensor *tensors; /* (n_tensors) */
};

/** Whether the bits that the payload names are the dropped ones; else they are the kept ones. */
static inline bool kmask_names_dropped(const struct kmask_tensor *tensor)
{
	return tensor->n_off <= tensor->n - tensor->n_off;
}

/** How many bits the payload names: the rarer ones. */
static inline uint32_t kmask_n_named(const struct kmask_tensor *tensor)
{
	return kmask_names_dropped(tensor) ? tensor->n_off : tensor->n - tensor->n_off;
}

/**
 * Encodes to the file format of kamen-mask(5), not signed. A tensor's payload is at most its entropy
 * under one probability, plus a byte.
 *
 * @param ret_data  malloc'ed
 * @return 0, -EFBIG: a tensor of 2^31 elements or more, -ENOMEM
 */
int kmask_encode(const struct mask *mask, const struct kmask_header *header, void **ret_data,
	size_t *ret_n_bytes);

/** Looks at everything but the bits, without a model. Memory is bounded by the file's size.
 * @return 0, -EBADMSG: damaged, -EFBIG: promises more than it holds, -EKEYREJECTED: signed wrongly */
int kmask_open(struct kmask **ret_kmask, const void *data, size_t n_bytes, struct diag *diag);
void kmask_free(struct kmask *kmask);
DEFINE_CLEANUP(struct kmask *, kmask_free)

/**
 * The bits that a tensor's payload names, ascending; the time goes by their number, not by the
 * tensor's size, and no other tensor is looked at.
 *
 * @param ret_positions  room for kmask_n_named()
 */
int kmask_positions(
	const struct kmask *kmask, uint32_t tensor, uint32_t *ret_positions, struct diag *diag);

/** More weights than a file may have whose bits are looked at without a model: 2 GB of bits. */
#define KMASK_MAX_ELEMENTS (UINT64_C(1) << 34)

/**
 * mask_digest() of what the payloads say, without a model and without room for it: the time goes by
 * the weights, a word of 64 at a time.
 *
 * @return 0, -EBADMSG: a payload does not decode, -EFBIG: over KMASK_MAX_ELEMENTS
 */
int kmask_digest(const struct kmask *kmask, struct digest *ret_digest, struct diag *diag);
/** That, and -EBADMSG: it is not what the header says. What kmask_open() leaves. */
int kmask_check_bits(const struct kmask *kmask, struct diag *diag);

/** Bytes that the bits would take at n H(n_off / n) a tensor. */
double kmask_entropy_bytes(const struct kmask *kmask);

/** kmask_open() for who wants the header only. */
int kmask_verify(
	const void *data, size_t n_bytes, struct kmask_header *ret_header, struct diag *diag);

/**
 * @return 0, -EBADMSG: damaged, -EXDEV: for another base or other shapes, -EFBIG: promises more than
 * it holds or the base has, -EKEYREJECTED: signed wrongly (diag says which), -ENOMEM
 */
int kmask_decode(struct mask **ret_mask, struct kmask_header *ret_header,
	const struct mask_layout *layout, const struct digest *base, const void *data,
	size_t n_bytes, struct diag *diag);

#endif
