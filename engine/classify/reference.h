/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLASSIFY_REFERENCE_H
#define KAMEN_CLASSIFY_REFERENCE_H

#include "base/cleanup.h"
#include "base/diag.h"
#include "base/digest.h"

/**
 * What is normal at a site under one mask: at most M reference embeddings and the distribution of
 * the novelty of held-out images (design.md section 4). Immutable. Written by the learner beside
 * the candidate's mask, swapped in with it.
 */
struct reference {
	uint32_t n, dim, k;
	float *embeddings; /* (n, dim), L2-normalised */
	uint32_t n_held;
	float *held;         /* (n_held) distances of held-out images, ascending: the percentiles */
	struct digest space; /* the space they were embedded in */
};

#define REFERENCE_MAX 1024u
#define REFERENCE_K 5u

/** Takes at most REFERENCE_MAX of n (evenly spaced), embeds nothing: embeddings (n, dim) raw. */
int reference_new(struct reference **ret_reference, const float *embeddings, uint32_t n,
	const float *held, uint32_t n_held, uint32_t dim, const struct digest *space);
void reference_free(struct reference *reference);
DEFINE_CLEANUP(struct reference *, reference_free)

/** Mean cosine distance to the k nearest; embedding (dim), not normalised. */
float reference_distance(const struct reference *reference, const float *embedding);
/** Novelty in [0, 1]: share of held-out images at a smaller distance; beyond the last one it goes
 * on rising towards 1 with the distance, so that ranks stay apart. */
float reference_novelty(const struct reference *reference, float distance);

int reference_encode(const struct reference *reference, void **ret_data, size_t *ret_n_bytes);
/** @return 0, -EBADMSG with the field in diag, -ENOMEM */
int reference_decode(
	struct reference **ret_reference, const void *data, size_t n_bytes, struct diag *diag);

/**
 * Names the space of an embedding: hash(base digest, mask digest (zero: no mask), preprocessing
 * digest, precision, layer). Two embeddings may be compared only when their spaces are equal.
 */
struct digest space_digest(const struct digest *base, const struct digest *mask,
	const struct digest *prep, const char *precision, const char *layer);

#endif
