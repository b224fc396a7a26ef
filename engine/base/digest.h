/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_DIGEST_H
#define KAMEN_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DIGEST_BYTES 32
#define DIGEST_HEX_CHARS (2 * DIGEST_BYTES)

/** BLAKE2b-256 (libsodium): names the base, an image's content, a preprocessing, a mask, a space. */
struct digest {
	uint8_t bytes[DIGEST_BYTES];
};

struct digest digest_of(const void *data, size_t n_bytes);

/** Incremental form. */
struct digest_state {
	_Alignas(64) unsigned char opaque[384];
};
void digest_init(struct digest_state *state);
void digest_update(struct digest_state *state, const void *data, size_t n_bytes);
/** Its eight bytes, the lowest first. */
void digest_update_u64(struct digest_state *state, uint64_t value);
struct digest digest_final(struct digest_state *state);

static inline bool digest_equal(const struct digest *a, const struct digest *b)
{
	return memcmp(a->bytes, b->bytes, DIGEST_BYTES) == 0;
}

void digest_to_hex(const struct digest *digest, char ret_hex[DIGEST_HEX_CHARS + 1]);
/** @return 0, or -EINVAL: not 64 hexadecimal digits */
int digest_from_hex(struct digest *ret_digest, const char *hex);

/** contract.md's split: held when the first 8 bytes of the file's SHA-256, read little-endian, are
 * below 0.3 x 2^64. Evaluation only. */
bool digest_is_held(const void *file, size_t n_bytes);

/** XXH3 (64 bit): guards against bit rot, not against an attacker. */
uint64_t digest_checksum(const void *data, size_t n_bytes);

/** The same of data that comes in parts. */
struct checksum;
int checksum_begin(struct checksum **ret_checksum);
void checksum_add(struct checksum *checksum, const void *data, size_t n_bytes);
/** Frees it, too. NULL: 0 */
uint64_t checksum_end(struct checksum *checksum);

#endif
