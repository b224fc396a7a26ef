/* SPDX-License-Identifier: Apache-2.0 */
#include "cascade/whiten.h"

#include <errno.h>

int whiten_new(struct whiten **ret_whiten, uint32_t n_in, uint32_t n_out)
{
	_cleanup_(whiten_freep) struct whiten *whiten = calloc(1, sizeof(*whiten));

	if (!whiten)
		return -ENOMEM;
	whiten->n_in = n_in;
	whiten->n_out = n_out;
	whiten->mean = malloc(n_in * sizeof(*whiten->mean));
	whiten->axes = malloc((size_t)n_out * n_in * sizeof(*whiten->axes));
	if (!whiten->mean || !whiten->axes)
		return -ENOMEM;
	*ret_whiten = TAKE_PTR(whiten);
	return 0;
}

void whiten_free(struct whiten *whiten)
{
	if (!whiten)
		return;
	free(whiten->mean);
	free(whiten->axes);
	free(whiten);
}
