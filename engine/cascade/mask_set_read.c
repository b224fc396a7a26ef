/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "cascade/kcas_format.h"
#include "cascade/mask_set.h"

/** A cascade's file whose header and sizes hold. Borrows the bytes. */
struct kcas {
	const uint8_t *data;
	size_t n_bytes;
	uint32_t n_experts, width, n_route, n_out;
	size_t values;                          /* where they begin */
	size_t at[1 + CASCADE_MAX_EXPERTS + 1]; /* of each mask's file, and past the last */
};

bool mask_set_is_cascade(const void *data, size_t n_bytes)
{
	return n_bytes >= 8 && memcmp(data, KCAS_MAGIC, 8) == 0;
}

/* ---- bounds and sums */

static bool sum_holds(const uint8_t *from, size_t n_bytes)
{
	return get_u64(from + n_bytes) == digest_checksum(from, n_bytes);
}

static int check_header(const uint8_t *p, size_t n_bytes, struct diag *diag)
{
	if (n_bytes < KCAS_HEADER_BYTES + 2 * KCAS_SUM_BYTES || !mask_set_is_cascade(p, n_bytes))
		return diag_set(diag, EBADMSG, "cascade: not a cascade file, or truncated");
	if (get_u32(p + KCAS_AT_VERSION) != KCAS_VERSION)
		return diag_set(diag, EBADMSG, "cascade: version %" PRIu32 ", this reads %d",
			get_u32(p + KCAS_AT_VERSION), KCAS_VERSION);
	if (!sum_holds(p, KCAS_AT_SUM))
		return diag_set(diag, EBADMSG, "cascade: checksum of the header does not match");
	if (get_u64(p + KCAS_AT_BYTES) != n_bytes)
		return diag_set(diag, EBADMSG,
			"cascade: %zu bytes where the header says %" PRIu64 ": truncated or longer",
			n_bytes, get_u64(p + KCAS_AT_BYTES));
	return 0;
}

static int check_field(
	const char *name, uint32_t value, uint32_t lo, uint32_t hi, struct diag *diag)
{
	if (value >= lo && value <= hi)
		return 0;
	return diag_set(diag, EBADMSG, "cascade: %s = %" PRIu32 ", not %" PRIu32 "..%" PRIu32, name,
		value, lo, hi);
}

static int read_shape(struct kcas *kcas, struct diag *diag)
{
	const uint8_t *p = kcas->data;
	int r;

	kcas->n_experts = get_u32(p + KCAS_AT_EXPERTS);
	kcas->width = get_u32(p + KCAS_AT_WIDTH);
	kcas->n_route = get_u32(p + KCAS_AT_ROUTE);
	kcas->n_out = get_u32(p + KCAS_AT_OUT);
	r = check_field("mode", get_u32(p + KCAS_AT_MODE), 0, CASCADE_N_MODES - 1, diag);
	if (r == 0)
		r = check_field("experts", kcas->n_experts, 1, CASCADE_MAX_EXPERTS, diag);
	if (r == 0)
		r = check_field("width", kcas->width, 1, KCAS_MAX_WIDTH, diag);
	if (r == 0)
		r = check_field("dimensions of the route", kcas->n_route, 1, kcas->width, diag);
	if (r == 0)
		r = check_field("dimensions of the fusion", kcas->n_out, 1, kcas->width, diag);
	if (r == 0)
		r = check_field("reserved", get_u32(p + KCAS_AT_ZERO), 0, 0, diag);
	return r;
}

/* At most some 2^40 by the limits of the shape. */
static uint64_t n_values(const struct kcas *kcas)
{
	uint64_t n = kcas->n_experts, width = kcas->width, route = kcas->n_route;

	return (1 + route) * width + n * (1 + route + gmm_factor_size(kcas->n_route)) +
	       (1 + (uint64_t)kcas->n_out) * (1 + n) * width;
}

