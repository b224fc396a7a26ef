/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_RANDOM_MASK_H
#define KAMEN_BENCH_RANDOM_MASK_H

#include "mask/bits.h"

/** Every bit up with probability density, by a seed. @return 0 or -ENOMEM */
int random_mask(
	struct mask **ret_mask, const struct mask_layout *layout, uint32_t seed, double density);

#endif
