/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_DECODER_CHILD_H
#define KAMEN_INGEST_DECODER_CHILD_H

#include "ingest/decoder.h"

/* What runs on the other side of a decoder's channels, and what passes over them. */

/** Parent to worker, with the descriptor of the bytes. */
struct decoder_job {
	uint64_t n_bytes;
	uint32_t format, width, height, stride, shorter_px, timeout_ms;
};

/** Worker to parent, with a descriptor where code is 0; the first one of a worker says that it is
 * confined, or why not. */
struct decoder_answer {
	int32_t code;
	uint32_t width, height, n_channels;
	char reason[256];
};

/** Parent to template, with the worker's end of a new channel; the answer carries its pidfd. */
struct decoder_fork {
	int32_t code;
};

/** The template's life, until its channel closes. Never returns. */
_Noreturn void decoder_template(int channel, decoder_image_fn *decode);

/** Gives up what a decoder does not need; nothing can be opened afterwards. */
int decoder_confine(void);

#endif
