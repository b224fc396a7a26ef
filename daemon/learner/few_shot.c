/* SPDX-License-Identifier: Apache-2.0 */
#include "learner/few_shot.h"

#include <string.h>

#include "learner/embedding.h"
#include "learner/results.h"

static int measure(struct figures *ret_figures, struct figures_detail *ret_detail,
	const struct results_job *job, struct slot *slot, const struct mask_set *set,
	const struct image_source *source)
{
	_cleanup_(freep) float *rows = NULL;
	int r;

	r = embedding_of_set(&rows, job->vit, slot, set, job->prep, source);
	return r < 0 ? r
		     : figures_compute(ret_figures, ret_detail, rows, source->labels, source->n,
			       set->n_out, source->n_classes, job->seed);
}

static int compare(struct few_shot *few_shot, const struct results_job *job, struct slot *slot,
	const struct mask_set *base, const struct image_source *source)
{
	_cleanup_(figures_detail_done) struct figures_detail frozen = { 0 }, candidate = { 0 };
	int r;

	r = measure(&few_shot->frozen, &frozen, job, slot, base, source);
	if (r == 0)
		r = measure(&few_shot->candidate, &candidate, job, slot, job->set, source);
	if (r == 0)
		r = figures_compare_queries(&few_shot->shot1, &few_shot->shot5, &frozen, &candidate,
			source->labels, source->n, source->n_classes, job->seed);
	return r;
}

int few_shot_judge(struct few_shot *ret_few_shot, const struct results_job *job, struct slot *slot,
	const struct mask_set *base)
{
	_cleanup_(images_labelled_done) struct images_labelled labelled = { 0 };
	struct few_shot few_shot = { 0 };
	struct image_source source;
	int r;

	r = images_labelled_judged(&labelled, job->images, FEW_SHOT_OF_CLASS, FEW_SHOT_MAX);
	if (r < 0)
		return r;
	*ret_few_shot = few_shot;
	if (labelled.n_classes < 2)
		return 0;
	source = images_labelled_source(&labelled);
	r = compare(&few_shot, job, slot, base, &source);
	if (r < 0)
		return r;
	few_shot.n = source.n;
	few_shot.n_classes = source.n_classes;
	*ret_few_shot = few_shot;
	return 0;
}
