/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>

#include "mask/kmask_format.h"
#include "mask/kmask_sign.h"

static const char secret_word[] = "kamen-mask-secret ", key_word[] = "kamen-mask-key ";

_Static_assert(KMASK_SIGNER_BYTES == crypto_sign_PUBLICKEYBYTES, "ed25519");
_Static_assert(KMASK_SIGNATURE_BYTES == crypto_sign_BYTES, "ed25519");
_Static_assert(sizeof(struct kmask_secret) == crypto_sign_SEEDBYTES, "ed25519");
_Static_assert(sizeof(struct kmask_key) == KMASK_SIGNER_BYTES, "ed25519");

int kmask_secret_new(struct kmask_secret *ret_secret)
{
	if (sodium_init() < 0)
		return -EIO;
	randombytes_buf(ret_secret->seed, sizeof(ret_secret->seed));
	return 0;
}

void kmask_secret_wipe(struct kmask_secret *secret)
{
	sodium_memzero(secret, sizeof(*secret));
}

void kmask_secret_key(const struct kmask_secret *secret, struct kmask_key *ret_key)
{
	unsigned char full[crypto_sign_SECRETKEYBYTES];

	(void)crypto_sign_seed_keypair(ret_key->bytes, full, secret->seed);
	sodium_memzero(full, sizeof(full));
}

/* ---- text */

void kmask_secret_write(const struct kmask_secret *secret, char ret_line[KMASK_SECRET_LINE_BYTES])
{
	const size_t n = sizeof(secret_word) - 1;

	memcpy(ret_line, secret_word, n);
	(void)sodium_bin2hex(
		ret_line + n, KMASK_KEY_HEX_CHARS + 1, secret->seed, sizeof(secret->seed));
	memcpy(ret_line + n + KMASK_KEY_HEX_CHARS, "\n", 2);
}

void kmask_key_to_hex(const struct kmask_key *key, char ret_hex[KMASK_KEY_HEX_CHARS + 1])
{
	(void)sodium_bin2hex(ret_hex, KMASK_KEY_HEX_CHARS + 1, key->bytes, sizeof(key->bytes));
}

/* "WORD HEX", then the end of the line or a blank. */
static bool parse_line(const char *line, size_t n_chars, const char *word, uint8_t ret_bytes[32])
{
	size_t n_word = strlen(word), n_bytes;

	if (n_chars < n_word + KMASK_KEY_HEX_CHARS || memcmp(line, word, n_word) != 0)
		return false;
	if (n_chars > n_word + KMASK_KEY_HEX_CHARS && line[n_word + KMASK_KEY_HEX_CHARS] != ' ')
		return false;
	return sodium_hex2bin(ret_bytes, 32, line + n_word, KMASK_KEY_HEX_CHARS, NULL, &n_bytes,
		       NULL) == 0 &&
	       n_bytes == 32;
}

struct line {
	const char *text;
	size_t n;
	unsigned number;
};

/* The next one that says something; text NULL before the first. */
static bool next_line(struct line *line, const char *text, size_t n_chars)
{
	const char *end = text + n_chars, *p = line->text ? line->text + line->n + 1 : text;

	for (; p < end; p += line->n + 1) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));

		line->text = p;
		line->n = (size_t)((newline ? newline : end) - p);
		line->number++;
		if (line->n > 0 && *p != '#')
			return true;
	}
	return false;
}

int kmask_secret_read(
	struct kmask_secret *ret_secret, const char *text, size_t n_chars, struct diag *diag)
{
	struct kmask_secret secret;
	struct line line = { 0 };

	if (!next_line(&line, text, n_chars) ||
		!parse_line(line.text, line.n, secret_word, secret.seed) ||
		next_line(&line, text, n_chars))
		return diag_set(
			diag, EINVAL, "not a secret key: one line '%s64 digits'", secret_word);
	*ret_secret = secret;
	kmask_secret_wipe(&secret);
	return 0;
}

int kmask_keys_find(
	const char *text, size_t n_chars, const struct kmask_key *key, struct diag *diag)
{
	struct line line = { 0 };
	struct kmask_key listed;
	int found = 0;

	while (next_line(&line, text, n_chars)) {
		if (!parse_line(line.text, line.n, key_word, listed.bytes))
			return diag_set(
				diag, EINVAL, "line %u is no '%s64 digits'", line.number, key_word);
		if (memcmp(listed.bytes, key->bytes, sizeof(listed.bytes)) == 0)
			found = 1;
	}
	return found;
}

/* ---- signatures */

/* What changes in the header of a signed file, and so in the sums over it. */
static void mark_signed(uint8_t *data, size_t n_unsigned)
{
	size_t n = n_unsigned - KMASK_SUM_BYTES;

	put_u32(data + KMASK_AT_FLAGS, get_u32(data + KMASK_AT_FLAGS) | KMASK_SIGNED);
	put_u64(data + KMASK_AT_BYTES, n_unsigned + KMASK_SIGNED_BYTES);
	put_u64(data + KMASK_AT_SUM, digest_checksum(data, KMASK_AT_SUM));
	put_u64(data + n, digest_checksum(data, n));
}

int kmask_sign(const void *data, size_t n_bytes, const struct kmask_secret *secret, void **ret_data,
	size_t *ret_n_bytes, struct diag *diag)
{
	unsigned char full[crypto_sign_SECRETKEYBYTES];
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	_cleanup_(freep) uint8_t *copy = NULL;
	size_t n_signed;
	int r;

	r = kmask_open(&kmask, data, n_bytes, diag);
	if (r == 0)
		r = kmask_check_bits(kmask, diag);
	if (r < 0)
		return r;
	if (kmask->header.is_signed)
		n_bytes -= KMASK_SIGNED_BYTES;
	copy = malloc(n_bytes + KMASK_SIGNED_BYTES);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, data, n_bytes);
	mark_signed(copy, n_bytes);
	(void)crypto_sign_seed_keypair(copy + n_bytes, full, secret->seed);
	n_signed = n_bytes + KMASK_SIGNER_BYTES;
	(void)crypto_sign_detached(copy + n_signed, NULL, copy, n_signed, full);
	sodium_memzero(full, sizeof(full));
	*ret_n_bytes = n_signed + KMASK_SIGNATURE_BYTES;
	*ret_data = TAKE_PTR(copy);
	return 0;
}

int kmask_check_signature(
	const uint8_t *data, size_t n_bytes, struct kmask_key *ret_signer, struct diag *diag)
{
	size_t n_signed = n_bytes - KMASK_SIGNATURE_BYTES;
	const uint8_t *signer = data + n_signed - KMASK_SIGNER_BYTES;

	if (crypto_sign_verify_detached(data + n_signed, data, n_signed, signer) != 0)
		return diag_set(
			diag, EKEYREJECTED, "mask: the signature is not that of the key it names");
	memcpy(ret_signer->bytes, signer, sizeof(ret_signer->bytes));
	return 0;
}
