/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What int8 could gain: the layers of a ViT's forward pass as products of s8 activations and s8
 * weights (a scale per channel, bias, s8 out; fc2 and proj f32 with the residual added) beside the
 * same in bf16, turn by turn, weights as cold as in the model. Attention's products are bf16 in both.
 *
 *   products_int8 [--batch N] [--seconds N] [NAME]...
 *
 * Nothing quantises here: it is the least that an int8 pass would take, as kamen-bench's floor is.
 */
#include <dnnl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "model/random.h"

enum { N_KINDS = 4, N_TURNS = 15, MAX_ARGS = 5 };

struct machine {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
};

struct product {
	dnnl_primitive_t primitive;
	dnnl_exec_arg_t args[MAX_ARGS];
	int n_args;
	dnnl_memory_t weights;
	char *cold; /* n_cold copies of the weights, n_bytes each */
	size_t n_bytes;
	uint32_t n_cold, next;
};

/* oneDNN that refuses here has nothing to measure. */
static void must(dnnl_status_t status, const char *what)
{
	if (status == dnnl_success)
		return;
	fprintf(stderr, "products_int8: %s: oneDNN says %d\n", what, (int)status);
	exit(1);
}

static void *bytes(size_t n)
{
	char *p = aligned_alloc(64, (n + 63) & ~(size_t)63);

	if (!p)
		abort();
	/* Small numbers in either type. */
	for (size_t i = 0; i < n; i++)
		p[i] = i & 1 ? 0x3c : (char)(i * 7 & 31);
	return p;
}

static dnnl_memory_t memory(struct machine *m, const dnnl_memory_desc_t *desc, void *data)
{
	dnnl_memory_t made;

	must(dnnl_memory_create(
		     &made, desc, m->engine, data ? data : bytes(dnnl_memory_desc_get_size(desc))),
		"memory");
	return made;
}

static void add_argument(struct product *p, int id, dnnl_memory_t made)
{
	p->args[p->n_args++] = (dnnl_exec_arg_t){ id, made };
}

static dnnl_primitive_attr_t attributes(bool quantised, bool adds, int64_t n)
{
	dnnl_primitive_attr_t attr;
	dnnl_post_ops_t ops;
	float *scales = malloc((size_t)n * sizeof(*scales));

	must(dnnl_primitive_attr_create(&attr), "attributes");
	must(dnnl_post_ops_create(&ops), "post-ops");
	for (int64_t i = 0; i < n; i++)
		scales[i] = 1 / 4096.F;
	if (quantised)
		must(dnnl_primitive_attr_set_output_scales(attr, n, 1 << 1, scales), "scales");
	if (adds)
		must(dnnl_post_ops_append_sum(ops, 1), "sum");
	must(dnnl_primitive_attr_set_post_ops(attr, ops), "post-ops");
	(void)dnnl_post_ops_destroy(ops);
	free(scales);
	return attr;
}

/* (rows, k) times (k, n) plus bias; n_cold copies of the weights take turns. */
static void layer_make(struct product *p, struct machine *m, bool quantised, bool adds,
	int64_t rows, int64_t k, int64_t n, uint32_t n_cold)
{
	const dnnl_data_type_t type = quantised ? dnnl_s8 : dnnl_bf16;
	dnnl_memory_desc_t src, any, dst, bias;
	const dnnl_memory_desc_t *weights;
	dnnl_primitive_attr_t attr = attributes(quantised, adds, n);
	dnnl_primitive_desc_t pd;
	dnnl_matmul_desc_t desc;

	must(dnnl_memory_desc_init_by_tag(&src, 2, (dnnl_dims_t){ rows, k }, type, dnnl_ab), "src");
	must(dnnl_memory_desc_init_by_tag(
		     &any, 2, (dnnl_dims_t){ k, n }, type, dnnl_format_tag_any),
		"weights");
	must(dnnl_memory_desc_init_by_tag(
		     &dst, 2, (dnnl_dims_t){ rows, n }, adds ? dnnl_f32 : type, dnnl_ab),
		"dst");
	must(dnnl_memory_desc_init_by_tag(&bias, 2, (dnnl_dims_t){ 1, n }, dnnl_f32, dnnl_ab),
		"bias");
	must(dnnl_matmul_desc_init(&desc, &src, &any, &bias, &dst), "product");
	must(dnnl_primitive_desc_create(&pd, &desc, attr, m->engine, NULL), "product");
	must(dnnl_primitive_create(&p->primitive, pd), "product");
	weights = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
	p->n_bytes = (dnnl_memory_desc_get_size(weights) + 63) & ~(size_t)63;
	p->n_cold = n_cold;
	p->cold = bytes(p->n_bytes * n_cold);
	p->weights = memory(m, weights, p->cold);
	add_argument(p, DNNL_ARG_SRC, memory(m, &src, NULL));
	add_argument(p, DNNL_ARG_WEIGHTS, p->weights);
	add_argument(p, DNNL_ARG_BIAS, memory(m, &bias, NULL));
	add_argument(p, DNNL_ARG_DST, memory(m, &dst, NULL));
	(void)dnnl_primitive_desc_destroy(pd);
	(void)dnnl_primitive_attr_destroy(attr);
}

/* Dense heads: (heads, rows, k) times (heads, k, n) in bf16. */
static void heads_make(
	struct product *p, struct machine *m, int64_t heads, int64_t rows, int64_t k, int64_t n)
{
	dnnl_memory_desc_t src, weights, dst;
	dnnl_primitive_desc_t pd;
	dnnl_matmul_desc_t desc;

