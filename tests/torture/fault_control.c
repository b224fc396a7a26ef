/* SPDX-License-Identifier: Apache-2.0 */
/* Faults on control.sock: packets that are no requests, and descriptors that are no files. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "liar.h"

static void send_message(int sock, const ProtobufCMessage *message, const int *fds, unsigned n)
{
	void *data;
	size_t n_bytes;

	if (wire_encode(message, &data, &n_bytes) < 0)
		return;
	liar_send(sock, data, n_bytes, fds, n);
	free(data);
}

static int connect_control(struct liar *liar, bool says_hello)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Hello hello = KAMEN__HELLO__INIT;
	int sock = peer_connect(liar->world->control_path);

	if (sock < 0 || !says_hello)
		return sock;
	hello.major = WIRE_MAJOR;
	request.id = 1;
	request.verb_case = KAMEN__REQUEST__VERB_HELLO;
	request.hello = &hello;
	send_message(sock, &request.base, NULL, 0);
	return sock;
}

static void send_control_noise(struct liar *liar)
{
	int sock = connect_control(liar, liar_below(liar, 2));
	uint64_t n_packets = 1 + liar_below(liar, 8);

	if (sock < 0)
		return;
	for (uint64_t i = 0; i < n_packets; i++) {
		uint8_t packet[512];

		liar_noise(liar, packet, sizeof(packet));
		/* The first bytes of a Request with an id, and any verb. */
		packet[0] = 8;
		packet[1] &= 0x7f;
		liar_send(sock, packet, liar_below(liar, sizeof(packet)), NULL, 0);
	}
	(void)close(sock);
}

/* Asks much and reads nothing. */
static void ask_control_without_reading(struct liar *liar)
{
	int sock = connect_control(liar, true);
	Kamen__Empty empty = KAMEN__EMPTY__INIT;
	uint64_t n = liar_below(liar, 64);

	if (sock < 0)
		return;
	for (uint64_t i = 0; i < n; i++) {
		Kamen__Request request = KAMEN__REQUEST__INIT;

		request.id = i;
		request.verb_case =
			i % 2 ? KAMEN__REQUEST__VERB_METRICS : KAMEN__REQUEST__VERB_SITE_LIST;
		request.metrics = &empty;
		send_message(sock, &request.base, NULL, 0);
	}
	(void)close(sock);
}

/* What the daemon reads as a mask must not be able to hold it. */
static int odd_descriptor(struct liar *liar, int *ret_other)
{
	int pair[2], fd;

	*ret_other = -1;
	switch (liar_below(liar, 6)) {
	case 0:
		if (pipe2(pair, O_CLOEXEC) < 0)
			return -1;
		*ret_other = pair[1];
		return pair[0];
	case 1:
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return -1;
		*ret_other = pair[1];
		return pair[0];
	case 2:
		return open("/dev/zero", O_RDWR | O_CLOEXEC);
	case 3:
		return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	case 4:
		fd = memfd_create("torture", MFD_CLOEXEC);
		if (fd >= 0)
			(void)!ftruncate(fd, (off_t)1 << 40);
		return fd;
	default:
		fd = memfd_create("torture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (fd >= 0)
			(void)!write(fd, liar->scratch, 65536);
		if (fd >= 0 && liar_below(liar, 2))
			(void)fcntl(fd, F_ADD_SEALS,
				F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
		return fd;
	}
}

static void import_what_is_no_mask(struct liar *liar)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName name = KAMEN__SITE_NAME__INIT;
	int other, sock = connect_control(liar, true), fd;

	if (sock < 0)
		return;
	fd = odd_descriptor(liar, &other);
	name.site = (char *)(uintptr_t) "liar";
	request.id = 2;
	request.verb_case = KAMEN__REQUEST__VERB_MASK_IMPORT;
	request.mask_import = &name;
	if (fd >= 0)
		send_message(sock, &request.base, &fd, 1);
	(void)!recv(sock, &(char[64]){ 0 }, 64, 0);
	if (fd >= 0)
		(void)close(fd);
	if (other >= 0)
		(void)close(other);
	(void)close(sock);
}

static void crowd_control(struct liar *liar)
{
	int socks[100], n = 0;

	while (n < 100 && (socks[n] = connect_control(liar, liar_below(liar, 2))) >= 0)
		n++;
	while (n > 0)
		(void)close(socks[--n]);
}

const struct fault control_faults[] = {
	{ "send-control-noise", 3, send_control_noise },
	{ "ask-control-without-reading", 1, ask_control_without_reading },
	{ "import-what-is-no-mask", 2, import_what_is_no_mask },
	{ "crowd-control", 1, crowd_control },
	{ 0 },
};
