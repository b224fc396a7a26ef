/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_SOFTMAX_H
#define KAMEN_LEARN_SOFTMAX_H

#include <stdint.h>

/** One row's softmax of o / temperature into p, which may be o. @return log of the sum of exp(o / temperature) */
double softmax_row(float *p, const float *o, uint32_t k, float temperature);

#endif
