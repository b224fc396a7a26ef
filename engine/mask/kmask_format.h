/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_KMASK_FORMAT_H
#define KAMEN_MASK_KMASK_FORMAT_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * A .kmask file as kamen-mask(5) has it, all integers little-endian:
 *
 *   header     KMASK_HEADER_BYTES
 *   table      a row per tensor, in the order of the base's canonical list: varints n, n_off,
 *              payload bytes; then u32 XXH3 (low half) of the payload unless that is empty
 *              u64 XXH3 of the rows
 *   payloads   per tensor: gaps between its rarer bits (kmask_coder.h); empty where there are none
 *   trailer    u64 XXH3 of every byte before it
 *   signature  only with KMASK_SIGNED: public key, ed25519 of every byte before the signature
 */
#define KMASK_MAGIC "KAMNMSK1"
#define KMASK_VERSION 1
#define KMASK_SIGNED 1u /* of flags */

#define KMASK_AT_VERSION 8
#define KMASK_AT_FLAGS 12
#define KMASK_AT_BYTES 16
#define KMASK_AT_ELEMENTS 24
#define KMASK_AT_KEPT 32
#define KMASK_AT_SEED 40
#define KMASK_AT_STEPS 48
#define KMASK_AT_TENSORS 52
#define KMASK_AT_BASE 56
#define KMASK_AT_PREP 88
#define KMASK_AT_MASK 120
#define KMASK_AT_TABLE 152 /* bytes of the rows */
#define KMASK_AT_ZERO 156
#define KMASK_AT_SUM 160
#define KMASK_HEADER_BYTES 168

#define KMASK_SUM_BYTES 8
#define KMASK_PAYLOAD_SUM_BYTES 4
#define KMASK_SIGNER_BYTES 32
#define KMASK_SIGNATURE_BYTES 64
#define KMASK_SIGNED_BYTES (KMASK_SIGNER_BYTES + KMASK_SIGNATURE_BYTES)
/* Three varints of 32 bits and the sum. */
#define KMASK_MAX_ROW_BYTES (3 * 5 + KMASK_PAYLOAD_SUM_BYTES)

static inline void put_u32(uint8_t *p, uint32_t value)
{
	value = htole32(value);
	memcpy(p, &value, sizeof(value));
}

static inline void put_u64(uint8_t *p, uint64_t value)
{
	value = htole64(value);
	memcpy(p, &value, sizeof(value));
}

static inline uint32_t get_u32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return le32toh(value);
}

static inline uint64_t get_u64(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return le64toh(value);
}

/** Seven bits a byte, lowest first, the top bit says that more follow. @return past its end */
static inline uint8_t *put_varint(uint8_t *p, uint32_t value)
{
	for (; value >= 0x80; value >>= 7)
		*p++ = (uint8_t)(value | 0x80);
	*p++ = (uint8_t)value;
	return p;
}

/** @return past its end, or NULL: cut off, over 32 bits, or longer than it has to be */
static inline const uint8_t *get_varint(const uint8_t *p, const uint8_t *end, uint32_t *ret_value)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 35; shift += 7) {
		if (p == end)
			return NULL;
		value |= (uint64_t)(*p & 0x7f) << shift;
		if (*p++ & 0x80)
			continue;
		if (value > UINT32_MAX || (shift > 0 && p[-1] == 0))
			return NULL;
		*ret_value = (uint32_t)value;
		return p;
	}
	return NULL;
}

#endif
