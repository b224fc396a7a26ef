/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_DECODER_H
#define KAMEN_INGEST_DECODER_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "engine.h"

/*
 * Decodes foreign images in confined children (seccomp, no new privileges, address space and CPU
 * time limited): a child that crashes or gets stuck costs the image that it was given.
 *
 *   parent ── template ── worker      the template is forked before any thread exists and forks the
 *                     └── worker      workers; channels are SOCK_SEQPACKET pairs
 */
struct decoder;

/** Of which one sender has all but one at most (admission.c): who comes next need not wait. */
#define DECODER_N_WORKERS 3

enum decode_format { DECODE_ENCODED, DECODE_RGB8, DECODE_MONO8, DECODE_BGR8 };

/** Of raw pixels. */
static inline uint32_t decode_n_channels(uint32_t format)
{
	return format == DECODE_MONO8 ? 1 : 3;
}

struct decode_request {
	int fd;                         /* the bytes; stays the caller's */
	uint32_t format;                /* enum decode_format */
	uint64_t n_bytes;               /* read from the start of fd */
	uint32_t width, height, stride; /* of raw pixels */
	uint32_t shorter_px;            /* shrink to this shorter side; 0: as it is */
};

struct decode_result {
	int code; /* 0, -EBADMSG: not an image, -EFBIG, -ETIMEDOUT, -EFAULT: crashed, -ENOMEM */
	char reason[256];
	int fd; /* sealed, (height, width, n_channels) dense; -1 unless code is 0. The callee's */
	uint32_t width, height, n_channels;
};

typedef int decoder_image_fn(
	struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag);
typedef void decoder_done_fn(void *user, const struct decode_result *result);

/**
 * Forks; to be called before the process has a second thread.
 *
 * @param decode      image_decode(); tests bring worse ones
 * @param timeout_ms  of CPU time an image; ten times as much of wall time
 * @return 0, or what failed, with the reason in diag: without confinement there is no decoder
 */
int decoder_new(struct decoder **ret_decoder, decoder_image_fn *decode, uint32_t timeout_ms,
	struct diag *diag);
/** A worker that cannot be replaced ends the loop with an error. */
int decoder_attach(struct decoder *decoder, sd_event *event);
/** Ends the children; what they work on is never answered. */
void decoder_free(struct decoder *decoder);
DEFINE_CLEANUP(struct decoder *, decoder_free)

/** Whether decoder_decode() would find a worker. */
bool decoder_is_ready(const struct decoder *decoder);
/**
 * @param done  called from the event loop exactly once, unless the decoder is freed before
 * @return 0, -EBUSY: no worker is free, -EPIPE: the template is gone and with it the decoder
 */
int decoder_decode(struct decoder *decoder, const struct decode_request *request,
	decoder_done_fn *done, void *user);

#endif
