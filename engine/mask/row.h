/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_ROW_H
#define KAMEN_MASK_ROW_H

#include "mask/bits.h"

kern_mask_row_fn kern_mask_row_c, kern_mask_row_avx2, kern_mask_row_avx512;

#endif
