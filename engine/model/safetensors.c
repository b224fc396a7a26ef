/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "model/safetensors.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian");

/* Far above any real model (about 100 bytes a tensor), far below what parsing could not bear. */
#define MAX_HEADER_BYTES (16u << 20)
#define LENGTH_BYTES sizeof(uint64_t)

struct safetensors {
	json_t *header; /* owns the names and the metadata */
	const json_t *metadata;
	struct tensor *tensors;        /* (n_tensors), in the order of their bytes */
	const struct tensor **by_name; /* (n_tensors), sorted */
	size_t n_tensors;
};

void safetensors_free(struct safetensors *st)
{
	if (!st)
		return;
	json_decref(st->header);
	free(st->tensors);
	free(st->by_name);
	free(st);
}

static size_t dtype_bytes(enum tensor_dtype dtype)
{
	return dtype == TENSOR_F32 ? 4 : 2;
}

static int parse_dtype(struct tensor *tensor, const json_t *fields, struct diag *diag)
{
	static const char *const names[] = { "F32", "F16", "BF16" };
	const char *dtype = json_string_value(json_object_get(fields, "dtype"));

	if (!dtype)
		return diag_set(diag, EBADMSG, "tensor '%s': no dtype", tensor->name);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(dtype, names[i]) == 0) {
			tensor->dtype = (enum tensor_dtype)i;
			return 0;
		}
	return diag_set(diag, EOPNOTSUPP, "tensor '%s': dtype '%s' is not F32, F16 or BF16",
		tensor->name, dtype);
}

static int parse_shape(struct tensor *tensor, const json_t *fields, struct diag *diag)
{
	const json_t *shape = json_object_get(fields, "shape");
	uint64_t n_elements = 1;

	if (!json_is_array(shape) || json_array_size(shape) > TENSOR_MAX_DIMS)
		return diag_set(diag, EBADMSG,
			"tensor '%s': shape is not a list of at most %d numbers", tensor->name,
			TENSOR_MAX_DIMS);
	tensor->n_dims = (unsigned)json_array_size(shape);
	for (unsigned i = 0; i < tensor->n_dims; i++) {
		const json_t *dim = json_array_get(shape, i);

		if (!json_is_integer(dim) || json_integer_value(dim) < 0)
			return diag_set(diag, EBADMSG,
				"tensor '%s': shape[%u] is not a whole number", tensor->name, i);
		tensor->dims[i] = (uint64_t)json_integer_value(dim);
		if (__builtin_mul_overflow(n_elements, tensor->dims[i], &n_elements))
			return diag_set(
				diag, EBADMSG, "tensor '%s': shape overflows", tensor->name);
	}
	tensor->n_elements = n_elements;
	if (__builtin_mul_overflow(n_elements, dtype_bytes(tensor->dtype), &tensor->n_bytes))
		return diag_set(diag, EBADMSG, "tensor '%s': shape overflows", tensor->name);
	return 0;
}

static int parse_offsets(struct tensor *tensor, const json_t *fields, const uint8_t *bytes,
	size_t n_bytes, struct diag *diag)
{
	const json_t *offsets = json_object_get(fields, "data_offsets");
	json_int_t begin, end;

	if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
		!json_is_integer(json_array_get(offsets, 0)) ||
		!json_is_integer(json_array_get(offsets, 1)))
		return diag_set(diag, EBADMSG, "tensor '%s': data_offsets is not two numbers",
			tensor->name);
	begin = json_integer_value(json_array_get(offsets, 0));
	end = json_integer_value(json_array_get(offsets, 1));
	if (begin < 0 || end < begin || (uint64_t)end > n_bytes)
		return diag_set(diag, EBADMSG,
			"tensor '%s': data_offsets [%lld, %lld] lie outside of the file's %zu "
			"bytes",
			tensor->name, (long long)begin, (long long)end, n_bytes);
	if ((uint64_t)(end - begin) != tensor->n_bytes)
		return diag_set(diag, EBADMSG,
			"tensor '%s': data_offsets give %lld bytes, shape and dtype %zu",
			tensor->name, (long long)(end - begin), tensor->n_bytes);
	tensor->data = bytes + begin;
	return 0;
}

static int parse_tensor(struct tensor *ret_tensor, const char *name, const json_t *fields,
	const uint8_t *bytes, size_t n_bytes, struct diag *diag)
{
	struct tensor tensor = { .name = name };
	int r;

	if (!json_is_object(fields))
		return diag_set(diag, EBADMSG, "tensor '%s': not an object", name);
	r = parse_dtype(&tensor, fields, diag);
	if (r == 0)
		r = parse_shape(&tensor, fields, diag);
	if (r == 0)
		r = parse_offsets(&tensor, fields, bytes, n_bytes, diag);
	if (r == 0)
		*ret_tensor = tensor;
	return r;
}

