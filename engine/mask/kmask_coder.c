/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "mask/kmask_coder.h"

#define RANGE_MIN (1u << 24)

/* Never empty and never everything, or a bit could not be told. range is at least RANGE_MIN. */
static uint32_t split(uint32_t range, uint32_t p_off)
{
	uint32_t bound = (uint32_t)((uint64_t)range * p_off >> 32);

	return bound ? bound : 1;
}

struct encoder {
	uint8_t *dst;
	uint64_t low; /* 33 bits: bit 32 is a carry not yet passed on */
	uint32_t range;
	uint8_t cache;      /* the last byte, which a carry may still raise */
	uint64_t n_pending; /* bytes not yet written: the cache, then 0xff ones */
	bool started;       /* the very first cached byte is always 0 and is left out */
};

static void shift_low(struct encoder *e)
{
	uint8_t carry = (uint8_t)(e->low >> 32);

	if (e->low < 0xff000000u || carry) {
		if (e->started)
			*e->dst++ = (uint8_t)(e->cache + carry);
		for (; e->n_pending > 1; e->n_pending--)
			*e->dst++ = (uint8_t)(0xff + carry);
		e->n_pending = 0;
		e->started = true;
		e->cache = (uint8_t)(e->low >> 24);
	}
	e->n_pending++;
	e->low = (e->low & 0x00ffffffu) << 8;
}

size_t coder_encode(uint8_t *dst, const uint64_t *words, uint32_t n, uint32_t p_off)
{
	struct encoder e = { .dst = dst, .range = UINT32_MAX, .n_pending = 1 };

	for (uint32_t i = 0; i < n; i++) {
		uint32_t bound = split(e.range, p_off);

		if (words[i / 64] >> (i % 64) & 1) {
			e.low += bound;
			e.range -= bound;
		} else {
			e.range = bound;
		}
		while (e.range < RANGE_MIN) {
			e.range <<= 8;
			shift_low(&e);
		}
	}
	for (unsigned i = 0; i < 5; i++)
		shift_low(&e);
	return (size_t)(e.dst - dst);
}

size_t coder_max_bytes(uint32_t n_off, uint32_t n)
{
	double p = (double)n_off / n;
	double bits = -(n_off * log2(p) + ((double)n - n_off) * log2(1 - p));

	/* Rounding the split can cost a share of 2^-24 n / n_off, far below this margin. */
	return (size_t)(bits / 8 * 1.01) + n / 4096 + 64;
}

struct decoder {
	const uint8_t *src, *end;
	uint32_t code, range;
	bool overrun;
};

static void next_byte(struct decoder *d)
{
	if (d->src == d->end)
		d->overrun = true;
	d->code = d->code << 8 | (d->overrun ? 0 : *d->src++);
}

static bool next_bit(struct decoder *d, uint32_t p_off)
{
	uint32_t bound = split(d->range, p_off);
	bool on = d->code >= bound;

	if (on) {
		d->code -= bound;
		d->range -= bound;
	} else {
		d->range = bound;
	}
	while (d->range < RANGE_MIN) {
		d->range <<= 8;
		next_byte(d);
	}
	return on;
}

bool coder_decode(uint64_t *words, uint32_t n, uint32_t p_off, const uint8_t *src, size_t n_bytes)
{
	struct decoder d = { .src = src, .end = src + n_bytes, .range = UINT32_MAX };

	for (unsigned i = 0; i < 4; i++)
		next_byte(&d);
	for (uint32_t i = 0; i < n && !d.overrun; i += 64) {
		uint32_t n_bits = n - i < 64 ? n - i : 64;
		uint64_t word = 0;

		for (uint32_t j = 0; j < n_bits; j++)
			word |= (uint64_t)next_bit(&d, p_off) << j;
		words[i / 64] = word;
	}
	return !d.overrun && d.src == d.end;
}
