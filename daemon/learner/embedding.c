/* SPDX-License-Identifier: Apache-2.0 */
#include "learner/embedding.h"

#include <errno.h>

int embedding_rows(float **ret_rows, struct vit *vit, const struct slot *slot,
	const struct prep *prep, const struct image_source *source)
{
	size_t width = vit_shape(vit)->width;
	_cleanup_(freep) float *rows = malloc((source->n * width + 1) * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	r = judge_embed(rows, vit, slot, prep, source);
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	return 0;
}

int embedding_of_set(float **ret_rows, struct vit *vit, struct slot *slot,
	const struct mask_set *set, const struct prep *prep, const struct image_source *source)
{
	_cleanup_(freep) float *rows = malloc(((size_t)source->n * set->n_out + 1) * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	r = judge_embed_set(rows, vit, slot, set, prep, source);
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	return 0;
}

int embedding_of_base(float **ret_rows, struct vit *vit, const struct prep *prep,
	const struct image_source *source)
{
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(freep) float *rows = NULL;
	int r;

	r = vit_slot_new(&slot, vit, SLOT_INFER);
	if (r == 0)
		r = slot_apply(slot, NULL);
	if (r == 0)
		r = embedding_rows(&rows, vit, slot, prep, source);
	if (r < 0)
		return r;
	cosine_normalise(rows, rows, source->n, vit_shape(vit)->width);
	*ret_rows = TAKE_PTR(rows);
	return 0;
}
