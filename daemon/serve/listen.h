/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_LISTEN_H
#define KAMEN_SERVE_LISTEN_H

#include <systemd/sd-event.h>

struct handover;

/**
 * A listening SOCK_SEQPACKET unix socket, 0660. A stale file is removed only when nobody listens.
 *
 * @return 0, -EADDRINUSE: another daemon listens there, -ENAMETOOLONG, or what the kernel said
 */
int listen_seqpacket(int *ret_fd, const char *path);
/**
 * The socket that an earlier process has left under this name, if it is of that path, or a new one;
 * it will be there for the next one. Who connects between the two waits.
 */
int listen_open(int *ret_fd, const char *path, struct handover *handover, const char *name);
/**
 * A client, non-blocking. Where there is no room for it (descriptors, memory) the listening source
 * rests a moment, or the loop would spin over a client that it cannot take.
 *
 * @param io     of the listening socket
 * @param pause  NULL at first; the caller's, to be released before io
 */
int listen_accept(int fd, sd_event_source *io, sd_event_source **pause);

/** Accepts nothing for so long; *pause is the caller's. */
void listen_rest(sd_event_source *io, sd_event_source **pause, uint64_t ns);

#endif
