/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/vit_internal.h"
#include "model/vit_params.h"

#define NAME_MAX_CHARS 48
#define NORM_EPS 1e-6F

enum { MAX_CLASSES = 1 << 20 };

const char *const vit_layer_names[VIT_N_LAYERS] = {
	[VIT_QKV] = "attn.qkv",
	[VIT_PROJ] = "attn.proj",
	[VIT_FC1] = "mlp.fc1",
	[VIT_FC2] = "mlp.fc2",
};

/* Fetches tensors by name until the first error: a file's, or those of a model that is learnt. */
struct loader {
	struct vit *vit;
	const struct safetensors *st; /* NULL: vit->params say what there is */
	struct diag *diag;
	const struct tensor **loaded; /* (n_loaded) */
	size_t n_loaded;
	int error;
};

static bool borrowable(const struct tensor *tensor)
{
	return tensor->dtype == TENSOR_F32 && (uintptr_t)tensor->data % sizeof(float) == 0;
}

static const struct tensor *find(struct loader *l, const char *name)
{
	const struct tensor *tensor = safetensors_find(l->st, name);

	if (!tensor && l->error == 0)
		l->error = diag_set(l->diag, EBADMSG, "tensor %s: missing", name);
	return tensor;
}

static bool has_dims(const struct tensor *tensor, unsigned n_dims, const uint64_t *dims)
{
	return tensor->n_dims == n_dims && memcmp(tensor->dims, dims, n_dims * sizeof(*dims)) == 0;
}

static void describe(char *text, size_t size, unsigned n_dims, const uint64_t *dims)
{
	size_t used = 0;

	text[0] = 0;
	for (unsigned i = 0; i < n_dims && used < size; i++)
		used += (size_t)snprintf(
			text + used, size - used, "%s%" PRIu64, i ? ", " : "", dims[i]);
}

/* Of a list that was made of the same shape: there is nothing to check. */
static const float *own_values(struct loader *l, const char *name)
{
	const struct param *param = params_find(l->vit->params, name);

	if (!param)
		l->error = diag_set(l->diag, EBADMSG, "tensor %s: missing", name);
	return param ? l->vit->values + param->offset : NULL;
}

static const float *load(struct loader *l, const char *name, unsigned n_dims, const uint64_t *dims)
{
	const struct tensor *tensor;
	char want[96], got[192];
	float *values;

	if (!l->st)
		return own_values(l, name);
	tensor = find(l, name);
	if (!tensor || l->error < 0)
		return NULL;
	if (!has_dims(tensor, n_dims, dims)) {
		describe(want, sizeof(want), n_dims, dims);
		describe(got, sizeof(got), tensor->n_dims, tensor->dims);
		l->error = diag_set(
			l->diag, EBADMSG, "tensor %s: shape (%s), expected (%s)", name, got, want);
		return NULL;
	}
	l->loaded[l->n_loaded++] = tensor;
	if (borrowable(tensor))
		return tensor->data;
	values = arena_take(l->vit->arena, tensor->n_elements * sizeof(float));
	if (!values)
		l->error = -ENOMEM;
	else
		tensor_to_f32(values, tensor);
	return values;
}

static const float *load_vector(struct loader *l, const char *name, uint64_t n)
{
	return load(l, name, 1, &n);
}

static const float *load_matrix(struct loader *l, const char *name, uint64_t rows, uint64_t cols)
{
	return load(l, name, 2, (uint64_t[]){ rows, cols });
}

static struct vit_norm load_norm(struct loader *l, const char *name)
{
	char full[NAME_MAX_CHARS];
	struct vit_norm norm;

	(void)snprintf(full, sizeof(full), "%s.weight", name);
	norm.weight = load_vector(l, full, l->vit->shape.width);
	(void)snprintf(full, sizeof(full), "%s.bias", name);
	norm.bias = load_vector(l, full, l->vit->shape.width);
	return norm;
}

