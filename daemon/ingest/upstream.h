/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_UPSTREAM_H
#define KAMEN_INGEST_UPSTREAM_H

#include <kamen/kamen.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

/*
 * Ingest as a client of serve, by libkamen like any other: connected when there is first something
 * to ask, by a thread, since that may take long and the loop must not; again after serve was gone.
 */
struct upstream;

struct upstream_calls {
	/** An answer; the result's pointers are dead afterwards. */
	void (*answered)(void *user, void *token, const struct kamen_result *result);
	/** There is none and will be none: code says why. */
	void (*lost)(void *user, void *token, int code);
	/** There may be room again, or a connection. */
	void (*ready)(void *user);
	void *user;
};

/** path: of data.sock. */
int upstream_new(struct upstream **ret_upstream, sd_event *event, const char *path,
	uint32_t n_slots, uint64_t slot_bytes, const struct upstream_calls *calls);
/** What is in flight is lost. */
void upstream_free(struct upstream *upstream);

/**
 * Hands a request to serve. Its pixels are copied.
 *
 * @return 0: token will be answered or lost, -EBUSY: no slot is free or serve is not there yet;
 *         ready() is called when that may have changed, or what is wrong with the request
 */
int upstream_ask(struct upstream *upstream, const struct kamen_request *request, const void *pixels,
	void *token);

#endif
