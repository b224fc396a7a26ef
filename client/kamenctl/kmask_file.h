/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_KMASK_FILE_H
#define KAMENCTL_KMASK_FILE_H

#include <stddef.h>
#include <stdint.h>

#define KMASK_FILE_MAX (64 << 20)

/** What a .kmask says of itself. */
struct kmask_said {
	uint8_t base[32], prep[32];
	uint64_t seed, n_elements, n_kept;
	uint32_t steps, n_tensors;
	size_t n_bytes;
};

/**
 * The one place of kamenctl that knows the engine's file format: `mask verify` needs no daemon.
 *
 * @param ret_why  what is wrong and where, on failure
 * @return 0 or a negative errno
 */
int kmask_file_verify(const char *path, struct kmask_said *ret_said, char *ret_why, size_t n_why);
int kmask_file_read(const char *path, void **ret_data, size_t *ret_n_bytes);
/** Whole or not at all. */
int kmask_file_write(const char *path, const void *data, size_t n_bytes);

#endif
