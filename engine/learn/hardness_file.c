/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "learn/hardness_file.h"
#include "model/safetensors.h"
#include "model/vit_params.h"

#define FORMAT "kamen hardness 1"
#define MAX_WIDTH 8192u
#define MAX_INNER 1024u
#define MAX_MLP 8192u
#define MAX_DEPTH 16u
/* The tensors of a file: entry and exit with the last norm, and those of each block. */
#define N_ENDS 6u
#define N_OF_BLOCK 12u

/** XXH3 of the values, in f32 as they are read. */
struct sum {
	char text[17];
};

int hardness_params(struct params **ret_params, const struct hardness_info *info)
{
	const struct vit_shape shape = {
		.width = info->inner,
		.depth = info->depth,
		.n_heads = info->n_heads,
		.mlp = info->n_mlp,
	};
	_cleanup_(params_freep) struct params *params = NULL, *trunk = NULL;
	int r;

	r = params_new(&params);
	if (r == 0)
		r = params_add_linear(params, "entry", info->inner, info->width);
	if (r == 0)
		r = vit_params_new(&trunk, &shape, false);
	if (r == 0)
		r = params_append(params, "trunk", trunk);
	if (r == 0)
		r = params_add_linear(params, "exit", 1, info->inner);
	if (r < 0)
		return r;
	*ret_params = TAKE_PTR(params);
	return 0;
}

size_t hardness_n_values(const struct hardness_info *info)
{
	const size_t inner = info->inner, mlp = info->n_mlp;
	const size_t of_block = 4 * inner * inner + 2 * mlp * inner + 9 * inner + mlp;

	return inner * info->width + inner + info->depth * of_block + 2 * inner + inner + 1;
}

static int check_info(const struct hardness_info *info, struct diag *diag)
{
	const struct {
		const char *name;
		uint32_t value, lo, hi;
	} bounds[] = {
		{ "width", info->width, 1, MAX_WIDTH },
		{ "grid", info->grid, 1, HARDNESS_MAX_GRID },
		/* The positions are sines and cosines of both directions. */
		{ "inner width", info->inner, 4, MAX_INNER },
		{ "inner width beyond whole fours", info->inner % 4, 0, 0 },
		{ "depth", info->depth, 1, MAX_DEPTH },
		{ "mlp", info->n_mlp, 1, MAX_MLP },
		{ "num_heads", info->n_heads, 1, info->inner },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++)
		if (bounds[i].value < bounds[i].lo || bounds[i].value > bounds[i].hi)
			return diag_set(diag, EBADMSG, "hardness: %s = %u, not %u..%u",
				bounds[i].name, bounds[i].value, bounds[i].lo, bounds[i].hi);
	if (info->inner % info->n_heads != 0)
		return diag_set(diag, EBADMSG, "hardness: inner width %u of %u heads", info->inner,
			info->n_heads);
	return 0;
}

static int read_count(
	uint32_t *ret_value, const struct safetensors *st, const char *key, struct diag *diag)
{
	const char *text = safetensors_metadata(st, key);
	char *rest = NULL;
	unsigned long value;

	/* strtoul() would take a sign or blanks. */
	if (!text || *text < '0' || *text > '9')
		return diag_set(diag, EBADMSG, "hardness: no metadata %s", key);
	errno = 0;
	value = strtoul(text, &rest, 10);
	if (errno || *rest || value > UINT32_MAX)
		return diag_set(diag, EBADMSG, "hardness: metadata %s is no count", key);
	*ret_value = (uint32_t)value;
	return 0;
}

static int read_digest(
	struct digest *ret_digest, const struct safetensors *st, const char *key, struct diag *diag)
{
	const char *text = safetensors_metadata(st, key);

	if (!text || digest_from_hex(ret_digest, text) < 0)
		return diag_set(diag, EBADMSG, "hardness: metadata %s is no digest", key);
	return 0;
}

/* NULL: not there, or not of n_dims dimensions that fit 32 bits. */
static const struct tensor *find(const struct safetensors *st, const char *name, unsigned n_dims)
{
	const struct tensor *tensor = safetensors_find(st, name);

	if (!tensor || tensor->n_dims != n_dims)
		return NULL;
	for (unsigned i = 0; i < n_dims; i++)
		if (tensor->dims[i] > MAX_WIDTH)
			return NULL;
	return tensor;
}

