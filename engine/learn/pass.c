/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "learn/pass.h"
#include "learn/plot.h"

struct pass {
	struct vit_tape *tape;
	struct arena *arena; /* NULL: all at once */
	const float *pixels; /* (n, 3, px, px) */
	float *part;         /* (n_at_once, O, width) of a part: outputs or their gradient */
	float *d_entry;      /* (n_at_once, T', width) of a part */
	uint32_t *kept;      /* (n, T' - 1) or NULL */
	bool *replaced;      /* (n, n_patches) or NULL */
	const float *replacement;
	struct branch branch;
	struct vit_drop drop;
	uint32_t n, n_at_once, n_tokens, n_patches;
	size_t n_pixels, n_out, n_entry; /* of one view */
};

static bool is_whole(const struct pass *pass)
{
	return pass->n_at_once == pass->n;
}

static bool drops(const struct branch *branch)
{
	return branch->drop > 0 || branch->drop_path > 0;
}

static uint32_t held(uint32_t n, uint32_t n_at_once)
{
	return n_at_once > 0 && n_at_once < n ? n_at_once : n;
}

static struct vit_tape_options tape_options(
	uint32_t n, uint32_t n_at_once, const struct pass_options *options)
{
	const struct branch *branch = &options->branch;

	return (struct vit_tape_options){
		.batch = held(n, n_at_once),
		.px = options->px,
		.precision = options->precision,
		.n_kept = branch->tokens == BRANCH_KEPT ? branch->n_kept : 0,
		.all_out = branch->all_out,
		.forward_only = branch->network == BRANCH_TEACHER,
		/* A last part that is shorter would read beyond the end. */
		.borrows = held(n, n_at_once) == n,
		.drops = drops(branch),
	};
}

size_t pass_bytes(
	const struct vit *vit, uint32_t n, uint32_t n_at_once, const struct pass_options *options)
{
	struct vit_tape_options tape = tape_options(n, n_at_once, options);

	return vit_tape_bytes(vit, &tape);
}

static int lay_out(struct pass *pass, bool wants_entry)
{
	const size_t n_part = pass->n_at_once;

	return plot_lay_out(&pass->arena,
		(const struct plot[]){
			{ &pass->part, n_part * pass->n_out },
			{ &pass->d_entry, wants_entry ? n_part * pass->n_entry : 0 },
		},
		2);
}

static int set_pixels(struct pass *pass, const struct pass_options *options)
{
	pass->pixels = options->pixels;
	if (!is_whole(pass))
		return lay_out(pass, options->branch.wants_entry);
	vit_tape_read(pass->tape, pass->pixels);
	return 0;
}

static int set_tokens(struct pass *pass)
{
	if (pass->branch.tokens == BRANCH_KEPT) {
		pass->kept = calloc((size_t)pass->n * (pass->n_tokens - 1), sizeof(*pass->kept));
		return pass->kept ? 0 : -ENOMEM;
	}
	if (pass->branch.tokens == BRANCH_REPLACED) {
		/* The tape reads a row for each of its own, behind a shorter part too. */
		pass->replaced = calloc(((size_t)pass->n + pass->n_at_once) * pass->n_patches,
			sizeof(*pass->replaced));
		return pass->replaced ? 0 : -ENOMEM;
	}
	return 0;
}

int pass_new(struct pass **ret_pass, struct vit *vit, uint32_t n, uint32_t n_at_once,
	const struct pass_options *options)
{
	_cleanup_(pass_freep) struct pass *pass = calloc(1, sizeof(*pass));
	const struct vit_tape_options tape = tape_options(n, n_at_once, options);
	const struct vit_shape *shape = vit_shape(vit);
	int r;

	if (!pass)
		return -ENOMEM;
	pass->branch = options->branch;
	pass->n = n;
	pass->n_at_once = tape.batch;
	pass->n_pixels = (size_t)3 * options->px * options->px;
	pass->n_patches = (options->px / shape->patch) * (options->px / shape->patch);
	r = vit_tape_open(&pass->tape, vit, &tape);
	if (r < 0)
		return r;
	vit_tape_end_at(pass->tape, options->first_block);
	pass->n_tokens = vit_tape_n_tokens(pass->tape);
	pass->n_entry = (size_t)pass->n_tokens * shape->width;
	pass->n_out = tape.all_out ? pass->n_entry : shape->width;
	r = set_pixels(pass, options);
	if (r == 0)
		r = set_tokens(pass);
	if (r < 0)
		return r;
	*ret_pass = TAKE_PTR(pass);
	return 0;
}

