/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_PROTO_WIRE_H
#define KAMEN_PROTO_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "kamen.pb-c.h"

/*
 * The only code that packs and unpacks protobuf. A packet is one message on a SOCK_SEQPACKET
 * socket; foreign bytes are unpacked through a capped arena, after their size was checked.
 */
#define WIRE_MAJOR 1
#define WIRE_MINOR 0
#define WIRE_RESUME UINT64_C(1)     /* feature of Hello and Welcome: Resumed is understood */
#define WIRE_MAX_PACKET (64u << 10) /* bytes of one encoded message */
#define WIRE_MAX_ARENA (1u << 20)   /* bytes that one message may become when unpacked */
#define WIRE_MAX_FDS 3

/** Receives packets: owns the buffer, the arena, and descriptors that nobody has taken yet. */
struct wire;

int wire_new(struct wire **ret_wire);
void wire_free(struct wire *wire);
static inline void wire_freep(struct wire **wire)
{
	wire_free(*wire);
}

/**
 * Sends one message, never blocking, never raising SIGPIPE. Descriptors stay the caller's.
 *
 * @return 0, -EMSGSIZE: larger than WIRE_MAX_PACKET, -EAGAIN: the peer does not read, -EPIPE, ...
 */
int wire_send(int sock, const ProtobufCMessage *message, const int *fds, unsigned n_fds);

/**
 * Receives one message of the given type; it lives in wire until the next call. Does not block
 * (MSG_DONTWAIT): poll first.
 *
 * Where this process has no room for the descriptors of a packet, the message comes without any:
 * whoever needs one can answer for its absence.
 *
 * @return 1: *ret_message is set, 0: the peer has closed, -EAGAIN: nothing there, -EBADMSG: not
 *         such a message, or over a limit (the connection may go on), or what recvmsg said
 */
int wire_recv(struct wire *wire, int sock, const ProtobufCMessageDescriptor *type,
	ProtobufCMessage **ret_message);
/** Unpacks bytes that came another way (ZeroMQ). 0 or -EBADMSG. */
int wire_decode(struct wire *wire, const ProtobufCMessageDescriptor *type, const void *data,
	size_t n_bytes, ProtobufCMessage **ret_message);
/**
 * Encodes to a malloc'ed buffer, for transports of another kind. 0, -EMSGSIZE, -ENOMEM, or -EINVAL:
 * a required field is missing.
 */
int wire_encode(const ProtobufCMessage *message, void **ret_data, size_t *ret_n_bytes);
/** The same into the caller's buffer. 0, -EMSGSIZE: it does not fit, or -EINVAL. */
int wire_pack(const ProtobufCMessage *message, void *buffer, size_t n_room, size_t *ret_n_bytes);
/** An optional float of a message: NaN is left out. */
static inline void wire_put_float(protobuf_c_boolean *ret_has, float *ret_field, float value)
{
	*ret_has = value == value;
	*ret_field = *ret_has ? value : 0;
}
/** Takes descriptor i of the last packet, or -1. What is not taken is closed at the next packet. */
int wire_take_fd(struct wire *wire, unsigned i);
/** @return 0, or -EINVAL unless [a-z0-9][a-z0-9._-]{0,62}: fits SHM_SITE_CHARS with its NUL */
int wire_site_name_check(const char *site);
/** Bytes of a class's name, with its NUL. */
#define WIRE_CLASS_BYTES 64u
/** Classes of a site. */
#define WIRE_MAX_CLASSES 1000u
/** Classes which a site tells apart. */
#define WIRE_MAX_SHOWN 64u
/** Images that one of the classes which a site tells apart is shown by. */
#define WIRE_MAX_SUPPORTS 16u
/**
 * @return 0, or -EINVAL unless UTF-8 of 1 to 63 bytes without control characters and without a space
 *         at either end: it stands in lines, tables and CSV
 */
int wire_class_name_check(const char *name);

#endif
