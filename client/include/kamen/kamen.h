/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_H
#define KAMEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * libkamen: inference through a site's own subnetwork over shared memory. No threads, no signals,
 * nothing on stdout or stderr. Every call returns 0 (or what it says) or a negative errno. Each has
 * a manual page; libkamen(3) is the overview.
 *
 * Life of a request: kamen_frame_acquire() a slot, write the pixels in place, kamen_submit(),
 * kamen_wait() or poll kamen_client_get_fd() and kamen_process(), read the result in place,
 * kamen_release().
 *
 * Every request that was submitted is answered once, also where the daemon goes: the next one is
 * found by itself, and what was in flight is sent again. What waits longer than its deadline, or
 * longer than kamen_options.reconnect_ns, is answered here: KAMEN_NO_VERDICT with its reason.
 *
 * All times are CLOCK_MONOTONIC in nanoseconds.
 */

/**
 * A connection to kamend. Not thread-safe: one thread at a time may be inside a call, with this
 * client or with frames and results of it. Several clients know nothing of each other.
 */
struct kamen_client;

/** The daemon's end is the end: calls fail with -ENOTCONN, and nothing is sent again. */
#define KAMEN_NO_RECONNECT 1u

/** What to ask for at connect; zero fields mean the default. Set size = sizeof(struct). */
struct kamen_options {
	size_t size;
	uint32_t n_slots;      /* requests in flight, default 8, at most 64 */
	uint64_t slot_bytes;   /* largest frame, default 4 MiB, at most 64 MiB */
	uint64_t reconnect_ns; /* how long requests wait for a daemon that is gone, default 30 s */
	uint32_t flags;        /* KAMEN_NO_RECONNECT */
	uint32_t spin_us;      /* how long kamen_wait() looks before it sleeps, default 20 */
};

#define KAMEN_NO_SPIN UINT32_MAX /* spin_us: it sleeps at once */

enum kamen_format {
	KAMEN_ENCODED = 0, /* JPEG, PNG, PGM/PPM: decoded by the daemon's confined decoder */
	KAMEN_RGB8 = 1,    /* names and layouts of raw pixels are those of the GenICam PFNC */
	KAMEN_MONO8 = 2,
	KAMEN_BGR8 = 3,
};

enum kamen_verb {
	KAMEN_ECHO = 1, /* the whole path without inference: checksum of what was read */
	KAMEN_INFER = 2,
	KAMEN_PUSH = 3, /* an image to learn from; answered when it is durable */
};

enum kamen_mask {
	KAMEN_MASK_CHAMPION = 0,
	KAMEN_MASK_VERSION = 1, /* version 0 is the frozen base */
};

enum kamen_verdict {
	KAMEN_NO_VERDICT = 0, /* the reason says why */
	KAMEN_OK = 1,
	KAMEN_NG = 2,
	KAMEN_UNKNOWN = 3, /* nothing is known yet about what is normal here */
};

#define KAMEN_WANT_EMBEDDING 1u
#define KAMEN_WANT_SPACE 2u    /* -ESTALE unless answered in request.space */
#define KAMEN_WANT_HARDNESS 4u /* -ENODATA where the version has no hardness map */
#define KAMEN_WANT_FEATURE 8u  /* in the embedding's place what classes are told apart by */
#define KAMEN_PX_SITE 0u
#define KAMEN_PX_NATIVE UINT32_MAX

/** A frame slot to be filled in place. Belongs to the client object until submitted. */
struct kamen_frame {
	void *data;
	size_t capacity;
	uint32_t slot;
};

/** One request. Set size = sizeof(struct) and zero the rest. */
struct kamen_request {
	size_t size;
	enum kamen_verb verb;
	enum kamen_format format;
	const char *site;               /* [a-z0-9][a-z0-9._-]{0,62}; unused by KAMEN_ECHO */
	size_t n_bytes;                 /* written to the frame */
	uint32_t width, height, stride; /* pixels; stride 0: dense. Unused when encoded */
	uint64_t deadline_ns;           /* absolute CLOCK_MONOTONIC, 0: none; echoed too */
	uint64_t trigger_id, part_id, capture_us, encoder; /* echoed in the result */
	enum kamen_mask mask;
	uint32_t version;
	uint32_t px; /* KAMEN_PX_SITE, KAMEN_PX_NATIVE; admins: any side that the patch divides */
	uint32_t flags;
	uint8_t space[32];
};

/** One answer, read in place until kamen_release(). Strings end with NUL. */
struct kamen_result {
	uint64_t id;
	int code; /* 0 or a negative errno: the request as a whole */
	enum kamen_verdict verdict;
	const char *reason;             /* "" where there is nothing to say */
	const char *label;              /* of its class; "": of none, or the site has none */
	float score, novelty, distance; /* NaN: not known */
	uint32_t version;               /* of the mask that answered, 0: the base */
	uint32_t outcome;               /* KAMEN_PUSH: 0 accepted, 1 duplicate, 2 rejected */
	uint64_t queue_ns, compute_ns;
	uint64_t trigger_id, part_id, capture_us, encoder;
	uint64_t checksum;    /* KAMEN_ECHO */
	const uint8_t *space; /* 32 bytes; embeddings of equal spaces may be compared */
	/* n_embedding floats, not normalised; of a feature two halves of length 1; NULL: not asked for */
	const float *embedding;
	uint32_t n_embedding;
	uint32_t slot;
	uint64_t deadline_ns;   /* of the request */
	const float *hardness;  /* n_hardness floats, rows from the top down; NULL: not asked for */
	uint32_t n_hardness;    /* hardness_side squared */
	uint32_t hardness_side; /* larger is harder, to be compared within one map */
	float unknown;          /* [0, 1], beyond .5 of none of the classes; NaN: not known */
	uint32_t unused;        /* 0 */
	uint64_t reserved[4];   /* 0 */
};

