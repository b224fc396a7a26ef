/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_KMASK_DIFF_H
#define KAMEN_MASK_KMASK_DIFF_H

#include "mask/kmask.h"

/** From one mask to another, in one tensor. */
struct kmask_flips {
	uint32_t n_dropped;  /* kept before, dropped now */
	uint32_t n_restored; /* dropped before, kept now */
};

/**
 * The time goes by the bits that the files name, not by the tensors' sizes.
 *
 * @param a, b       before and now; one may be NULL: the frozen base
 * @param ret_flips  (n_tensors)
 * @return 0, -EXDEV: of different bases or shapes, -EBADMSG: a payload does not decode, -ENOMEM
 */
int kmask_diff(const struct kmask *a, const struct kmask *b, struct kmask_flips *ret_flips,
	struct diag *diag);

#endif
