/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "cascade/kcas_format.h"
#include "cascade/mask_set.h"

/** The masks' files while they are put together. */
struct parts {
	void *data[1 + CASCADE_MAX_EXPERTS];
	size_t n_bytes[1 + CASCADE_MAX_EXPERTS];
};

static void parts_done(struct parts *parts)
{
	for (uint32_t m = 0; m <= CASCADE_MAX_EXPERTS; m++)
		free(parts->data[m]);
}

static int parts_encode(
	struct parts *parts, const struct mask_set *set, const struct kmask_header *header)
{
	int r = 0;

	for (uint32_t m = 0; m <= set->n_experts && r == 0; m++)
		r = kmask_encode(set->masks[m], header, &parts->data[m], &parts->n_bytes[m]);
	return r;
}

static uint8_t *put_floats(uint8_t *p, const float *values, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;

		memcpy(&bits, &values[i], sizeof(bits));
		put_u32(p, bits);
		p += sizeof(bits);
	}
	return p;
}

static uint8_t *put_whiten(uint8_t *p, const struct whiten *whiten)
{
	p = put_floats(p, whiten->mean, whiten->n_in);
	return put_floats(p, whiten->axes, (size_t)whiten->n_out * whiten->n_in);
}

static uint8_t *put_values(uint8_t *p, const struct mask_set *set)
{
	const struct gmm *gmm = set->mixture;
	size_t n = gmm->n_components;

	p = put_whiten(p, set->route);
	p = put_floats(p, gmm->bias, n);
	p = put_floats(p, gmm->means, n * gmm->dim);
	p = put_floats(p, gmm->factors, n * gmm_factor_size(gmm->dim));
	return put_whiten(p, set->fusion);
}

static void put_header(uint8_t *data, const struct mask_set *set,
	const struct mask_set_header *header, size_t n_bytes)
{
	memcpy(data, KCAS_MAGIC, 8);
	put_u32(data + KCAS_AT_VERSION, KCAS_VERSION);
	put_u32(data + KCAS_AT_MODE, (uint32_t)set->mode);
	put_u64(data + KCAS_AT_BYTES, n_bytes);
	put_u64(data + KCAS_AT_SEED, header->seed);
	put_u32(data + KCAS_AT_STEPS, header->steps);
	put_u32(data + KCAS_AT_EXPERTS, set->n_experts);
	put_u32(data + KCAS_AT_WIDTH, set->width);
	put_u32(data + KCAS_AT_ROUTE, set->route->n_out);
	put_u32(data + KCAS_AT_OUT, set->n_out);
	put_u32(data + KCAS_AT_ZERO, 0);
	memcpy(data + KCAS_AT_BASE, header->base.bytes, DIGEST_BYTES);
	memcpy(data + KCAS_AT_PREP, header->prep.bytes, DIGEST_BYTES);
	memcpy(data + KCAS_AT_ID, set->id.bytes, DIGEST_BYTES);
	put_u64(data + KCAS_AT_SUM, digest_checksum(data, KCAS_AT_SUM));
}

static size_t file_bytes(const struct mask_set *set, const struct parts *parts)
{
	size_t n = KCAS_HEADER_BYTES + whiten_bytes(set->route) + gmm_bytes(set->mixture) +
		   whiten_bytes(set->fusion) + 2 * KCAS_SUM_BYTES;

	for (uint32_t m = 0; m <= set->n_experts; m++)
		n += sizeof(uint64_t) + parts->n_bytes[m];
	return n;
}

static int encode_cascade(const struct mask_set *set, const struct mask_set_header *header,
	const struct parts *parts, void **ret_data, size_t *ret_n_bytes)
{
	size_t n_bytes = file_bytes(set, parts);
	uint8_t *data = malloc(n_bytes), *p = data;

	if (!data)
		return -ENOMEM;
	put_header(data, set, header, n_bytes);
	p += KCAS_HEADER_BYTES;
	for (uint32_t m = 0; m <= set->n_experts; m++, p += sizeof(uint64_t))
		put_u64(p, parts->n_bytes[m]);
	p = put_values(p, set);
	put_u64(p,
		digest_checksum(data + KCAS_HEADER_BYTES, (size_t)(p - data) - KCAS_HEADER_BYTES));
	p += KCAS_SUM_BYTES;
	for (uint32_t m = 0; m <= set->n_experts; m++) {
		memcpy(p, parts->data[m], parts->n_bytes[m]);
		p += parts->n_bytes[m];
	}
	put_u64(p, digest_checksum(data, (size_t)(p - data)));
	*ret_data = data;
	*ret_n_bytes = n_bytes;
	return 0;
}

int mask_set_encode(const struct mask_set *set, const struct mask_set_header *header,
	void **ret_data, size_t *ret_n_bytes)
{
	const struct kmask_header of_mask = { .base = header->base,
		.prep = header->prep,
		.seed = header->seed,
		.steps = header->steps };
	_cleanup_(parts_done) struct parts parts = { 0 };
	int r;

	if (!set->masks[0])
		return -EINVAL;
	if (set->n_experts == 0)
		return kmask_encode(set->masks[0], &of_mask, ret_data, ret_n_bytes);
	r = parts_encode(&parts, set, &of_mask);
	return r < 0 ? r : encode_cascade(set, header, &parts, ret_data, ret_n_bytes);
}