	must(dnnl_memory_desc_init_by_tag(
		     &src, 3, (dnnl_dims_t){ heads, rows, k }, dnnl_bf16, dnnl_abc),
		"src");
	must(dnnl_memory_desc_init_by_tag(
		     &weights, 3, (dnnl_dims_t){ heads, k, n }, dnnl_bf16, dnnl_abc),
		"weights");
	must(dnnl_memory_desc_init_by_tag(
		     &dst, 3, (dnnl_dims_t){ heads, rows, n }, dnnl_bf16, dnnl_abc),
		"dst");
	must(dnnl_matmul_desc_init(&desc, &src, &weights, NULL, &dst), "product");
	must(dnnl_primitive_desc_create(&pd, &desc, NULL, m->engine, NULL), "product");
	must(dnnl_primitive_create(&p->primitive, pd), "product");
	add_argument(p, DNNL_ARG_SRC, memory(m, &src, NULL));
	add_argument(p, DNNL_ARG_WEIGHTS, memory(m, &weights, NULL));
	add_argument(p, DNNL_ARG_DST, memory(m, &dst, NULL));
	(void)dnnl_primitive_desc_destroy(pd);
}

static void product_run(struct product *p, struct machine *m)
{
	if (p->cold)
		must(dnnl_memory_set_data_handle(
			     p->weights, p->cold + p->next++ % p->n_cold * p->n_bytes),
			"weights");
	must(dnnl_primitive_execute(p->primitive, m->stream, p->n_args, p->args), "product");
	must(dnnl_stream_wait(m->stream), "product");
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Milliseconds of n products, one after the other, for every block: the lowest of a turn's runs. */
static double pass_ms(struct product *const *products, uint32_t n, uint32_t depth, double seconds,
	struct machine *m)
{
	uint64_t begin = clock_now_ns();
	double lowest = 0;

	do {
		uint64_t before = clock_now_ns();
		double ms;

		for (uint32_t b = 0; b < depth; b++)
			for (uint32_t i = 0; i < n; i++)
				product_run(products[i], m);
		ms = (double)(clock_now_ns() - before) * 1e-6;
		lowest = lowest == 0 || ms < lowest ? ms : lowest;
	} while ((double)(clock_now_ns() - begin) < seconds * 1e9);
	return lowest;
}

static double median(double *values)
{
	qsort(values, N_TURNS, sizeof(*values), compare);
	return values[N_TURNS / 2];
}

static void measure(const char *name, const struct vit_shape *s, uint32_t batch, double seconds)
{
	const int64_t tokens = 1 + (int64_t)s->grid * s->grid, rows = batch * tokens;
	const int64_t d = s->width, heads = (int64_t)batch * s->n_heads, head = d / s->n_heads;
	struct product layers[2][N_KINDS], scores = { 0 }, mix = { 0 };
	struct product *lists[3][N_KINDS];
	double ms[3][N_TURNS], by_layers[N_TURNS], by_all[N_TURNS];
	struct machine m;

	memset(layers, 0, sizeof(layers));
	must(dnnl_engine_create(&m.engine, dnnl_cpu, 0), "engine");
	must(dnnl_stream_create(&m.stream, m.engine, dnnl_stream_default_flags), "stream");
	for (int q = 0; q < 2; q++) {
		layer_make(&layers[q][0], &m, q, false, rows, d, 3 * d, s->depth);
		layer_make(&layers[q][1], &m, q, true, rows, d, d, s->depth);
		layer_make(&layers[q][2], &m, q, false, rows, d, s->mlp, s->depth);
		layer_make(&layers[q][3], &m, q, true, rows, s->mlp, d, s->depth);
		for (int i = 0; i < N_KINDS; i++)
			lists[q][i] = &layers[q][i];
	}
	heads_make(&scores, &m, heads, tokens, head, tokens);
	heads_make(&mix, &m, heads, tokens, tokens, head);
	lists[2][0] = &scores;
	lists[2][1] = &mix;
	for (int turn = 0; turn < N_TURNS; turn++) {
		for (int i = 0; i < 3; i++)
			ms[i][turn] = pass_ms(lists[i], i < 2 ? N_KINDS : 2, s->depth,
				seconds / (3 * N_TURNS), &m);
		by_layers[turn] = ms[0][turn] / ms[1][turn];
		by_all[turn] = (ms[0][turn] + ms[2][turn]) / (ms[1][turn] + ms[2][turn]);
	}
	printf("%s batch %u: layers bf16 %.3f ms, int8 %.3f ms, attention bf16 %.3f ms: int8 %.2f "
	       "times as fast in the layers, %.2f in all products\n",
		name, batch, median(ms[0]), median(ms[1]), median(ms[2]), median(by_layers),
		median(by_all));
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{ "batch", required_argument, NULL, 'b' },
		{ "seconds", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	static const char *const all[] = { "vit_t", "vit_s", "vit_b" };
	uint32_t batch = 1;
	double seconds = 3;
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 'b')
			batch = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 's')
			seconds = strtod(optarg, NULL);
		else
			return 2;
	}
	for (int i = 0; i < (argc > optind ? argc - optind : 3); i++) {
		const char *name = argc > optind ? argv[optind + i] : all[i];
		struct vit_shape shape;

		if (batch == 0 || random_vit_shape(&shape, name) < 0)
			return 2;
		measure(name, &shape, batch, seconds);
	}
	return 0;
}
