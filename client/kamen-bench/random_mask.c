/* SPDX-License-Identifier: Apache-2.0 */
#include "random_mask.h"

#include "base/rng.h"

int random_mask(
	struct mask **ret_mask, const struct mask_layout *layout, uint32_t seed, double density)
{
	struct rng rng = rng_stream(1, seed, 0, 0);
	_cleanup_(mask_freep) struct mask *mask = NULL;
	int r = mask_new(&mask, layout);

	if (r < 0)
		return r;
	for (unsigned t = 0; t < layout->n_tensors; t++)
		for (size_t i = 0; i < layout->tensors[t].n; i++)
			if ((double)rng_uniform(&rng) >= density)
				mask_put(mask, t, i, false);
	*ret_mask = TAKE_PTR(mask);
	return 0;
}
