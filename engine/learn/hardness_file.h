/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_HARDNESS_FILE_H
#define KAMEN_LEARN_HARDNESS_FILE_H

#include "learn/hardness.h"

/* The tensors of a file in their order: entry, then those of each block, then the end's. */
enum { HARDNESS_ENTRY = 2, HARDNESS_OF_BLOCK = 12, HARDNESS_END = 4 };

static inline unsigned hardness_n_tensors(const struct hardness_info *info)
{
	return HARDNESS_ENTRY + info->depth * HARDNESS_OF_BLOCK + HARDNESS_END;
}

/** One of them. */
struct hardness_tensor {
	char name[48];
	unsigned n_dims;
	uint32_t dims[2];
	size_t n;
};
struct hardness_tensor hardness_tensor(const struct hardness_info *info, unsigned i);

/** Checks all, then reads the values into malloc'ed memory (ret_values NULL: only checks). */
int hardness_decode(struct hardness_info *ret_info, float **ret_values, const void *data,
	size_t n_bytes, struct diag *diag);

#endif