static void layer_size(
	const struct vit_shape *shape, enum vit_layer layer, uint32_t *ret_out, uint32_t *ret_in)
{
	*ret_in = layer == VIT_FC2 ? shape->mlp : shape->width;
	*ret_out = layer == VIT_QKV   ? 3 * shape->width
		   : layer == VIT_FC1 ? shape->mlp
				      : shape->width;
}

/* A name that lives as long as the model: the mask layout borrows it. */
static const char *tensor_name(
	struct loader *l, uint32_t block, enum vit_layer layer, const char *part)
{
	char *name = arena_take(l->vit->arena, NAME_MAX_CHARS);

	if (name)
		(void)snprintf(name, NAME_MAX_CHARS, "blocks.%" PRIu32 ".%s.%s", block,
			vit_layer_names[layer], part);
	else
		l->error = -ENOMEM;
	return name;
}

static void load_block(struct loader *l, uint32_t block, const char **names, size_t *sizes)
{
	struct vit *vit = l->vit;
	char name[NAME_MAX_CHARS];

	for (int layer = 0; layer < VIT_N_LAYERS; layer++) {
		unsigned at = 2 * vit_layer_index(block, layer);
		uint32_t n_out, n_in;

		layer_size(&vit->shape, layer, &n_out, &n_in);
		names[at] = tensor_name(l, block, layer, "weight");
		names[at + 1] = tensor_name(l, block, layer, "bias");
		if (l->error < 0)
			return;
		sizes[at] = (size_t)n_out * n_in;
		sizes[at + 1] = n_out;
		vit->weights[at] = load_matrix(l, names[at], n_out, n_in);
		vit->weights[at + 1] = load_vector(l, names[at + 1], n_out);
	}
	(void)snprintf(name, sizeof(name), "blocks.%" PRIu32 ".norm1", block);
	vit->norm1[block] = load_norm(l, name);
	(void)snprintf(name, sizeof(name), "blocks.%" PRIu32 ".norm2", block);
	vit->norm2[block] = load_norm(l, name);
}

static int load_blocks(struct loader *l)
{
	struct vit *vit = l->vit;
	const unsigned n_tensors = 2 * VIT_N_LAYERS * vit->shape.depth;
	_cleanup_(freep) const char **names = calloc(n_tensors, sizeof(*names));
	_cleanup_(freep) size_t *sizes = calloc(n_tensors, sizeof(*sizes));

	vit->weights = calloc(n_tensors, sizeof(*vit->weights));
	vit->norm1 = calloc(vit->shape.depth, sizeof(*vit->norm1));
	vit->norm2 = calloc(vit->shape.depth, sizeof(*vit->norm2));
	if (!names || !sizes || !vit->weights || !vit->norm1 || !vit->norm2)
		return -ENOMEM;
	for (uint32_t b = 0; l->error == 0 && b < vit->shape.depth; b++)
		load_block(l, b, names, sizes);
	if (l->error < 0)
		return l->error;
	return mask_layout_new(&vit->layout, n_tensors, names, sizes);
}

static int load_rest(struct loader *l)
{
	struct vit *vit = l->vit;
	const struct vit_shape *shape = &vit->shape;
	const uint64_t width = shape->width, patch = shape->patch;
	const uint64_t n_positions = 1 + (uint64_t)shape->grid * shape->grid;

	if (patch > 0) {
		vit->class_token = load(l, "cls_token", 3, (uint64_t[]){ 1, 1, width });
		vit->positions = load(l, "pos_embed", 3, (uint64_t[]){ 1, n_positions, width });
		if (shape->class_block > 0)
			vit->late_positions = load(
				l, "pos_embed_class", 3, (uint64_t[]){ 1, n_positions, width });
		vit->patch_weight = load(
			l, "patch_embed.proj.weight", 4, (uint64_t[]){ width, 3, patch, patch });
		vit->patch_bias = load_vector(l, "patch_embed.proj.bias", width);
	}
	vit->norm = load_norm(l, "norm");
	if (shape->n_classes) {
		vit->head_weight = load_matrix(l, "head.weight", shape->n_classes, width);
		vit->head_bias = load_vector(l, "head.bias", shape->n_classes);
	}
	return l->error;
}