static int find_masks(struct kcas *kcas, struct diag *diag)
{
	const uint8_t *sizes = kcas->data + KCAS_HEADER_BYTES;
	size_t n_sizes = (1 + (size_t)kcas->n_experts) * sizeof(uint64_t);
	uint64_t n_table = n_sizes + n_values(kcas) * sizeof(float);
	size_t at, end = kcas->n_bytes - KCAS_SUM_BYTES;

	if (n_table > end - KCAS_HEADER_BYTES - KCAS_SUM_BYTES)
		return diag_set(diag, EFBIG,
			"cascade: promises %" PRIu64 " bytes of values in a file of %zu", n_table,
			kcas->n_bytes);
	if (!sum_holds(sizes, n_table))
		return diag_set(diag, EBADMSG, "cascade: checksum of the values does not match");
	kcas->values = KCAS_HEADER_BYTES + n_sizes;
	at = KCAS_HEADER_BYTES + n_table + KCAS_SUM_BYTES;
	for (uint32_t m = 0; m <= kcas->n_experts; m++) {
		uint64_t size = get_u64(sizes + m * sizeof(uint64_t));

		if (size > end - at)
			return diag_set(diag, EFBIG,
				"cascade: mask %" PRIu32 " of %" PRIu64 " bytes, %zu left", m, size,
				end - at);
		kcas->at[m] = at;
		at += size;
	}
	kcas->at[1 + kcas->n_experts] = at;
	if (at != end)
		return diag_set(
			diag, EBADMSG, "cascade: %zu bytes that belong to no mask", end - at);
	return 0;
}

static int kcas_open(struct kcas *kcas, const void *data, size_t n_bytes, struct diag *diag)
{
	int r;

	*kcas = (struct kcas){ .data = data, .n_bytes = n_bytes };
	r = check_header(data, n_bytes, diag);
	if (r == 0)
		r = read_shape(kcas, diag);
	if (r == 0)
		r = find_masks(kcas, diag);
	if (r < 0)
		return r;
	if (!sum_holds(data, n_bytes - KCAS_SUM_BYTES))
		return diag_set(diag, EBADMSG, "cascade: checksum of the file does not match");
	return 0;
}

/* ---- what it says */

static int bad_mask(struct diag *diag, int r, uint32_t m, const struct diag *why)
{
	return diag_set(diag, -r, "cascade: mask %" PRIu32 ": %.400s", m,
		why->text[0] ? why->text : strerror(-r));
}

static int wrong_digest(struct diag *diag)
{
	return diag_set(diag, EBADMSG, "cascade: its content has another digest than it says");
}

/* Of one round: all of them are for what the file is for. */
static int check_mask(const struct mask_set_header *header, const struct kmask_header *mask,
	uint32_t m, uint64_t n_elements, struct diag *diag)
{
	if (mask->is_signed || !digest_equal(&mask->base, &header->base) ||
		!digest_equal(&mask->prep, &header->prep) || mask->n_elements != n_elements)
		return diag_set(diag, EBADMSG,
			"cascade: mask %" PRIu32 " is signed, or for something else than the file",
			m);
	return 0;
}

/* mask_set.id of the content, from the bytes of the file. */
static struct digest content_digest(const struct kcas *kcas, const struct digest *masks)
{
	static const char domain[] = "kamen cascade 1";
	const uint32_t sizes[] = { kcas->n_experts, get_u32(kcas->data + KCAS_AT_MODE), kcas->width,
		kcas->n_out, kcas->n_route };
	struct digest_state state;

	digest_init(&state);
	digest_update(&state, domain, sizeof(domain));
	digest_update(&state, sizes, sizeof(sizes));
	digest_update(&state, masks, (1 + kcas->n_experts) * sizeof(*masks));
	digest_update(&state, kcas->data + kcas->values, n_values(kcas) * sizeof(float));
	return digest_final(&state);
}

static int read_header(struct mask_set_header *header, const struct kcas *kcas, struct diag *diag)
{
	struct digest masks[1 + CASCADE_MAX_EXPERTS], content;
	const uint8_t *p = kcas->data;
	int r = 0;

	*header = (struct mask_set_header){
		.seed = get_u64(p + KCAS_AT_SEED),
		.steps = get_u32(p + KCAS_AT_STEPS),
		.n_experts = kcas->n_experts,
		.n_out = kcas->n_out,
		.mode = (enum cascade_mode)get_u32(p + KCAS_AT_MODE),
		.n_bytes = kcas->n_bytes,
		.mask_bytes = kcas->at[1 + kcas->n_experts] - kcas->at[0],
	};
	memcpy(header->base.bytes, p + KCAS_AT_BASE, DIGEST_BYTES);
	memcpy(header->prep.bytes, p + KCAS_AT_PREP, DIGEST_BYTES);
	memcpy(header->id.bytes, p + KCAS_AT_ID, DIGEST_BYTES);
	for (uint32_t m = 0; m <= kcas->n_experts && r == 0; m++) {
		struct kmask_header mask = { 0 };
		struct diag why = { "" };

		r = kmask_verify(p + kcas->at[m], kcas->at[m + 1] - kcas->at[m], &mask, &why);
		if (r < 0)
			return bad_mask(diag, r, m, &why);
		if (m == 0)
			header->n_elements = mask.n_elements;
		masks[m] = mask.mask;
		header->n_flips += mask.n_elements - mask.n_kept;
		r = check_mask(header, &mask, m, header->n_elements, diag);
	}
	if (r < 0)
		return r;
	content = content_digest(kcas, masks);
	return digest_equal(&content, &header->id) ? 0 : wrong_digest(diag);
}

