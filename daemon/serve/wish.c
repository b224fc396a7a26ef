/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/wish.h"

#include <errno.h>

#define DEFAULT_SEED 1 /* of rounds by themselves too: only the images differ */

/* Of the site's recipe, unless another one was asked for. What a learner would refuse is refused
 * here, before there is a version. */
static int find_objective(enum recipe_objective *ret_objective, const struct site *site,
	const char *asked, struct diag *diag)
{
	struct recipe recipe = { .experts = site->settings.experts };
	int r = recipe_read(&recipe, site->settings.recipe, diag);

	if (r == 0 && asked && *asked)
		r = recipe_set(&recipe, "objective", asked, diag);
	if (r < 0)
		return r;
	if (recipe.experts > 0 && recipe.objective != RECIPE_SWAV)
		return diag_set(diag, EINVAL,
			"site %s: experts of a cascade are learnt by swav, not otherwise",
			site->name);
	*ret_objective = recipe.objective;
	return 0;
}

int wish_make(struct round_wish *ret_wish, const struct site *site, const Kamen__Learn *learn,
	const char *who, struct diag *diag)
{
	enum recipe_objective objective = RECIPE_SWAV;
	int r;

	r = find_objective(&objective, site, learn ? learn->objective : NULL, diag);
	if (r < 0)
		return r;
	*ret_wish = (struct round_wish){
		.who = who,
		.min_images = site->settings.learn_min_images,
		.steps = learn && learn->has_steps ? learn->steps : site->settings.learn_steps,
		.seed = learn && learn->has_seed ? learn->seed : DEFAULT_SEED,
		.objective = learn ? learn->objective : NULL,
		.wants_labels = recipe_wants_labels(objective),
	};
	return 0;
}
