/* SPDX-License-Identifier: Apache-2.0 */
#include "image/resize_row.h"

#include "base/cpu.h"

static uint8_t round_clip(int32_t sum, unsigned fraction_bits)
{
	int32_t value = (sum + (1 << (fraction_bits - 1))) >> fraction_bits;

	return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

void kern_resize_across_c(uint8_t *restrict dst, const int16_t *restrict plane, uint32_t first,
	const struct resize_axis *axis)
{
	const uint32_t n_taps = axis->n_blocks * RESIZE_BLOCK;

	for (uint32_t x = 0; x < axis->n_dst; x++) {
		const int16_t *weights = axis->weights + (size_t)x * n_taps;
		const int16_t *p = plane + (axis->spans[x].begin - first);
		int32_t sum = 0;

		for (uint32_t i = 0; i < n_taps; i++)
			sum += p[i] * weights[i];
		dst[x] = round_clip(sum, axis->fraction_bits);
	}
}

void kern_resize_down_c(uint8_t *restrict dst, const uint8_t *restrict rows, size_t n,
	const int16_t *restrict weights, uint32_t n_rows, unsigned fraction_bits)
{
	for (size_t x = 0; x < n; x++) {
		int32_t sum = 0;

		for (uint32_t i = 0; i < n_rows; i++)
			sum += rows[i * n + x] * weights[i];
		dst[x] = round_clip(sum, fraction_bits);
	}
}

const struct kern_resize_impl kern_resize_impls[] = {
#ifdef KAMEN_X86
	/* Pairs of 16 bits by hand come in 256 bits only. */
	{ "avx512", "avx512bw", kern_resize_split_avx512, kern_resize_across_avx2,
		kern_resize_down_avx2, kern_resize_level_avx512 },
	{ "avx2", "avx2", kern_resize_split_avx2, kern_resize_across_avx2, kern_resize_down_avx2,
		kern_resize_level_avx2 },
#endif
	{ "c", NULL, kern_resize_split_c, kern_resize_across_c, kern_resize_down_c,
		kern_resize_level_c },
	{ NULL, NULL, NULL, NULL, NULL, NULL },
};

const struct kern_resize_impl *kern_resize_fastest(void)
{
	return cpu_fastest(kern_resize_impls);
}
