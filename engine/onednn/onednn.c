/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "onednn/dnnl_glue.h"

int dnnl_errno(dnnl_status_t status)
{
	if (status == dnnl_success)
		return 0;
	return status == dnnl_out_of_memory ? -ENOMEM : -EIO;
}

int onednn_new(struct onednn **ret_onednn)
{
	_cleanup_(onednn_freep) struct onednn *onednn = calloc(1, sizeof(*onednn));
	int r;

	if (!onednn)
		return -ENOMEM;
	r = dnnl_errno(dnnl_engine_create(&onednn->engine, dnnl_cpu, 0));
	if (r < 0)
		return r;
	r = dnnl_errno(
		dnnl_stream_create(&onednn->stream, onednn->engine, dnnl_stream_default_flags));
	if (r < 0)
		return r;

	*ret_onednn = TAKE_PTR(onednn);
	return 0;
}

void onednn_free(struct onednn *onednn)
{
	if (!onednn)
		return;
	if (onednn->stream)
		(void)dnnl_stream_destroy(onednn->stream);
	if (onednn->engine)
		(void)dnnl_engine_destroy(onednn->engine);
	free(onednn->scratch);
	free(onednn);
}

const char *onednn_isa(const struct onednn *onednn)
{
	static const struct {
		dnnl_cpu_isa_t isa;
		const char *name;
	} names[] = {
		{ dnnl_cpu_isa_sse41, "sse41" },
		{ dnnl_cpu_isa_avx, "avx" },
		{ dnnl_cpu_isa_avx2, "avx2" },
		{ dnnl_cpu_isa_avx2_vnni, "avx2_vnni" },
		{ dnnl_cpu_isa_avx512_core, "avx512_core" },
		{ dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni" },
		{ dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16" },
		{ dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx" },
	};
	dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();

	(void)onednn;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].isa == isa)
			return names[i].name;
	return "generic";
}

const char *precision_name(enum precision precision)
{
	static const char *const names[N_PRECISIONS] = { "f32", "bf16", "int8" };

	return names[precision];
}

int precision_parse(enum precision *ret_precision, const char *name)
{
	for (enum precision p = 0; p < N_PRECISIONS; p++)
		if (strcmp(name, precision_name(p)) == 0) {
			*ret_precision = p;
			return 0;
		}
	return -EINVAL;
}

bool onednn_has(const struct onednn *onednn, enum precision precision)
{
	static const dnnl_cpu_isa_t least[N_PRECISIONS] = {
		[PRECISION_BF16] = dnnl_cpu_isa_avx512_core_bf16,
		[PRECISION_INT8] = dnnl_cpu_isa_avx512_core_vnni,
	};
	dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();

	(void)onednn;
	/* The later ones are supersets of the first in every bit. */
	return precision == PRECISION_F32 || (isa & least[precision]) == least[precision];
}

enum precision onednn_between(const struct onednn *onednn, enum precision precision)
{
	if (precision != PRECISION_INT8)
		return precision;
	return onednn_has(onednn, PRECISION_BF16) ? PRECISION_BF16 : PRECISION_F32;
}

unsigned onednn_n_slow(const struct onednn *onednn)
{
	return onednn->n_slow;
}
