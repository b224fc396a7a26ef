/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <zmq.h>

#include "base/clock.h"
#include "item.h"
#include "wire.h"

enum { HIGH_WATER = 16, LINGER_MS = 20000 };

struct sink_zmq {
	struct sink base;
	void *context, *socket;
	char *sender;
	uint64_t sequence;
};

static Kamen__PixelFormat pixel_format(const struct item *item)
{
	if (item->format != ITEM_RAW)
		return KAMEN__PIXEL_FORMAT__ENCODED;
	return item->n_channels == 1 ? KAMEN__PIXEL_FORMAT__MONO8 : KAMEN__PIXEL_FORMAT__RGB8;
}

static int encode_header(
	struct sink_zmq *zmq, const struct item *item, void **ret_data, size_t *ret_n_bytes)
{
	Kamen__StreamFrame frame = KAMEN__STREAM_FRAME__INIT;

	frame.major = WIRE_MAJOR;
	frame.sender = zmq->sender;
	frame.sequence = zmq->sequence;
	frame.part_id = (char *)(uintptr_t)item->part_id;
	frame.has_capture_us = true;
	frame.capture_us = clock_wall_us();
	frame.has_format = true;
	frame.format = pixel_format(item);
	if (item->format == ITEM_RAW) {
		frame.has_width = frame.has_height = frame.has_stride = true;
		frame.width = item->width;
		frame.height = item->height;
		frame.stride = item->width * item->n_channels;
	}
	return wire_encode(&frame.base, ret_data, ret_n_bytes);
}

static int zmq_error(void)
{
	/* The high-water mark is full, or nobody has ever connected. */
	return errno == EAGAIN ? -ETIMEDOUT : -errno;
}

static int zmq_put(struct sink *sink, const struct item *item)
{
	struct sink_zmq *zmq = (struct sink_zmq *)sink;
	_cleanup_(freep) void *header = NULL;
	size_t n_header;
	int r;

	r = encode_header(zmq, item, &header, &n_header);
	if (r < 0)
		return r;
	if (zmq_send(zmq->socket, header, n_header, ZMQ_SNDMORE) < 0 ||
		zmq_send(zmq->socket, item->data, item->n_bytes, 0) < 0)
		return zmq_error();
	zmq->sequence++;
	return 0;
}

/* Ending the context waits until all is on its way, at most LINGER_MS. */
static void zmq_end(struct sink_zmq *zmq)
{
	if (zmq->socket)
		(void)zmq_close(zmq->socket);
	zmq->socket = NULL;
	while (zmq->context && zmq_ctx_term(zmq->context) < 0 && errno == EINTR)
		;
	zmq->context = NULL;
}

static int zmq_finish(struct sink *sink)
{
	zmq_end((struct sink_zmq *)sink);
	return 0;
}

static void zmq_free(struct sink *sink)
{
	struct sink_zmq *zmq = (struct sink_zmq *)sink;
	int linger = 0;

	if (zmq->socket)
		(void)zmq_setsockopt(zmq->socket, ZMQ_LINGER, &linger, sizeof(linger));
	zmq_end(zmq);
	free(zmq->sender);
	free(zmq);
}

static int set_option(void *socket, int option, int value)
{
	return zmq_setsockopt(socket, option, &value, sizeof(value));
}

static int connect_socket(struct sink_zmq *zmq, const char *endpoint, uint32_t timeout_ms)
{
	zmq->context = zmq_ctx_new();
	zmq->socket = zmq->context ? zmq_socket(zmq->context, ZMQ_PUSH) : NULL;
	/* ZMQ_IMMEDIATE: frames wait here, not in a queue towards a daemon that is not there. */
	if (!zmq->socket || set_option(zmq->socket, ZMQ_SNDHWM, HIGH_WATER) < 0 ||
		set_option(zmq->socket, ZMQ_IMMEDIATE, 1) < 0 ||
		set_option(zmq->socket, ZMQ_LINGER, LINGER_MS) < 0 ||
		set_option(zmq->socket, ZMQ_SNDTIMEO, (int)timeout_ms) < 0 ||
		zmq_connect(zmq->socket, endpoint) < 0)
		return -errno;
	return 0;
}

int sink_zmq_new(
	struct sink **ret_sink, const char *endpoint, const char *sender, uint32_t timeout_ms)
{
	struct sink_zmq *zmq = calloc(1, sizeof(*zmq));
	int r;

	if (!zmq)
		return -ENOMEM;
	zmq->base = (struct sink){ zmq_put, zmq_finish, zmq_free };
	zmq->sender = strdup(sender);
	r = zmq->sender ? connect_socket(zmq, endpoint, timeout_ms) : -ENOMEM;
	if (r < 0) {
		zmq_free(&zmq->base);
		return r;
	}
	*ret_sink = &zmq->base;
	return 0;
}
