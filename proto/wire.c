/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALIGNMENT 16u

struct wire {
	uint8_t *packet; /* (WIRE_MAX_PACKET) */
	uint8_t *arena;  /* (WIRE_MAX_ARENA), of which used bytes belong to the last message */
	size_t used;
	ProtobufCAllocator allocator;
	int fds[WIRE_MAX_FDS]; /* of the last packet, -1: none or taken */
};

static void *arena_alloc(void *data, size_t n)
{
	struct wire *wire = data;
	size_t take;

	if (n > WIRE_MAX_ARENA)
		return NULL;
	take = (n + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	if (take > WIRE_MAX_ARENA - wire->used)
		return NULL;
	wire->used += take;
	return wire->arena + wire->used - take;
}

static void arena_keep(void *data, void *p)
{
	(void)data;
	(void)p;
}

static void close_fds(struct wire *wire)
{
	for (unsigned i = 0; i < WIRE_MAX_FDS; i++) {
		if (wire->fds[i] >= 0)
			(void)close(wire->fds[i]);
		wire->fds[i] = -1;
	}
}

void wire_free(struct wire *wire)
{
	if (!wire)
		return;
	close_fds(wire);
	free(wire->packet);
	free(wire->arena);
	free(wire);
}

int wire_new(struct wire **ret_wire)
{
	struct wire *wire = calloc(1, sizeof(*wire));

	if (!wire)
		return -ENOMEM;
	for (unsigned i = 0; i < WIRE_MAX_FDS; i++)
		wire->fds[i] = -1;
	wire->packet = malloc(WIRE_MAX_PACKET);
	wire->arena = malloc(WIRE_MAX_ARENA);
	if (!wire->packet || !wire->arena) {
		wire_free(wire);
		return -ENOMEM;
	}
	wire->allocator = (ProtobufCAllocator){ arena_alloc, arena_keep, wire };
	*ret_wire = wire;
	return 0;
}

/* protobuf-c keeps the number of an enum as it came; ours are closed sets. */
static bool is_sound(const ProtobufCMessage *message);

static bool value_known(const ProtobufCFieldDescriptor *field, const void *value)
{
	if (field->type == PROTOBUF_C_TYPE_ENUM)
		return protobuf_c_enum_descriptor_get_value(field->descriptor, *(const int *)value);
	if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
		const ProtobufCMessage *sub = *(const ProtobufCMessage *const *)value;

		return !sub || is_sound(sub);
	}
	return true;
}

static bool field_known(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	const uint8_t *base = (const uint8_t *)message;
	const uint8_t *value = base + field->offset;
	size_t n, stride;

	/* The quantifier of a oneof member holds which one is set; other members share its bytes. */
	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)(base + field->quantifier_offset) != field->id ||
		       value_known(field, value);
	if (field->label != PROTOBUF_C_LABEL_REPEATED)
		return value_known(field, value);
	if (field->type != PROTOBUF_C_TYPE_ENUM && field->type != PROTOBUF_C_TYPE_MESSAGE)
		return true;
	n = *(const size_t *)(base + field->quantifier_offset);
	stride = field->type == PROTOBUF_C_TYPE_ENUM ? sizeof(int) : sizeof(void *);
	value = *(const uint8_t *const *)value;
	for (size_t i = 0; i < n; i++)
		if (!value_known(field, value + i * stride))
			return false;
	return true;
}

static bool is_sound(const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *type = message->descriptor;

	for (unsigned i = 0; i < type->n_fields; i++)
		if (!field_known(message, &type->fields[i]))
			return false;
	/* There is no field 0; protobuf-c takes it when its tag is longer than need be. */
	for (unsigned i = 0; i < message->n_unknown_fields; i++)
		if (message->unknown_fields[i].tag == 0)
			return false;
	return true;
}

int wire_decode(struct wire *wire, const ProtobufCMessageDescriptor *type, const void *data,
	size_t n_bytes, ProtobufCMessage **ret_message)
{
	ProtobufCMessage *message;

	if (n_bytes > WIRE_MAX_PACKET)
		return -EBADMSG;
	wire->used = 0;
	message = protobuf_c_message_unpack(type, &wire->allocator, n_bytes, data);
	if (!message || !is_sound(message))
		return -EBADMSG;
	*ret_message = message;
	return 0;
}

int wire_encode(const ProtobufCMessage *message, void **ret_data, size_t *ret_n_bytes)
{
	size_t n;
	void *data;

	if (!protobuf_c_message_check(message))
		return -EINVAL;
	n = protobuf_c_message_get_packed_size(message);
	if (n > WIRE_MAX_PACKET)
		return -EMSGSIZE;
	data = malloc(n ? n : 1);
	if (!data)
		return -ENOMEM;
	protobuf_c_message_pack(message, data);
	*ret_data = data;
	*ret_n_bytes = n;
	return 0;
}

