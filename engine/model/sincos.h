/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_SINCOS_H
#define KAMEN_MODEL_SINCOS_H

#include <stdint.h>

/**
 * Fixed positions in two dimensions, as MAE has them: dst (1 + grid^2, width), 0 for the class token,
 * the first half of a row by the column, the second by the row: sines, then cosines, of falling
 * frequency. width: a multiple of 4.
 */
void sincos_positions(float *dst, uint32_t width, uint32_t grid);
/** The same where what was learnt is the positions of another grid over the same image: a patch's are
 * those of its middle there. */
void sincos_positions_like(float *dst, uint32_t width, uint32_t grid, uint32_t other);

#endif
