/* SPDX-License-Identifier: Apache-2.0 */
#include "mask/kmask_coder.h"

#define RANGE_MIN (1u << 24)
#define ONE (UINT64_C(1) << 32)

struct coder_model coder_model(uint32_t n, uint32_t n_rare)
{
	struct coder_model model = { 0 };
	uint64_t x = ((uint64_t)(n - n_rare) << 32) / n;

	while (x > ONE / 2) {
		model.zero[model.n_digits++] = (uint32_t)(UINT64_MAX / (ONE + x));
		x = x * x >> 32;
	}
	model.stop = (uint32_t)(ONE - x);
	return model;
}

size_t coder_max_bytes(uint32_t n, uint32_t n_rare)
{
	unsigned n_digits = coder_model(n, n_rare).n_digits;
	/* No chance is below 1/4, so no decision costs more than two bits; nothing skips past n. */
	uint64_t n_bits = 2 * ((uint64_t)n_rare * (n_digits + 1) + (n >> n_digits));

	return (size_t)(n_bits / 8 + n_bits / 4096 + 16);
}

/* ---- writing */

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

static inline void encode_bit(struct encoder *e, uint32_t zero, bool bit)
{
	uint32_t bound = (uint32_t)((uint64_t)e->range * zero >> 32), all = 0u - bit;

	/* Nobody can foresee a digit: no branch on it. */
	e->low += bound & all;
	e->range = bound + ((e->range - 2 * bound) & all);
	while (e->range < RANGE_MIN) {
		e->range <<= 8;
		shift_low(e);
	}
}

static void encode_gap(struct encoder *e, const struct coder_model *model, uint32_t gap)
{
	for (uint32_t q = gap >> model->n_digits; q > 0; q--)
		encode_bit(e, model->stop, true);
	encode_bit(e, model->stop, false);
	for (unsigned j = model->n_digits; j-- > 0;)
		encode_bit(e, model->zero[j], gap >> j & 1);
}

/* The fewest bytes that name a point of the last interval when zeros follow. */
static void finish(struct encoder *e)
{
	uint64_t unit = ONE, point = 0;
	unsigned n = 0;

	for (;; unit >>= 8, n++) {
		point = (e->low + unit - 1) / unit * unit;
		if (point < e->low + e->range)
			break;
	}
	e->low = point;
	/* One more than are told: each writes what the one before it has cached. */
	for (unsigned i = 0; i <= n; i++)
		shift_low(e);
}

size_t coder_encode(uint8_t *dst, const uint64_t *words, uint32_t n, uint32_t n_rare, bool on)
{
	struct coder_model model = coder_model(n, n_rare);
	struct encoder e = { .dst = dst, .range = UINT32_MAX, .n_pending = 1 };
	uint32_t at = 0;

	for (uint32_t i = 0; i < n; i += 64) {
		uint64_t word = on ? words[i / 64] : ~words[i / 64];

		if (n - i < 64)
			word &= (UINT64_C(1) << (n - i)) - 1;
		for (; word; word &= word - 1) {
			uint32_t position = i + (uint32_t)__builtin_ctzll(word);

			encode_gap(&e, &model, position - at);
			at = position + 1;
		}
	}
	finish(&e);
	return (size_t)(e.dst - dst);
}

/* ---- reading */

static inline uint32_t next_byte(struct coder_reader *reader)
{
	if (reader->src < reader->end)
		return *reader->src++;
	reader->n_padded++;
	return 0;
}

static inline uint32_t decode_bit(struct coder_reader *reader, uint32_t zero)
{
	uint32_t bound = (uint32_t)((uint64_t)reader->range * zero >> 32);
	uint32_t bit = reader->code >= bound, all = 0u - bit;

	reader->code -= bound & all;
	reader->range = bound + ((reader->range - 2 * bound) & all);
	while (reader->range < RANGE_MIN) {
		reader->range <<= 8;
		reader->code = reader->code << 8 | next_byte(reader);
	}
	return bit;
}

void coder_open(struct coder_reader *reader, uint32_t n, uint32_t n_rare, const uint8_t *src,
	size_t n_bytes)
{
	*reader = (struct coder_reader){
		.model = coder_model(n, n_rare),
		.src = src,
		.end = src + n_bytes,
		.range = UINT32_MAX,
		.n = n,
		.n_left = n_rare,
	};
	for (unsigned i = 0; i < 4; i++)
		reader->code = reader->code << 8 | next_byte(reader);
}

/* The writer leaves out at most the four bytes that the register holds. */
static inline bool next_position(struct coder_reader *reader, uint32_t *ret_position)
{
	unsigned n_digits = reader->model.n_digits;
	uint64_t at = reader->at;
	uint32_t low = 0;

	while (decode_bit(reader, reader->model.stop)) {
		at += UINT64_C(1) << n_digits;
		if (at >= reader->n)
			return false;
	}
	for (unsigned j = n_digits; j-- > 0;)
		low |= decode_bit(reader, reader->model.zero[j]) << j;
	at += low;
	if (at >= reader->n || reader->n_padded > 4)
		return false;
	*ret_position = (uint32_t)at;
	reader->at = (uint32_t)at + 1;
	return true;
}

size_t coder_read(struct coder_reader *reader, uint32_t *positions, size_t max)
{
	/* In registers rather than behind a pointer that the positions might alias. */
	struct coder_reader r = *reader;
	size_t n = 0;

	while (n < max && r.n_left > 0 && !r.damaged) {
		r.damaged = !next_position(&r, &positions[n]);
		if (!r.damaged) {
			r.n_left--;
			n++;
		}
	}
	*reader = r;
	return n;
}

bool coder_is_whole(const struct coder_reader *reader)
{
	return !reader->damaged && reader->n_left == 0 && reader->src == reader->end;
}
