/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_GOLDEN_H
#define KAMEN_TESTS_GOLDEN_H

#include <errno.h>
#include <fcntl.h>

#include "base/blob.h"
#include "base/cleanup.h"

/*
 * A golden file: little-endian float32 arrays, in the order in which the test takes them. The
 * script of the same name beside it wrote it.
 */
struct golden {
	float *values;
	size_t n, used;
};

static inline int golden_open(struct golden *golden, const char *path)
{
	void *data;
	size_t n_bytes;
	int r = blob_read(AT_FDCWD, path, 64u << 20, &data, &n_bytes);

	if (r < 0)
		return r;
	*golden = (struct golden){ data, n_bytes / sizeof(float), 0 };
	return 0;
}

/* NULL where the file is shorter than the test thinks. */
static inline const float *golden_take(struct golden *golden, size_t n)
{
	if (n > golden->n - golden->used)
		return NULL;
	golden->used += n;
	return golden->values + golden->used - n;
}

static inline void golden_done(struct golden *golden)
{
	free(golden->values);
}

#endif