int wire_pack(const ProtobufCMessage *message, void *buffer, size_t n_room, size_t *ret_n_bytes)
{
	size_t n;

	if (!protobuf_c_message_check(message))
		return -EINVAL;
	n = protobuf_c_message_get_packed_size(message);
	if (n > n_room)
		return -EMSGSIZE;
	*ret_n_bytes = protobuf_c_message_pack(message, buffer);
	return 0;
}

int wire_send(int sock, const ProtobufCMessage *message, const int *fds, unsigned n_fds)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(WIRE_MAX_FDS * sizeof(int))] = { 0 };
	struct iovec iov;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int r;

	if (n_fds > WIRE_MAX_FDS)
		return -EINVAL;
	r = wire_encode(message, &iov.iov_base, &iov.iov_len);
	if (r < 0)
		return r;
	/* The peer would take a packet of no bytes for our end of the socket closing. */
	if (iov.iov_len == 0) {
		free(iov.iov_base);
		return -EINVAL;
	}
	if (n_fds) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	r = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
	free(iov.iov_base);
	return r;
}

/* Whatever the kernel has installed for us is ours to close, also of a packet that we refuse. */
static unsigned keep_fds(struct wire *wire, struct msghdr *msg)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < bytes / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (n < WIRE_MAX_FDS)
				wire->fds[n++] = fd;
			else
				(void)close(fd);
		}
	}
	return n;
}

int wire_recv(struct wire *wire, int sock, const ProtobufCMessageDescriptor *type,
	ProtobufCMessage **ret_message)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(WIRE_MAX_FDS * sizeof(int))];
	struct iovec iov = { .iov_base = wire->packet, .iov_len = WIRE_MAX_PACKET };
	/* CMSG_LEN, not CMSG_SPACE: the padding would have room for a fourth descriptor. */
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_LEN(WIRE_MAX_FDS * sizeof(int)) };
	unsigned n_fds;
	ssize_t n;
	int r;

	close_fds(wire);
	n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	n_fds = keep_fds(wire, &msg);
	if (n == 0) {
		close_fds(wire);
		return 0;
	}
	/* Cut short with room left: it is us who may not have that many open. */
	if (msg.msg_flags & MSG_TRUNC || (msg.msg_flags & MSG_CTRUNC && n_fds == WIRE_MAX_FDS))
		r = -EBADMSG;
	else
		r = wire_decode(wire, type, wire->packet, (size_t)n, ret_message);
	if (r < 0 || msg.msg_flags & MSG_CTRUNC)
		close_fds(wire);
	return r < 0 ? r : 1;
}

int wire_take_fd(struct wire *wire, unsigned i)
{
	int fd;

	if (i >= WIRE_MAX_FDS)
		return -1;
	fd = wire->fds[i];
	wire->fds[i] = -1;
	return fd;
}

int wire_site_name_check(const char *site)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	static const char rest[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t n;

	if (!site || !*site || !strchr(first, *site))
		return -EINVAL;
	n = strspn(site, rest);
	return site[n] || n > 63 ? -EINVAL : 0;
}

/* The code point at the beginning of text, by RFC 3629. @return its bytes, 0: not UTF-8 */
static unsigned utf8_take(const unsigned char *text, uint32_t *ret_point)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned n = text[0] < 0x80 ? 1 : text[0] >> 5 == 6 ? 2 : text[0] >> 4 == 14 ? 3 : 4;
	uint32_t point = text[0] & (n == 1 ? 0x7fu : 0x7fu >> n);

	if (n == 4 && text[0] >> 3 != 30)
		return 0;
	for (unsigned i = 1; i < n; i++) {
		if (text[i] >> 6 != 2)
			return 0;
		point = point << 6 | (text[i] & 0x3fu);
	}
	if (point < least[n] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	*ret_point = point;
	return n;
}

int wire_class_name_check(const char *name)
{
	const unsigned char *at = (const unsigned char *)name;
	size_t n_bytes = name ? strlen(name) : 0;
	uint32_t point;
	unsigned n;

	if (n_bytes == 0 || n_bytes >= WIRE_CLASS_BYTES || name[0] == ' ' ||
		name[n_bytes - 1] == ' ')
		return -EINVAL;
	for (; *at; at += n) {
		n = utf8_take(at, &point);
		if (n == 0 || point < 0x20 || (point >= 0x7f && point < 0xa0))
			return -EINVAL;
	}
	return 0;
}
