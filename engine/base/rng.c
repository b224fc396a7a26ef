/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/rng.h"

static void philox_round(uint32_t counter[4], const uint32_t key[2])
{
	uint64_t p0 = (uint64_t)0xD2511F53u * counter[0];
	uint64_t p1 = (uint64_t)0xCD9E8D57u * counter[2];
	uint32_t next[4] = {
		(uint32_t)(p1 >> 32) ^ counter[1] ^ key[0],
		(uint32_t)p1,
		(uint32_t)(p0 >> 32) ^ counter[3] ^ key[1],
		(uint32_t)p0,
	};

	for (unsigned i = 0; i < 4; i++)
		counter[i] = next[i];
}

static void philox4x32_10(uint32_t out[4], const uint32_t counter[4], const uint32_t seed[2])
{
	uint32_t key[2] = { seed[0], seed[1] };

	for (unsigned i = 0; i < 4; i++)
		out[i] = counter[i];
	for (unsigned i = 0; i < 10; i++) {
		philox_round(out, key);
		key[0] += 0x9E3779B9u;
		key[1] += 0xBB67AE85u;
	}
}

struct rng rng_stream(uint64_t seed, uint32_t a, uint32_t b, uint32_t c)
{
	return (struct rng){
		.key = { (uint32_t)seed, (uint32_t)(seed >> 32) },
		.counter = { 0, a, b, c },
		.n_used = 4,
	};
}

struct rng rng_stream_at(uint64_t seed, uint32_t a, uint32_t b, uint32_t c, uint32_t block)
{
	struct rng rng = rng_stream(seed, a, b, c);

	rng.counter[0] = block;
	return rng;
}

uint32_t rng_u32(struct rng *rng)
{
	if (rng->n_used == 4) {
		philox4x32_10(rng->block, rng->counter, rng->key);
		rng->counter[0]++;
		rng->n_used = 0;
	}
	return rng->block[rng->n_used++];
}

float rng_uniform(struct rng *rng)
{
	return (float)(rng_u32(rng) >> 8) * 0x1p-24f;
}

float rng_range(struct rng *rng, float lo, float hi)
{
	return lo + (hi - lo) * rng_uniform(rng);
}

uint32_t rng_below(struct rng *rng, uint32_t n)
{
	uint32_t threshold = -n % n;
	uint64_t product;

	/* Lemire 2019: reject the few values that would favour small results. */
	do {
		product = (uint64_t)rng_u32(rng) * n;
	} while ((uint32_t)product < threshold);
	return (uint32_t)(product >> 32);
}

float rng_normal(struct rng *rng)
{
	float u = 1.f - rng_uniform(rng);
	float v = rng_uniform(rng);

	return sqrtf(-2.f * logf(u)) * cosf(6.28318530717958647692f * v);
}

void rng_permutation(struct rng *rng, uint32_t *ret_order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = rng_below(rng, i + 1);

		ret_order[i] = ret_order[j];
		ret_order[j] = i;
	}
}
