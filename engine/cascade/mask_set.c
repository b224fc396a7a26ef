/* SPDX-License-Identifier: Apache-2.0 */
#include "cascade/mask_set.h"

#include <errno.h>

void mask_set_free(struct mask_set *set)
{
	if (!set)
		return;
	for (uint32_t m = 0; m <= CASCADE_MAX_EXPERTS; m++) {
		mask_free(set->masks[m]);
		mask_rest_free(set->rests[m]);
	}
	whiten_free(set->route);
	gmm_free(set->mixture);
	whiten_free(set->fusion);
	free(set);
}

int mask_set_of(struct mask_set **ret_set, struct mask *mask, const struct mask_layout *layout,
	uint32_t width)
{
	_cleanup_(mask_set_freep) struct mask_set *set = calloc(1, sizeof(*set));
	_cleanup_(mask_freep) struct mask *all = NULL;
	int r;

	if (!set)
		return -ENOMEM;
	if (!mask) {
		r = mask_new(&all, layout);
		if (r < 0)
			return r;
	}
	set->width = set->n_out = width;
	set->ids[0] = set->id = mask_digest(mask ? mask : all);
	set->masks[0] = mask;
	*ret_set = TAKE_PTR(set);
	return 0;
}

static bool fits(const struct mask_set_parts *parts)
{
	uint32_t n = parts->n_experts, width = parts->width;

	if (n == 0 || n > CASCADE_MAX_EXPERTS || parts->mode >= CASCADE_N_MODES)
		return false;
	for (uint32_t m = 0; m <= n; m++)
		if (!parts->masks[m])
			return false;
	return parts->route && parts->mixture && parts->fusion && parts->route->n_in == width &&
	       parts->mixture->dim == parts->route->n_out && parts->route->n_out <= width &&
	       parts->mixture->n_components == n && parts->fusion->n_in == (1 + n) * width &&
	       parts->fusion->n_out <= width;
}

static void digest_whiten(struct digest_state *state, const struct whiten *whiten)
{
	digest_update(state, whiten->mean, whiten->n_in * sizeof(*whiten->mean));
	digest_update(
		state, whiten->axes, (size_t)whiten->n_out * whiten->n_in * sizeof(*whiten->axes));
}

static struct digest digest_all(const struct mask_set *set)
{
	static const char domain[] = "kamen cascade 1";
	const struct gmm *mixture = set->mixture;
	const uint32_t sizes[] = { set->n_experts, (uint32_t)set->mode, set->width, set->n_out,
		mixture->dim };
	const size_t n = mixture->n_components, dim = mixture->dim;
	struct digest_state state;

	digest_init(&state);
	digest_update(&state, domain, sizeof(domain));
	digest_update(&state, sizes, sizeof(sizes));
	for (uint32_t m = 0; m <= set->n_experts; m++)
		digest_update(&state, set->ids[m].bytes, DIGEST_BYTES);
	digest_whiten(&state, set->route);
	digest_update(&state, mixture->bias, n * sizeof(*mixture->bias));
	digest_update(&state, mixture->means, n * dim * sizeof(*mixture->means));
	digest_update(&state, mixture->factors,
		n * gmm_factor_size(mixture->dim) * sizeof(*mixture->factors));
	digest_whiten(&state, set->fusion);
	return digest_final(&state);
}

int mask_set_join(struct mask_set **ret_set, const struct mask_set_parts *parts)
{
	struct mask_set *set;

	if (!fits(parts))
		return -EINVAL;
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	set->n_experts = parts->n_experts;
	set->mode = parts->mode;
	set->width = parts->width;
	set->n_out = parts->fusion->n_out;
	for (uint32_t m = 0; m <= parts->n_experts; m++) {
		set->masks[m] = parts->masks[m];
		set->ids[m] = mask_digest(parts->masks[m]);
	}
	set->route = parts->route;
	set->mixture = parts->mixture;
	set->fusion = parts->fusion;
	set->id = digest_all(set);
	*ret_set = set;
	return 0;
}

int mask_set_lay_down(struct mask_set *set)
{
	for (uint32_t m = 0; m <= set->n_experts; m++) {
		int r;

		if (!set->masks[m])
			continue;
		r = mask_rest_new(&set->rests[m], set->masks[m]);
		if (r < 0)
			return r;
		mask_free(set->masks[m]);
		set->masks[m] = NULL;
	}
	return 0;
}

int mask_set_apply(const struct mask_set *set, uint32_t m, struct slot *slot, struct mask *room)
{
	return set->rests[m] ? slot_apply_rest(slot, set->rests[m], room)
			     : slot_apply(slot, set->masks[m]);
}

uint32_t mask_set_n_forwards(const struct mask_set *set)
{
	if (set->n_experts == 0)
		return 1;
	return set->mode == CASCADE_CONDITIONAL ? 2 : 1 + set->n_experts;
}

double mask_set_density(const struct mask_set *set)
{
	double sum = 0;

	for (uint32_t m = 0; m <= set->n_experts; m++)
		sum += set->masks[m] ? mask_density(set->masks[m]) : 1;
	return sum / (1 + set->n_experts);
}

double mask_set_lowest_density(const struct mask_set *set)
{
	double lowest = 1;

	for (uint32_t m = 0; m <= set->n_experts; m++) {
		double own = set->masks[m] ? mask_lowest_density(set->masks[m]) : 1;

		lowest = own < lowest ? own : lowest;
	}
	return lowest;
}

uint64_t mask_set_n_flips(const struct mask_set *set)
{
	uint64_t n = 0;

	for (uint32_t m = 0; m <= set->n_experts; m++)
		for (unsigned t = 0; set->masks[m] && t < set->masks[m]->layout->n_tensors; t++)
			n += set->masks[m]->layout->tensors[t].n - set->masks[m]->n_on[t];
	return n;
}
