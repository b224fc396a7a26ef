/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cleanup.h"
#include "ctl.h"
#include "kmask_file.h"
#include "mask_file.h"
#include "output.h"

/* One of the two masks; data NULL: the frozen base. */
struct side {
	const char *name;
	void *data;
	size_t n_bytes;
};

static void side_done(struct side *side)
{
	free(side->data);
}

static int read_version(
	const struct ctl *ctl, struct control *control, const char *site, struct side *side)
{
	Kamen__SiteVersion message = KAMEN__SITE_VERSION__INIT;
	int status = mask_version_take(ctl, site, side->name, &message);

	if (status != EXIT_DONE || message.version == 0)
		return status;
	return mask_fetch(ctl, control, &message, &side->data, &side->n_bytes, NULL);
}

/* A ViT's canonical list is known; of anything else the index says it. */
static json_t *tensor_name(uint32_t tensor, uint32_t n_tensors)
{
	static const char *const names[8] = { "attn.qkv.weight", "attn.qkv.bias",
		"attn.proj.weight", "attn.proj.bias", "mlp.fc1.weight", "mlp.fc1.bias",
		"mlp.fc2.weight", "mlp.fc2.bias" };
	char text[64];

	if (n_tensors % 8 != 0)
		return json_null();
	(void)snprintf(text, sizeof(text), "blocks.%u.%s", tensor / 8, names[tensor % 8]);
	return json_string(text);
}

static int print_changes(
	struct ctl *ctl, const struct kmask_change *changes, uint32_t n, uint32_t n_tensors)
{
	json_int_t n_dropped = 0, n_restored = 0;
	json_t *tensors = json_array();

	for (uint32_t i = 0; i < n; i++) {
		n_dropped += changes[i].n_dropped;
		n_restored += changes[i].n_restored;
		(void)json_array_append_new(
			tensors, json_pack("{s:i, s:o, s:I, s:I}", "index", (int)changes[i].tensor,
					 "tensor", tensor_name(changes[i].tensor, n_tensors),
					 "dropped", (json_int_t)changes[i].n_dropped, "restored",
					 (json_int_t)changes[i].n_restored));
	}
	if (ctl->json)
		return output_row(ctl,
			json_pack("{s:I, s:I, s:I, s:o}", "flips", n_dropped + n_restored,
				"dropped", n_dropped, "restored", n_restored, "tensors", tensors),
			true);
	for (uint32_t i = 0; i < n; i++)
		(void)output_row(ctl, json_incref(json_array_get(tensors, i)), false);
	json_decref(tensors);
	return output_row(ctl,
		json_pack("{s:I, s:I, s:I}", "flips", n_dropped + n_restored, "dropped", n_dropped,
			"restored", n_restored),
		false);
}

static int diff(struct ctl *ctl, const struct side *a, const struct side *b)
{
	_cleanup_(freep) struct kmask_change *changes = NULL;
	uint32_t n = 0, n_tensors = 0;
	struct kmask_why why;

	if (kmask_file_diff(
		    a->data, a->n_bytes, b->data, b->n_bytes, &changes, &n, &n_tensors, &why) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s to %s: %s", a->name, b->name, why.text);
	return print_changes(ctl, changes, n, n_tensors);
}

int mask_diff_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(control_freep) struct control *control = NULL;
	_cleanup_(side_done) struct side a = { 0 }, b = { 0 };
	int first, status;
	bool files;

	if (!options_parse(ctl, argc, argv, NULL, 0, 2, 3, &first, &status))
		return status;
	files = argc - first == 2;
	a.name = argv[argc - 2];
	b.name = argv[argc - 1];
	if (files) {
		status = mask_read(ctl, a.name, &a.data, &a.n_bytes);
		if (status == EXIT_DONE)
			status = mask_read(ctl, b.name, &b.data, &b.n_bytes);
	} else {
		status = control_open(ctl, &control);
		if (status == EXIT_DONE)
			status = read_version(ctl, control, argv[first], &a);
		if (status == EXIT_DONE)
			status = read_version(ctl, control, argv[first], &b);
	}
	return status == EXIT_DONE ? diff(ctl, &a, &b) : status;
}
