/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_SAFETENSORS_H
#define KAMEN_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/diag.h"

enum tensor_dtype { TENSOR_F32, TENSOR_F16, TENSOR_BF16 };

#define TENSOR_MAX_DIMS 8

struct tensor {
	const char *name; /* owned by the safetensors object */
	enum tensor_dtype dtype;
	unsigned n_dims;
	uint64_t dims[TENSOR_MAX_DIMS];
	uint64_t n_elements;
	const void *data; /* into the caller's bytes; not aligned: read with tensor_to_f32() */
	size_t n_bytes;
};

/** Index over the bytes of a safetensors file, which must outlive it. */
struct safetensors;

/**
 * Checks everything: header length, JSON, dtype, shape against byte range, ranges inside the file,
 * no overlap, no hole, no duplicate name.
 *
 * @return 0, -EBADMSG with the tensor and the field in diag, -EOPNOTSUPP: a dtype that we do not
 *         read, -ENOMEM
 */
int safetensors_open(
	struct safetensors **ret_st, const void *data, size_t n_bytes, struct diag *diag);
void safetensors_free(struct safetensors *st);
DEFINE_CLEANUP(struct safetensors *, safetensors_free)

size_t safetensors_count(const struct safetensors *st);
/** In the order of their bytes. */
const struct tensor *safetensors_at(const struct safetensors *st, size_t i);
/** NULL where there is none. */
const struct tensor *safetensors_find(const struct safetensors *st, const char *name);
/** Value of a key of __metadata__, or NULL. */
const char *safetensors_metadata(const struct safetensors *st, const char *key);

/** Widens n elements to f32. */
void tensor_to_f32(float *dst, const struct tensor *tensor);

/** One tensor to write. */
struct tensor_out {
	const char *name;
	unsigned n_dims;
	uint64_t dims[TENSOR_MAX_DIMS];
	const float *data;
};
/** Encodes f32 tensors (and optional metadata pairs, NULL-terminated) to a file image; malloc'ed. */
int safetensors_encode(const struct tensor_out *tensors, size_t n_tensors,
	const char *const *metadata, void **ret_data, size_t *ret_n_bytes);

#endif
