/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_ENDPOINT_H
#define KAMEN_OPS_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include "engine.h"

#define ENDPOINT_CHARS 256u

/** Where a ZeroMQ endpoint lies, and so who may reach it. */
enum endpoint_place {
	ENDPOINT_NONE,     /* not an endpoint that we bind */
	ENDPOINT_IPC,      /* ipc:///PATH: who may open the file */
	ENDPOINT_LOOPBACK, /* tcp:// on this machine alone: whoever runs here */
	ENDPOINT_TCP,      /* tcp:// on another address, or on all */
};

/** Of "ipc:///PATH" or "tcp://ADDRESS:PORT", a number, "[IPV6]" or "*". */
enum endpoint_place endpoint_place(const char *endpoint);
/**
 * Next of a list with spaces between.
 *
 * @param at  begins at the list's text and moves on
 * @return false: none is left. ret_endpoint is "" where one is too long
 */
bool endpoint_next(const char **at, char ret_endpoint[ENDPOINT_CHARS]);
/**
 * Whether it may be bound: tcp takes CURVE, or, on this machine, to be asked for.
 *
 * @return 0, or -EINVAL with the reason in diag
 */
int endpoint_check(const char *endpoint, bool has_key, bool plain_tcp, struct diag *diag);

#endif
