/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>

#include "mask/kmask.h"
#include "mask/kmask_coder.h"

/* The words of one tensor pass through in order: memory must not go by what a file promises. */
#define N_WORDS 1024u
#define N_POSITIONS 512u

struct window {
	struct digest_state *digest;
	uint64_t words[N_WORDS];
	uint64_t all; /* of a word of which the payload names no bit */
	uint32_t first, n_words;
	uint64_t last; /* which bits of the tensor's last word are weights */
};

static uint32_t window_size(const struct window *window)
{
	uint32_t n = window->n_words - window->first;

	return n < N_WORDS ? n : N_WORDS;
}

static void window_fill(struct window *window)
{
	uint32_t n = window_size(window);

	for (uint32_t i = 0; i < n; i++)
		window->words[i] = window->all;
	if (n > 0 && window->first + n == window->n_words)
		window->words[n - 1] &= window->last;
}

/* Into the digest with what stands here, and on. */
static void window_pass(struct window *window)
{
	uint32_t n = window_size(window);

	for (uint32_t i = 0; i < n; i++)
		window->words[i] = htole64(window->words[i]);
	digest_update(window->digest, window->words, n * sizeof(*window->words));
	window->first += n;
	window_fill(window);
}

static void flip(struct window *window, uint32_t position)
{
	while (position / 64 >= window->first + N_WORDS)
		window_pass(window);
	window->words[position / 64 - window->first] ^= UINT64_C(1) << (position % 64);
}

static bool flip_named(struct window *window, const struct kmask *kmask, uint32_t t)
{
	const struct kmask_tensor *row = &kmask->tensors[t];
	uint32_t positions[N_POSITIONS];
	struct coder_reader reader;
	size_t n;

	if (kmask_n_named(row) == 0)
		return true;
	coder_open(&reader, row->n, kmask_n_named(row), kmask->data + row->at, row->n_bytes);
	while ((n = coder_read(&reader, positions, N_POSITIONS)) > 0)
		for (size_t i = 0; i < n; i++)
			flip(window, positions[i]);
	return coder_is_whole(&reader);
}

static bool digest_tensor(struct digest_state *digest, const struct kmask *kmask, uint32_t t)
{
	const struct kmask_tensor *row = &kmask->tensors[t];
	struct window window = {
		.digest = digest,
		.all = kmask_names_dropped(row) ? UINT64_MAX : 0,
		.n_words = row->n / 64 + (row->n % 64 != 0),
		.last = row->n % 64 ? (UINT64_C(1) << (row->n % 64)) - 1 : UINT64_MAX,
	};

	window_fill(&window);
	if (!flip_named(&window, kmask, t))
		return false;
	while (window.first < window.n_words)
		window_pass(&window);
	return true;
}

int kmask_digest(const struct kmask *kmask, struct digest *ret_digest, struct diag *diag)
{
	const struct kmask_header *header = &kmask->header;
	struct digest_state state;

	if (header->n_elements > KMASK_MAX_ELEMENTS)
		return diag_set(
			diag, EFBIG, "mask: promises %" PRIu64 " weights", header->n_elements);
	digest_init(&state);
	digest_update_u64(&state, header->n_tensors);
	for (uint32_t t = 0; t < header->n_tensors; t++)
		digest_update_u64(&state, kmask->tensors[t].n);
	for (uint32_t t = 0; t < header->n_tensors; t++)
		if (!digest_tensor(&state, kmask, t))
			return diag_set(diag, EBADMSG,
				"mask: payload of tensor %" PRIu32 " does not decode", t);
	*ret_digest = digest_final(&state);
	return 0;
}

int kmask_check_bits(const struct kmask *kmask, struct diag *diag)
{
	struct digest digest;
	int r = kmask_digest(kmask, &digest, diag);

	if (r < 0)
		return r;
	return digest_equal(&digest, &kmask->header.mask)
		       ? 0
		       : diag_set(diag, EBADMSG, "mask: its bits have another digest than it says");
}
