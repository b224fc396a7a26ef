/* SPDX-License-Identifier: Apache-2.0 */
/* Faults at the socket: packets, descriptors, connections, and death at every step. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "liar.h"

enum { MANY_FDS = 253, MANY_CONNECTIONS = 1000, PACKET_BYTES = 70000 };

static int connect_data(struct liar *liar)
{
	return peer_connect(liar->world->data_path);
}

static size_t encode_hello(uint32_t major, uint32_t n_slots, uint64_t slot_bytes, uint8_t *to)
{
	Kamen__Hello hello = KAMEN__HELLO__INIT;

	hello.major = major;
	hello.has_n_slots = hello.has_slot_bytes = hello.has_layout = true;
	hello.layout = major < 2 ? SHM_LAYOUT_VERSION : major;
	hello.n_slots = n_slots;
	hello.slot_bytes = slot_bytes;
	return kamen__hello__pack(&hello, to);
}

/* Whatever the daemon has to say to it, or the end: one of them in time. */
static void await_end_or_word(struct liar *liar, int sock)
{
	const struct timeval patience = { (time_t)(liar->world->patience_ms / 1000), 0 };
	char packet[4096];

	(void)setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (recv(sock, packet, sizeof(packet), 0) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		world_note(liar->world, VIOLATION_HANG, "liar %u: no word after a bad hello",
			liar->number);
}

static void send_no_hello(struct liar *liar)
{
	int sock = connect_data(liar), small = 4096;
	uint8_t packet[4096];
	size_t n;

	if (sock < 0)
		return;
	n = encode_hello(1, 4, 65536, packet);
	switch (liar_below(liar, 6)) {
	case 0: /* part of one */
		liar_send(sock, packet, 1 + liar_below(liar, n - 1), NULL, 0);
		break;
	case 1: /* noise */
		liar_noise(liar, packet, sizeof(packet));
		liar_send(sock, packet, 1 + liar_below(liar, sizeof(packet)), NULL, 0);
		break;
	case 2: /* too long for any */
		(void)setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &(int){ 1 << 20 }, sizeof(int));
		liar_send(sock, liar->scratch, PACKET_BYTES, NULL, 0);
		break;
	case 3: /* nothing at all */
		liar_send(sock, packet, 0, NULL, 0);
		break;
	case 4: /* a bit of it turned */
		packet[liar_below(liar, n)] ^= (uint8_t)(1u << liar_below(liar, 8));
		liar_send(sock, packet, n, NULL, 0);
		break;
	default: /* of a peer that takes next to nothing */
		(void)setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		liar_send(sock, packet, n, NULL, 0);
		break;
	}
	await_end_or_word(liar, sock);
	(void)close(sock);
}

static void say_extreme_hellos(struct liar *liar)
{
	static const uint32_t slots[] = { 0, 1, 63, 65, INT32_MAX, UINT32_MAX };
	static const uint64_t bytes[] = { 0, 1, 4095, 4097, UINT32_MAX, UINT64_MAX };
	static const uint32_t majors[] = { 1, 1, 1, 0, 2, UINT32_MAX };
	int sock = connect_data(liar);
	uint8_t packet[128];

	if (sock < 0)
		return;
	liar_send(sock, packet,
		encode_hello(majors[liar_below(liar, 6)], slots[liar_below(liar, 6)],
			bytes[liar_below(liar, 6)], packet),
		NULL, 0);
	await_end_or_word(liar, sock);
	(void)close(sock);
}

static void say_hello_twice(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	uint8_t packet[128];

	if (!peer)
		return;
	liar_send(peer->sock, packet, encode_hello(1, 4, 4096, packet), NULL, 0);
	if (liar_below(liar, 2))
		liar_send(peer->sock, liar->scratch, liar_below(liar, 4096), NULL, 0);
	peer->busy = 0;
	peer_close(peer);
}

/* ---- descriptors */

static void send_fds(struct liar *liar)
{
	int fds[MANY_FDS], pair[2] = { -1, -1 }, sock, sink;
	unsigned n_packets = 1 + (unsigned)liar_below(liar, 4);
	uint8_t packet[128];

	sock = liar_below(liar, 2) ? connect_data(liar) : -1;
	if (sock < 0)
		sock = peer_connect(liar->world->control_path);
	if (sock < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		if (sock >= 0)
			(void)close(sock);
		return;
	}
	switch (liar_below(liar, 4)) {
	case 0:
		sink = eventfd(0, EFD_CLOEXEC);
		break;
	case 1:
		sink = memfd_create("torture", MFD_CLOEXEC);
		break;
	case 2:
		sink = dup(sock);
		break; /* a socket that carries itself */
	default:
		sink = dup(pair[0]);
		break;
	}
	for (unsigned i = 0; i < MANY_FDS; i++)
		fds[i] = sink;
	for (unsigned i = 0; sink >= 0 && i < n_packets; i++)
		liar_send(sock, packet, encode_hello(1, 4, 4096, packet), fds,
			1 + (unsigned)liar_below(liar, MANY_FDS));
	if (liar_below(liar, 2))
		(void)!recv(sock, packet, sizeof(packet), MSG_DONTWAIT);
	if (sink >= 0)
		(void)close(sink);
	(void)close(pair[0]);
	(void)close(pair[1]);
	(void)close(sock);
}

