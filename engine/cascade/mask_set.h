/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CASCADE_MASK_SET_H
#define KAMEN_CASCADE_MASK_SET_H

#include "cascade/gmm.h"
#include "cascade/whiten.h"
#include "mask/kmask.h"
#include "mask/rest.h"
#include "mask/slot.h"

#define CASCADE_MAX_EXPERTS 8u

/** Whose embeddings are put side by side; the others' places are 0. */
enum cascade_mode {
	CASCADE_CONDITIONAL,   /* dispatcher and the expert it chose: two forwards */
	CASCADE_UNCONDITIONAL, /* dispatcher and every expert */
	CASCADE_N_MODES
};

/**
 * What a version of a site is served with: one mask, or a model cascade (algorithms.md 1.10). There
 * the first mask is the dispatcher's; a Gaussian mixture over its whitened embeddings names the
 * expert of an image, and what dispatcher and experts say is fused by a whitening of all of it.
 * Immutable once made, so that threads may share it.
 */
struct mask_set {
	uint32_t n_experts; /* 0: one mask, and no more than that below */
	enum cascade_mode mode;
	uint32_t width; /* of what the model says */
	uint32_t n_out; /* of what the set says: width, or of a cascade fewer where the images that
			 * it was fitted to span fewer */
	struct mask *masks[1 + CASCADE_MAX_EXPERTS]; /* NULL: all kept, or at rest */
	struct mask_rest *rests[1 + CASCADE_MAX_EXPERTS];
	struct digest ids[1 + CASCADE_MAX_EXPERTS]; /* of their bits: which weight slot fits */
	struct digest id;     /* of all of it; one mask's is that of its bits */
	struct whiten *route; /* (width) -> what the mixture sees */
	struct gmm *mixture;
	struct whiten *fusion; /* ((1 + n_experts) width) -> (n_out) */
};

/** One mask, which it takes over on success; NULL: the base. */
int mask_set_of(struct mask_set **ret_set, struct mask *mask, const struct mask_layout *layout,
	uint32_t width);

/** What a cascade is made of. */
struct mask_set_parts {
	uint32_t n_experts, width;
	enum cascade_mode mode;
	struct mask **masks; /* (1 + n_experts) */
	struct whiten *route;
	struct gmm *mixture;
	struct whiten *fusion;
};
/** Takes over all parts on success. -EINVAL: they do not fit each other. */
int mask_set_join(struct mask_set **ret_set, const struct mask_set_parts *parts);
/** Keeps the masks as what they take least room as, before the set is shared: for who has many sets
 * and uses few. Its density is not known any more, nor can it be written. */
int mask_set_lay_down(struct mask_set *set);
/** Mask m; room: of its layout, to wake it in where it is at rest. Returns as slot_apply(). */
int mask_set_apply(const struct mask_set *set, uint32_t m, struct slot *slot, struct mask *room);
void mask_set_free(struct mask_set *set);
DEFINE_CLEANUP(struct mask_set *, mask_set_free)

/** Forwards that an image takes. */
uint32_t mask_set_n_forwards(const struct mask_set *set);
/** Over all its masks: share of kept bits, of the tensor that lost most, bits that are off. */
double mask_set_density(const struct mask_set *set);
double mask_set_lowest_density(const struct mask_set *set);
uint64_t mask_set_n_flips(const struct mask_set *set);

/** Who looks at images through one mask of a set after the other. */
struct mask_set_eye {
	/** What mask m makes of some images: rows (n, width). 0 or a negative errno. */
	int (*look)(void *owner, uint32_t m, const uint32_t *images, uint32_t n, float *rows);
	void *owner;
};

/** Room to work in, so that nothing is allocated per image. */
struct mask_set_scratch;
int mask_set_scratch_new(struct mask_set_scratch **ret_scratch, uint32_t max_images,
	uint32_t max_experts, uint32_t width);
void mask_set_scratch_free(struct mask_set_scratch *scratch);
DEFINE_CLEANUP(struct mask_set_scratch *, mask_set_scratch_free)

/**
 * What the set says of images 0..n-1: embeddings (n, n_out). Of a conditional cascade an expert
 * sees its own images only. scratch: of at least this many images, experts and this width.
 */
int mask_set_embed(float *embeddings, const struct mask_set *set, struct mask_set_scratch *scratch,
	const struct mask_set_eye *eye, uint32_t n);
/**
 * The same before the fusion, which may be missing: what dispatcher and experts say, side by side.
 *
 * @param ret_rows    (n, (1 + n_experts) width), the scratch's
 * @param ret_owners  (n) whose image each is, the scratch's
 */
int mask_set_ask(const struct mask_set *set, struct mask_set_scratch *scratch,
	const struct mask_set_eye *eye, uint32_t n, float **ret_rows, const uint32_t **ret_owners);
/** The component of each of some embeddings by the dispatcher: rows (n, width). */
void mask_set_route(const struct mask_set *set, struct mask_set_scratch *scratch, const float *rows,
	uint32_t n, uint32_t *ret_owners);

/* ---- the file: a .kmask, or a .kcas (kamen-cascade(5)) */

/** What a file says beside its content. */
struct mask_set_header {
	struct digest base, prep;
	uint64_t seed;
	uint32_t steps;
	/* From here on filled by the reader. */
	struct digest id; /* mask_set.id */
	uint32_t n_experts, n_out;
	enum cascade_mode mode;
	uint64_t n_elements; /* of the model */
	uint64_t n_flips;    /* mask_set_n_flips() */
	size_t n_bytes;      /* of the whole file */
	size_t mask_bytes;   /* of them the masks' */
	bool is_signed;      /* a cascade never is */
	struct kmask_key signer;
};

/** @param ret_data  malloc'ed
 * @return 0, -EFBIG: too large for its format, -EINVAL: of the base, -ENOMEM */
int mask_set_encode(const struct mask_set *set, const struct mask_set_header *header,
	void **ret_data, size_t *ret_n_bytes);
/** Whether the first bytes are those of a cascade's file. */
bool mask_set_is_cascade(const void *data, size_t n_bytes);
/** Looks at everything but the masks' bits, without a model. Errors as mask_set_decode(). */
int mask_set_verify(
	const void *data, size_t n_bytes, struct mask_set_header *ret_header, struct diag *diag);
/** A mask's own file in that of a cascade, borrowed; of a .kmask 0 is all of it. -EINVAL: no such
 * mask. The file has been verified. */
int mask_set_part(
	const void *data, size_t n_bytes, uint32_t m, const void **ret_part, size_t *ret_n_bytes);
/**
 * @param width  of the model's embeddings
 * @return 0, -EBADMSG: damaged, -EXDEV: for another base or other shapes, -EFBIG: promises more
 * than it holds or the base has, -EKEYREJECTED: signed wrongly (diag says which), -ENOMEM
 */
int mask_set_decode(struct mask_set **ret_set, struct mask_set_header *ret_header,
	const struct mask_layout *layout, const struct digest *base, uint32_t width,
	const void *data, size_t n_bytes, struct diag *diag);

#endif
