/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLI_CONTROL_H
#define KAMEN_CLI_CONTROL_H

#include <stdbool.h>

#include "cli.h"
#include "wire.h"

/** A connection to control.sock, past its hello. Says itself what went wrong, once, on stderr. */
struct control;

/** @return EXIT_DONE with *ret_control, or an exit status */
int control_open(const struct ctl *ctl, struct control **ret_control);
void control_free(struct control *control);
static inline void control_freep(struct control **control)
{
	control_free(*control);
}

/** Sends a request (its id is set here), with a descriptor unless fd is -1. EXIT_DONE or a status. */
int control_send(struct control *control, Kamen__Request *request, int fd);
/**
 * The next reply to it; it lives until the next call.
 *
 * @param for_ever    a round may be silent for long; else half a minute is too much, but for requests
 *                    that wait until images were looked at
 * @param ret_reply   NULL: the last one was given already
 * @return EXIT_DONE or a status, the error said
 */
int control_next(struct control *control, bool for_ever, const Kamen__Reply **ret_reply);
/** A request with one row of a known kind for an answer; it lives until the next call. */
int control_ask(struct control *control, Kamen__Request *request, int fd, Kamen__Reply__RowCase row,
	const Kamen__Reply **ret_reply);
/** Waits for the end of the connection, where that is the answer. EXIT_DONE or a status. */
int control_wait_end(struct control *control);
/** Descriptor that came with the last reply, now the caller's, or -1. */
int control_take_fd(struct control *control);

/** One request, every row printed: what most commands are. */
int control_run(struct ctl *ctl, Kamen__Request *request, int fd, bool as_lines);

#endif
