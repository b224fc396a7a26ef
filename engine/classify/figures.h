/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLASSIFY_FIGURES_H
#define KAMEN_CLASSIFY_FIGURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** b minus a with a 95 % paired bootstrap interval (over images for knn, over episodes for shots). */
struct figures_diff {
	double diff, lo, hi;
};

/** Episodes whose queries are answered at once (classify/opta.h). */
struct figures_batch {
	double opta, opta_ci;       /* by OpTA as algorithms.md 4.5 has it, whatever the shares */
	double guarded, guarded_ci; /* by opta_classify() */
	struct figures_diff opta_gain, guarded_gain; /* over the plain nearest mean, paired */
	double balanced;                             /* share of the episodes that looked so */
};

/** contract.md, eval: labelled figures of a set of embeddings. Plain C, no oneDNN: kamenctl links
 * this room alone. */
struct figures {
	uint32_t n, n_classes;
	double knn; /* leave-one-out, k = 20, cosine, votes exp(sim / 0.1) */
	double shot1, shot1_ci, shot5, shot5_ci; /* 200 episodes, 95 % half width */
	struct figures_batch batch1, batch5;     /* of the same episodes, where asked for */
};

/** Per image: was its k-NN vote right; per episode: its accuracy. For paired comparison. */
struct figures_detail {
	uint8_t *knn_right;    /* (n) */
	double *shot1, *shot5; /* (n_episodes) */
	uint32_t n_episodes;
	/* (n) share of an image's queries, over all episodes, that were answered right; NaN: it never
	 * was one. */
	double *query1, *query5;
};

/**
 * @param embeddings  (n, dim), any length: normalised inside
 * @param labels      (n), 0..n_classes-1
 * @param seed        of the episodes; the same seed draws the same episodes for every mask
 * @param ret_detail  NULL, or filled: free with figures_detail_done()
 * @return 0, -EINVAL: fewer than 2 classes or a class with fewer than 2 images, -ENOMEM
 */
int figures_compute(struct figures *ret_figures, struct figures_detail *ret_detail,
	const float *embeddings, const uint32_t *labels, uint32_t n, uint32_t dim,
	uint32_t n_classes, uint64_t seed);

struct figures_options {
	uint64_t seed;       /* of the episodes */
	uint32_t n_episodes; /* 0: 200 */
	/* Queries of one class, another one in every episode, for one of each other class; below 2: as
	 * many. Together they are 15 a class, as far as there are images. */
	uint32_t ratio;
	bool opta; /* batch1 and batch5, too */
};
/** figures_compute() with options. */
int figures_measure(struct figures *ret_figures, struct figures_detail *ret_detail,
	const float *embeddings, const uint32_t *labels, uint32_t n, uint32_t dim,
	uint32_t n_classes, const struct figures_options *options);
void figures_detail_done(struct figures_detail *detail);

int figures_compare(struct figures_diff *ret_knn, struct figures_diff *ret_shot1,
	struct figures_diff *ret_shot5, const struct figures_detail *a,
	const struct figures_detail *b, uint32_t n, uint64_t seed);

/**
 * The same for the shots alone, but over images: episodes draw from the same few images again and
 * again, and what a hundred images say of all others is less sure than what two hundred episodes say
 * of the hundred. Classes count alike, as in an episode.
 *
 * @param labels  (n), as given to figures_compute()
 */
int figures_compare_queries(struct figures_diff *ret_shot1, struct figures_diff *ret_shot5,
	const struct figures_detail *a, const struct figures_detail *b, const uint32_t *labels,
	uint32_t n, uint32_t n_classes, uint64_t seed);

/**
 * What figures_compare() does for each figure: the mean of n paired differences with its interval. stream
 * keeps the draws of several figures apart. -EINVAL: n is 0.
 */
int figures_interval(struct figures_diff *ret_diff, const double *differences, uint32_t n,
	uint64_t seed, uint32_t stream);

/** Area under the ROC curve: the chance that a positive scores above a negative (ties half). */
double figures_auroc(const double *scores, const uint8_t *positive, size_t n);

#endif
