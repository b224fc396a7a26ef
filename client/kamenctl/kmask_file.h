/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_KMASK_FILE_H
#define KAMENCTL_KMASK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The one place of kamenctl that knows the engine's file format: what needs no daemon. Where a call
 * fails it says in `why` what is wrong and where.
 */
#define KMASK_FILE_MAX (64 << 20)
#define KMASK_HEX_CHARS 64

struct kmask_why {
	char text[512];
};

/** What a .kmask says of itself, or a .kcas: payloads are those of all its masks, the table is
 * what is not payload. */
struct kmask_said {
	uint8_t base[32], prep[32], mask[32], signer[32];
	uint64_t seed, n_elements; /* of the model */
	uint32_t steps, n_tensors, n_experts;
	size_t n_bytes, table_bytes, payload_bytes;
	double density, entropy_bytes;
	const char *mode; /* of a cascade, else NULL */
	bool is_signed;
};

int kmask_file_read(const char *path, void **ret_data, size_t *ret_n_bytes);
/** Whole or not at all. */
int kmask_file_write(const char *path, const void *data, size_t n_bytes);

/** Sums, signature, and that the bits are those of mask_digest. */
int kmask_file_verify(
	const void *data, size_t n_bytes, struct kmask_said *ret_said, struct kmask_why *why);
/** What a .khard says of itself (hardness.h). */
struct khard_said {
	uint8_t base[32], mask[32];
	uint32_t width, grid, depth;
	size_t n_bytes;
};
bool kmask_file_is_khard(const void *data, size_t n_bytes);
int kmask_file_verify_khard(
	const void *data, size_t n_bytes, struct khard_said *ret_said, struct kmask_why *why);
/** Whether a list has the signer. @return 1, 0, or what reading it said */
int kmask_file_trusts(const char *keys, const uint8_t signer[32], struct kmask_why *why);

/** What differs in one tensor. */
struct kmask_change {
	uint32_t tensor, n_dropped, n_restored;
};

/** Of single masks, not of cascades. Data NULL: the frozen base. *ret_changes malloc'ed, of the tensors that differ. */
int kmask_file_diff(const void *a, size_t n_a, const void *b, size_t n_b,
	struct kmask_change **ret_changes, uint32_t *ret_n, uint32_t *ret_n_tensors,
	struct kmask_why *why);

/** A new pair: path, which must not be there yet, and path.pub. */
int kmask_file_keygen(const char *path, const char *name, char ret_key[KMASK_HEX_CHARS + 1],
	struct kmask_why *why);
/** Of a single mask, not of a cascade. *ret_data malloc'ed. */
int kmask_file_sign(const void *data, size_t n_bytes, const char *key_path, void **ret_data,
	size_t *ret_n_bytes, struct kmask_why *why);

#endif
