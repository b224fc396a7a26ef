/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_KMASK_FORMAT_H
#define KAMEN_MASK_KMASK_FORMAT_H

/*
 * A .kmask file, all integers little-endian:
 *
 *   header   KMASK_HEADER_BYTES
 *        0  magic "KAMNMSK1"
 *        8  u32 version (1)
 *       12  u32 flags (0)
 *       16  u64 bytes of the whole file
 *       24  u64 elements: sum of n over the tensors
 *       32  u64 kept: sum of n_on
 *       40  u64 seed
 *       48  u32 steps
 *       52  u32 tensors
 *       56  base digest, 32 bytes
 *       88  preprocessing digest, 32 bytes
 *      120  mask digest (mask_digest()), 32 bytes
 *      152  u64 XXH3 of the bytes 0..151
 *   table    KMASK_ROW_BYTES per tensor, in the order of the base's canonical list
 *        0  u32 index, 4 u32 n, 8 u32 n_on, 12 u32 bytes of its payload
 *       16  u64 XXH3 of its payload
 *   payload  per tensor: the bits from first to last through a binary range coder with the one
 *            probability n_on / n (kmask_coder.h); nothing at all where n_on is 0 or n
 *   trailer  KMASK_TRAILER_BYTES
 *        0  u64 XXH3 of every byte before it
 *        8  64 bytes of room for a signature over every byte before it; zero: not signed
 */
#define KMASK_MAGIC "KAMNMSK1"
#define KMASK_VERSION 1
#define KMASK_HEADER_BYTES 160
#define KMASK_HEADER_SUM 152
#define KMASK_ROW_BYTES 24
#define KMASK_TRAILER_BYTES 72

#endif
