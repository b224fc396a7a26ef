/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/serving.h"

#include <errno.h>
#include <fcntl.h>

#include "serve/limits.h"

struct serving *serving_ref(struct serving *serving)
{
	atomic_fetch_add(&serving->n_refs, 1);
	return serving;
}

void serving_unref(struct serving *serving)
{
	if (!serving || atomic_fetch_sub(&serving->n_refs, 1) > 1)
		return;
	class_set_free(serving->classes);
	if (!serving->lender) {
		mask_set_free(serving->set);
		reference_free(serving->reference);
	}
	serving_unref(serving->lender);
	free(serving);
}

int serving_with_classes(
	struct serving **ret_serving, struct serving *serving, struct class_set *classes)
{
	struct serving *other = malloc(sizeof(*other));

	if (!other)
		return -ENOMEM;
	memcpy(other, serving, sizeof(*other));
	atomic_store(&other->n_refs, 1);
	other->classes = classes;
	/* Always the first one, or a chain would grow with every class. */
	other->lender = serving_ref(serving->lender ? serving->lender : serving);
	*ret_serving = other;
	return 0;
}

static int load_mask(struct serving *serving, const struct serving_model *model, const char *path,
	struct diag *diag)
{
	_cleanup_(freep) void *data = NULL;
	struct mask_set_header header;
	size_t n_bytes;
	int r;

	r = blob_read(AT_FDCWD, path, SERVE_MAX_MASK_BYTES, &data, &n_bytes);
	if (r < 0)
		return diag_set(diag, -r, "%s: %s", path, strerror(-r));
	return mask_set_decode(&serving->set, &header, model->layout, model->base, model->width,
		data, n_bytes, diag);
}

/* Of the machine at this moment, not of the file. */
static bool is_passing(int r)
{
	return r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -EIO;
}

static struct digest space_in(
	const struct serving *serving, const struct serving_model *model, enum precision precision)
{
	struct digest prep = prep_digest(&serving->prep);

	return space_digest(
		model->base, &serving->set->id, &prep, precision_name(precision), "cls");
}

/* False: no precision of this CPU makes it this set's space. */
static bool take_space(
	struct serving *serving, const struct serving_model *model, const struct digest *space)
{
	for (enum precision p = 0; p < N_PRECISIONS; p++) {
		struct digest ours = space_in(serving, model, p);

		if (!model->has[p] || !digest_equal(&ours, space))
			continue;
		serving->precision = p;
		serving->space = ours;
		return true;
	}
	return false;
}

/* Novelty is a help, not a condition of serving: what cannot be used is left out. */
static int load_reference(struct serving *serving, const struct serving_model *model,
	const char *path, struct diag *diag)
{
	_cleanup_(reference_freep) struct reference *reference = NULL;
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r;

	if (!path)
		return 0;
	r = blob_read(AT_FDCWD, path, SERVE_MAX_REFERENCE_BYTES, &data, &n_bytes);
	if (r >= 0)
		r = reference_decode(&reference, data, n_bytes, NULL);
	if (r < 0)
		return is_passing(r) ? diag_set(diag, -r, "%s: %s", path, strerror(-r)) : 0;
	if (reference->dim == serving->set->n_out && take_space(serving, model, &reference->space))
		serving->reference = TAKE_PTR(reference);
	serving->has_foreign_reference = !serving->reference;
	return 0;
}

int serving_load(struct serving **ret_serving, const struct serving_model *model, uint32_t version,
	const struct prep *prep, double threshold, const char *mask_path,
	const char *reference_path, struct diag *diag)
{
	_cleanup_(serving_unrefp) struct serving *serving = NULL;
	int r;

	serving = calloc(1, sizeof(*serving));
	if (!serving)
		return -ENOMEM;
	serving->n_refs = 1;
	serving->version = version;
	serving->prep = *prep;
	serving->threshold = threshold;
	if (mask_path)
		r = load_mask(serving, model, mask_path, diag);
	else
		r = mask_set_of(&serving->set, NULL, model->layout, model->width);
	if (r < 0)
		return r;
	/* Of a thousand sites a few are in a weight slot. */
	r = mask_set_lay_down(serving->set);
	if (r < 0)
		return r;
	serving->n_forwards = mask_set_n_forwards(serving->set);
	serving->precision = model->precision;
	serving->space = space_in(serving, model, model->precision);
	r = load_reference(serving, model, reference_path, diag);
	if (r < 0)
		return r;
	*ret_serving = TAKE_PTR(serving);
	return 0;
}
