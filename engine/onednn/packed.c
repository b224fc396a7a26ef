/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "onednn/dnnl_glue.h"

/* The layout is asked for with this many rows and then used with any number: what oneDNN chooses
 * depends on k and n alone where it matters. */
enum { TYPICAL_ROWS = 197 };

static int choose_matmul(struct packed *packed)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	_cleanup_(pd_freep) dnnl_primitive_desc_t pd = NULL;
	struct view src_view = view_in(view_2d(TYPICAL_ROWS, packed->k), packed->precision);
	struct view dst_view = view_2d(TYPICAL_ROWS, packed->n);
	const dnnl_dims_t dims = { packed->k, packed->n };
	const dnnl_memory_desc_t *chosen;
	dnnl_memory_desc_t src, any, dst;
	dnnl_matmul_desc_t desc;
	int r;

	r = view_desc_src(&src, &src_view);
	if (r == 0)
		r = view_desc_dst(&dst, &dst_view, packed->precision);
	if (r == 0)
		r = dnnl_errno(dnnl_memory_desc_init_by_tag(
			&any, 2, dims, precision_type(packed->precision), dnnl_format_tag_any));
	if (r == 0)
		r = dnnl_errno(dnnl_matmul_desc_init(&desc, &src, &any, NULL, &dst));
	if (r == 0)
		r = user_scratchpad_attr(&attr);
	if (r == 0)
		r = dnnl_errno(
			dnnl_primitive_desc_create(&pd, &desc, attr, packed->onednn->engine, NULL));
	if (r < 0)
		return r;

	chosen = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
	if (!chosen)
		return -EIO;
	packed->desc = *chosen;
	packed->weights = *chosen;
	return 0;
}

int pixels_desc(dnnl_memory_desc_t *ret_desc, int64_t rows, int64_t n)
{
	return dnnl_errno(dnnl_memory_desc_init_by_tag(
		ret_desc, 4, (const dnnl_dims_t){ 1, n, rows, 1 }, dnnl_f32, dnnl_nhwc));
}

/* What a convolution of one pixel would have, NULL: none that is made for that. */
static int pointwise_pd(dnnl_primitive_desc_t *ret_pd, const struct packed *packed)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	_cleanup_(pd_freep) dnnl_primitive_desc_t pd = NULL;
	const dnnl_dims_t dims = { packed->n, packed->k, 1, 1 }, ones = { 1, 1 }, none = { 0 };
	dnnl_memory_desc_t src, any, dst;
	dnnl_convolution_desc_t desc;
	const char *name = "";
	dnnl_status_t status;
	int r;

	r = pixels_desc(&src, TYPICAL_ROWS, packed->k);
	if (r == 0)
		r = pixels_desc(&dst, TYPICAL_ROWS, packed->n);
	if (r == 0)
		r = dnnl_errno(
			dnnl_memory_desc_init_by_tag(&any, 4, dims, dnnl_f32, dnnl_format_tag_any));
	if (r == 0)
		r = dnnl_errno(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference,
			dnnl_convolution_direct, &src, &any, NULL, &dst, ones, none, none));
	if (r == 0)
		r = user_scratchpad_attr(&attr);
	if (r < 0)
		return r;
	status = dnnl_primitive_desc_create(&pd, &desc, attr, packed->onednn->engine, NULL);
	if (status == dnnl_unimplemented)
		return 0;
	r = dnnl_errno(status);
	if (r == 0)
		r = dnnl_errno(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name));
	if (r == 0 && strcmp(name, "jit_1x1:avx2") == 0)
		*ret_pd = TAKE_PTR(pd);
	return r;
}

/* (n, k, 1, 1) -> (k, n) */
static dnnl_memory_desc_t without_pixels(
	const struct packed *packed, const dnnl_memory_desc_t *weights)
{
	const dnnl_blocking_desc_t *from = &weights->format_desc.blocking;
	dnnl_memory_desc_t desc = packed->desc;
	dnnl_blocking_desc_t *to = &desc.format_desc.blocking;

	for (int i = 0; i < 2; i++) {
		desc.padded_dims[i] = weights->padded_dims[1 - i];
		to->strides[i] = from->strides[1 - i];
	}
	to->inner_nblks = from->inner_nblks;
	for (int i = 0; i < from->inner_nblks; i++) {
		to->inner_blks[i] = from->inner_blks[i];
		to->inner_idxs[i] = 1 - from->inner_idxs[i];
	}
	return desc;
}

static bool has_blocks(const dnnl_memory_desc_t *desc)
{
	return desc->format_kind == dnnl_blocked && desc->format_desc.blocking.inner_nblks > 0;
}

/* Where matmul has no layout of its own, as in 2.6 without AVX-512, it packs both matrices at every
 * product. A convolution of one pixel reads weights in blocks: 1.03 to 2.2 times as fast on two threads
 * of Zen 3. */
static int choose_pointwise(struct packed *packed)
{
	_cleanup_(pd_freep) dnnl_primitive_desc_t pd = NULL;
	const dnnl_memory_desc_t *chosen;
	int r;

	if (packed->precision != PRECISION_F32 || has_blocks(&packed->desc))
		return 0;
	r = pointwise_pd(&pd, packed);
	if (r < 0 || !pd)
		return r;
	chosen = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
	if (!chosen)
		return -EIO;
	if (!has_blocks(chosen) || chosen->padded_dims[0] != packed->n ||
		chosen->padded_dims[1] != packed->k)
		return 0;
	packed->convolves = true;
	packed->weights = *chosen;
	packed->desc = without_pixels(packed, chosen);
	return 0;
}

