/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/rng.h"
#include "classify/cosine.h"
#include "classify/figures_internal.h"
#include "classify/opta.h"

#define N_QUERIES 15u
/* Of a class's own stream there is one for each class: this is none of them. */
#define STREAM_OF_FREQUENT UINT32_MAX

/** What one episode needs: a drawing order of every class's members and the class means. */
struct episode {
	const struct figures_set *set;
	uint32_t shots;
	uint32_t *drawn; /* (n), by class as in figures_set.order */
	float *means;    /* (n_classes, dim) */
	double *similarity;
	uint32_t *asked, *right;  /* (n): how often an image was a query, and answered right */
	uint32_t *images, *wants; /* (n_queries) what is asked, and its class */
	uint32_t n_queries;

	/* For OpTA: NULL without it. */
	struct opta *opta;
	float *rows;                      /* (n, dim) the supports' or the queries' */
	float *moved;                     /* (n_classes, dim) */
	uint32_t *owner;                  /* (n) of a support */
	struct prototype_answer *answers; /* (n) */
};

static uint32_t class_size(const struct figures_set *set, uint32_t c)
{
	return set->first[c + 1] - set->first[c];
}

/* A class with too few members still keeps one query. */
static uint32_t n_supports(const struct episode *e, uint32_t c)
{
	uint32_t size = class_size(e->set, c);

	return e->shots < size ? e->shots : size - 1;
}

static void draw(struct episode *e, uint32_t number, uint64_t seed)
{
	const struct figures_set *set = e->set;

	memset(e->means, 0, (size_t)set->n_classes * set->dim * sizeof(*e->means));
	for (uint32_t c = 0; c < set->n_classes; c++) {
		struct rng rng = rng_stream(seed, e->shots, number, c);
		float *mean = e->means + (size_t)c * set->dim;
		uint32_t *drawn = e->drawn + set->first[c];

		rng_permutation(&rng, drawn, class_size(set, c));
		for (uint32_t i = 0; i < class_size(set, c); i++)
			drawn[i] = set->order[set->first[c] + drawn[i]];
		for (uint32_t i = 0; i < n_supports(e, c); i++)
			for (uint32_t j = 0; j < set->dim; j++)
				mean[j] += set->rows[(size_t)drawn[i] * set->dim + j];
	}
	/* The nearest mean by cosine: its length must not count. */
	cosine_normalise(e->means, e->means, set->n_classes, set->dim);
}

static uint32_t at_most(uint32_t n, uint32_t most)
{
	return n < most ? n : most;
}

/* How many queries one class has and each other: together as many as ever, as far as there are. */
struct demand {
	uint32_t frequent, of_frequent, of_other;
};

static struct demand demand_of(
	const struct episode *e, uint32_t number, const struct figures_options *options)
{
	const uint32_t n_classes = e->set->n_classes, ratio = options->ratio;
	struct demand demand = { n_classes, N_QUERIES, N_QUERIES };
	struct rng rng;
	double share;

	if (ratio < 2)
		return demand;
	rng = rng_stream(options->seed, e->shots, number, STREAM_OF_FREQUENT);
	demand.frequent = rng_below(&rng, n_classes);
	share = (double)N_QUERIES * n_classes / ((double)n_classes - 1 + ratio);
	demand.of_frequent = at_most((uint32_t)fmax(round(share * ratio), 1),
		class_size(e->set, demand.frequent) - n_supports(e, demand.frequent));
	demand.of_other = (uint32_t)fmax(round((double)demand.of_frequent / ratio), 1);
	return demand;
}

static void gather(struct episode *e, uint32_t number, const struct figures_options *options)
{
	const struct demand demand = demand_of(e, number, options);

	e->n_queries = 0;
	for (uint32_t c = 0; c < e->set->n_classes; c++) {
		const uint32_t begin = n_supports(e, c);
		const uint32_t n = at_most(class_size(e->set, c) - begin,
			c == demand.frequent ? demand.of_frequent : demand.of_other);

		for (uint32_t i = 0; i < n; i++) {
			e->images[e->n_queries] = e->drawn[e->set->first[c] + begin + i];
			e->wants[e->n_queries++] = c;
		}
	}
}

static uint32_t classify(struct episode *e, uint32_t image)
{
	const struct figures_set *set = e->set;

	for (uint32_t c = 0; c < set->n_classes; c++)
		e->similarity[c] = cosine_dot(set->rows + (size_t)image * set->dim,
			e->means + (size_t)c * set->dim, set->dim);
	return figures_argmax(e->similarity, set->n_classes);
}

static double ask_each(struct episode *e)
{
	uint32_t n_right = 0;

	for (uint32_t i = 0; i < e->n_queries; i++) {
		bool is_right = classify(e, e->images[i]) == e->wants[i];

		e->asked[e->images[i]]++;
		e->right[e->images[i]] += is_right;
		n_right += is_right;
	}
	return (double)n_right / e->n_queries;
}

