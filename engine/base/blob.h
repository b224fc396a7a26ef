/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_BLOB_H
#define KAMEN_BASE_BLOB_H

#include <stddef.h>

/**
 * Writes a whole file so that a reader, also after a power cut, finds the old one, the new one or
 * none, never a torn one: temporary name, fsync, rename, fsync of the directory.
 *
 * @param dir_fd  directory, or AT_FDCWD
 * @param path    relative to dir_fd; the temporary is PATH with ".tmp" appended
 * @return 0 or a negative errno; on failure the temporary is gone
 */
int blob_write(int dir_fd, const char *path, const void *data, size_t n_bytes);

/** All of it to an open file, however little write() takes at a time. */
int blob_write_all(int fd, const void *data, size_t n_bytes);

/**
 * Reads a whole regular file of at most max_bytes.
 *
 * @param ret_data  malloc'ed, with a NUL behind the last byte; the caller frees it
 * @return 0, -EFBIG: larger than max_bytes, -EINVAL: not a regular file, or what open/read said
 */
int blob_read(int dir_fd, const char *path, size_t max_bytes, void **ret_data, size_t *ret_n_bytes);

#endif