static void of_mask(struct mask_set_header *header, const struct kmask_header *mask)
{
	*header = (struct mask_set_header){
		.base = mask->base,
		.prep = mask->prep,
		.seed = mask->seed,
		.steps = mask->steps,
		.id = mask->mask,
		.n_elements = mask->n_elements,
		.n_flips = mask->n_elements - mask->n_kept,
		.n_bytes = mask->n_bytes,
		.mask_bytes = mask->n_bytes,
		.is_signed = mask->is_signed,
		.signer = mask->signer,
	};
}

int mask_set_verify(
	const void *data, size_t n_bytes, struct mask_set_header *ret_header, struct diag *diag)
{
	struct mask_set_header header;
	struct kmask_header mask;
	struct kcas kcas;
	int r;

	if (mask_set_is_cascade(data, n_bytes)) {
		r = kcas_open(&kcas, data, n_bytes, diag);
		if (r == 0)
			r = read_header(&header, &kcas, diag);
	} else {
		r = kmask_verify(data, n_bytes, &mask, diag);
		if (r == 0)
			of_mask(&header, &mask);
	}
	if (r == 0)
		*ret_header = header;
	return r;
}

int mask_set_part(
	const void *data, size_t n_bytes, uint32_t m, const void **ret_part, size_t *ret_n_bytes)
{
	struct kcas kcas = { 0 };
	int r;

	if (!mask_set_is_cascade(data, n_bytes)) {
		if (m > 0)
			return -EINVAL;
		*ret_part = data;
		*ret_n_bytes = n_bytes;
		return 0;
	}
	r = kcas_open(&kcas, data, n_bytes, NULL);
	if (r < 0)
		return r;
	if (m > kcas.n_experts)
		return -EINVAL;
	*ret_part = kcas.data + kcas.at[m];
	*ret_n_bytes = kcas.at[m + 1] - kcas.at[m];
	return 0;
}

/* ---- the values */

/** Where reading has come to; ok: every value so far was finite. */
struct cursor {
	const uint8_t *p;
	bool ok;
};

static void take_floats(struct cursor *cursor, float *values, size_t n)
{
	for (size_t i = 0; i < n; i++, cursor->p += sizeof(uint32_t)) {
		uint32_t bits = get_u32(cursor->p);

		memcpy(&values[i], &bits, sizeof(bits));
		cursor->ok = cursor->ok && isfinite(values[i]);
	}
}

static int take_whiten(
	struct cursor *cursor, uint32_t n_in, uint32_t n_out, struct whiten **ret_whiten)
{
	int r = whiten_new(ret_whiten, n_in, n_out);

	if (r < 0)
		return r;
	take_floats(cursor, (*ret_whiten)->mean, n_in);
	take_floats(cursor, (*ret_whiten)->axes, (size_t)n_out * n_in);
	return 0;
}

static int take_mixture(struct cursor *cursor, uint32_t n, uint32_t dim, struct gmm **ret_gmm)
{
	int r = gmm_new(ret_gmm, n, dim);

	if (r < 0)
		return r;
	take_floats(cursor, (*ret_gmm)->bias, n);
	take_floats(cursor, (*ret_gmm)->means, (size_t)n * dim);
	take_floats(cursor, (*ret_gmm)->factors, n * gmm_factor_size(dim));
	return 0;
}

/** What is read, until it is joined. */
struct loose {
	struct mask *masks[1 + CASCADE_MAX_EXPERTS];
	struct whiten *route, *fusion;
	struct gmm *mixture;
};

