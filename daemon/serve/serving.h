/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SERVING_H
#define KAMEN_SERVE_SERVING_H

#include <stdatomic.h>
#include <stdint.h>

#include "engine.h"
#include "serve/class_set.h"

/**
 * What one version of a site is served with: an immutable snapshot, made by the loop thread, read
 * by the inference thread, gone with its last reference.
 */
struct serving {
	_Atomic unsigned n_refs;
	uint32_t version;     /* 0: the frozen base */
	struct mask_set *set; /* one mask, or a cascade; laid down */
	uint32_t n_forwards;  /* that an image takes */
	struct prep prep;
	enum precision precision;
	struct digest space;
	struct reference *reference; /* NULL: nothing is known about what is normal */
	bool has_foreign_reference;  /* there is one, of a space that this is not served in */
	double threshold;            /* NG at or above this novelty */
	char hardness_path[512];     /* of its .khard; "": it has none */
	struct class_set *classes;   /* NULL: none, or what they look like here is not known */
	struct serving *lender;      /* whose mask set and references these are; NULL: its own */
};

struct serving *serving_ref(struct serving *serving);
/** NULL is fine. */
void serving_unref(struct serving *serving);
DEFINE_CLEANUP(struct serving *, serving_unref)

/** The same with other classes, which it takes over; nothing is copied. Made by the loop. */
int serving_with_classes(
	struct serving **ret_serving, struct serving *serving, struct class_set *classes);

/** What the model is, as far as a snapshot depends on it. Borrowed. */
struct serving_model {
	const struct mask_layout *layout;
	const struct digest *base;
	uint32_t width;           /* of an embedding that is not fused */
	enum precision precision; /* where no reference tells another */
	bool has[N_PRECISIONS];   /* what the CPU can compute */
};

/**
 * Reads MASK_PATH (a .kmask or a .kcas; NULL: the base) and REFERENCE_PATH, checks both against the
 * model. The references say in which precision they were embedded: in that one it is served, or
 * its verdicts would be of another space. A reference of another space, a damaged or a missing one is
 * no error: then nothing is known. One that cannot be read just now is.
 *
 * @return 0, -ENOENT: no such mask file, -EBADMSG or -EXDEV: damaged or of another model (diag)
 */
int serving_load(struct serving **ret_serving, const struct serving_model *model, uint32_t version,
	const struct prep *prep, double threshold, const char *mask_path,
	const char *reference_path, struct diag *diag);

#endif
