/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "ingest/ask.h"

static void read_numbers(struct ask *ask, const Kamen__RouterRequest *in)
{
	ask->id = in->id;
	ask->is_hello = in->hello != NULL;
	ask->budget_ns = in->has_budget_ns ? in->budget_ns : 0;
	ask->trigger_id = in->trigger_id;
	ask->part_id = in->part_id;
	ask->capture_us = in->capture_us;
	ask->encoder = in->encoder;
	ask->verb = in->verb;
	ask->format = in->format;
	ask->width = in->width;
	ask->height = in->height;
	ask->stride = in->stride;
	ask->mask = in->mask;
	ask->version = in->version;
	ask->px = in->px;
	ask->flags = in->flags;
}

static int check_pixels(const struct ask *ask, struct diag *diag)
{
	const char *wrong;

	if (ask->width > IMAGE_MAX_SIDE || ask->height > IMAGE_MAX_SIDE ||
		(uint64_t)ask->width * ask->height > IMAGE_MAX_PIXELS)
		return diag_set(
			diag, EINVAL, "size: %u x %u is out of range", ask->width, ask->height);
	wrong = shm_pixels_wrong(ask->format, ask->width, ask->height, ask->stride, ask->n_bytes);
	return wrong ? diag_set(diag, EINVAL, "%s", wrong) : 0;
}

static int check_numbers(const struct ask *ask, uint64_t max_bytes, struct diag *diag)
{
	if (ask->n_bytes == 0)
		return diag_set(diag, EINVAL, "pixels: no bytes");
	if (ask->n_bytes > max_bytes)
		return diag_set(
			diag, EFBIG, "pixels: more than %llu bytes", (unsigned long long)max_bytes);
	if (ask->verb < SHM_ECHO || ask->verb > SHM_PUSH)
		return diag_set(diag, EINVAL, "verb: %u is none", ask->verb);
	if (ask->format > SHM_BGR8)
		return diag_set(diag, EINVAL, "format: %u is none", ask->format);
	if (ask->mask > SHM_MASK_VERSION)
		return diag_set(diag, EINVAL, "mask: %u is none", ask->mask);
	if (ask->flags & ~(uint32_t)(SHM_WANT_EMBEDDING | SHM_WANT_SPACE | SHM_WANT_HARDNESS |
				     SHM_WANT_FEATURE))
		return diag_set(diag, EINVAL, "flags: %#x are not known", ask->flags);
	if (ask->flags & SHM_WANT_FEATURE && ask->flags & SHM_WANT_HARDNESS)
		return diag_set(diag, EINVAL, "flags: a feature and a hardness map in one answer");
	/* Ingest asks serve as the daemon's own user, who may more than a peer may. */
	if (ask->px != SHM_PX_SITE && ask->px != SHM_PX_NATIVE)
		return diag_set(diag, EACCES, "px: the site's size or the model's own");
	return 0;
}

static int read_texts(struct ask *ask, const Kamen__RouterRequest *in, struct diag *diag)
{
	if (in->has_space) {
		if (in->space.len != sizeof(ask->space))
			return diag_set(diag, EINVAL, "space: not 32 bytes");
		memcpy(ask->space, in->space.data, sizeof(ask->space));
	}
	if (ask->verb == SHM_ECHO)
		return 0;
	if (!in->site || wire_site_name_check(in->site) < 0)
		return diag_set(diag, EINVAL, "site: not the name of a site");
	memcpy(ask->site, in->site, strlen(in->site) + 1);
	return 0;
}

static int read_header(struct ask *ask, struct wire *wire, const struct ask_part *header,
	const struct ask_part *pixels, uint64_t max_bytes, struct diag *diag)
{
	const Kamen__RouterRequest *in;
	ProtobufCMessage *message;
	int r;

	if (header->n_bytes > ASK_MAX_HEADER)
		return diag_set(diag, EBADMSG, "header: longer than %u bytes", ASK_MAX_HEADER);
	r = wire_decode(
		wire, &kamen__router_request__descriptor, header->data, header->n_bytes, &message);
	if (r < 0)
		return diag_set(diag, EBADMSG, "header: not a RouterRequest");
	in = (const Kamen__RouterRequest *)message;
	read_numbers(ask, in);
	if (in->major != WIRE_MAJOR || (in->hello && in->hello->major != WIRE_MAJOR))
		return diag_set(diag, EPROTO, "major: another version than %d", WIRE_MAJOR);
	if (ask->is_hello)
		return pixels ? diag_set(diag, EBADMSG, "a hello stands alone") : 0;
	if (!pixels)
		return diag_set(diag, EBADMSG, "not a message of two parts");
	ask->pixels = pixels->data;
	ask->n_bytes = pixels->n_bytes;
	r = check_numbers(ask, max_bytes, diag);
	if (r == 0)
		r = read_texts(ask, in, diag);
	if (r == 0 && ask->verb != SHM_ECHO && ask->format != SHM_ENCODED)
		r = check_pixels(ask, diag);
	return r;
}

int ask_parse(struct ask *ask, struct wire *wire, const struct ask_part *parts, unsigned n_parts,
	uint64_t max_bytes, struct diag *diag)
{
	unsigned first;

	*ask = (struct ask){ .id = 0 };
	ask->is_delimited = n_parts > 1 && parts[0].n_bytes == 0;
	first = ask->is_delimited;
	if (n_parts <= first || n_parts > first + 2)
		return diag_set(diag, EBADMSG, "not a message of two parts");
	return read_header(ask, wire, &parts[first], n_parts > first + 1 ? &parts[first + 1] : NULL,
		max_bytes, diag);
}
