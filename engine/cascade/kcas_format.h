/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CASCADE_KCAS_FORMAT_H
#define KAMEN_CASCADE_KCAS_FORMAT_H

#include "mask/kmask_format.h"

/*
 * A .kcas file as kamen-cascade(5) has it, all integers and floats little-endian:
 *
 *   header   KCAS_HEADER_BYTES
 *   sizes    u64 of each mask's file, the dispatcher's first
 *   values   f32: route mean (width), axes (n_route, width); mixture bias (n), means (n, n_route),
 *            factors (n, n_route (n_route + 1) / 2); fusion mean ((1 + n) width), axes (n_out, that)
 *            u64 XXH3 of sizes and values
 *   masks    a .kmask each, not signed
 *   trailer  u64 XXH3 of every byte before it
 */
#define KCAS_MAGIC "KAMNCAS1"
#define KCAS_VERSION 1
#define KCAS_MAX_WIDTH 65536u

#define KCAS_AT_VERSION 8
#define KCAS_AT_MODE 12
#define KCAS_AT_BYTES 16
#define KCAS_AT_SEED 24
#define KCAS_AT_STEPS 32
#define KCAS_AT_EXPERTS 36
#define KCAS_AT_WIDTH 40
#define KCAS_AT_ROUTE 44
#define KCAS_AT_OUT 48
#define KCAS_AT_ZERO 52
#define KCAS_AT_BASE 56
#define KCAS_AT_PREP 88
#define KCAS_AT_ID 120
#define KCAS_AT_SUM 152
#define KCAS_HEADER_BYTES 160
#define KCAS_SUM_BYTES 8

#endif
