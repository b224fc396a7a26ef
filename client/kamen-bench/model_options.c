/* SPDX-License-Identifier: Apache-2.0 */
#include "model_options.h"

#include <omp.h>

bool model_options_take(const struct ctl *ctl, struct model_options *o, uint32_t min_batch,
	uint32_t fallback, uint32_t *ret_batch, uint32_t *ret_px)
{
	unsigned long long batch, threads, px;

	if (!bench_number(ctl, "batch", o->batch, min_batch, 256, fallback, &batch) ||
		!bench_number(ctl, "threads", o->threads, 1, 256, 0, &threads) ||
		!bench_number(ctl, "size", o->size, 16, 1024, 0, &px))
		return false;
	if (!o->file == !o->random) {
		(void)ctl_fail(ctl, EXIT_USAGE, "wants --model or --random");
		return false;
	}
	if (threads)
		omp_set_num_threads((int)threads);
	if (!o->precisions)
		o->precisions = "f32";
	*ret_batch = (uint32_t)batch;
	*ret_px = (uint32_t)px;
	return true;
}
