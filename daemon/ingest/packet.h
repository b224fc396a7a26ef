/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_PACKET_H
#define KAMEN_INGEST_PACKET_H

#include <stddef.h>

/*
 * One packet with at most one descriptor over a SOCK_SEQPACKET socket. No allocation, so that it is
 * fit for the confined decoder too.
 */

/** @param fd  -1: none. @return 0, -EAGAIN: the peer does not read, -EPIPE, ... */
int packet_send(int sock, const void *data, size_t n_bytes, int fd);
/**
 * @param ret_fd  the descriptor that came along, the caller's to close, or -1
 * @return bytes of the packet, 0: the peer has closed, -EAGAIN, -EMSGSIZE: longer than data
 */
int packet_recv(int sock, void *data, size_t n_bytes, int flags, int *ret_fd);

#endif
