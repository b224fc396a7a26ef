/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_WHITEN_FIT_H
#define KAMEN_LEARN_WHITEN_FIT_H

#include "cascade/whiten.h"

/**
 * A direction in which the rows do not vary beyond rounding comes out as 0.
 *
 * @param rows  (n, n_in)
 * @return 0, -EINVAL: n_out is not in 1..n_in or n is 0, -ENOMEM, -EDOM: a value is not finite
 */
int whiten_fit(
	struct whiten **ret_whiten, const float *rows, uint32_t n, uint32_t n_in, uint32_t n_out);

#endif
