/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SUBMISSION_H
#define KAMEN_SERVE_SUBMISSION_H

#include "shm_layout.h"

/*
 * What a client submits is a lie until it was checked: a pure function over the copy, of which the
 * fuzzer (tests/fuzz/submission.c) sees all that can be written into a ring.
 */

/** Ends its text and fills in what 0 stands for. */
void submission_complete(struct shm_request *wire);
/**
 * Whether a completed one agrees with itself and with a slot of so many bytes. What passes may be read:
 * n_bytes lie in the slot, and of raw pixels every row.
 *
 * @return NULL, or what is wrong, for the answer's reason; *ret_code is -EINVAL or -EFBIG then
 */
const char *submission_check(const struct shm_request *wire, uint64_t slot_bytes, int *ret_code);

#endif