/**
 * Connects to the daemon. Blocks until it has answered, at most some ten seconds.
 *
 * @param ret_client  set on success only; release with kamen_client_free()
 * @param endpoint    path of data.sock, or NULL: $KAMEN_RUNTIME/data.sock, else the system's
 * @param options     NULL: defaults
 * @return 0, or -ENOENT/-ECONNREFUSED: no daemon, -EACCES: not allowed, -EPROTO: incompatible
 *         version, -EUSERS: too many clients, -EMFILE: too many open files here, -EINVAL: the
 *         options are out of range, -ETIMEDOUT: it does not answer, -ENOMEM
 */
int kamen_client_connect(struct kamen_client **ret_client, const char *endpoint,
	const struct kamen_options *options);
/** Ends the session; frames and results of it are gone. NULL is fine. Returns NULL. */
struct kamen_client *kamen_client_free(struct kamen_client *client);

/**
 * For poll(), sd-event, libuv: one descriptor, the client's, that stays the same over reconnects.
 * Do not read it or close it.
 */
int kamen_client_get_fd(const struct kamen_client *client);
/** The events to wait for, as in struct pollfd: POLLIN. */
int kamen_client_get_events(const struct kamen_client *client);
/**
 * When to call kamen_process() at the latest though the descriptor is silent: at a deadline, for the
 * next attempt to find the daemon, or at once (0) where results are ready already. It changes with
 * every call: ask before each poll().
 *
 * @param ret_deadline_ns  absolute CLOCK_MONOTONIC; UINT64_MAX: no matter
 * @return 0
 */
int kamen_client_get_timeout(const struct kamen_client *client, uint64_t *ret_deadline_ns);

/**
 * A slot to be filled in place. It stays good until it is submitted or discarded, also where the
 * daemon goes meanwhile.
 *
 * @param n_bytes  that will be written, at most slot_bytes of the options
 * @return 0, -EBUSY: every slot is in flight or unreleased, -EFBIG: n_bytes over the slot's size,
 *         -ENOTCONN: the daemon has been gone for reconnect_ns; try later, or what ended the client
 *         (kamen_process())
 */
int kamen_frame_acquire(struct kamen_client *client, size_t n_bytes, struct kamen_frame *ret_frame);
/** Gives a frame back unused. One that is not acquired is left alone. */
void kamen_frame_discard(struct kamen_client *client, const struct kamen_frame *frame);

/**
 * Hands a frame over. Never blocks. While there is no daemon the request waits for the next.
 *
 * @param ret_id  number of the request, that of its result; may be NULL
 * @return 0: there will be one result, -EINVAL: the request contradicts itself, or the frame is not
 *         acquired, -ENOTCONN as kamen_frame_acquire(). On failure the frame stays acquired.
 */
int kamen_submit(struct kamen_client *client, const struct kamen_frame *frame,
	const struct kamen_request *request, uint64_t *ret_id);

/**
 * Takes what has arrived, answers what is late, looks for a daemon that is gone. Never blocks.
 *
 * @return number of results ready for kamen_next(); where there is none: -ENOTCONN: the daemon has
 *         been gone for reconnect_ns, but is still looked for, or what ended the client: -ENOTCONN
 *         (KAMEN_NO_RECONNECT), -EACCES or -EPROTO: the new daemon's refusal, -EPROTO: the daemon
 *         breaks the protocol, -EMSGSIZE: the new one has fewer or smaller slots
 */
int kamen_process(struct kamen_client *client);
/**
 * Next result that is ready, in the order of the answers. Never blocks, takes nothing in.
 *
 * @return 1: *ret_result is set, to be released, 0: none, or a negative errno as kamen_process()
 */
int kamen_next(struct kamen_client *client, struct kamen_result *ret_result);
/**
 * Blocks until some result is ready. The slot of a request that was answered here, at its deadline,
 * stays taken until the daemon has done with it: where no slot is left but such ones, this waits
 * for the first of them.
 *
 * @param timeout_ns  from now on; UINT64_MAX: for ever
 * @return 0: *ret_result is set, to be released, -EAGAIN: nothing is in flight, so no result will
 *         come; kamen_frame_acquire() finds a slot unless the caller holds them all, -ETIMEDOUT,
 *         -EINTR: a signal came, or a negative errno as kamen_process()
 */
int kamen_wait(struct kamen_client *client, uint64_t timeout_ns, struct kamen_result *ret_result);
/** The slot may be acquired again; the result's pointers are dead. */
void kamen_release(struct kamen_client *client, const struct kamen_result *result);

/** "OK", "NG", "UNKNOWN", "NO_VERDICT". Never NULL. */
const char *kamen_verdict_name(enum kamen_verdict verdict);
/** Version of the library, e.g. "0.1.0". */
const char *kamen_version(void);

#ifdef __cplusplus
}
#endif

#endif
