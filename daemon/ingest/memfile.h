/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_MEMFILE_H
#define KAMEN_INGEST_MEMFILE_H

#include <stddef.h>
#include <stdint.h>

/** An anonymous file of n_bytes and its writable mapping. A plain value with one owner. */
struct memfile {
	int fd; /* -1: none */
	uint8_t *map;
	size_t n_bytes;
};

/** @return 0, -EINVAL: n_bytes is 0, -ENOMEM, -EMFILE */
int memfile_new(struct memfile *ret_file, size_t n_bytes);
/** Unmaps and closes; fine on a file that has been taken or was never made. */
void memfile_done(struct memfile *file);
/** Unmaps, seals against any change, and hands over the descriptor. */
int memfile_seal(struct memfile *file, int *ret_fd);
/** @return 0, or -EPERM: somebody may still write or truncate it, -EBADMSG: not n_bytes long */
int memfile_check_sealed(int fd, size_t n_bytes);
/** Reads exactly n_bytes from the start; never faults, whatever the other side does to the file. */
int memfile_read(int fd, void *data, size_t n_bytes);

#endif
