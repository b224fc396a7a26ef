/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_INGEST_SERVE_H
#define TESTS_UNIT_INGEST_SERVE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <cmocka.h>

#include "engine.h"
#include "ingest/decoder.h"
#include "ops/config.h"
#include "wire.h"

/*
 * The other end of ingest's socket: a test plays serve, and ingest_main() runs in a child. Whatever
 * does not come within a generous time fails the test.
 */
struct serve {
	char dir[64]; /* temporary; spool/ and replay/ are below */
	const char *backend;
	bool is_uring_forbidden;     /* by a filter, as containers do */
	struct serve_faults *faults; /* shared with ingest's decoders */
	pid_t pid;
	int sock;
	struct wire *wire;
	int fd; /* that came with the last message, -1: none */
};

/** What ingest's decoders are to do wrong, so many times. */
struct serve_faults {
	atomic_uint n_crashes, n_shortages;
};

#define SERVE_SHORTER_PX 16u
#define SERVE_MAX_FILE_BYTES (64u << 10)

/**
 * A folder and a running ingest that has said that it is ready. Skips where uring is forbidden;
 * backend "auto" forbids it.
 */
void serve_begin(struct serve *serve, const char *backend);
/** Closes the socket, waits for exit status 0, removes the folder. */
void serve_end(struct serve *serve);
void serve_start_ingest(struct serve *serve);
void serve_kill_ingest(struct serve *serve);

/** One site "a"; spool, endpoint: NULL for none. */
void serve_send_site(
	struct serve *serve, const char *spool, const char *endpoint, uint32_t settle_ms);
void serve_send_no_site(struct serve *serve);
/** Part of a table: n sites, none of them "a", without any source. */
void serve_send_part(struct serve *serve, bool is_first, bool is_last, unsigned n);
void serve_reply(struct serve *serve, uint64_t id, Kamen__Outcome outcome);
/** Sends a DecodeJob with a memfd of data. */
void serve_ask(struct serve *serve, uint64_t id, bool is_push, const void *data, size_t n_bytes);
/** The same of a sender, to be decoded only. */
void serve_ask_for(
	struct serve *serve, uint64_t id, const char *sender, const void *data, size_t n_bytes);
/** The next message, which must be of this kind. */
const Kamen__RoleMessage *serve_expect(struct serve *serve, Kamen__RoleMessage__KindCase kind);
/** Whether a message comes within ms. */
bool serve_hears(struct serve *serve, int ms);

/** Below the folder. */
bool serve_has(const struct serve *serve, const char *path);
/** Waits until path is there. */
void serve_await(const struct serve *serve, const char *path);
void serve_write(const struct serve *serve, const char *path, const void *data, size_t n_bytes);
/** The spool's contract: temporary name, rename. */
void serve_drop(const struct serve *serve, const char *name, const void *data, size_t n_bytes);
unsigned serve_count(const struct serve *serve, const char *path);

/** A PNG of its own for every number; malloc'ed. */
void *serve_png(unsigned number, size_t *ret_n_bytes);

#endif
