/* SPDX-License-Identifier: Apache-2.0 */
#include "cascade/gmm.h"

#include <errno.h>
#include <math.h>

int gmm_new(struct gmm **ret_gmm, uint32_t n_components, uint32_t dim)
{
	_cleanup_(gmm_freep) struct gmm *gmm = calloc(1, sizeof(*gmm));
	size_t k = n_components;

	if (!gmm)
		return -ENOMEM;
	gmm->n_components = n_components;
	gmm->dim = dim;
	gmm->bias = malloc(k * sizeof(*gmm->bias));
	gmm->means = malloc(k * dim * sizeof(*gmm->means));
	gmm->factors = malloc(k * gmm_factor_size(dim) * sizeof(*gmm->factors));
	if (!gmm->bias || !gmm->means || !gmm->factors)
		return -ENOMEM;
	*ret_gmm = TAKE_PTR(gmm);
	return 0;
}

void gmm_free(struct gmm *gmm)
{
	if (!gmm)
		return;
	free(gmm->bias);
	free(gmm->means);
	free(gmm->factors);
	free(gmm);
}

uint32_t gmm_assign(const struct gmm *gmm, const float *row)
{
	double highest = -INFINITY;
	uint32_t best = 0;

	for (uint32_t c = 0; c < gmm->n_components; c++) {
		const float *factor = gmm->factors + c * gmm_factor_size(gmm->dim);
		const float *mean = gmm->means + (size_t)c * gmm->dim;
		double here = (double)gmm->bias[c];

		for (uint32_t a = 0; a < gmm->dim; a++) {
			double along = 0;

			for (uint32_t b = 0; b <= a; b++)
				along += (double)*factor++ * ((double)row[b] - (double)mean[b]);
			here -= along * along / 2;
		}
		if (here > highest) {
			highest = here;
			best = c;
		}
	}
	return best;
}
