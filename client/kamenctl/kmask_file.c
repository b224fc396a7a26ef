/* SPDX-License-Identifier: Apache-2.0 */
#include "kmask_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/blob.h"
#include "base/cleanup.h"
#include "cascade/mask_set.h"
#include "learn/hardness.h"
#include "mask/kmask_diff.h"
#include "key_pair.h"
#include "mask/kmask_sign.h"

#define MAX_KEYS_BYTES (1 << 20)

int kmask_file_read(const char *path, void **ret_data, size_t *ret_n_bytes)
{
	return blob_read(AT_FDCWD, path, KMASK_FILE_MAX, ret_data, ret_n_bytes);
}

int kmask_file_write(const char *path, const void *data, size_t n_bytes)
{
	return blob_write(AT_FDCWD, path, data, n_bytes);
}

static int say(struct kmask_why *why, int r, const struct diag *diag)
{
	if (r < 0)
		(void)snprintf(why->text, sizeof(why->text), "%s",
			diag && diag->text[0] ? diag->text : strerror(-r));
	return r;
}

/* Adds what one mask of the file takes. */
static int add_mask(struct kmask_said *said, const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	int r = kmask_open(&kmask, data, n_bytes, diag);

	if (r == 0)
		r = kmask_check_bits(kmask, diag);
	if (r < 0)
		return r;
	said->n_tensors = kmask->header.n_tensors;
	said->payload_bytes += kmask->header.payload_bytes;
	said->entropy_bytes += kmask_entropy_bytes(kmask);
	/* A signature is neither. */
	said->table_bytes -= n_bytes - kmask->header.table_bytes;
	return 0;
}

int kmask_file_verify(
	const void *data, size_t n_bytes, struct kmask_said *ret_said, struct kmask_why *why)
{
	static const char *const modes[] = { "conditional", "unconditional" };
	struct mask_set_header header;
	struct kmask_said said = { .n_bytes = n_bytes, .table_bytes = n_bytes };
	struct diag diag = { 0 };
	int r = mask_set_verify(data, n_bytes, &header, &diag);

	for (uint32_t m = 0; r == 0 && m <= header.n_experts; m++) {
		const void *part;
		size_t n_part;

		r = mask_set_part(data, n_bytes, m, &part, &n_part);
		if (r == 0)
			r = add_mask(&said, part, n_part, &diag);
	}
	if (r < 0)
		return say(why, r, &diag);
	said.seed = header.seed;
	said.steps = header.steps;
	said.n_elements = header.n_elements;
	said.n_experts = header.n_experts;
	said.mode = header.n_experts > 0 ? modes[header.mode] : NULL;
	said.density = 1;
	if (header.n_elements > 0)
		said.density -=
			(double)header.n_flips / (double)header.n_elements / (1 + header.n_experts);
	said.is_signed = header.is_signed;
	memcpy(said.base, header.base.bytes, sizeof(said.base));
	memcpy(said.prep, header.prep.bytes, sizeof(said.prep));
	memcpy(said.mask, header.id.bytes, sizeof(said.mask));
	memcpy(said.signer, header.signer.bytes, sizeof(said.signer));
	*ret_said = said;
	return 0;
}

/* All other files of ours begin with a magic of their own; this one with the length of its header. */
bool kmask_file_is_khard(const void *data, size_t n_bytes)
{
	return n_bytes > 8 && ((const char *)data)[8] == '{';
}

int kmask_file_verify_khard(
	const void *data, size_t n_bytes, struct khard_said *ret_said, struct kmask_why *why)
{
	struct khard_said said = { .n_bytes = n_bytes };
	struct diag diag = { 0 };
	struct hardness_info info;
	int r = hardness_check(&info, data, n_bytes, &diag);

	if (r < 0)
		return say(why, r, &diag);
	memcpy(said.base, info.base.bytes, sizeof(said.base));
	memcpy(said.mask, info.mask.bytes, sizeof(said.mask));
	said.width = info.width;
	said.grid = info.grid;
	said.depth = info.depth;
	*ret_said = said;
	return 0;
}

/* What only a single mask can be asked for. */
static int check_single(const void *data, size_t n_bytes, const char *what, struct kmask_why *why)
{
	if (!data || !mask_set_is_cascade(data, n_bytes))
		return 0;
	(void)snprintf(why->text, sizeof(why->text), "a cascade of masks cannot be %s", what);
	return -EOPNOTSUPP;
}