static void loose_done(struct loose *loose)
{
	for (uint32_t m = 0; m <= CASCADE_MAX_EXPERTS; m++)
		mask_free(loose->masks[m]);
	whiten_free(loose->route);
	whiten_free(loose->fusion);
	gmm_free(loose->mixture);
}

static int read_values(struct loose *loose, const struct kcas *kcas, struct diag *diag)
{
	struct cursor cursor = { kcas->data + kcas->values, true };
	int r;

	r = take_whiten(&cursor, kcas->width, kcas->n_route, &loose->route);
	if (r == 0)
		r = take_mixture(&cursor, kcas->n_experts, kcas->n_route, &loose->mixture);
	if (r == 0)
		r = take_whiten(
			&cursor, (1 + kcas->n_experts) * kcas->width, kcas->n_out, &loose->fusion);
	if (r == 0 && !cursor.ok)
		r = diag_set(diag, EBADMSG, "cascade: a value is not finite");
	return r;
}

static int read_masks(struct loose *loose, const struct kcas *kcas,
	const struct mask_layout *layout, const struct digest *base, struct diag *diag)
{
	for (uint32_t m = 0; m <= kcas->n_experts; m++) {
		struct kmask_header header;
		struct diag why = { "" };
		int r = kmask_decode(&loose->masks[m], &header, layout, base,
			kcas->data + kcas->at[m], kcas->at[m + 1] - kcas->at[m], &why);

		if (r < 0)
			return bad_mask(diag, r, m, &why);
	}
	return 0;
}

static int join(struct mask_set **ret_set, struct loose *loose, const struct kcas *kcas,
	const struct mask_set_header *header, struct diag *diag)
{
	const struct mask_set_parts parts = { kcas->n_experts, kcas->width, header->mode,
		loose->masks, loose->route, loose->mixture, loose->fusion };
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	int r = mask_set_join(&set, &parts);

	if (r < 0)
		return r == -EINVAL
			       ? diag_set(diag, EBADMSG, "cascade: its parts do not fit each other")
			       : r;
	*loose = (struct loose){ .route = NULL };
	if (!digest_equal(&set->id, &header->id))
		return wrong_digest(diag);
	*ret_set = TAKE_PTR(set);
	return 0;
}

static int decode_cascade(struct mask_set **ret_set, struct mask_set_header *header,
	const struct mask_layout *layout, const struct digest *base, uint32_t width,
	const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(loose_done) struct loose loose = { .route = NULL };
	struct kcas kcas;
	int r;

	r = kcas_open(&kcas, data, n_bytes, diag);
	if (r == 0)
		r = read_header(header, &kcas, diag);
	if (r < 0)
		return r;
	/* The masks first: that they are of another base says more than that widths differ. */
	r = read_masks(&loose, &kcas, layout, base, diag);
	if (r < 0)
		return r;
	if (kcas.width != width)
		return diag_set(diag, EXDEV,
			"cascade: for embeddings of %" PRIu32 " numbers, the base has %" PRIu32,
			kcas.width, width);
	r = read_values(&loose, &kcas, diag);
	return r < 0 ? r : join(ret_set, &loose, &kcas, header, diag);
}

static int decode_mask(struct mask_set **ret_set, struct mask_set_header *header,
	const struct mask_layout *layout, const struct digest *base, uint32_t width,
	const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct kmask_header of;
	int r;

	r = kmask_decode(&mask, &of, layout, base, data, n_bytes, diag);
	if (r < 0)
		return r;
	of_mask(header, &of);
	header->n_out = width;
	r = mask_set_of(ret_set, mask, layout, width);
	if (r == 0)
		(void)TAKE_PTR(mask);
	return r;
}

int mask_set_decode(struct mask_set **ret_set, struct mask_set_header *ret_header,
	const struct mask_layout *layout, const struct digest *base, uint32_t width,
	const void *data, size_t n_bytes, struct diag *diag)
{
	struct mask_set_header header;
	int r;

	if (mask_set_is_cascade(data, n_bytes))
		r = decode_cascade(ret_set, &header, layout, base, width, data, n_bytes, diag);
	else
		r = decode_mask(ret_set, &header, layout, base, width, data, n_bytes, diag);
	if (r == 0)
		*ret_header = header;
	return r;
}
