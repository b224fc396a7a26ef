/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_ENVIRONMENT_H
#define KAMEN_OPS_ENVIRONMENT_H

#include <stdbool.h>

/**
 * This process's environment for another program, without the NAME=VALUEs that are to be dropped, and
 * with one more (NULL: none). One array to free; its strings are the process's own, and the caller's.
 *
 * @return NULL: no memory
 */
char **environment_copy(bool (*is_dropped)(const char *variable), char *more);

#endif