static void take_row(struct episode *e, uint32_t at, uint32_t image)
{
	memcpy(e->rows + (size_t)at * e->set->dim, e->set->rows + (size_t)image * e->set->dim,
		e->set->dim * sizeof(*e->rows));
}

static int learn(struct episode *e, struct prototypes **ret_prototypes)
{
	uint32_t n = 0;

	for (uint32_t c = 0; c < e->set->n_classes; c++)
		for (uint32_t i = 0; i < n_supports(e, c); i++) {
			e->owner[n] = c;
			take_row(e, n++, e->drawn[e->set->first[c] + i]);
		}
	return prototypes_new(ret_prototypes, e->rows, e->owner, n, e->set->dim, e->set->n_classes);
}

/* All queries at once, by OpTA as it is written and as it is served. */
static int ask_together(
	struct episode *e, double *ret_opta, double *ret_guarded, bool *ret_is_balanced)
{
	const uint32_t n_classes = e->set->n_classes, dim = e->set->dim;
	_cleanup_(prototypes_freep) struct prototypes *prototypes = NULL;
	uint32_t n_opta = 0, n_guarded = 0;
	struct opta_report report;
	int r;

	r = learn(e, &prototypes);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < e->n_queries; i++)
		take_row(e, i, e->images[i]);
	opta_classify(e->opta, prototypes, e->rows, e->n_queries, e->answers, &report);
	for (uint32_t i = 0; i < e->n_queries; i++)
		n_guarded += e->answers[i].class == e->wants[i];
	opta_move(e->opta, prototypes->means, n_classes, e->rows, e->n_queries,
		opta_passes(e->shots), e->moved);
	cosine_normalise(e->means, e->moved, n_classes, dim);
	for (uint32_t i = 0; i < e->n_queries; i++)
		n_opta += classify(e, e->images[i]) == e->wants[i];
	*ret_opta = (double)n_opta / e->n_queries;
	*ret_guarded = (double)n_guarded / e->n_queries;
	*ret_is_balanced = report.is_balanced;
	return 0;
}

static void episode_done(struct episode *e)
{
	free(e->drawn);
	free(e->means);
	free(e->similarity);
	free(e->asked);
	free(e->right);
	free(e->images);
	free(e->wants);
	opta_free(e->opta);
	free(e->rows);
	free(e->moved);
	free(e->owner);
	free(e->answers);
}

static int room_for_opta(struct episode *e)
{
	const size_t n = e->set->n, n_classes = e->set->n_classes, dim = e->set->dim;

	e->rows = malloc(n * dim * sizeof(*e->rows));
	e->moved = malloc(n_classes * dim * sizeof(*e->moved));
	e->owner = malloc(n * sizeof(*e->owner));
	e->answers = malloc(n * sizeof(*e->answers));
	if (!e->rows || !e->moved || !e->owner || !e->answers)
		return -ENOMEM;
	return opta_new(&e->opta, e->set->n_classes, e->set->n, e->set->dim);
}

static int episode_init(struct episode *e, bool opta)
{
	const size_t n = e->set->n, n_classes = e->set->n_classes;

	e->drawn = malloc(n * sizeof(*e->drawn));
	e->means = malloc(n_classes * e->set->dim * sizeof(*e->means));
	e->similarity = malloc(n_classes * sizeof(*e->similarity));
	e->asked = calloc(n, sizeof(*e->asked));
	e->right = calloc(n, sizeof(*e->right));
	e->images = malloc(n * sizeof(*e->images));
	e->wants = malloc(n * sizeof(*e->wants));
	if (!e->drawn || !e->means || !e->similarity || !e->asked || !e->right || !e->images ||
		!e->wants)
		return -ENOMEM;
	return opta ? room_for_opta(e) : 0;
}

int figures_episodes_run(struct figures_episodes *episodes, const struct figures_set *set,
	uint32_t shots, const struct figures_options *options)
{
	_cleanup_(episode_done) struct episode e = { .set = set, .shots = shots };
	int r = episode_init(&e, episodes->opta != NULL);

	for (uint32_t i = 0; r == 0 && i < options->n_episodes; i++) {
		bool is_balanced = false;

		draw(&e, i, options->seed);
		gather(&e, i, options);
		episodes->plain[i] = ask_each(&e);
		if (e.opta)
			r = ask_together(
				&e, &episodes->opta[i], &episodes->guarded[i], &is_balanced);
		episodes->n_balanced += is_balanced;
	}
	for (uint32_t i = 0; r == 0 && i < set->n; i++)
		episodes->queries[i] = e.asked[i] > 0 ? (double)e.right[i] / e.asked[i] : NAN;
	return r;
}
