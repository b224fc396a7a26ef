/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "classify/figures.h"
#include "learn/judge.h"
#include "model/vit_params.h"
#include "pretrain.h"

int pretrain_worth(struct figures *ret_figures, const struct pretrain *p,
	const struct pretrain_options *options, bool teacher, struct diag *diag)
{
	_cleanup_(folder_freep) struct folder *folder = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(freep) float *embeddings = NULL;
	struct image_source source;
	int r;

	r = folder_open(&folder, options->folder, FOLDER_HELD, 2 * p->prep.input_px, diag);
	if (r < 0)
		return r;
	source = folder_source(folder);
	/* A copy: the round's own is on its way. */
	r = vit_over(&vit, &p->shape, p->fixed_positions, round_weights(p->round, teacher), diag);
	if (r == 0)
		r = vit_slot_new(&slot, vit, SLOT_INFER);
	if (r < 0)
		return r;
	embeddings = malloc((size_t)source.n * p->shape.width * sizeof(*embeddings));
	if (!embeddings)
		return -ENOMEM;
	r = judge_embed(embeddings, vit, slot, &p->prep, &source);
	if (r == 0)
		r = figures_compute(ret_figures, NULL, embeddings, source.labels, source.n,
			p->shape.width, source.n_classes, 1);
	return r == -EINVAL ? diag_set(diag, ENODATA, "%s: no two classes of held images",
				      options->folder)
			    : r;
}
