/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_RESIZE_ROW_H
#define KAMEN_IMAGE_RESIZE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The loops of a resize over one row. Weights are 16-bit fixed-point with as many bits of fraction
 * as the largest of an axis allows (14 or more): products of 16 bits are what every vector unit
 * multiplies and adds fastest. They sum to exactly 1, so that a flat image stays flat; against PIL's
 * 22 bits a level may round otherwise. Sums are of integers: every instruction set gives the same.
 */

/** Taps are padded with zeros to whole vectors. */
#define RESIZE_BLOCK 8u

/** The source pixels of one destination pixel. */
struct resize_span {
	uint32_t begin, n;
};

struct resize_axis {
	struct resize_span *spans; /* (n_dst) */
	int16_t *weights;          /* (n_dst, n_blocks * RESIZE_BLOCK) */
	uint32_t n_dst, n_blocks;
	unsigned fraction_bits;
	size_t spans_bytes, weights_bytes;
};

/** n pixels of n_channels, 1 or 3, to as many planes, n_plane apart. */
typedef void kern_resize_split_fn(int16_t *restrict planes, size_t n_plane,
	const uint8_t *restrict src, uint32_t n, unsigned n_channels);
/** dst (n_dst) from a plane that begins with source pixel `first`. */
typedef void kern_resize_across_fn(uint8_t *restrict dst, const int16_t *restrict plane,
	uint32_t first, const struct resize_axis *axis);
/** dst (n) from dense rows of n, as many as there are weights. */
typedef void kern_resize_down_fn(uint8_t *restrict dst, const uint8_t *restrict rows, size_t n,
	const int16_t *restrict weights, uint32_t n_rows, unsigned fraction_bits);
/** dst = src * scale - shift of n values. */
typedef void kern_resize_level_fn(
	float *restrict dst, const uint8_t *restrict src, size_t n, float scale, float shift);

struct kern_resize_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_resize_split_fn *split;
	kern_resize_across_fn *across;
	kern_resize_down_fn *down;
	kern_resize_level_fn *level;
};

/** Fastest first; name NULL ends it. */
extern const struct kern_resize_impl kern_resize_impls[];
const struct kern_resize_impl *kern_resize_fastest(void);

kern_resize_split_fn kern_resize_split_c, kern_resize_split_avx2, kern_resize_split_avx512;
kern_resize_across_fn kern_resize_across_c, kern_resize_across_avx2;
kern_resize_down_fn kern_resize_down_c, kern_resize_down_avx2;
kern_resize_level_fn kern_resize_level_c, kern_resize_level_avx2, kern_resize_level_avx512;

#endif