static void send_fds_in_a_session(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	int fds[MANY_FDS];

	if (!peer)
		return;
	for (unsigned i = 0; i < MANY_FDS; i++)
		fds[i] = i % 3 == 0 ? peer->bell : i % 3 == 1 ? peer->sock : peer->results_fd;
	liar_send(peer->sock, "x", 1, fds, 1 + (unsigned)liar_below(liar, MANY_FDS));
	peer->busy = 0;
	peer_close(peer);
}

/* ---- connections */

static void open_connections(struct liar *liar)
{
	static const unsigned how_many[] = { 10, 50, 200, MANY_CONNECTIONS };
	unsigned n = how_many[liar_below(liar, 10) == 0 ? 3 : liar_below(liar, 3)], n_open = 0;
	int *socks = calloc(n, sizeof(*socks));
	bool talks = liar_below(liar, 2);
	uint8_t packet[128];
	size_t n_bytes = encode_hello(1, 1, 4096, packet);

	while (socks && n_open < n) {
		int sock = connect_data(liar);

		if (sock < 0)
			break;
		socks[n_open++] = sock;
		if (talks)
			liar_send(sock, packet, n_bytes, NULL, 0);
	}
	for (unsigned i = 0; i < n_open; i++)
		(void)close(socks[i]);
	free(socks);
}

static void connect_and_say_nothing(struct liar *liar)
{
	int sock = connect_data(liar);

	if (sock < 0)
		return;
	(void)nanosleep(&(const struct timespec){ 0, (long)liar_below(liar, 10000000) }, NULL);
	(void)close(sock);
}

static void shut_down_half(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	int slot = peer ? liar_slot(liar) : -1;
	struct shm_request request;

	if (slot < 0)
		return;
	(void)shutdown(peer->sock, liar_below(liar, 2) ? SHUT_RD : SHUT_WR);
	request = liar_request(liar, SHM_ECHO, slot, 64);
	peer_submit(peer, &request);
	peer->busy = 0;
	peer_close(peer);
}

/* ---- death at every step */

static void do_some_steps(struct liar *liar)
{
	unsigned steps = (unsigned)liar_below(liar, 9);
	struct peer peer = { .sock = -1 };
	struct shm_request request;
	uint8_t packet[128];

	/* The socket of the parent's session is open here, too: only this one is to die. */
	peer.sock = connect_data(liar);
	if (peer.sock < 0 || steps == 0)
		return;
	liar_send(peer.sock, packet, encode_hello(1, 4, 65536, packet), NULL, 0);
	if (steps == 1)
		return;
	(void)close(peer.sock);
	if (peer_open(&peer, liar->wire, liar->world->data_path, 4, 65536,
		    (int)liar->world->patience_ms) < 0 ||
		steps == 2)
		return;
	request = liar_request(
		liar, liar_below(liar, 2) ? SHM_INFER : SHM_PUSH, (int)liar_below(liar, 4), 4096);
	request.format = liar_below(liar, 2) ? SHM_MONO8 : SHM_ENCODED;
	request.width = request.height = 64;
	peer_name_site(&request, "liar");
	(void)snprintf((char *)peer_slot(&peer, request.slot), 32, "P5 60 60 255\n");
	if (steps == 3)
		return;
	peer_put(&peer, &request);
	if (steps == 4)
		return;
	peer_publish(&peer);
	if (steps == 5)
		return;
	peer_ring(&peer);
	if (steps >= 7)
		(void)nanosleep(
			&(const struct timespec){ 0, (long)liar_below(liar, 2000000) }, NULL);
}

static void die_at_a_step(struct liar *liar)
{
	liar_die(liar, do_some_steps);
}

const struct fault socket_faults[] = {
	{ "send-no-hello", 6, send_no_hello },
	{ "say-extreme-hellos", 4, say_extreme_hellos },
	{ "say-hello-twice", 2, say_hello_twice },
	{ "send-fds", 4, send_fds },
	{ "send-fds-in-a-session", 3, send_fds_in_a_session },
	{ "open-connections", 2, open_connections },
	{ "connect-and-say-nothing", 3, connect_and_say_nothing },
	{ "shut-down-half", 3, shut_down_half },
	{ "die-at-a-step", 6, die_at_a_step },
	{ 0 },
};
