/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_STREAM_H
#define KAMEN_INGEST_STREAM_H

#include "engine.h"
#include "wire.h"

/* What arrives over ZeroMQ is checked here: no socket, so that a fuzzer can drive it. */

#define STREAM_NAME_CHARS 64
#define STREAM_WHO_CHARS 128 /* a sender, and the peer that it is to us */
#define STREAM_MAX_SENDERS 64
#define STREAM_MAX_HEADER 4096u

/** A StreamFrame that has passed every check. A plain value. */
struct stream_frame {
	char sender[STREAM_NAME_CHARS], part_id[STREAM_NAME_CHARS];
	uint64_t sequence, capture_us;
	uint32_t format; /* enum decode_format, the same numbers as PixelFormat */
	uint32_t width, height, stride;
};

/**
 * @param n_image  bytes of the second part, which must be what the header says
 * @return 0, or -EBADMSG with the field in diag; -EPROTO: another major version
 */
int stream_parse(struct stream_frame *ret_frame, struct wire *wire, const void *header,
	size_t n_header, uint64_t n_image, struct diag *diag);

/** Where each sender's numbers stand; where there is no room, the peer
 * with the most senders gives up the one not heard of for longest. */
struct stream_senders {
	struct stream_sender {
		char name[STREAM_WHO_CHARS];
		uint64_t next, heard;
	} senders[STREAM_MAX_SENDERS];
	uint64_t clock;
};

/** sender: "NAME PEER". @return how many frames of this sender are missing before this one */
uint64_t stream_track(struct stream_senders *senders, const char *sender, uint64_t sequence);

#endif
