/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "learn/hardness_file.h"
#include "model/safetensors.h"

#define FORMAT "kamen hardness 1"
#define MAX_WIDTH 8192u
#define MAX_INNER 1024u
#define MAX_MLP 8192u
#define MAX_DEPTH 16u

/** XXH3 of the values, in f32 as they are read. */
struct sum {
	char text[17];
};

enum width { INNER, INNER_3, MLP, WIDTH, ONE };

static uint32_t width_of(const struct hardness_info *info, enum width width)
{
	switch (width) {
	case INNER:
		return info->inner;
	case INNER_3:
		return 3 * info->inner;
	case MLP:
		return info->n_mlp;
	case WIDTH:
		return info->width;
	case ONE:
		break;
	}
	return 1;
}

/* Weights and biases take turns; n_in ONE: a norm, whose weight has one dimension as well. */
static const struct row {
	const char *name;
	enum width n_out, n_in;
	bool is_norm;
} entry = { "entry", INNER, WIDTH, false },
  of_block[] = {
	  { "norm1", INNER, ONE, true },
	  { "attn.qkv", INNER_3, INNER, false },
	  { "attn.proj", INNER, INNER, false },
	  { "norm2", INNER, ONE, true },
	  { "mlp.fc1", MLP, INNER, false },
	  { "mlp.fc2", INNER, MLP, false },
  },
  end[] = {
	  { "norm", INNER, ONE, true },
	  { "exit", ONE, INNER, false },
  };

struct hardness_tensor hardness_tensor(const struct hardness_info *info, unsigned i)
{
	const unsigned n_blocks = info->depth * HARDNESS_OF_BLOCK;
	const struct row *row = &entry;
	struct hardness_tensor tensor = { .n_dims = 1 };
	char block[24] = "";
	unsigned at = i;

	if (i >= HARDNESS_ENTRY + n_blocks) {
		at = i - HARDNESS_ENTRY - n_blocks;
		row = &end[at / 2];
	} else if (i >= HARDNESS_ENTRY) {
		at = (i - HARDNESS_ENTRY) % HARDNESS_OF_BLOCK;
		row = &of_block[at / 2];
		(void)snprintf(block, sizeof(block), "blocks.%u.",
			(i - HARDNESS_ENTRY) / HARDNESS_OF_BLOCK);
	}
	(void)snprintf(tensor.name, sizeof(tensor.name), "%s%s.%s", block, row->name,
		at % 2 ? "bias" : "weight");
	tensor.dims[0] = width_of(info, row->n_out);
	tensor.dims[1] = 1;
	if (at % 2 == 0 && !row->is_norm) {
		tensor.n_dims = 2;
		tensor.dims[1] = width_of(info, row->n_in);
	}
	tensor.n = (size_t)tensor.dims[0] * tensor.dims[1];
	return tensor;
}

size_t hardness_n_values(const struct hardness_info *info)
{
	size_t n = 0;

	for (unsigned i = 0; i < hardness_n_tensors(info); i++)
		n += hardness_tensor(info, i).n;
	return n;
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
	const struct tensor *fc1 = find(st, "blocks.0.mlp.fc1.weight", 2);
	size_t n = safetensors_count(st);
	int r;

	if (!format || strcmp(format, FORMAT) != 0)
		return diag_set(diag, EBADMSG, "hardness: not a hardness file");
	if (!of_entry || !fc1 || n < HARDNESS_ENTRY + HARDNESS_END ||
		(n - HARDNESS_ENTRY - HARDNESS_END) % HARDNESS_OF_BLOCK != 0 ||
		n > HARDNESS_ENTRY + MAX_DEPTH * HARDNESS_OF_BLOCK + HARDNESS_END)
		return diag_set(diag, EBADMSG, "hardness: tensors are missing, or too many");
	info->inner = (uint32_t)of_entry->dims[0];
	info->width = (uint32_t)of_entry->dims[1];
	info->n_mlp = (uint32_t)fc1->dims[0];
	info->depth = (uint32_t)((n - HARDNESS_ENTRY - HARDNESS_END) / HARDNESS_OF_BLOCK);
	r = read_count(&info->grid, st, "grid", diag);
	if (r == 0)
		r = read_count(&info->n_heads, st, "num_heads", diag);
	if (r == 0)
		r = read_digest(&info->base, st, "base", diag);
	if (r == 0)
		r = read_digest(&info->mask, st, "mask", diag);
	return r < 0 ? r : check_info(info, diag);
}

static int read_tensor(float *values, const struct safetensors *st,
	const struct hardness_tensor *want, struct diag *diag)
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
	_cleanup_(freep) float *values = NULL;
	struct hardness_info info = { 0 };
	size_t at = 0;
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
	for (unsigned i = 0; i < hardness_n_tensors(&info); i++) {
		struct hardness_tensor tensor = hardness_tensor(&info, i);

		r = read_tensor(values + at, st, &tensor, diag);
		if (r < 0)
			return r;
		at += tensor.n;
	}
	r = check_sum(st, values, at, diag);
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
	const unsigned n = hardness_n_tensors(info);
	char base[DIGEST_HEX_CHARS + 1], mask[DIGEST_HEX_CHARS + 1], heads[12], grid[12];
	struct sum sum;
	const char *const metadata[] = { "format", FORMAT, "base", base, "mask", mask, "num_heads",
		heads, "grid", grid, "xxh3", sum.text, NULL };
	_cleanup_(freep) struct hardness_tensor *tensors = NULL;
	_cleanup_(freep) struct tensor_out *out = NULL;

	if (check_info(info, NULL) < 0)
		return -EINVAL;
	sum = sum_of(values, hardness_n_values(info));
	tensors = calloc(n, sizeof(*tensors));
	out = calloc(n, sizeof(*out));
	if (!tensors || !out)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		tensors[i] = hardness_tensor(info, i);
		out[i] = (struct tensor_out){
			.name = tensors[i].name,
			.n_dims = tensors[i].n_dims,
			.dims = { tensors[i].dims[0], tensors[i].dims[1] },
			.data = values,
		};
		values += tensors[i].n;
	}
	digest_to_hex(&info->base, base);
	digest_to_hex(&info->mask, mask);
	(void)snprintf(heads, sizeof(heads), "%u", info->n_heads);
	(void)snprintf(grid, sizeof(grid), "%u", info->grid);
	return safetensors_encode(out, n, metadata, ret_data, ret_n_bytes);
}
