/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "site/manifest.h"

#define MANIFEST_MAX (1u << 20) /* images */

int manifest_add(struct manifest *manifest, const struct manifest_entry *entry)
{
	if (manifest->n == MANIFEST_MAX)
		return -EFBIG;
	if (manifest->n == manifest->size) {
		uint32_t size = manifest->size ? 2 * manifest->size : 256;
		struct manifest_entry *grown = realloc(manifest->entries, size * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		manifest->entries = grown;
		manifest->size = size;
	}
	manifest->entries[manifest->n++] = *entry;
	return 0;
}

static int by_hash(const void *a, const void *b)
{
	const struct manifest_entry *x = a, *y = b;

	return memcmp(x->hash.bytes, y->hash.bytes, DIGEST_BYTES);
}

void manifest_split(struct manifest *manifest)
{
	/* Long blocks keep neighbours together, many blocks see more of the time: 8 images or more. */
	uint32_t n_blocks = manifest->n / 8;

	if (n_blocks > 50)
		n_blocks = 50;
	if (n_blocks < 5)
		n_blocks = 5;
	for (uint32_t i = 0; i < manifest->n; i++)
		manifest->entries[i].held = (uint64_t)i * n_blocks / manifest->n % 5 == 4;
	if (manifest->n > 1)
		qsort(manifest->entries, manifest->n, sizeof(*manifest->entries), by_hash);
}

static const char *class_of(const struct manifest *manifest, const struct manifest_entry *entry)
{
	return entry->label ? manifest->classes.names[entry->label - 1] : "";
}

int manifest_write(const struct manifest *manifest, char **ret_text, size_t *ret_n_chars)
{
	const size_t line_max =
		2 + DIGEST_HEX_CHARS + 1 + sizeof(manifest->entries->blob) + 1 + CLASSES_NAME_BYTES;
	const size_t n_room = manifest->n * line_max + 1;
	_cleanup_(freep) char *text = malloc(n_room);
	size_t n = 0;

	if (!text)
		return -ENOMEM;
	text[0] = 0;
	for (uint32_t i = 0; i < manifest->n; i++) {
		const struct manifest_entry *entry = &manifest->entries[i];
		char hex[DIGEST_HEX_CHARS + 1];

		digest_to_hex(&entry->hash, hex);
		n += (size_t)snprintf(text + n, n_room - n, "%c %s %s%s%s\n",
			entry->held ? 'H' : 'L', hex, entry->blob, entry->label ? "\t" : "",
			class_of(manifest, entry));
	}
	*ret_text = TAKE_PTR(text);
	*ret_n_chars = n;
	return 0;
}

static int read_class(struct classes *classes, const char *text, size_t n, uint32_t *ret_label)
{
	char name[CLASSES_NAME_BYTES];
	uint32_t index;

	if (n >= sizeof(name) || memchr(text, 0, n))
		return -EBADMSG;
	memcpy(name, text, n);
	name[n] = 0;
	if (classes_add(classes, name, &index) < 0)
		return -EBADMSG;
	*ret_label = index + 1;
	return 0;
}

static int read_line(
	struct manifest_entry *ret_entry, struct classes *classes, const char *line, size_t n)
{
	const size_t blob_at = 2 + DIGEST_HEX_CHARS + 1;
	const char *tab = memchr(line, '\t', n);
	struct manifest_entry entry = { 0 };
	char hex[DIGEST_HEX_CHARS + 1];

	if (tab && read_class(classes, tab + 1, n - (size_t)(tab + 1 - line), &entry.label) < 0)
		return -EBADMSG;
	n = tab ? (size_t)(tab - line) : n;
	if (n <= blob_at || n - blob_at >= sizeof(entry.blob) || memchr(line, 0, n) ||
		(line[0] != 'L' && line[0] != 'H') || line[1] != ' ' || line[blob_at - 1] != ' ')
		return -EBADMSG;
	memcpy(hex, line + 2, DIGEST_HEX_CHARS);
	hex[DIGEST_HEX_CHARS] = 0;
	memcpy(entry.blob, line + blob_at, n - blob_at);
	if (digest_from_hex(&entry.hash, hex) < 0 || entry.blob[0] == '.' ||
		strchr(entry.blob, '/'))
		return -EBADMSG;
	entry.held = line[0] == 'H';
	*ret_entry = entry;
	return 0;
}

int manifest_read(
	struct manifest *ret_manifest, const char *text, size_t n_chars, struct diag *diag)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	const char *at = text, *stop = text + n_chars;

	while (at < stop) {
		const char *newline = memchr(at, '\n', (size_t)(stop - at));
		struct manifest_entry entry;
		int r;

		if (!newline ||
			read_line(&entry, &manifest.classes, at, (size_t)(newline - at)) < 0)
			return diag_set(
				diag, EBADMSG, "manifest: line %u is damaged", manifest.n + 1);
		if (manifest.n > 0 && by_hash(&manifest.entries[manifest.n - 1], &entry) >= 0)
			return diag_set(
				diag, EBADMSG, "manifest: line %u is out of order", manifest.n + 1);
		r = manifest_add(&manifest, &entry);
		if (r < 0)
			return diag_set(diag, -r, "manifest: %s", strerror(-r));
		at = newline + 1;
	}
	*ret_manifest = manifest;
	manifest = (struct manifest){ 0 };
	return 0;
}

