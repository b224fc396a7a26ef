/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_ASK_H
#define KAMEN_INGEST_ASK_H

#include "engine.h"
#include "shm_layout.h"
#include "wire.h"

/* What arrives on a ROUTER socket is checked here: no socket, so that a fuzzer can drive it. */

#define ASK_MAX_HEADER 4096u
/* Behind the peer's address: a REQ socket's empty part, header, pixels, and one too many. */
#define ASK_MAX_PARTS 4u

/** A part of a message; borrowed. */
struct ask_part {
	const void *data;
	size_t n_bytes;
};

/** A RouterRequest. A plain value; pixels lie in the message. */
struct ask {
	bool is_delimited; /* a REQ socket asked: its answer begins with an empty part too */
	bool is_hello;
	uint64_t id, budget_ns; /* 0: no deadline */
	uint64_t trigger_id, part_id, capture_us, encoder;
	uint32_t verb, format, width, height, stride; /* numbers of shm_layout.h */
	uint32_t mask, version, px, flags;
	uint8_t space[32];
	char site[SHM_SITE_CHARS];
	const void *pixels;
	size_t n_bytes;
};

/**
 * Checks a whole message. What has been read when something turns out wrong is in ask already, so
 * that the answer can name the request.
 *
 * @param max_bytes  of pixels
 * @return 0, or with the reason in diag -EBADMSG: not a request, -EPROTO: another major version,
 *         -EINVAL: it contradicts itself, -EFBIG, -EACCES: a size that only admins may ask for
 */
int ask_parse(struct ask *ask, struct wire *wire, const struct ask_part *parts, unsigned n_parts,
	uint64_t max_bytes, struct diag *diag);

#endif
