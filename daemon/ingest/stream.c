/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "ingest/decoder.h"
#include "ingest/stream.h"

_Static_assert((int)DECODE_ENCODED == KAMEN__PIXEL_FORMAT__ENCODED &&
		       (int)DECODE_RGB8 == KAMEN__PIXEL_FORMAT__RGB8 &&
		       (int)DECODE_MONO8 == KAMEN__PIXEL_FORMAT__MONO8 &&
		       (int)DECODE_BGR8 == KAMEN__PIXEL_FORMAT__BGR8,
	"one numbering of formats");

/* Names come back in logs and answers: printable and short. */
static int copy_name(char *ret_name, const char *name, const char *field, struct diag *diag)
{
	size_t n = strnlen(name, STREAM_NAME_CHARS);

	if (n == STREAM_NAME_CHARS)
		return diag_set(
			diag, EBADMSG, "%s: longer than %d bytes", field, STREAM_NAME_CHARS - 1);
	for (size_t i = 0; i < n; i++)
		if (!isascii((unsigned char)name[i]) || !isprint((unsigned char)name[i]))
			return diag_set(diag, EBADMSG, "%s: not printable ASCII", field);
	memcpy(ret_name, name, n + 1);
	return 0;
}

static int check_pixels(struct stream_frame *frame, uint64_t n_image, struct diag *diag)
{
	uint32_t n_channels = decode_n_channels(frame->format);
	uint64_t n_row = (uint64_t)frame->width * n_channels;
	uint64_t n_least, n_most;

	if (frame->width == 0 || frame->width > IMAGE_MAX_SIDE || frame->height == 0 ||
		frame->height > IMAGE_MAX_SIDE ||
		(uint64_t)frame->width * frame->height > IMAGE_MAX_PIXELS)
		return diag_set(diag, EBADMSG, "size: %u x %u is out of range", frame->width,
			frame->height);
	if (frame->stride == 0)
		frame->stride = (uint32_t)n_row;
	if (frame->stride < n_row)
		return diag_set(diag, EBADMSG, "stride: %u bytes do not hold %u pixels",
			frame->stride, frame->width);
	n_most = (uint64_t)frame->stride * frame->height;
	n_least = n_most - frame->stride + n_row;
	if (n_image < n_least || n_image > n_most)
		return diag_set(diag, EBADMSG, "image: %llu bytes are not %u x %u pixels",
			(unsigned long long)n_image, frame->width, frame->height);
	return 0;
}

int stream_parse(struct stream_frame *ret_frame, struct wire *wire, const void *header,
	size_t n_header, uint64_t n_image, struct diag *diag)
{
	struct stream_frame frame = { 0 };
	ProtobufCMessage *message;
	const Kamen__StreamFrame *in;
	int r;

	if (n_header > STREAM_MAX_HEADER)
		return diag_set(diag, EBADMSG, "header: longer than %u bytes", STREAM_MAX_HEADER);
	r = wire_decode(wire, &kamen__stream_frame__descriptor, header, n_header, &message);
	if (r < 0)
		return diag_set(diag, EBADMSG, "header: not a StreamFrame");
	in = (const Kamen__StreamFrame *)message;
	if (in->major != WIRE_MAJOR)
		return diag_set(diag, EPROTO, "major: version %u, not %d", in->major, WIRE_MAJOR);
	r = copy_name(frame.sender, in->sender, "sender", diag);
	if (r == 0 && in->part_id)
		r = copy_name(frame.part_id, in->part_id, "part_id", diag);
	if (r < 0)
		return r;
	frame.sequence = in->sequence;
	frame.capture_us = in->has_capture_us ? in->capture_us : 0;
	frame.format = (uint32_t)in->format;
	frame.width = in->width;
	frame.height = in->height;
	frame.stride = in->stride;
	if (n_image == 0)
		return diag_set(diag, EBADMSG, "image: no bytes");
	if (frame.format > DECODE_BGR8)
		return diag_set(diag, EBADMSG, "format: %u is none", frame.format);
	if (frame.format != DECODE_ENCODED) {
		r = check_pixels(&frame, n_image, diag);
		if (r < 0)
			return r;
	}
	*ret_frame = frame;
	return 0;
}

static const char *peer_of(const char *who)
{
	const char *space = strrchr(who, ' ');

	return space ? space + 1 : "";
}

static unsigned count_of(const struct stream_senders *senders, const char *peer)
{
	unsigned n = 0;

	for (size_t i = 0; i < STREAM_MAX_SENDERS; i++)
		n += strcmp(peer_of(senders->senders[i].name), peer) == 0;
	return n;
}

/* All places are taken: many names of one peer push nobody else's out. */
static struct stream_sender *choose_victim(struct stream_senders *senders, const char *name)
{
	struct stream_sender *victim = NULL;
	unsigned n_most = 0;

	for (size_t i = 0; i < STREAM_MAX_SENDERS; i++) {
		struct stream_sender *sender = &senders->senders[i];
		const char *peer = peer_of(sender->name);
		unsigned n = count_of(senders, peer) + (strcmp(peer, peer_of(name)) == 0);

		if (!victim || n > n_most || (n == n_most && sender->heard < victim->heard)) {
			victim = sender;
			n_most = n;
		}
	}
	return victim;
}

static struct stream_sender *find_sender(struct stream_senders *senders, const char *name)
{
	struct stream_sender *oldest = &senders->senders[0];

	for (size_t i = 0; i < STREAM_MAX_SENDERS; i++) {
		struct stream_sender *sender = &senders->senders[i];

		if (sender->heard > 0 && strcmp(sender->name, name) == 0)
			return sender;
		if (sender->heard < oldest->heard)
			oldest = sender;
	}
	if (oldest->heard > 0)
		oldest = choose_victim(senders, name);
	(void)snprintf(oldest->name, sizeof(oldest->name), "%s", name);
	oldest->heard = 0;
	return oldest;
}

uint64_t stream_track(struct stream_senders *senders, const char *sender, uint64_t sequence)
{
	struct stream_sender *found = find_sender(senders, sender);
	uint64_t n_lost = 0;

	/* A sender that is new to us may have started long before; one that went back has begun
	 * anew. Neither lost anything that we know of. */
	if (found->heard > 0 && sequence > found->next)
		n_lost = sequence - found->next;
	found->next = sequence + 1;
	found->heard = ++senders->clock;
	return n_lost;
}