static void update_class(struct digest_state *sum, const char *name)
{
	digest_update(sum, "=", 1);
	digest_update(sum, name, strlen(name) + 1);
}

struct digest manifest_digest(const struct manifest *manifest)
{
	static const char domain[] = "kamen manifest 1";
	struct digest_state sum;

	digest_init(&sum);
	digest_update(&sum, domain, sizeof(domain));
	for (uint32_t i = 0; i < manifest->n; i++) {
		digest_update(&sum, manifest->entries[i].held ? "H" : "L", 1);
		digest_update(&sum, manifest->entries[i].hash.bytes, DIGEST_BYTES);
		/* Where nothing is labelled it is what it was before there were labels. */
		if (manifest->entries[i].label)
			update_class(&sum, class_of(manifest, &manifest->entries[i]));
	}
	return digest_final(&sum);
}

void manifest_labels(const struct manifest *manifest, const uint32_t *numbers, uint32_t *labels)
{
	for (uint32_t i = 0; i < manifest->n; i++) {
		uint32_t label = manifest->entries[i].label;

		labels[i] = label ? numbers[label - 1] : CLASSES_NONE;
	}
}

/* What there is, for who wonders why it is not enough: "ok 12, scratch 3". */
static void describe(const struct classes *classes, const uint32_t *counts, char *text, size_t size)
{
	size_t n = 0;

	(void)snprintf(text, size, "none");
	for (uint32_t i = 0; i < classes->n && n < size; i++) {
		uint32_t class = classes->order[i];

		n += (size_t)snprintf(text + n, size - n, "%s%s %u", n ? ", " : "",
			classes->names[class], counts[class]);
	}
}

int manifest_learnt_labels(
	const struct manifest *manifest, uint32_t **ret_labels, struct diag *diag)
{
	uint32_t n_classes = manifest->classes.n, n;
	_cleanup_(freep) uint32_t *counts = calloc((size_t)n_classes + 1, sizeof(*counts));
	_cleanup_(freep) uint32_t *numbers = calloc((size_t)n_classes + 1, sizeof(*numbers));
	_cleanup_(freep) uint32_t *labels = calloc((size_t)manifest->n + 1, sizeof(*labels));
	char text[160];

	if (!counts || !numbers || !labels)
		return -ENOMEM;
	for (uint32_t i = 0; i < manifest->n; i++)
		if (manifest->entries[i].label && !manifest->entries[i].held)
			counts[manifest->entries[i].label - 1]++;
	n = classes_number(&manifest->classes, counts, MANIFEST_MIN_OF_CLASS, numbers);
	if (n < MANIFEST_MIN_CLASSES) {
		describe(&manifest->classes, counts, text, sizeof(text));
		return diag_set(diag, ENODATA,
			"a round by labels needs %u classes of %u labelled images that are not "
			"held out; there are: %s",
			MANIFEST_MIN_CLASSES, MANIFEST_MIN_OF_CLASS, text);
	}
	manifest_labels(manifest, numbers, labels);
	for (uint32_t i = 0; i < manifest->n; i++)
		if (manifest->entries[i].held)
			labels[i] = CLASSES_NONE;
	*ret_labels = TAKE_PTR(labels);
	return (int)n;
}

void manifest_done(struct manifest *manifest)
{
	free(manifest->entries);
	classes_done(&manifest->classes);
	*manifest = (struct manifest){ 0 };
}
