/* SPDX-License-Identifier: Apache-2.0 */
/* The classes that a site tells apart. */
#include <errno.h>

#include "ops/log.h"
#include "serve/control.h"
#include "serve/serve.h"

/* What kamenctl refuses before it pushes is what the site would refuse. */
_Static_assert(WIRE_MAX_SUPPORTS == CLASS_MAX_SUPPORTS, "one limit of a class's images");
_Static_assert(WIRE_MAX_SHOWN == CLASS_MAX, "one limit of a site's classes");

static int read_images(const Kamen__ClassAdd *message, struct digest hashes[CLASS_MAX_SUPPORTS],
	bool is_brought[CLASS_MAX_SUPPORTS], struct diag *diag)
{
	if (wire_class_name_check(message->name) < 0)
		return diag_set(diag, EINVAL,
			"not a class's name: UTF-8 of at most %u bytes without control characters",
			WIRE_CLASS_BYTES - 1);
	if (message->n_images == 0 || message->n_images > CLASS_MAX_SUPPORTS)
		return diag_set(diag, E2BIG, "%zu images: a class has 1 to %u", message->n_images,
			CLASS_MAX_SUPPORTS);
	for (size_t i = 0; i < message->n_images; i++) {
		const Kamen__ClassImage *image = message->images[i];

		if (image->hash.len != DIGEST_BYTES)
			return diag_set(diag, EBADMSG, "image %zu has no hash", i);
		memcpy(hashes[i].bytes, image->hash.data, DIGEST_BYTES);
		is_brought[i] = image->has_brought && image->brought;
	}
	return 0;
}

void control_class_add(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__ClassAdd *message = request->class_add;
	struct site *site = control_find_site(client, request->id, message->site);
	struct digest hashes[CLASS_MAX_SUPPORTS];
	bool is_brought[CLASS_MAX_SUPPORTS];
	struct diag diag = { .text = "" };
	struct class_wish wish = { .name = message->name,
		.hashes = hashes,
		.is_brought = is_brought,
		.n = (uint32_t)message->n_images };
	int r;

	if (!site)
		return;
	r = read_images(message, hashes, is_brought, &diag);
	if (r < 0) {
		control_error(client, request->id, r, "site %s: %s", site->name, diag.text);
		return;
	}
	/* Who was told that an image is accepted finds it. */
	admission_commit(client->serve);
	changes_add_class(client, request->id, site, &wish);
}

void control_class_remove(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__ClassRemove *message = request->class_remove;
	struct site *site = control_find_site(client, request->id, message->site);

	if (!site)
		return;
	if (wire_class_name_check(message->name) < 0)
		control_error(
			client, request->id, -EINVAL, "site %s: not a class's name", site->name);
	else
		changes_remove_class(client, request->id, site, message->name);
}

static int drop(struct control_client *client, struct site *site, const Kamen__ClassDrop *message,
	uint32_t *ret_n_dropped)
{
	struct digest hashes[CLASS_MAX_SUPPORTS];

	if (message->n_hashes > CLASS_MAX_SUPPORTS)
		return -E2BIG;
	for (size_t i = 0; i < message->n_hashes; i++) {
		if (message->hashes[i].len != DIGEST_BYTES)
			return -EBADMSG;
		memcpy(hashes[i].bytes, message->hashes[i].data, DIGEST_BYTES);
	}
	/* Who was told that an image is accepted finds it. */
	admission_commit(client->serve);
	return state_class_drop(client->serve->state, site->name, hashes,
		(uint32_t)message->n_hashes, ret_n_dropped);
}

void control_class_drop(struct control_client *client, const Kamen__Request *request)
{
	struct site *site = control_find_site(client, request->id, request->class_drop->site);
	Kamen__ClassDropped message = KAMEN__CLASS_DROPPED__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	uint32_t n_dropped;
	int r;

	if (!site)
		return;
	r = drop(client, site, request->class_drop, &n_dropped);
	if (r < 0) {
		control_error(client, request->id, r, "site %s: %s", site->name, strerror(-r));
		return;
	}
	if (n_dropped > 0)
		log_notice("site %s: %u images of a class that did not come about are gone",
			site->name, n_dropped);
	message.images = n_dropped;
	reply.row_case = KAMEN__REPLY__ROW_CLASS_DROPPED;
	reply.class_dropped = &message;
	control_reply(client, request->id, true, &reply, -1);
}

