/* SPDX-License-Identifier: Apache-2.0 */
/* The classes of a site's images, as a person says them. */
#include <errno.h>

#include "ops/log.h"
#include "serve/control.h"
#include "serve/limits.h"
#include "serve/serve.h"

/* What may be sent is what is stored and learnt from. */
_Static_assert(WIRE_CLASS_BYTES == CLASSES_NAME_BYTES && WIRE_MAX_CLASSES == CLASSES_MAX,
	"one limit of a class's name and of a site's classes");

static int read_one(struct label *ret_label, const Kamen__LabelSet *message, uint32_t i)
{
	const Kamen__ImageLabel *image = message->images[i];

	if (image->hash.len != DIGEST_BYTES || (image->has_of && image->of >= message->n_classes))
		return -EBADMSG;
	memcpy(ret_label->hash.bytes, image->hash.data, DIGEST_BYTES);
	ret_label->name = image->has_of ? message->classes[image->of] : NULL;
	return 0;
}

static int read_labels(struct label **ret_labels, const Kamen__LabelSet *message, struct diag *diag)
{
	_cleanup_(freep) struct label *labels = NULL;

	if (message->n_images == 0 || message->n_images > SERVE_MAX_LABELS)
		return diag_set(diag, EINVAL, "%zu images at once, not 1 to %u", message->n_images,
			SERVE_MAX_LABELS);
	for (size_t i = 0; i < message->n_classes; i++)
		if (wire_class_name_check(message->classes[i]) < 0)
			return diag_set(diag, EINVAL,
				"class %zu: not a class's name: UTF-8 of at most %u bytes without "
				"control characters",
				i, WIRE_CLASS_BYTES - 1);
	labels = calloc(message->n_images, sizeof(*labels));
	if (!labels)
		return -ENOMEM;
	for (uint32_t i = 0; i < message->n_images; i++)
		if (read_one(&labels[i], message, i) < 0)
			return diag_set(diag, EBADMSG,
				"image %u: a label without a hash, or of no class named here", i);
	*ret_labels = TAKE_PTR(labels);
	return 0;
}

static const char *error_text(int r, const struct diag *diag)
{
	return diag->text[0] ? diag->text
	       : r == -EROFS ? "it is frozen: resume it first"
	       : r == -E2BIG ? "it would have too many classes"
			     : strerror(-r);
}

static void reply_labelled(struct control_client *client, uint64_t id, const struct site *site,
	const struct label_counts *counts, const bool *is_unknown, uint32_t n)
{
	_cleanup_(freep) uint32_t *unknown =
		calloc((size_t)counts->n_unknown + 1, sizeof(*unknown));
	Kamen__Labelled labelled = KAMEN__LABELLED__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	if (!unknown) {
		control_error(client, id, -ENOMEM, "labelled, but there is no memory to say so");
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		if (is_unknown[i])
			unknown[labelled.n_unknown++] = i;
	labelled.site = (char *)site->name;
	labelled.has_added = labelled.has_changed = labelled.has_removed = true;
	labelled.added = counts->n_added;
	labelled.changed = counts->n_changed;
	labelled.removed = counts->n_removed;
	labelled.unknown = unknown;
	reply.row_case = KAMEN__REPLY__ROW_LABELLED;
	reply.labelled = &labelled;
	control_reply(client, id, true, &reply, -1);
}

void control_label_set(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__LabelSet *message = request->label_set;
	struct site *site = control_find_site(client, request->id, message->site);
	_cleanup_(freep) struct label *labels = NULL;
	bool is_unknown[SERVE_MAX_LABELS];
	struct serve *serve = client->serve;
	struct diag diag = { .text = "" };
	struct label_counts counts;
	char who[CONTROL_WHO_BYTES];
	int r;

	if (!site)
		return;
	r = read_labels(&labels, message, &diag);
	if (r >= 0) {
		control_who(client, who);
		admission_commit(serve);
		r = state_label_set(serve->state, site->name, labels, (uint32_t)message->n_images,
			who, is_unknown, &counts);
	}
	if (r < 0) {
		control_error(
			client, request->id, r, "site %s: %s", site->name, error_text(r, &diag));
		return;
	}
	serve_log_audit(serve);
	reply_labelled(client, request->id, site, &counts, is_unknown, (uint32_t)message->n_images);
}

void control_label_list(struct control_client *client, const Kamen__Request *request)
{
	struct site *site = control_find_site(client, request->id, request->label_list->site);
	_cleanup_(freep) struct label_class *rows = NULL;
	uint32_t n = 0;
	int r;

	if (!site)
		return;
	r = state_label_list(client->serve->state, site->name, &rows, &n);
	if (r < 0) {
		control_error(client, request->id, r, "site %s: %s", site->name, strerror(-r));
		return;
	}
	for (uint32_t i = 0; i < n && !client->closed; i++) {
		Kamen__LabelClass row = KAMEN__LABEL_CLASS__INIT;
		Kamen__Reply reply = KAMEN__REPLY__INIT;

		row.site = (char *)site->name;
		row.name = rows[i].name;
		row.images = rows[i].n_images;
		reply.row_case = KAMEN__REPLY__ROW_LABEL_CLASS;
		reply.label_class = &row;
		control_reply(client, request->id, i + 1 == n, &reply, -1);
	}
	if (n == 0)
		control_done(client, request->id);
}
