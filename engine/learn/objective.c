/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "learn/objective.h"

static const struct objective_kind *const objective_kinds[] = {
	[RECIPE_SWAV] = &objective_swav,
	[RECIPE_SUPERVISED] = &objective_supervised,
};

const struct objective_kind *objective_kind(enum recipe_objective objective)
{
	return objective_kinds[objective];
}

int objective_new(
	struct objective **ret_objective, const struct objective_setup *setup, struct diag *diag)
{
	const struct objective_kind *kind = objective_kind(setup->recipe->objective);
	int r;

	if (kind->wants_labels && (!setup->source->labels || setup->source->n_classes < 2))
		return diag_set(
			diag, EINVAL, "objective %s: the images have no labels", kind->name);
	r = kind->make(ret_objective, setup);
	if (r < 0)
		return r;
	(*ret_objective)->kind = kind;
	return 0;
}

void objective_free(struct objective *objective)
{
	if (objective)
		objective->kind->free(objective);
}
