/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "site/twins.h"

#define LINE_CHARS (2 * DIGEST_HEX_CHARS + 2)

int twins_add(struct twins *twins, const struct digest *a, const struct digest *b)
{
	if (twins->n == TWINS_MAX)
		return -EFBIG;
	if (twins->n == twins->size) {
		uint32_t size = twins->size ? 2 * twins->size : 64;
		struct twin *grown = realloc(twins->pairs, size * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		twins->pairs = grown;
		twins->size = size;
	}
	twins->pairs[twins->n++] = (struct twin){ *a, *b };
	return 0;
}

int twins_write(const struct twins *twins, char **ret_text, size_t *ret_n_chars)
{
	_cleanup_(freep) char *text = malloc((size_t)twins->n * LINE_CHARS + 1);
	char a[DIGEST_HEX_CHARS + 1], b[DIGEST_HEX_CHARS + 1];
	size_t n = 0;

	if (!text)
		return -ENOMEM;
	text[0] = 0;
	for (uint32_t i = 0; i < twins->n; i++) {
		digest_to_hex(&twins->pairs[i].a, a);
		digest_to_hex(&twins->pairs[i].b, b);
		n += (size_t)snprintf(text + n, LINE_CHARS + 1, "%s %s\n", a, b);
	}
	*ret_text = TAKE_PTR(text);
	*ret_n_chars = n;
	return 0;
}

static int read_line(struct twins *twins, const char *line)
{
	char a[DIGEST_HEX_CHARS + 1] = { 0 }, b[DIGEST_HEX_CHARS + 1] = { 0 };
	struct twin twin;

	memcpy(a, line, DIGEST_HEX_CHARS);
	memcpy(b, line + DIGEST_HEX_CHARS + 1, DIGEST_HEX_CHARS);
	if (line[DIGEST_HEX_CHARS] != ' ' || line[LINE_CHARS - 1] != '\n' ||
		digest_from_hex(&twin.a, a) < 0 || digest_from_hex(&twin.b, b) < 0)
		return -EBADMSG;
	return twins_add(twins, &twin.a, &twin.b);
}

int twins_read(struct twins *ret_twins, const char *text, size_t n_chars)
{
	_cleanup_(twins_done) struct twins twins = { 0 };

	if (n_chars % LINE_CHARS != 0)
		return -EBADMSG;
	for (size_t at = 0; at < n_chars; at += LINE_CHARS) {
		int r = read_line(&twins, text + at);

		if (r < 0)
			return r;
	}
	*ret_twins = twins;
	twins = (struct twins){ 0 };
	return 0;
}

void twins_done(struct twins *twins)
{
	free(twins->pairs);
	*twins = (struct twins){ 0 };
}
