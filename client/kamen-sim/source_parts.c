/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "image/image.h"
#include "item.h"

enum { JPEG_QUALITY = 92 };

struct source_parts {
	struct source base;
	struct source_parts_options options;
	uint32_t index;
	uint8_t *pixels;
};

static int encode(struct item *item, const struct source_parts *parts)
{
	const struct source_parts_options *o = &parts->options;
	struct image_view view = { parts->pixels, o->px, o->px, o->n_channels,
		(size_t)o->px * o->n_channels };

	if (o->format == ITEM_PNG)
		return image_encode_png(&view, &item->data, &item->n_bytes);
	if (o->format == ITEM_JPEG)
		return image_encode_jpeg(&view, JPEG_QUALITY, &item->data, &item->n_bytes);
	item->n_bytes = view.stride * o->px;
	item->data = malloc(item->n_bytes);
	if (!item->data)
		return -ENOMEM;
	memcpy(item->data, parts->pixels, item->n_bytes);
	return 0;
}

static int parts_next(struct source *source, struct item *ret_item)
{
	struct source_parts *parts = (struct source_parts *)source;
	const struct source_parts_options *o = &parts->options;
	struct item item = { .format = o->format,
		.is_part = true,
		.width = o->px,
		.height = o->px,
		.n_channels = o->n_channels };
	int r;

	part_render(&item.part, parts->pixels, o->px, o->n_channels, o->seed, parts->index,
		o->defects_ppm);
	r = encode(&item, parts);
	if (r < 0)
		return r;
	(void)snprintf(item.part_id, sizeof(item.part_id), "part-%06u%s", parts->index,
		o->format == ITEM_PNG    ? ".png"
		: o->format == ITEM_JPEG ? ".jpg"
					 : "");
	parts->index++;
	*ret_item = item;
	return 1;
}

static void parts_free(struct source *source)
{
	free(((struct source_parts *)source)->pixels);
	free(source);
}

int source_parts_new(struct source **ret_source, const struct source_parts_options *options)
{
	struct source_parts *parts = calloc(1, sizeof(*parts));

	if (!parts)
		return -ENOMEM;
	parts->base = (struct source){ parts_next, parts_free };
	parts->options = *options;
	parts->index = options->start;
	parts->pixels = malloc((size_t)options->px * options->px * options->n_channels);
	if (!parts->pixels) {
		free(parts);
		return -ENOMEM;
	}
	*ret_source = &parts->base;
	return 0;
}
