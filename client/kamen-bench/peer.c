/* SPDX-License-Identifier: Apache-2.0 */
#include "peer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>
#include <zmq.h>

#define ANSWER_BYTES 384 /* shm_result up to its embedding */
#define PATIENCE_MS 10000

struct peer {
	pid_t pid;
	void *context, *socket;
	char dir[64], endpoint[96];
};

/* In the child: until it is killed, or its parent ends. */
static void answer(const char *endpoint)
{
	void *context = zmq_ctx_new();
	void *socket = context ? zmq_socket(context, ZMQ_REP) : NULL;

	if (!socket || zmq_bind(socket, endpoint) < 0)
		_exit(1);
	for (;;) {
		uint8_t reply[ANSWER_BYTES] = { 0 };
		uint64_t checksum;
		zmq_msg_t message;

		if (zmq_msg_init(&message) < 0 || zmq_msg_recv(&message, socket, 0) < 0)
			_exit(1);
		checksum = XXH3_64bits(zmq_msg_data(&message), zmq_msg_size(&message));
		(void)zmq_msg_close(&message);
		memcpy(reply, &checksum, sizeof(checksum));
		if (zmq_send(socket, reply, sizeof(reply), 0) < 0)
			_exit(1);
	}
}

int peer_start(struct peer **ret_peer)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	const int patience = PATIENCE_MS, linger = 0;

	if (!peer)
		return -ENOMEM;
	(void)snprintf(peer->dir, sizeof(peer->dir), "/tmp/kamen-peer-XXXXXX");
	if (!mkdtemp(peer->dir)) {
		free(peer);
		return -errno;
	}
	(void)snprintf(peer->endpoint, sizeof(peer->endpoint), "ipc://%s/sock", peer->dir);
	/* Before any thread of ours or of libzmq. */
	peer->pid = fork();
	if (peer->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		answer(peer->endpoint);
	}
	peer->context = zmq_ctx_new();
	peer->socket = peer->context ? zmq_socket(peer->context, ZMQ_REQ) : NULL;
	if (peer->pid < 0 || !peer->socket ||
		zmq_setsockopt(peer->socket, ZMQ_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
		zmq_setsockopt(peer->socket, ZMQ_LINGER, &linger, sizeof(linger)) < 0 ||
		zmq_connect(peer->socket, peer->endpoint) < 0) {
		peer_free(peer);
		return -EIO;
	}
	*ret_peer = peer;
	return 0;
}

void peer_free(struct peer *peer)
{
	if (!peer)
		return;
	if (peer->socket)
		(void)zmq_close(peer->socket);
	if (peer->context)
		(void)zmq_ctx_term(peer->context);
	if (peer->pid > 0) {
		(void)kill(peer->pid, SIGKILL);
		(void)waitpid(peer->pid, NULL, 0);
	}
	(void)unlink(peer->endpoint + strlen("ipc://"));
	(void)rmdir(peer->dir);
	free(peer);
}

int peer_echo(struct peer *peer, size_t n_bytes, int fill, uint64_t *ret_checksum)
{
	uint8_t reply[ANSWER_BYTES];
	zmq_msg_t message;

	if (zmq_msg_init_size(&message, n_bytes) < 0)
		return -ENOMEM;
	memset(zmq_msg_data(&message), fill, n_bytes);
	if (zmq_msg_send(&message, peer->socket, 0) < 0) {
		(void)zmq_msg_close(&message);
		return -EIO;
	}
	if (zmq_recv(peer->socket, reply, sizeof(reply), 0) != ANSWER_BYTES)
		return -EIO;
	memcpy(ret_checksum, reply, sizeof(*ret_checksum));
	return 0;
}