/* An unknown tensor means another architecture (distillation token, layer scale, ...): its
 * embeddings would be wrong without a word. */
static int refuse_strangers(const struct loader *l)
{
	for (size_t i = 0; i < safetensors_count(l->st); i++) {
		const struct tensor *tensor = safetensors_at(l->st, i);
		bool known = strncmp(tensor->name, "head", 4) == 0;

		for (size_t j = 0; !known && j < l->n_loaded; j++)
			known = l->loaded[j] == tensor;
		if (!known)
			return diag_set(l->diag, EOPNOTSUPP, "tensor %s: not part of a plain ViT",
				tensor->name);
	}
	return 0;
}

static int read_patch_size(struct loader *l, struct vit_shape *shape)
{
	const struct tensor *positions = find(l, "pos_embed");
	const struct tensor *patch = find(l, "patch_embed.proj.weight");
	uint64_t grid;

	if (l->error < 0)
		return l->error;
	if (patch->n_dims != 4 || patch->dims[0] == 0 || patch->dims[0] > VIT_MAX_WIDTH ||
		patch->dims[2] == 0 || patch->dims[2] > VIT_MAX_PATCH)
		return diag_set(l->diag, EBADMSG, "tensor patch_embed.proj.weight: shape");
	shape->width = (uint32_t)patch->dims[0];
	shape->patch = (uint32_t)patch->dims[2];

	grid = positions->n_dims == 3 && positions->dims[1] > 1 ? positions->dims[1] - 1 : 0;
	shape->grid = grid <= (uint64_t)VIT_MAX_GRID * VIT_MAX_GRID
			      ? (uint32_t)lround(sqrt((double)grid))
			      : 0;
	if (shape->grid == 0 || (uint64_t)shape->grid * shape->grid != grid)
		return diag_set(l->diag, EBADMSG, "tensor pos_embed: not 1 + a square of tokens");
	return 0;
}

static int read_heads(struct loader *l, struct vit_shape *shape)
{
	const char *text = safetensors_metadata(l->st, "num_heads");
	char *end = NULL;
	unsigned long n = shape->width / 64;

	if (text)
		n = strtoul(text, &end, 10);
	else if (n == 0)
		n = 1;
	if ((text && (end == text || *end)) || n == 0 || n > shape->width || shape->width % n)
		return diag_set(l->diag, EBADMSG,
			"metadata num_heads: %lu heads do not divide a width of %" PRIu32, n,
			shape->width);
	shape->n_heads = (uint32_t)n;
	return 0;
}

/* Behind the depth: at least one block must see it. */
static int read_class_block(struct loader *l, struct vit_shape *shape)
{
	const char *text = safetensors_metadata(l->st, "class_block");
	char *end = NULL;
	unsigned long block;

	if (!text)
		return 0;
	block = strtoul(text, &end, 10);
	if (end == text || *end || block >= shape->depth)
		return diag_set(l->diag, EBADMSG,
			"metadata class_block: no block of %" PRIu32 " has a class token behind %s",
			shape->depth, text);
	shape->class_block = (uint32_t)block;
	return 0;
}