static void fill(Kamen__Class *message, const struct site *site, const char *name, uint32_t n)
{
	kamen__class__init(message);
	message->site = (char *)(uintptr_t)site->name;
	message->name = (char *)(uintptr_t)name;
	message->images = n;
}

static void reply_row(struct control_client *client, uint64_t id, bool last, Kamen__Class *message)
{
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	reply.row_case = KAMEN__REPLY__ROW_CLASS_;
	reply.class_ = message;
	control_reply(client, id, last, &reply, -1);
}

void control_reply_class(struct control_client *client, uint64_t id, const struct site *site,
	const char *name, uint32_t n_supports)
{
	Kamen__Class message;

	fill(&message, site, name, n_supports);
	reply_row(client, id, true, &message);
}

/* None where the champion does not know the class (any more, or yet). */
static void put_worth(Kamen__Class *message, const struct serving *serving)
{
	const struct class_set *classes = serving ? serving->classes : NULL;

	for (uint32_t i = 0; classes && i < classes->prototypes->n_classes; i++) {
		const struct prototype_worth *worth = &classes->prototypes->worth[i];

		if (strcmp(classes->names[i], message->name) != 0)
			continue;
		message->has_judged = message->has_right = true;
		message->judged = worth->n_judged;
		message->right = worth->n_right;
		wire_put_float(&message->has_confidence, &message->confidence, worth->confidence);
	}
}

void control_class_list(struct control_client *client, const Kamen__Request *request)
{
	struct site *site = control_find_site(client, request->id, request->class_list->site);
	_cleanup_(serving_unrefp) struct serving *serving = NULL;
	_cleanup_(freep) struct class_row *rows = NULL;
	uint32_t n = 0;
	int r;

	if (!site)
		return;
	r = state_class_list(client->serve->state, site->name, &rows, &n);
	if (r < 0) {
		control_error(client, request->id, r, "site %s: %s", site->name, strerror(-r));
		return;
	}
	serving = scheduler_champion(client->serve->scheduler, &site->queue);
	for (uint32_t i = 0; i < n && !client->closed; i++) {
		Kamen__Class message;

		fill(&message, site, rows[i].name, rows[i].n_supports);
		message.has_created_us = true;
		message.created_us = rows[i].created_us;
		put_worth(&message, serving);
		reply_row(client, request->id, i + 1 == n, &message);
	}
	if (n == 0)
		control_done(client, request->id);
}

static void reply_prototypes(struct control_client *client, uint64_t id, const struct site *site,
	struct serving *serving)
{
	const struct class_set *classes = serving->classes;
	const struct prototypes *prototypes = classes->prototypes;

	for (uint32_t i = 0; i < prototypes->n_classes && !client->closed; i++) {
		Kamen__ClassPrototype message = KAMEN__CLASS_PROTOTYPE__INIT;
		Kamen__Reply reply = KAMEN__REPLY__INIT;

		message.site = (char *)(uintptr_t)site->name;
		message.name = classes->names[i];
		message.images = prototypes->n_supports[i];
		message.mean = (ProtobufCBinaryData){ prototypes->dim * sizeof(float),
			(uint8_t *)(prototypes->means + (size_t)i * prototypes->dim) };
		message.temperature = prototypes->temperature;
		message.space = (ProtobufCBinaryData){ DIGEST_BYTES, serving->space.bytes };
		reply.row_case = KAMEN__REPLY__ROW_CLASS_PROTOTYPE;
		reply.class_prototype = &message;
		control_reply(client, id, i + 1 == prototypes->n_classes, &reply, -1);
	}
}

void control_class_prototypes(struct control_client *client, const Kamen__Request *request)
{
	struct site *site = control_find_site(client, request->id, request->class_prototypes->site);
	_cleanup_(serving_unrefp) struct serving *serving = NULL;

	if (!site)
		return;
	serving = scheduler_champion(client->serve->scheduler, &site->queue);
	if (serving && serving->classes)
		reply_prototypes(client, request->id, site, serving);
	else
		control_error(client, request->id, -ENODATA, "site %s tells no classes apart",
			site->name);
}
