/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>

#include <sodium.h>
#include <xxhash.h>

#include "base/digest.h"

_Static_assert(sizeof(crypto_generichash_state) <= sizeof(struct digest_state), "state fits");

struct digest digest_of(const void *data, size_t n_bytes)
{
	struct digest digest;

	(void)crypto_generichash(digest.bytes, DIGEST_BYTES, data, n_bytes, NULL, 0);
	return digest;
}

void digest_init(struct digest_state *state)
{
	(void)crypto_generichash_init((void *)state, NULL, 0, DIGEST_BYTES);
}

void digest_update(struct digest_state *state, const void *data, size_t n_bytes)
{
	(void)crypto_generichash_update((void *)state, data, n_bytes);
}

void digest_update_u64(struct digest_state *state, uint64_t value)
{
	value = htole64(value);
	digest_update(state, &value, sizeof(value));
}

struct digest digest_final(struct digest_state *state)
{
	struct digest digest;

	(void)crypto_generichash_final((void *)state, digest.bytes, DIGEST_BYTES);
	return digest;
}

void digest_to_hex(const struct digest *digest, char ret_hex[DIGEST_HEX_CHARS + 1])
{
	(void)sodium_bin2hex(ret_hex, DIGEST_HEX_CHARS + 1, digest->bytes, DIGEST_BYTES);
}

int digest_from_hex(struct digest *ret_digest, const char *hex)
{
	struct digest digest;
	size_t n_bytes;

	if (strlen(hex) != DIGEST_HEX_CHARS ||
		sodium_hex2bin(
			digest.bytes, DIGEST_BYTES, hex, DIGEST_HEX_CHARS, NULL, &n_bytes, NULL) ||
		n_bytes != DIGEST_BYTES)
		return -EINVAL;
	*ret_digest = digest;
	return 0;
}

bool digest_is_held(const void *file, size_t n_bytes)
{
	unsigned char hash[crypto_hash_sha256_BYTES];
	uint64_t head;

	(void)crypto_hash_sha256(hash, file, n_bytes);
	memcpy(&head, hash, sizeof(head));
	return (double)le64toh(head) < .3 * 18446744073709551616.0;
}

uint64_t digest_checksum(const void *data, size_t n_bytes)
{
	return XXH3_64bits(data, n_bytes);
}

int checksum_begin(struct checksum **ret_checksum)
{
	XXH3_state_t *state = XXH3_createState();

	if (!state)
		return -ENOMEM;
	(void)XXH3_64bits_reset(state);
	*ret_checksum = (struct checksum *)state;
	return 0;
}

void checksum_add(struct checksum *checksum, const void *data, size_t n_bytes)
{
	(void)XXH3_64bits_update((XXH3_state_t *)checksum, data, n_bytes);
}

uint64_t checksum_end(struct checksum *checksum)
{
	XXH3_state_t *state = (XXH3_state_t *)checksum;
	uint64_t sum = state ? XXH3_64bits_digest(state) : 0;

	(void)XXH3_freeState(state);
	return sum;
}
