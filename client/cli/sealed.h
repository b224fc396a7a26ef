/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLI_SEALED_H
#define KAMEN_CLI_SEALED_H

#include <stddef.h>

/** A sealed memfd with a copy of data, so that the daemon may read it in place. 0 or a negative
 * errno. */
int sealed_new(const void *data, size_t n_bytes, int *ret_fd);

#endif
