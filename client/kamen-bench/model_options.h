/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_MODEL_OPTIONS_H
#define KAMEN_BENCH_MODEL_OPTIONS_H

#include "bench.h"

/** What a command takes that measures models, each in some precisions. */
struct model_options {
	const char *file, *random, *precisions, *batch, *threads, *size;
};

/** Rows of a command's options; o: a struct model_options. */
#define MODEL_OPTION_SPECS(o, batch_help, size_help) \
	{ "model", "FILE", "safetensors file of a ViT", &(o).file, NULL }, \
		{ "random", "NAME[,NAME]", "untrained: vit_t, vit_s, vit_b, vit_demo", \
			&(o).random, NULL }, \
		{ "precision", "NAME[,NAME]", \
			"of f32 (default), bf16, int8 (not for learning), as the CPU has", \
			&(o).precisions, NULL }, \
		{ "batch", "N", batch_help, &(o).batch, NULL }, \
		{ "threads", "N", "of all that computes; else one a processor", &(o).threads, \
			NULL }, \
	{ \
		"size", "PX", size_help, &(o).size, NULL \
	}

/** Checks them and sets OpenMP's threads; false: said. fallback: of the batch, from min up. */
bool model_options_take(const struct ctl *ctl, struct model_options *o, uint32_t min_batch,
	uint32_t fallback, uint32_t *ret_batch, uint32_t *ret_px);

#endif
