/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_PACKET_QUEUE_H
#define KAMEN_SERVE_PACKET_QUEUE_H

#include "wire.h"

/** A packet that its socket had no room for. */
struct packet {
	void *data;
	size_t n_bytes;
	int fd; /* goes with it, or -1 */
	struct packet *next;
};

/** What is still to be sent on one socket, in order. Its owner bounds it: n_bytes. */
struct packet_queue {
	struct packet *head, **tail;
	size_t n_bytes;
};

void packet_queue_init(struct packet_queue *queue);
/** Forgets what was not sent. */
void packet_queue_clear(struct packet_queue *queue);
/** Appends a message, with a copy of fd (-1: none). */
int packet_queue_put(struct packet_queue *queue, const ProtobufCMessage *message, int fd);
/**
 * Sends what the socket takes.
 *
 * @return 0: all is sent, 1: call again when the socket is writable, or what sendmsg said: the peer
 *         is dying, and the first packet is gone
 */
int packet_queue_flush(struct packet_queue *queue, int sock);

#endif
