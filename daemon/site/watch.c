/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>

#include "site/watch.h"

#define MIN_ANSWERS 20u
#define MIN_HELD 16u
#define FAR .9
#define MAX_FAILED 3u
#define FACTOR 2. /* times what was to be expected: "far above", not "somewhat" */
/* Chance of a wrong alarm at one look; there are at most 100,000 looks, two figures each. */
#define SURE_LOOK 1e-8
#define SURE_SHARE 1e-3 /* of the upper limit of a share that was only counted */

/* KL divergence of a coin that shows `share` from one of chance p: the number of answers times it is
 * the exponent of Chernoff's bound on the binomial tail. */
static double divergence(double share, double p)
{
	double d = 0;

	if (share > 0)
		d += share * log(share / p);
	if (share < 1)
		d += (1 - share) * log((1 - share) / (1 - p));
	return d;
}

/* The largest chance under which so few of n are still to be believed. */
static double upper_limit(double n_hits, double n)
{
	double share = n_hits / n, lo = share, hi = 1, bound = -log(SURE_SHARE) / n;

	for (unsigned i = 0; i < 50; i++) {
		double mid = (lo + hi) / 2;

		if (mid < 1 && divergence(share, mid) < bound)
			lo = mid;
		else
			hi = mid;
	}
	return hi;
}

/* What is to be expected of a share: as held-out images said, or as the champion before did. */
static double expectation(const struct watch *watch, double of_held, uint32_t n_before)
{
	double p = upper_limit(of_held * watch->n_held, watch->n_held), live;

	if (watch->before.n >= MIN_ANSWERS) {
		live = upper_limit(n_before, watch->before.n);
		p = live > p ? live : p;
	}
	return p;
}

static bool is_too_much(const struct watch *watch, uint32_t n_hits, double limit)
{
	double share = (double)n_hits / watch->now.n;

	return limit < 1 && share > limit &&
	       watch->now.n * divergence(share, limit) > -log(SURE_LOOK);
}

void watch_begin(struct watch *watch, uint32_t version, uint32_t n_answers, uint32_t n_held,
	double threshold, const struct watch_counts *before)
{
	*watch = (struct watch){
		.version = version,
		.n_answers = n_answers,
		.n_held = n_held,
		.threshold = threshold,
		.before = *before,
	};
}

void watch_stop(struct watch *watch)
{
	watch->version = 0;
}

bool watch_is_on(const struct watch *watch)
{
	return watch->version > 0;
}

uint32_t watch_left(const struct watch *watch)
{
	/* What cannot be rolled back goes on being watched. */
	return watch_is_on(watch) && watch->now.n < watch->n_answers
		       ? watch->n_answers - watch->now.n
		       : 0;
}

void watch_count(struct watch_counts *counts, double novelty, double threshold, bool failed)
{
	if (failed) {
		counts->n_failed++;
	} else if (novelty >= 0 && novelty <= 1) {
		counts->n++;
		counts->n_ng += novelty >= threshold;
		counts->n_far += novelty >= FAR;
	}
}

static bool is_broken(const struct watch *watch, char *ret_reason, size_t n_bytes)
{
	const struct watch_counts *now = &watch->now;
	double limit;

	if (now->n_failed >= MAX_FAILED) {
		(void)snprintf(ret_reason, n_bytes,
			"the forward pass failed %u times beside %u answers, the limit is %u",
			now->n_failed, now->n, MAX_FAILED);
		return true;
	}
	if (now->n < MIN_ANSWERS || watch->n_held < MIN_HELD)
		return false;
	limit = FACTOR * expectation(watch, 1 - watch->threshold, watch->before.n_ng);
	if (is_too_much(watch, now->n_ng, limit)) {
		(void)snprintf(ret_reason, n_bytes,
			"%u of %u answers are NG, surely above the limit of %.3f", now->n_ng,
			now->n, limit);
		return true;
	}
	limit = FACTOR * expectation(watch, 1 - FAR, watch->before.n_far);
	if (is_too_much(watch, now->n_far, limit)) {
		(void)snprintf(ret_reason, n_bytes,
			"%u of %u novelties are %.1f or more, surely above the limit of %.3f",
			now->n_far, now->n, FAR, limit);
		return true;
	}
	return false;
}

bool watch_add(struct watch *watch, double novelty, bool failed, char *ret_reason, size_t n_bytes)
{
	bool broken;

	if (!watch_is_on(watch))
		return false;
	watch_count(&watch->now, novelty, watch->threshold, failed);
	broken = is_broken(watch, ret_reason, n_bytes);
	if (!broken && watch->now.n >= watch->n_answers)
		watch_stop(watch);
	return broken;
}