void pass_free(struct pass *pass)
{
	if (!pass)
		return;
	vit_tape_free(pass->tape);
	arena_free(pass->arena);
	free(pass->kept);
	free(pass->replaced);
	free(pass);
}

uint32_t *pass_kept(struct pass *pass)
{
	return pass->kept;
}

bool *pass_replaced(struct pass *pass)
{
	return pass->replaced;
}

void pass_replace_by(struct pass *pass, const float *vector)
{
	pass->replacement = vector;
}

void pass_draw_by(struct pass *pass, const struct vit_drop *drop)
{
	pass->drop = *drop;
	pass->drop.rate = pass->branch.drop;
	pass->drop.path = pass->branch.drop_path;
}

static uint32_t part_size(const struct pass *pass, uint32_t first)
{
	return pass->n - first < pass->n_at_once ? pass->n - first : pass->n_at_once;
}

/* What a tape's rows are of the pass's. Behind a last, shorter part lie old ones: nobody reads what
 * becomes of those. */
static void set_part(struct pass *pass, uint32_t first)
{
	const uint32_t n = part_size(pass, first), n_kept = pass->n_tokens - 1;

	if (!is_whole(pass))
		memcpy(vit_tape_input(pass->tape), pass->pixels + first * pass->n_pixels,
			n * pass->n_pixels * sizeof(float));
	if (pass->kept)
		memcpy(vit_tape_kept(pass->tape), pass->kept + (size_t)first * n_kept,
			(size_t)n * n_kept * sizeof(*pass->kept));
	if (drops(&pass->branch)) {
		pass->drop.first = first;
		vit_tape_drop(pass->tape, &pass->drop);
	}
}

static int forward_part(struct pass *pass, const struct slot *slot, uint32_t first, float *out)
{
	set_part(pass, first);
	if (pass->replaced)
		vit_tape_replace(pass->tape, pass->replaced + (size_t)first * pass->n_patches,
			pass->replacement);
	return vit_tape_forward(pass->tape, slot, out);
}

int pass_forward(struct pass *pass, const struct slot *slot, float *out)
{
	if (pass->replaced && !pass->replacement)
		return -EINVAL;
	if (is_whole(pass))
		return forward_part(pass, slot, 0, out);
	for (uint32_t first = 0; first < pass->n; first += pass->n_at_once) {
		int r = forward_part(pass, slot, first, pass->part);

		if (r < 0)
			return r;
		memcpy(out + first * pass->n_out, pass->part,
			part_size(pass, first) * pass->n_out * sizeof(float));
	}
	return 0;
}

/* The rows behind a shorter part have no say. */
static int backward_part(struct pass *pass, const struct slot *slot, uint32_t first,
	const float *d_out, float *grad, float *d_entry)
{
	const uint32_t n = part_size(pass, first);
	int r;

	memset(pass->part, 0, pass->n_at_once * pass->n_out * sizeof(float));
	memcpy(pass->part, d_out + first * pass->n_out, n * pass->n_out * sizeof(float));
	r = vit_tape_backward(pass->tape, slot, pass->part, grad, d_entry ? pass->d_entry : NULL);
	if (r == 0 && d_entry)
		memcpy(d_entry + first * pass->n_entry, pass->d_entry,
			n * pass->n_entry * sizeof(float));
	return r;
}

int pass_backward(
	struct pass *pass, const struct slot *slot, const float *d_out, float *grad, float *d_entry)
{
	uint32_t last = (pass->n - 1) / pass->n_at_once * pass->n_at_once;
	int r;

	if (is_whole(pass))
		return vit_tape_backward(pass->tape, slot, d_out, grad, d_entry);
	/* The tape still holds the last part. */
	r = backward_part(pass, slot, last, d_out, grad, d_entry);
	for (uint32_t first = 0; r == 0 && first < last; first += pass->n_at_once) {
		r = forward_part(pass, slot, first, pass->part);
		if (r == 0)
			r = backward_part(pass, slot, first, d_out, grad, d_entry);
	}
	return r;
}
