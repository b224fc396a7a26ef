/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/plans.h"

#include <errno.h>

#include "serve/limits.h"

#define MAX_PLANS 24u

struct plan {
	struct vit_plan *plan;
	struct vit_plan_options options;
	uint64_t last;
};

struct plans {
	struct vit *vit; /* borrowed */
	uint32_t max_batch;
	_Atomic uint64_t *n_made;
	struct plan plans[MAX_PLANS];
	uint64_t clock;
};

int plans_new(
	struct plans **ret_plans, struct vit *vit, uint32_t max_batch, _Atomic uint64_t *n_made)
{
	struct plans *plans = calloc(1, sizeof(*plans));

	if (!plans)
		return -ENOMEM;
	plans->vit = vit;
	plans->max_batch = max_batch;
	plans->n_made = n_made;
	*ret_plans = plans;
	return 0;
}

void plans_free(struct plans *plans)
{
	for (unsigned i = 0; plans && i < MAX_PLANS; i++)
		vit_plan_free(plans->plans[i].plan);
	free(plans);
}

static uint64_t plan_pixels(uint32_t batch, uint32_t px)
{
	return (uint64_t)batch * px * px;
}

/* Activations grow with the pixels of an input: they, not the number of plans, are what is bounded.
 * One that is too large by itself is then alone. */
static struct plan *room_for_plan(struct plans *plans, uint64_t wanted)
{
	const uint64_t budget = plan_pixels(plans->max_batch, SERVE_MAX_PX);

	for (;;) {
		struct plan *oldest = NULL, *unused = NULL;
		uint64_t held = 0;

		for (unsigned i = 0; i < MAX_PLANS; i++) {
			struct plan *p = &plans->plans[i];

			if (!p->plan) {
				unused = p;
				continue;
			}
			held += plan_pixels(p->options.batch, p->options.px);
			if (!oldest || p->last < oldest->last)
				oldest = p;
		}
		if (unused && (!oldest || held + wanted <= budget))
			return unused;
		vit_plan_free(oldest->plan);
		*oldest = (struct plan){ .plan = NULL };
	}
}

static bool is_same(const struct vit_plan_options *a, const struct vit_plan_options *b)
{
	return a->batch == b->batch && a->px == b->px && a->precision == b->precision &&
	       a->tokens_out == b->tokens_out && a->pooled == b->pooled;
}

int plans_take(
	struct plans *plans, const struct vit_plan_options *options, struct vit_plan **ret_plan)
{
	struct plan *made;
	int r;

	for (unsigned i = 0; i < MAX_PLANS; i++) {
		struct plan *p = &plans->plans[i];

		if (p->plan && is_same(&p->options, options)) {
			p->last = ++plans->clock;
			*ret_plan = p->plan;
			return 0;
		}
	}
	made = room_for_plan(plans, plan_pixels(options->batch, options->px));
	r = vit_plan_open(&made->plan, plans->vit, options);
	if (r < 0)
		return r;
	made->options = *options;
	made->last = ++plans->clock;
	atomic_fetch_add(plans->n_made, 1);
	*ret_plan = made->plan;
	return 0;
}