static int parse_metadata(struct safetensors *st, const json_t *metadata, struct diag *diag)
{
	const char *key;
	json_t *value;

	if (!json_is_object(metadata))
		return diag_set(diag, EBADMSG, "__metadata__ is not an object");
	json_object_foreach(
		(json_t *)metadata, key, value) if (!json_is_string(value)) return diag_set(diag,
		EBADMSG, "__metadata__: '%s' is not a string", key);
	st->metadata = metadata;
	return 0;
}

static int parse_header(struct safetensors *st, const char *text, size_t n_text, struct diag *diag)
{
	json_error_t error;

	st->header = json_loadb(text, n_text, JSON_REJECT_DUPLICATES, &error);
	if (!st->header && json_error_code(&error) == json_error_out_of_memory)
		return -ENOMEM;
	if (!st->header)
		return diag_set(diag, EBADMSG, "header: %s (byte %d)", error.text, error.position);
	if (!json_is_object(st->header))
		return diag_set(diag, EBADMSG, "header is not a JSON object");
	return 0;
}

static int compare_bytes(const void *a, const void *b)
{
	const struct tensor *x = a, *y = b;

	if (x->data != y->data)
		return (const char *)x->data < (const char *)y->data ? -1 : 1;
	if (x->n_bytes != y->n_bytes)
		return x->n_bytes < y->n_bytes ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(
		(*(const struct tensor *const *)a)->name, (*(const struct tensor *const *)b)->name);
}

/* The format demands that every byte belongs to exactly one tensor; so neither hidden nor shared
 * bytes can differ between two readers. */
static int check_cover(
	const struct safetensors *st, const uint8_t *bytes, size_t n_bytes, struct diag *diag)
{
	const uint8_t *end = bytes;

	for (size_t i = 0; i < st->n_tensors; i++) {
		const struct tensor *tensor = &st->tensors[i];

		if ((const uint8_t *)tensor->data < end)
			return diag_set(diag, EBADMSG,
				"tensor '%s': data_offsets overlap those of '%s'", tensor->name,
				st->tensors[i - 1].name);
		if ((const uint8_t *)tensor->data > end)
			return diag_set(diag, EBADMSG,
				"tensor '%s': data_offsets leave a hole before it", tensor->name);
		end += tensor->n_bytes;
	}
	if (end != bytes + n_bytes)
		return diag_set(diag, EBADMSG, "%zu bytes after the last tensor belong to none",
			(size_t)(bytes + n_bytes - end));
	return 0;
}

static int parse_tensors(
	struct safetensors *st, const uint8_t *bytes, size_t n_bytes, struct diag *diag)
{
	size_t n_keys = json_object_size(st->header);
	const char *name;
	json_t *fields;
	int r;

	st->tensors = calloc(n_keys + 1, sizeof(*st->tensors));
	st->by_name = calloc(n_keys + 1, sizeof(*st->by_name));
	if (!st->tensors || !st->by_name)
		return -ENOMEM;
	json_object_foreach(st->header, name, fields)
	{
		if (strcmp(name, "__metadata__") == 0)
			r = parse_metadata(st, fields, diag);
		else
			r = parse_tensor(
				&st->tensors[st->n_tensors++], name, fields, bytes, n_bytes, diag);
		if (r < 0)
			return r;
	}
	qsort(st->tensors, st->n_tensors, sizeof(*st->tensors), compare_bytes);
	for (size_t i = 0; i < st->n_tensors; i++)
		st->by_name[i] = &st->tensors[i];
	qsort(st->by_name, st->n_tensors, sizeof(*st->by_name), compare_names);
	return check_cover(st, bytes, n_bytes, diag);
}

int safetensors_open(
	struct safetensors **ret_st, const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(safetensors_freep) struct safetensors *st = NULL;
	const uint8_t *bytes = data;
	uint64_t n_header;
	int r;

	if (n_bytes < LENGTH_BYTES)
		return diag_set(diag, EBADMSG, "file of %zu bytes has no header length", n_bytes);
	memcpy(&n_header, bytes, LENGTH_BYTES);
	if (n_header > n_bytes - LENGTH_BYTES || n_header > MAX_HEADER_BYTES)
		return diag_set(diag, EBADMSG,
			"header length %llu: file has %zu bytes, limit is %u",
			(unsigned long long)n_header, n_bytes, MAX_HEADER_BYTES);
	st = calloc(1, sizeof(*st));
	if (!st)
		return -ENOMEM;
	bytes += LENGTH_BYTES;
	r = parse_header(st, (const char *)bytes, n_header, diag);
	if (r < 0)
		return r;
	r = parse_tensors(st, bytes + n_header, n_bytes - LENGTH_BYTES - n_header, diag);
	if (r < 0)
		return r;
	*ret_st = TAKE_PTR(st);
	return 0;
}

size_t safetensors_count(const struct safetensors *st)
{
	return st->n_tensors;
}

const struct tensor *safetensors_at(const struct safetensors *st, size_t i)
{
	return i < st->n_tensors ? &st->tensors[i] : NULL;
}

