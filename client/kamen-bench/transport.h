/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_TRANSPORT_H
#define KAMEN_BENCH_TRANSPORT_H

#include "kamen/kamen.h"
#include "load.h"

/** What of an answer is measured or checked, whatever way it came. */
struct load_answer {
	uint32_t at; /* which of the places in flight */
	uint64_t id;
	int code;
	bool has_verdict;
	char reason[160];
	uint64_t trigger_id, part_id, capture_us, encoder, deadline_ns;
	uint64_t compute_ns;
};

/** A way to the daemon; one connection a client, of its thread alone. */
struct transport {
	const char *name;
	int (*open)(void **ret_connection, const struct load *load);
	void (*close)(void *connection); /* NULL is fine */
	/** Every byte of the frame becomes fill. @return 0, -EBUSY: no room, or a negative errno */
	int (*submit)(void *connection, const struct kamen_request *request, int fill,
		uint32_t *ret_at, uint64_t *ret_id);
	/** @return 0, -EAGAIN: nothing is in flight, -ETIMEDOUT, or a negative errno */
	int (*wait)(void *connection, uint64_t timeout_ns, struct load_answer *ret_answer);
};

extern const struct transport transport_shm, transport_zmq;

/** NULL: there is none of that name. */
const struct transport *transport_find(const char *name);

#endif
