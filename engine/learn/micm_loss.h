/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_MICM_LOSS_H
#define KAMEN_LEARN_MICM_LOSS_H

#include <stddef.h>
#include <stdint.h>

/*
 * What MICM asks of student and teacher (algorithms.md 4.3). Outputs are those of the head; targets
 * are a teacher's, centred and sharpened. The class, patch and pseudo-label losses are divided by one
 * more than they have terms, as the authors' counters do: it decides what they weigh beside pixels.
 */

/** Large views, all of which the teacher sees too. */
#define MICM_TARGETS 2u

struct micm_shape {
	uint32_t batch, n_views; /* of the student; the first MICM_TARGETS are the large ones */
	uint32_t n_outputs;
	float temperature; /* the student's */
};

/** t = softmax((o - centre) / temperature); o and t (n, n_outputs), t may be o. */
void micm_sharpen(float *t, const float *o, const float *centre, uint32_t n, uint32_t n_outputs,
	float temperature);
/** sum (n_outputs) += the rows of o (n, n_outputs). */
void micm_add_rows(float *sum, const float *o, uint32_t n, uint32_t n_outputs);
/** centre <- .9 centre + .1 sum / n */
void micm_move_centre(float *centre, const float *sum, uint32_t n, uint32_t n_outputs);

/**
 * Every view of the student against every target of another view.
 *
 * @param o    (n_views, batch, n_outputs)
 * @param t    (MICM_TARGETS, batch, n_outputs)
 * @param d_o  like o, overwritten
 */
double micm_class_loss(const struct micm_shape *shape, const float *o, const float *t, float *d_o);

/**
 * Masked patches against the teacher's at the same place: the mean over those of a sample, over the
 * batch, summed over the large views.
 *
 * @param rows  (n) which sample, view * batch + b, a row is of; those of one lie together
 * @param o, t  (n, n_outputs)
 * @param d_o   like o, overwritten
 */
double micm_patch_loss(const struct micm_shape *shape, const uint32_t *rows, const float *o,
	const float *t, uint32_t n, float *d_o);

/**
 * Squared error of masked pixels over `n_all`, the number of all pixels of all samples, masked or not,
 * and over .75, whatever share is masked.
 *
 * @param predicted, wanted  (n) the masked ones
 * @param d_predicted        like predicted, overwritten
 */
double micm_pixel_loss(
	const float *predicted, const float *wanted, size_t n, size_t n_all, float *d_predicted);

/** What telling 0 of the same pixels costs. */
double micm_pixel_guess(const float *wanted, size_t n, size_t n_all);

/**
 * Stage two: of every teacher's view, sample i's nearest other sample is j by the cosine of raw
 * outputs; target i and the student's output of j, in either large view, are asked to point the same
 * way: softplus(-cosine). Without others there is nothing to ask.
 *
 * @param o       (MICM_TARGETS, batch, n_outputs) the student's
 * @param raw, t  like o: the teacher's before and after micm_sharpen()
 * @param nearest (MICM_TARGETS, batch): who j is, written
 * @param d_o     like o, overwritten
 */
double micm_pseudo_loss(const struct micm_shape *shape, const float *o, const float *raw,
	const float *t, uint32_t *nearest, float *d_o);

#endif