static int read_info(struct hardness_info *info, const struct safetensors *st, struct diag *diag)
{
	const char *format = safetensors_metadata(st, "format");
	const struct tensor *of_entry = find(st, "entry.weight", 2);
	const struct tensor *fc1 = find(st, "trunk.blocks.0.mlp.fc1.weight", 2);
	size_t n = safetensors_count(st);
	int r;

	if (!format || strcmp(format, FORMAT) != 0)
		return diag_set(diag, EBADMSG, "hardness: not a hardness file");
	if (!of_entry || !fc1 || n < N_ENDS || (n - N_ENDS) % N_OF_BLOCK != 0 ||
		n > N_ENDS + MAX_DEPTH * N_OF_BLOCK)
		return diag_set(diag, EBADMSG, "hardness: tensors are missing, or too many");
	info->inner = (uint32_t)of_entry->dims[0];
	info->width = (uint32_t)of_entry->dims[1];
	info->n_mlp = (uint32_t)fc1->dims[0];
	info->depth = (uint32_t)((n - N_ENDS) / N_OF_BLOCK);
	r = read_count(&info->grid, st, "grid", diag);
	if (r == 0)
		r = read_count(&info->n_heads, st, "num_heads", diag);
	if (r == 0)
		r = read_digest(&info->base, st, "base", diag);
	if (r == 0)
		r = read_digest(&info->mask, st, "mask", diag);
	return r < 0 ? r : check_info(info, diag);
}

static int read_tensor(
	float *values, const struct safetensors *st, const struct param *want, struct diag *diag)
{
	const struct tensor *tensor = find(st, want->name, want->n_dims);

	for (unsigned d = 0; tensor && d < want->n_dims; d++)
		if (tensor->dims[d] != want->dims[d])
			tensor = NULL;
	if (!tensor)
		return diag_set(
			diag, EBADMSG, "hardness: %s is missing or has another shape", want->name);
	tensor_to_f32(values, tensor);
	for (size_t i = 0; i < want->n; i++)
		if (!isfinite(values[i]))
			return diag_set(
				diag, EBADMSG, "hardness: %s: a value is not finite", want->name);
	return 0;
}

/* safetensors has none of its own. */
static struct sum sum_of(const float *values, size_t n)
{
	struct sum sum;

	(void)snprintf(sum.text, sizeof(sum.text), "%016" PRIx64,
		digest_checksum(values, n * sizeof(*values)));
	return sum;
}

static int check_sum(const struct safetensors *st, const float *values, size_t n, struct diag *diag)
{
	const char *text = safetensors_metadata(st, "xxh3");

	if (!text || strcmp(text, sum_of(values, n).text) != 0)
		return diag_set(diag, EBADMSG, "hardness: checksum does not match");
	return 0;
}

int hardness_decode(struct hardness_info *ret_info, float **ret_values, const void *data,
	size_t n_bytes, struct diag *diag)
{
	_cleanup_(safetensors_freep) struct safetensors *st = NULL;
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *values = NULL;
	struct hardness_info info = { 0 };
	int r;

	if (n_bytes > HARDNESS_MAX_BYTES)
		return diag_set(diag, EFBIG, "hardness: more than %zu bytes", HARDNESS_MAX_BYTES);
	r = safetensors_open(&st, data, n_bytes, diag);
	if (r < 0)
		return r == -EOPNOTSUPP ? -EBADMSG : r;
	r = read_info(&info, st, diag);
	if (r < 0)
		return r;
	/* Before memory is taken: two bytes a value at the least. */
	if (hardness_n_values(&info) > n_bytes / 2)
		return diag_set(diag, EBADMSG, "hardness: tensors are missing");
	values = malloc(hardness_n_values(&info) * sizeof(*values));
	if (!values)
		return diag_set(diag, ENOMEM, "hardness: no memory");
	r = hardness_params(&params, &info);
	for (unsigned i = 0; r == 0 && i < params->n_tensors; i++)
		r = read_tensor(values + params->tensors[i].offset, st, &params->tensors[i], diag);
	if (r == 0)
		r = check_sum(st, values, params->n_values, diag);
	if (r < 0)
		return r;
	*ret_info = info;
	if (ret_values)
		*ret_values = TAKE_PTR(values);
	return 0;
}

int hardness_check(
	struct hardness_info *ret_info, const void *data, size_t n_bytes, struct diag *diag)
{
	return hardness_decode(ret_info, NULL, data, n_bytes, diag);
}

int hardness_encode(
	const struct hardness_info *info, const float *values, void **ret_data, size_t *ret_n_bytes)
{
	char base[DIGEST_HEX_CHARS + 1], mask[DIGEST_HEX_CHARS + 1], heads[12], grid[12];
	struct sum sum;
	const char *const metadata[] = { "format", FORMAT, "base", base, "mask", mask, "num_heads",
		heads, "grid", grid, "xxh3", sum.text, NULL };
	_cleanup_(params_freep) struct params *params = NULL;
	int r;

	if (check_info(info, NULL) < 0)
		return -EINVAL;
	r = hardness_params(&params, info);
	if (r < 0)
		return r;
	sum = sum_of(values, params->n_values);
	digest_to_hex(&info->base, base);
	digest_to_hex(&info->mask, mask);
	(void)snprintf(heads, sizeof(heads), "%u", info->n_heads);
	(void)snprintf(grid, sizeof(grid), "%u", info->grid);
	return params_encode(params, values, metadata, ret_data, ret_n_bytes);
}