static int read_shape(struct loader *l, struct vit_shape *shape)
{
	const struct tensor *fc1, *head;
	char name[NAME_MAX_CHARS];
	int r;

	r = read_patch_size(l, shape);
	if (r < 0)
		return r;
	r = read_heads(l, shape);
	if (r < 0)
		return r;

	fc1 = find(l, "blocks.0.mlp.fc1.weight");
	if (!fc1)
		return l->error;
	if (fc1->n_dims != 2 || fc1->dims[0] == 0 || fc1->dims[0] > VIT_MAX_WIDTH)
		return diag_set(l->diag, EBADMSG, "tensor blocks.0.mlp.fc1.weight: shape");
	shape->mlp = (uint32_t)fc1->dims[0];
	do
		(void)snprintf(
			name, sizeof(name), "blocks.%" PRIu32 ".attn.qkv.weight", ++shape->depth);
	while (shape->depth < VIT_MAX_DEPTH && safetensors_find(l->st, name));

	head = safetensors_find(l->st, "head.weight");
	if (head && (head->n_dims != 2 || head->dims[0] == 0 || head->dims[0] > MAX_CLASSES))
		return diag_set(l->diag, EBADMSG, "tensor head.weight: shape");
	shape->n_classes = head ? (uint32_t)head->dims[0] : 0;
	shape->norm_eps = NORM_EPS;
	return read_class_block(l, shape);
}

static size_t names_bytes(const struct vit_shape *shape)
{
	return (size_t)shape->depth * VIT_N_LAYERS * 2 * arena_round(NAME_MAX_CHARS);
}

/* Room for widened tensors and names; pages that stay unused cost nothing. */
static size_t arena_bytes(const struct safetensors *st, const struct vit_shape *shape)
{
	size_t n_bytes = names_bytes(shape);

	for (size_t i = 0; i < safetensors_count(st); i++) {
		const struct tensor *tensor = safetensors_at(st, i);

		if (!borrowable(tensor))
			n_bytes += arena_round(tensor->n_elements * sizeof(float));
	}
	return n_bytes;
}

static int load_all(struct loader *l)
{
	struct vit *vit = l->vit;
	int r;

	r = read_shape(l, &vit->shape);
	if (r < 0)
		return r;
	r = arena_new(&vit->arena, arena_bytes(l->st, &vit->shape));
	if (r < 0)
		return r;
	r = load_blocks(l);
	if (r < 0)
		return r;
	r = load_rest(l);
	if (r < 0)
		return r;
	return refuse_strangers(l);
}

static int init_onednn(struct vit *vit, struct diag *diag)
{
	int r = onednn_new(&vit->onednn);

	for (enum precision p = 0; r == 0 && p < N_PRECISIONS; p++) {
		/* An int8 pass cuts up its images in the precision between. */
		if (!onednn_has(vit->onednn, p) || p == PRECISION_INT8 || vit->shape.patch == 0)
			continue;
		r = packed_new(&vit->patches[p], vit->onednn,
			(int64_t)vit_patch_values(&vit->shape), vit->shape.width, PACKED_N_BY_K, p);
		if (r == 0)
			r = packed_write(vit->patches[p], vit->patch_weight);
	}
	return r == -EIO ? diag_set(diag, EIO, "oneDNN refuses to work here") : r;
}

int vit_new(struct vit **ret_vit, const struct base *base, const char *family, struct diag *diag)
{
	const struct safetensors *st = base_tensors(base);
	_cleanup_(vit_freep) struct vit *vit = calloc(1, sizeof(*vit));
	_cleanup_(freep) const struct tensor **loaded =
		calloc(safetensors_count(st) + 1, sizeof(*loaded));
	struct loader loader = { .vit = vit, .st = st, .diag = diag, .loaded = loaded };
	int r;

	if (!vit || !loaded)
		return -ENOMEM;
	if (family && strcmp(family, "vit") != 0)
		return diag_set(diag, EOPNOTSUPP, "family %s: unknown, only vit is", family);
	if (!family && !(safetensors_find(st, "cls_token") && safetensors_find(st, "pos_embed") &&
			       safetensors_find(st, "blocks.0.attn.qkv.weight")))
		return diag_set(diag, EOPNOTSUPP, "no known family: not the tensors of a ViT");

	vit->base = base;
	vit->digest = *base_digest(base);
	r = load_all(&loader);
	if (r < 0)
		return r;
	r = init_onednn(vit, diag);
	if (r < 0)
		return r;

	*ret_vit = TAKE_PTR(vit);
	return 0;
}