const struct tensor *safetensors_find(const struct safetensors *st, const char *name)
{
	const struct tensor key = { .name = name }, *p = &key, *const * found;

	found = bsearch(&p, st->by_name, st->n_tensors, sizeof(*st->by_name), compare_names);
	return found ? *found : NULL;
}

const char *safetensors_metadata(const struct safetensors *st, const char *key)
{
	return json_string_value(json_object_get(st->metadata, key));
}

static void f16_to_f32(float *dst, const uint8_t *src, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t half;
		uint32_t sign, exponent, mantissa, bits;
		float small;

		memcpy(&half, src + 2 * i, 2);
		sign = (uint32_t)(half & 0x8000) << 16;
		exponent = half >> 10 & 0x1f;
		mantissa = half & 0x3ff;
		bits = (exponent == 31 ? 255u : exponent + 112) << 23 | mantissa << 13;
		/* Subnormal: a whole number of 2^-24, which a float holds exactly. */
		small = (float)(int32_t)mantissa * 0x1p-24f;
		if (exponent == 0)
			memcpy(&bits, &small, 4);
		bits |= sign;
		memcpy(&dst[i], &bits, 4);
	}
}

static void bf16_to_f32(float *dst, const uint8_t *src, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t half;
		uint32_t bits;

		memcpy(&half, src + 2 * i, 2);
		bits = (uint32_t)half << 16;
		memcpy(&dst[i], &bits, 4);
	}
}

void tensor_to_f32(float *dst, const struct tensor *tensor)
{
	switch (tensor->dtype) {
	case TENSOR_F32:
		if (tensor->n_bytes > 0)
			memcpy(dst, tensor->data, tensor->n_bytes);
		break;
	case TENSOR_F16:
		f16_to_f32(dst, tensor->data, tensor->n_elements);
		break;
	case TENSOR_BF16:
		bf16_to_f32(dst, tensor->data, tensor->n_elements);
		break;
	}
}

static size_t out_bytes(const struct tensor_out *tensor)
{
	size_t n_bytes = sizeof(float);

	for (unsigned i = 0; i < tensor->n_dims; i++)
		n_bytes *= tensor->dims[i];
	return n_bytes;
}

static json_t *encode_fields(const struct tensor_out *tensor, size_t begin)
{
	json_t *shape = json_array();

	for (unsigned i = 0; i < tensor->n_dims; i++)
		if (json_array_append_new(shape, json_integer((json_int_t)tensor->dims[i])) < 0) {
			json_decref(shape);
			return NULL;
		}
	return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
		(json_int_t)begin, (json_int_t)(begin + out_bytes(tensor)));
}

static void json_decrefp_(json_t **json)
{
	json_decref(*json);
}

/* JSON text, padded so that the tensors begin on a multiple of 8 bytes. */
static int encode_header(const struct tensor_out *tensors, size_t n_tensors,
	const char *const *metadata, char **ret_text, size_t *ret_n_data)
{
	_cleanup_(json_decrefp_) json_t *header = json_object();
	size_t begin = 0;
	char *text;

	for (const char *const *pair = metadata; pair && pair[0]; pair += 2) {
		json_t *object = json_object_get(header, "__metadata__");

		if (!object) {
			object = json_object();
			if (json_object_set_new(header, "__metadata__", object) < 0)
				return -ENOMEM;
		}
		if (json_object_set_new(object, pair[0], json_string(pair[1])) < 0)
			return -ENOMEM;
	}
	for (size_t i = 0; i < n_tensors; i++) {
		if (json_object_set_new(
			    header, tensors[i].name, encode_fields(&tensors[i], begin)) < 0)
			return -ENOMEM;
		begin += out_bytes(&tensors[i]);
	}
	text = json_dumps(header, JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	*ret_n_data = begin;
	*ret_text = text;
	return 0;
}

int safetensors_encode(const struct tensor_out *tensors, size_t n_tensors,
	const char *const *metadata, void **ret_data, size_t *ret_n_bytes)
{
	_cleanup_(freep) char *text = NULL;
	size_t n_data, n_text;
	uint64_t n_header;
	uint8_t *data, *p;
	int r;

	r = encode_header(tensors, n_tensors, metadata, &text, &n_data);
	if (r < 0)
		return r;
	n_text = strlen(text);
	n_header = (n_text + 7) & ~(uint64_t)7;
	data = malloc(LENGTH_BYTES + n_header + n_data);
	if (!data)
		return -ENOMEM;
	memcpy(data, &n_header, LENGTH_BYTES);
	memset(data + LENGTH_BYTES, ' ', n_header);
	memcpy(data + LENGTH_BYTES, text, n_text);
	p = data + LENGTH_BYTES + n_header;
	for (size_t i = 0; i < n_tensors; i++) {
		size_t n_bytes = out_bytes(&tensors[i]);

		if (n_bytes > 0)
			memcpy(p, tensors[i].data, n_bytes);
		p += n_bytes;
	}
	*ret_n_bytes = LENGTH_BYTES + n_header + n_data;
	*ret_data = data;
	return 0;
}
