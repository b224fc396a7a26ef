/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_SUBJECT_H
#define KAMEN_BENCH_SUBJECT_H

#include "image/prep.h"
#include "model/vit.h"

/** Which model, and what it is to be measured with. */
struct subject_options {
	const char *file, *random; /* one of them */
	uint32_t batch, px;        /* px 0: the model's own */
	enum precision precision;
};

/** Opens FILE or an untrained model, for a precision. Both are the caller's, also where it fails.
 * @return 0, -EOPNOTSUPP: this CPU has no such precision (diag), ... */
int subject_open(struct base **base, struct vit **vit, const char *file, const char *random,
	enum precision precision, struct diag *diag);

/** The model with everything that one batch passes through. */
struct subject {
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct vit_plan *plan;
	struct image *image;
	struct resize_scratch *scratch;
	struct prep prep;
	float *embeddings;
	uint32_t batch;
	enum precision precision;
};

/** @param s  zeroed; to be given to subject_done() in any case
 * @return 0, -EOPNOTSUPP: this CPU has no such precision (diag), ... */
int subject_init(struct subject *s, const struct subject_options *options, struct diag *diag);
void subject_done(struct subject *s);

/** A batch: preprocessing and the forward pass. */
int subject_run(struct subject *s);

#endif