int vit_over(struct vit **ret_vit, const struct vit_shape *shape, bool fixed_positions,
	const float *values, struct diag *diag)
{
	_cleanup_(vit_freep) struct vit *vit = calloc(1, sizeof(*vit));
	struct loader loader = { .vit = vit, .diag = diag };
	int r;

	if (!vit)
		return -ENOMEM;
	r = vit_params_new(&vit->params, shape, fixed_positions);
	if (r < 0)
		return diag_set(diag, -r, "no ViT has this shape");
	vit->shape = *shape;
	if (vit->shape.norm_eps == 0)
		vit->shape.norm_eps = NORM_EPS;
	vit->digest = digest_of(values, vit->params->n_values * sizeof(*values));
	r = arena_new(&vit->arena,
		arena_round(vit->params->n_values * sizeof(*values)) + names_bytes(shape));
	if (r < 0)
		return r;
	vit->values = arena_take(vit->arena, vit->params->n_values * sizeof(*values));
	memcpy(vit->values, values, vit->params->n_values * sizeof(*values));
	r = load_blocks(&loader);
	if (r == 0)
		r = load_rest(&loader);
	if (r == 0)
		r = init_onednn(vit, diag);
	if (r < 0)
		return r;

	*ret_vit = TAKE_PTR(vit);
	return 0;
}

int vit_load(struct vit *vit, const float *values)
{
	int r = 0;

	if (!vit->params)
		return -EINVAL;
	memcpy(vit->values, values, vit->params->n_values * sizeof(*values));
	for (enum precision p = 0; r == 0 && p < N_PRECISIONS; p++)
		if (vit->patches[p])
			r = packed_write(vit->patches[p], vit->patch_weight);
	return r;
}

void vit_free(struct vit *vit)
{
	if (!vit)
		return;
	for (enum precision p = 0; p < N_PRECISIONS; p++)
		packed_free(vit->patches[p]);
	onednn_free(vit->onednn);
	mask_layout_free(vit->layout);
	params_free(vit->params);
	arena_free(vit->arena);
	free(vit->weights);
	free(vit->norm1);
	free(vit->norm2);
	free(vit);
}

const struct vit_shape *vit_shape(const struct vit *vit)
{
	return &vit->shape;
}

const struct mask_layout *vit_layout(const struct vit *vit)
{
	return vit->layout;
}

const struct digest *vit_digest(const struct vit *vit)
{
	return &vit->digest;
}

const float *const *vit_weights(const struct vit *vit)
{
	return vit->weights;
}

const float *vit_values(const struct vit *vit)
{
	return vit->values;
}

const struct params *vit_params(const struct vit *vit)
{
	return vit->params;
}

const float *vit_patch_bias(const struct vit *vit)
{
	return vit->patch_bias;
}

struct onednn *vit_onednn(const struct vit *vit)
{
	return vit->onednn;
}

const char *vit_isa(const struct vit *vit)
{
	return onednn_isa(vit->onednn);
}

bool vit_has(const struct vit *vit, enum precision precision)
{
	return onednn_has(vit->onednn, precision);
}

int vit_slot_new(struct slot **ret_slot, struct vit *vit, enum slot_use use)
{
	const unsigned n_layers = VIT_N_LAYERS * vit->shape.depth;
	_cleanup_(freep) struct slot_layer *layers = calloc(n_layers, sizeof(*layers));

	if (!layers)
		return -ENOMEM;
	for (unsigned i = 0; i < n_layers; i++) {
		layers[i] = (struct slot_layer){
			.weight = 2 * i,
			.bias = 2 * i + 1,
			.weight_values = vit->weights[2 * i],
			.bias_values = vit->weights[2 * i + 1],
		};
		layer_size(&vit->shape, i % VIT_N_LAYERS, &layers[i].n_out, &layers[i].n_in);
	}
	return slot_new(ret_slot, vit->onednn, vit->layout, layers, n_layers, use);
}
