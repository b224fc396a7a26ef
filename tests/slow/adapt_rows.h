/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_ADAPT_ROWS_H
#define KAMEN_TESTS_ADAPT_ROWS_H

#include <stdbool.h>

#include "classify/figures.h"

/*
 * What was measured, one line of a CSV file each, so that a run that is killed goes on where it
 * stopped; and beside the file, in a folder of its name with .d, what paired intervals need.
 */

/** One way to make embeddings of a set. The first columns say which: a row is known by them. */
struct adapt_row {
	char set[48], arm[16], resize[8];
	char base[17];   /* of the model's file */
	char images[17]; /* of the manifests: the same images */
	char recipe[17]; /* "-": nothing was learnt */
	uint32_t px;
	uint64_t seed;

	uint32_t n_learn, n_held, n_classes, steps, kept_step;
	double knn, shot1, shot1_ci, shot5, shot5_ci, linear, ms;
	double density, lowest_density, loss_ratio, seconds;
	uint64_t n_bytes, n_flips;
	double retrieval, margin, rank;                /* unlabelled, on the gate's fifth */
	double base_retrieval, base_margin, base_rank; /* of the frozen model, the same views */
	/* On the gate's fifth, of a mask; below 0: not measured. */
	double entropy, neighbours;
	int passed; /* the gate; -1: not asked */
	char reasons[1024];
};

/** Per image and episode. Free with adapt_detail_done(). */
struct adapt_detail {
	struct figures_detail figures;
	uint8_t *linear_right; /* (n) */
	uint32_t n;
};

struct adapt_rows {
	char path[512], dir[512];
	struct adapt_row *rows;
	uint32_t n;
};

/** Reads what there is; a torn last line is left out. */
int adapt_rows_open(struct adapt_rows *rows, const char *path);
void adapt_rows_done(struct adapt_rows *rows);

/** The last row of the same first columns, or NULL; until the next one is added. */
const struct adapt_row *adapt_rows_find(
	const struct adapt_rows *rows, const struct adapt_row *wanted);
/** Detail first, then the line: a row that is there has its detail. */
int adapt_rows_add(
	struct adapt_rows *rows, const struct adapt_row *row, const struct adapt_detail *detail);
int adapt_rows_detail(struct adapt_detail *ret_detail, const struct adapt_rows *rows,
	const struct adapt_row *row);
void adapt_detail_done(struct adapt_detail *detail);

/** Where a file of this row lies. */
void adapt_rows_path(const struct adapt_rows *rows, const struct adapt_row *row, const char *suffix,
	char ret_path[1024]);

#endif
