/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "learn/objective.h"

static const struct objective_kind *const objective_kinds[] = {
	[RECIPE_SWAV] = &objective_swav,
	[RECIPE_SUPERVISED] = &objective_supervised,
	[RECIPE_MICM] = &objective_micm,
	[RECIPE_MASKSUB] = &objective_masksub,
	[RECIPE_HPM] = &objective_hpm,
};

const struct objective_kind *objective_kind(enum recipe_objective objective)
{
	return objective_kinds[objective];
}

uint32_t objective_n_views(const struct branch *branches, uint32_t n_branches, bool small)
{
	uint32_t n = 0;

	for (uint32_t b = 0; b < n_branches; b++) {
		uint32_t end = branches[b].first_view + branches[b].n_views;

		if (branches[b].is_small == small && end > n)
			n = end;
	}
	return n;
}

bool objective_has_teacher(const struct branch *branches, uint32_t n_branches)
{
	for (uint32_t b = 0; b < n_branches; b++)
		if (branches[b].network == BRANCH_TEACHER)
			return true;
	return false;
}

struct pass_options objective_pass(const struct recipe *recipe, const struct branch *branch)
{
	return (struct pass_options){
		.px = branch->is_small ? recipe->small_px : recipe->large_px,
		.first_block = recipe->first_block,
		.precision = recipe->precision,
		.branch = *branch,
	};
}

uint32_t objective_n_figures(const struct objective_kind *kind)
{
	uint32_t n = 0;

	while (kind->figures && kind->figures[n])
		n++;
	return n;
}

int objective_new(
	struct objective **ret_objective, const struct objective_setup *setup, struct diag *diag)
{
	return objective_new_of(
		ret_objective, objective_kind(setup->recipe->objective), setup, diag);
}

int objective_new_of(struct objective **ret_objective, const struct objective_kind *kind,
	const struct objective_setup *setup, struct diag *diag)
{
	struct objective *objective;
	int r;

	if (kind->wants_labels && (!setup->source->labels || setup->source->n_classes < 2))
		return diag_set(
			diag, EINVAL, "objective %s: the images have no labels", kind->name);
	r = kind->make(&objective, setup);
	if (r < 0)
		return diag_set(
			diag, -r, "objective %s: cannot be made: %s", kind->name, strerror(-r));
	objective->kind = kind;
	objective->n_branches =
		kind->branches(setup->recipe, vit_shape(setup->vit), objective->branches);
	*ret_objective = objective;
	return 0;
}

void objective_free(struct objective *objective)
{
	if (objective)
		objective->kind->free(objective);
}