int kmask_file_trusts(const char *keys, const uint8_t signer[32], struct kmask_why *why)
{
	_cleanup_(freep) void *text = NULL;
	struct diag diag = { 0 };
	struct kmask_key key;
	size_t n_chars;
	int r = blob_read(AT_FDCWD, keys, MAX_KEYS_BYTES, &text, &n_chars);

	memcpy(key.bytes, signer, sizeof(key.bytes));
	if (r == 0)
		r = kmask_keys_find(text, n_chars, &key, &diag);
	return say(why, r, &diag);
}

/* ---- differences */

static int collect(const struct kmask_flips *flips, uint32_t n_tensors,
	struct kmask_change **ret_changes, uint32_t *ret_n)
{
	struct kmask_change *changes = malloc((n_tensors + 1) * sizeof(*changes));
	uint32_t n = 0;

	if (!changes)
		return -ENOMEM;
	for (uint32_t t = 0; t < n_tensors; t++)
		if (flips[t].n_dropped > 0 || flips[t].n_restored > 0)
			changes[n++] =
				(struct kmask_change){ t, flips[t].n_dropped, flips[t].n_restored };
	*ret_changes = changes;
	*ret_n = n;
	return 0;
}

int kmask_file_diff(const void *a, size_t n_a, const void *b, size_t n_b,
	struct kmask_change **ret_changes, uint32_t *ret_n, uint32_t *ret_n_tensors,
	struct kmask_why *why)
{
	_cleanup_(kmask_freep) struct kmask *one = NULL, *two = NULL;
	_cleanup_(freep) struct kmask_flips *flips = NULL;
	struct diag diag = { 0 };
	uint32_t n_tensors = 0;
	int r = check_single(a, n_a, "compared by its bits", why);

	if (r == 0)
		r = check_single(b, n_b, "compared by its bits", why);
	if (r < 0)
		return r;
	r = a ? kmask_open(&one, a, n_a, &diag) : 0;
	if (r == 0 && b)
		r = kmask_open(&two, b, n_b, &diag);
	if (r < 0)
		return say(why, r, &diag);
	if (one || two)
		n_tensors = (one ? one : two)->header.n_tensors;
	flips = calloc(n_tensors + 1, sizeof(*flips));
	r = flips ? kmask_diff(one, two, flips, &diag) : -ENOMEM;
	if (r == 0)
		r = collect(flips, n_tensors, ret_changes, ret_n);
	if (r == 0)
		*ret_n_tensors = n_tensors;
	return say(why, r, &diag);
}

/* ---- keys */

int kmask_file_keygen(const char *path, const char *name, char ret_key[KMASK_HEX_CHARS + 1],
	struct kmask_why *why)
{
	char line[KMASK_SECRET_LINE_BYTES], public_line[512];
	struct kmask_secret secret;
	struct kmask_key key;
	int r;

	r = kmask_secret_new(&secret);
	if (r < 0)
		return say(why, r, NULL);
	kmask_secret_key(&secret, &key);
	kmask_secret_write(&secret, line);
	kmask_key_to_hex(&key, ret_key);
	(void)snprintf(
		public_line, sizeof(public_line), "kamen-mask-key %s %.300s\n", ret_key, name);
	r = key_pair_write(path, line, public_line);
	explicit_bzero(line, sizeof(line));
	kmask_secret_wipe(&secret);
	return say(why, r, NULL);
}

int kmask_file_sign(const void *data, size_t n_bytes, const char *key_path, void **ret_data,
	size_t *ret_n_bytes, struct kmask_why *why)
{
	_cleanup_(freep) char *text = NULL;
	struct kmask_secret secret;
	struct diag diag = { 0 };
	size_t n_chars;
	int r = check_single(data, n_bytes, "signed", why);

	if (r < 0)
		return r;
	r = blob_read(AT_FDCWD, key_path, MAX_KEYS_BYTES, (void **)&text, &n_chars);
	if (r < 0)
		return say(why, r, NULL);
	r = kmask_secret_read(&secret, text, n_chars, &diag);
	explicit_bzero(text, n_chars);
	if (r == 0)
		r = kmask_sign(data, n_bytes, &secret, ret_data, ret_n_bytes, &diag);
	kmask_secret_wipe(&secret);
	return say(why, r, &diag);
}
