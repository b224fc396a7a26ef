/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_COLOUR_H
#define KAMEN_IMAGE_COLOUR_H

#include <stddef.h>

/*
 * The steps of colour jitter on planar floats in [0, 1], in place: rgb is (3, n). The formulas of
 * torchvision's on tensors; results stay in [0, 1].
 */
void colour_brightness(float *rgb, size_t n, float factor);
void colour_contrast(float *rgb, size_t n, float factor); /* around the image's mean grey */
void colour_saturation(float *rgb, size_t n, float factor);
/** shift is a part of the whole circle, in [-0.5, 0.5]. */
void colour_hue(float *rgb, size_t n, float shift);
void colour_grey(float *rgb, size_t n);
/** Inverts what is 128 of 255 or brighter. */
void colour_solarize(float *rgb, size_t n);

#endif
