/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/pace.h"

/* One batch that comes too late costs as much as it takes: it is tried once in so many. */
#define DOUBT_BATCH 256u
#define DOUBT_LEAST 16u

static struct pace_size *size_of(struct pace *pace, const struct serving *serving)
{
	uint32_t px = serving->prep.input_px;

	for (unsigned i = 0; i < PACE_MAX_SIZES; i++)
		if (pace->sizes[i].px == px || pace->sizes[i].px == 0)
			return &pace->sizes[i];
	return NULL;
}

static const struct pace_size *size_known(const struct pace *pace, const struct serving *serving)
{
	const struct pace_size *size = size_of((struct pace *)pace, serving);

	return size && size->px > 0 ? size : NULL;
}

static uint32_t index_of(uint32_t n)
{
	uint32_t i = 0;

	while (n > 1 && i + 1 < PACE_N_BATCHES) {
		n /= 2;
		i++;
	}
	return i;
}

static void mean_add(struct pace_mean *mean, uint64_t ns)
{
	uint64_t off = ns > mean->mean_ns ? ns - mean->mean_ns : mean->mean_ns - ns;

	if (mean->mean_ns == 0) {
		mean->mean_ns = ns;
		return;
	}
	mean->stray_ns += off / 4;
	mean->stray_ns -= mean->stray_ns / 4;
	if (ns > mean->mean_ns)
		mean->mean_ns += off / 8;
	else
		mean->mean_ns -= off / 8;
}

void pace_learn(struct pace *pace, const struct serving *serving, uint32_t n, uint64_t compute_ns)
{
	struct pace_size *size = size_of(pace, serving);
	uint64_t forward_ns = compute_ns / serving->n_forwards;

	if (!size)
		return;
	if (size->px == 0 || forward_ns < size->fastest_ns) {
		size->fastest_ns = forward_ns;
		size->doubt_ns = 0;
	}
	/* Refusals must not add up for ever: what was not faster takes their doubts back. */
	size->doubt_ns -= size->doubt_ns / 4;
	size->px = serving->prep.input_px;
	mean_add(&size->of_batch[index_of(n)], forward_ns);
}

uint64_t pace_expect(const struct pace *pace, const struct serving *serving, uint32_t n)
{
	const struct pace_size *size = size_known(pace, serving);
	uint64_t ns = 0;

	/* A larger batch takes no less than a smaller one, whatever was seen of either. */
	for (uint32_t i = 0; size && i <= index_of(n); i++) {
		const struct pace_mean *mean = &size->of_batch[i];
		uint64_t here = mean->mean_ns + 2 * mean->stray_ns;

		ns = here > ns ? here : ns;
	}
	return ns * serving->n_forwards;
}

uint64_t pace_least(const struct pace *pace, const struct serving *serving)
{
	const struct pace_size *size = size_known(pace, serving);

	return size ? (size->fastest_ns - size->doubt_ns) * serving->n_forwards : 0;
}

void pace_doubt_least(struct pace *pace, const struct serving *serving)
{
	struct pace_size *size = size_of(pace, serving);

	if (size)
		size->doubt_ns += (size->fastest_ns - size->doubt_ns) / DOUBT_LEAST;
}

void pace_doubt(struct pace *pace, const struct serving *serving, uint32_t n)
{
	struct pace_size *size = size_of(pace, serving);
	struct pace_mean *mean = size ? &size->of_batch[index_of(n)] : NULL;

	if (!mean)
		return;
	mean->mean_ns -= mean->mean_ns / DOUBT_BATCH;
	mean->stray_ns -= mean->stray_ns / DOUBT_BATCH;
}