/* The plain values, as the weights' dimensions are. */
static int plain_desc(dnnl_memory_desc_t *ret_desc, const struct packed *packed)
{
	const bool transposed = packed->source == PACKED_N_BY_K;
	const int64_t across = transposed ? 1 : packed->n, down = transposed ? packed->k : 1;
	struct view view = view_2d(packed->k, packed->n);

	view.strides[0] = across;
	view.strides[1] = down;
	if (packed->convolves)
		view = (struct view){
			.n_dims = 4,
			.dims = { packed->n, packed->k, 1, 1 },
			.strides = { down, across, 1, 1 },
		};
	/* What is rounded to int8 was so before it comes here: by scales. */
	if (packed->precision == PRECISION_INT8)
		view.precision = PRECISION_INT8;
	return view_desc(ret_desc, &view);
}

static int make_reorder(struct packed *packed)
{
	_cleanup_(pd_freep) dnnl_primitive_desc_t pd = NULL;
	dnnl_engine_t engine = packed->onednn->engine;
	dnnl_memory_desc_t plain;
	int r = plain_desc(&plain, packed);

	if (r == 0)
		r = dnnl_errno(dnnl_reorder_primitive_desc_create(
			&pd, &plain, engine, &packed->weights, engine, NULL));
	if (r == 0)
		r = dnnl_errno(dnnl_primitive_create(&packed->reorder, pd));
	if (r == 0)
		r = dnnl_errno(
			dnnl_memory_create(&packed->plain, &plain, engine, DNNL_MEMORY_NONE));
	return r;
}

int packed_new(struct packed **ret_packed, struct onednn *onednn, int64_t k, int64_t n,
	enum packed_source source, enum precision precision)
{
	_cleanup_(packed_freep) struct packed *packed = calloc(1, sizeof(*packed));
	int r;

	if (!packed)
		return -ENOMEM;
	packed->onednn = onednn;
	packed->k = k;
	packed->n = n;
	packed->source = source;
	packed->precision = precision;
	r = choose_matmul(packed);
	if (r == 0)
		r = choose_pointwise(packed);
	if (r < 0)
		return r;
	r = make_reorder(packed);
	if (r == 0)
		r = dnnl_errno(dnnl_memory_create(
			&packed->memory, &packed->weights, onednn->engine, DNNL_MEMORY_NONE));
	if (r < 0)
		return r;

	*ret_packed = TAKE_PTR(packed);
	return 0;
}

void packed_free(struct packed *packed)
{
	if (!packed)
		return;
	if (packed->reorder)
		(void)dnnl_primitive_destroy(packed->reorder);
	if (packed->plain)
		(void)dnnl_memory_destroy(packed->plain);
	if (packed->memory)
		(void)dnnl_memory_destroy(packed->memory);
	free(packed->own);
	free(packed);
}

size_t packed_bytes(const struct packed *packed)
{
	return dnnl_memory_desc_get_size(&packed->desc);
}

uint32_t packed_column_block(const struct packed *packed)
{
	const dnnl_memory_desc_t *desc = &packed->desc;
	const dnnl_blocking_desc_t *blocking = &desc->format_desc.blocking;
	int64_t n = 1;

	if (desc->ndims != 2 || desc->format_kind != dnnl_blocked ||
		desc->extra.flags != dnnl_memory_extra_flag_none ||
		desc->padded_dims[0] != desc->dims[0] || desc->padded_dims[1] != desc->dims[1])
		return 0;
	for (int i = 0; i < blocking->inner_nblks; i++)
		if (blocking->inner_idxs[i] == 1)
			n *= blocking->inner_blks[i];
	return n > 1 && blocking->strides[1] == desc->dims[0] * n ? (uint32_t)n : 0;
}

bool packed_has_panels(const struct packed *packed, uint32_t n)
{
	const dnnl_blocking_desc_t *blocking = &packed->desc.format_desc.blocking;
	const int last = blocking->inner_nblks - 1;
	int64_t n_rows = 1;

	if (packed_column_block(packed) != n || blocking->inner_idxs[last] != 1 ||
		blocking->inner_blks[last] != n)
		return false;
	for (int i = 0; i < last; i++)
		n_rows *= blocking->inner_blks[i];
	return blocking->strides[0] == n_rows * n;
}

dnnl_memory_desc_t packed_columns_desc(const struct packed *packed, int64_t n)
{
	const int dim = packed->convolves ? 0 : 1;
	dnnl_memory_desc_t desc = packed->weights;

	desc.dims[dim] = n;
	desc.padded_dims[dim] = n;
	return desc;
}

void *packed_data(const struct packed *packed)
{
	return packed->data;
}

int packed_place(struct packed *packed, void *data)
{
	int r = dnnl_errno(dnnl_memory_set_data_handle(packed->memory, data));

	if (r == 0)
		packed->data = data;
	return r;
}

static int place_own(struct packed *packed)
{
	size_t n_bytes = (packed_bytes(packed) + 63) & ~(size_t)63;

	packed->own = aligned_alloc(64, n_bytes);
	return packed->own ? packed_place(packed, packed->own) : -ENOMEM;
}

int packed_write(struct packed *packed, const void *values)
{
	dnnl_exec_arg_t args[] = {
		{ .arg = DNNL_ARG_FROM, .memory = packed->plain },
		{ .arg = DNNL_ARG_TO, .memory = packed->memory },
	};
	int r = packed->data ? 0 : place_own(packed);

	if (r < 0)
		return r;
	r = dnnl_errno(dnnl_memory_set_data_handle(packed->plain, (void *)values));
	if (r == 0)
		r = dnnl_errno(dnnl_primitive_execute(
			packed->reorder, packed->onednn->stream, ARRAY_SIZE(args), args));
	if (r == 0)
		r = dnnl_errno(dnnl_stream_wait(packed->onednn->stream));
	return r < 0 ? -EIO : 0;
}
