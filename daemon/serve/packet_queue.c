/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/packet_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "engine.h"

static void packet_free(struct packet *packet)
{
	closep(&packet->fd);
	free(packet->data);
	free(packet);
}

void packet_queue_init(struct packet_queue *queue)
{
	*queue = (struct packet_queue){ .head = NULL };
	queue->tail = &queue->head;
}

static void drop_first(struct packet_queue *queue)
{
	struct packet *packet = queue->head;

	queue->n_bytes -= packet->n_bytes;
	queue->head = packet->next;
	if (!queue->head)
		queue->tail = &queue->head;
	packet_free(packet);
}

void packet_queue_clear(struct packet_queue *queue)
{
	while (queue->head)
		drop_first(queue);
}

int packet_queue_put(struct packet_queue *queue, const ProtobufCMessage *message, int fd)
{
	struct packet *packet;
	int r;

	packet = calloc(1, sizeof(*packet));
	if (!packet)
		return -ENOMEM;
	packet->fd = -1;
	r = wire_encode(message, &packet->data, &packet->n_bytes);
	if (r >= 0 && fd >= 0) {
		packet->fd = fcntl(fd, F_DUPFD_CLOEXEC, 10);
		r = packet->fd < 0 ? -errno : 0;
	}
	if (r < 0) {
		packet_free(packet);
		return r;
	}
	*queue->tail = packet;
	queue->tail = &packet->next;
	queue->n_bytes += packet->n_bytes;
	return 0;
}

static int send_packet(int sock, const struct packet *packet)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .space = { 0 } };
	struct iovec iov = { packet->data, packet->n_bytes };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (packet->fd >= 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control.space);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &packet->fd, sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* ETOOMANYREFS: more descriptors are on their way than we may have open; they arrive. */
static bool is_passing(int r)
{
	return r == -EAGAIN || r == -EINTR || r == -ETOOMANYREFS || r == -ENOBUFS || r == -ENOMEM;
}

int packet_queue_flush(struct packet_queue *queue, int sock)
{
	while (queue->head) {
		int r = send_packet(sock, queue->head);

		if (is_passing(r))
			return 1;
		drop_first(queue);
		if (r < 0)
			return r;
	}
	return 0;
}
