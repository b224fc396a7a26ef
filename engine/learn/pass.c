/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "learn/pass.h"
#include "learn/plot.h"

struct pass {
	struct vit_tape *tape;
	struct arena *arena; /* NULL: all at once, and the tape's input is the input */
	float *input;        /* (n, 3, px, px) */
	float *out;          /* (n_at_once, width) of a part: embeddings or their gradient */
	uint32_t n, n_at_once;
	size_t n_pixels, width; /* of one view */
};

int pass_new(struct pass **ret_pass, struct vit *vit, uint32_t n, uint32_t n_at_once,
	const struct pass_options *options)
{
	_cleanup_(pass_freep) struct pass *pass = calloc(1, sizeof(*pass));
	int r;

	if (!pass)
		return -ENOMEM;
	pass->n = n;
	pass->n_at_once = n_at_once > 0 && n_at_once < n ? n_at_once : n;
	pass->n_pixels = (size_t)3 * options->px * options->px;
	pass->width = vit_shape(vit)->width;
	r = vit_tape_open(&pass->tape, vit,
		&(struct vit_tape_options){
			.batch = pass->n_at_once,
			.px = options->px,
			.precision = options->precision,
		});
	if (r < 0)
		return r;
	vit_tape_end_at(pass->tape, options->first_block);
	pass->input = vit_tape_input(pass->tape);
	if (pass->n_at_once < n) {
		r = plot_lay_out(&pass->arena,
			(const struct plot[]){
				{ &pass->input, n * pass->n_pixels },
				{ &pass->out, pass->n_at_once * pass->width },
			},
			2);
		if (r < 0)
			return r;
	}
	*ret_pass = TAKE_PTR(pass);
	return 0;
}

void pass_free(struct pass *pass)
{
	if (!pass)
		return;
	vit_tape_free(pass->tape);
	arena_free(pass->arena);
	free(pass);
}

float *pass_input(struct pass *pass)
{
	return pass->input;
}

static uint32_t part_size(const struct pass *pass, uint32_t first)
{
	return pass->n - first < pass->n_at_once ? pass->n - first : pass->n_at_once;
}

/* A last, shorter part leaves old views in the rows behind it: nobody reads those. */
static int forward_part(struct pass *pass, const struct slot *slot, uint32_t first)
{
	memcpy(vit_tape_input(pass->tape), pass->input + first * pass->n_pixels,
		part_size(pass, first) * pass->n_pixels * sizeof(float));
	return vit_tape_forward(pass->tape, slot, pass->out);
}

int pass_forward(struct pass *pass, const struct slot *slot, float *embeddings)
{
	if (!pass->arena)
		return vit_tape_forward(pass->tape, slot, embeddings);
	for (uint32_t first = 0; first < pass->n; first += pass->n_at_once) {
		int r = forward_part(pass, slot, first);

		if (r < 0)
			return r;
		memcpy(embeddings + first * pass->width, pass->out,
			part_size(pass, first) * pass->width * sizeof(float));
	}
	return 0;
}

/* The rows behind a shorter part have no say. */
static int backward_part(struct pass *pass, const struct slot *slot, uint32_t first,
	const float *d_embeddings, float *grad)
{
	size_t n = part_size(pass, first) * pass->width;

	memset(pass->out, 0, pass->n_at_once * pass->width * sizeof(float));
	memcpy(pass->out, d_embeddings + first * pass->width, n * sizeof(float));
	return vit_tape_backward(pass->tape, slot, pass->out, grad, NULL);
}

int pass_backward(
	struct pass *pass, const struct slot *slot, const float *d_embeddings, float *grad)
{
	uint32_t last = (pass->n - 1) / pass->n_at_once * pass->n_at_once;
	int r;

	if (!pass->arena)
		return vit_tape_backward(pass->tape, slot, d_embeddings, grad, NULL);
	/* The tape still holds the last part. */
	r = backward_part(pass, slot, last, d_embeddings, grad);
	for (uint32_t first = 0; r == 0 && first < last; first += pass->n_at_once) {
		r = forward_part(pass, slot, first);
		if (r == 0)
			r = backward_part(pass, slot, first, d_embeddings, grad);
	}
	return r;
}
