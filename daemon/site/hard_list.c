/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "site/hard_list.h"

#define LINE_CHARS (DIGEST_HEX_CHARS + 24) /* a hash, and a float of 9 digits */

int hard_list_add(struct hard_list *list, const struct digest *hash, float hardness)
{
	if (!isfinite(hardness))
		return -EINVAL;
	if (list->n == HARD_LIST_MAX)
		return -EFBIG;
	if (list->n == list->size) {
		uint32_t size = list->size ? 2 * list->size : 64;
		struct hard_image *grown = realloc(list->images, size * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		list->images = grown;
		list->size = size;
	}
	list->images[list->n++] = (struct hard_image){ *hash, hardness };
	return 0;
}

int hard_list_write(const struct hard_list *list, char **ret_text, size_t *ret_n_chars)
{
	_cleanup_(freep) char *text = malloc((size_t)list->n * LINE_CHARS + 1);
	char hash[DIGEST_HEX_CHARS + 1];
	size_t n = 0;

	if (!text)
		return -ENOMEM;
	text[0] = 0;
	for (uint32_t i = 0; i < list->n; i++) {
		digest_to_hex(&list->images[i].hash, hash);
		/* 9 digits give a float back to the bit. */
		n += (size_t)snprintf(text + n, LINE_CHARS + 1, "%s %.9g\n", hash,
			(double)list->images[i].hardness);
	}
	*ret_text = TAKE_PTR(text);
	*ret_n_chars = n;
	return 0;
}

static int read_line(struct hard_list *list, const char *line, size_t n)
{
	char hex[DIGEST_HEX_CHARS + 1] = { 0 }, number[LINE_CHARS - DIGEST_HEX_CHARS] = { 0 }, *end;
	struct digest hash;
	float hardness;
	int r;

	if (n <= DIGEST_HEX_CHARS + 1 || n - DIGEST_HEX_CHARS - 1 >= sizeof(number) ||
		line[DIGEST_HEX_CHARS] != ' ')
		return -EBADMSG;
	memcpy(hex, line, DIGEST_HEX_CHARS);
	memcpy(number, line + DIGEST_HEX_CHARS + 1, n - DIGEST_HEX_CHARS - 1);
	hardness = strtof(number, &end);
	if (number[0] == ' ' || *end || digest_from_hex(&hash, hex) < 0)
		return -EBADMSG;
	r = hard_list_add(list, &hash, hardness);
	return r == -EINVAL || r == -EFBIG ? -EBADMSG : r;
}

int hard_list_read(struct hard_list *ret_list, const char *text, size_t n_chars)
{
	_cleanup_(hard_list_done) struct hard_list list = { 0 };

	while (n_chars > 0) {
		const char *end = memchr(text, '\n', n_chars);
		size_t n = end ? (size_t)(end - text) : 0;
		int r = end ? read_line(&list, text, n) : -EBADMSG;

		if (r < 0)
			return r;
		text += n + 1;
		n_chars -= n + 1;
	}
	*ret_list = list;
	list = (struct hard_list){ 0 };
	return 0;
}

void hard_list_done(struct hard_list *list)
{
	free(list->images);
	*list = (struct hard_list){ 0 };
}
