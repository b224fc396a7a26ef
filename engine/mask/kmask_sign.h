/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_KMASK_SIGN_H
#define KAMEN_MASK_KMASK_SIGN_H

#include "mask/kmask.h"

#define KMASK_KEY_HEX_CHARS 64

/** What a key is made of. Wiped by who holds it: kmask_secret_wipe(). */
struct kmask_secret {
	uint8_t seed[32];
};

/** A new one, from the kernel's randomness. */
int kmask_secret_new(struct kmask_secret *ret_secret);
void kmask_secret_wipe(struct kmask_secret *secret);
void kmask_secret_key(const struct kmask_secret *secret, struct kmask_key *ret_key);

/*
 * Text of the files, a line a key: "kamen-mask-secret HEX" and "kamen-mask-key HEX NAME"; empty lines
 * and those that begin with # say nothing.
 */
#define KMASK_SECRET_LINE_BYTES 128
void kmask_secret_write(const struct kmask_secret *secret, char ret_line[KMASK_SECRET_LINE_BYTES]);
/** @return 0, or -EINVAL: not one secret key */
int kmask_secret_read(
	struct kmask_secret *ret_secret, const char *text, size_t n_chars, struct diag *diag);
void kmask_key_to_hex(const struct kmask_key *key, char ret_hex[KMASK_KEY_HEX_CHARS + 1]);
/** Whether a list has the key. @return 1, 0, or -EINVAL: line N is no key */
int kmask_keys_find(
	const char *text, size_t n_chars, const struct kmask_key *key, struct diag *diag);

/** Signs what kmask_open() and kmask_check_bits() take, instead of whoever signed before. *ret_data
 * malloc'ed. */
int kmask_sign(const void *data, size_t n_bytes, const struct kmask_secret *secret, void **ret_data,
	size_t *ret_n_bytes, struct diag *diag);

/** Of a signed file of the right size. -EKEYREJECTED: the signature is not that of its key. */
int kmask_check_signature(
	const uint8_t *data, size_t n_bytes, struct kmask_key *ret_signer, struct diag *diag);

#endif
