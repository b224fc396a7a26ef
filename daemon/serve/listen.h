/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_LISTEN_H
#define KAMEN_SERVE_LISTEN_H

/**
 * A listening SOCK_SEQPACKET unix socket, 0660. A stale file is removed only when nobody listens.
 *
 * @return 0, -EADDRINUSE: another daemon listens there, -ENAMETOOLONG, or what the kernel said
 */
int listen_seqpacket(int *ret_fd, const char *path);

#endif
