/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/changes.h"

#include <errno.h>

#include "ops/log.h"
#include "serve/promotion.h"
#include "serve/serve.h"

struct change_kind {
	const char *name;
	/** The snapshot whose look at the supports it needs into change->serving, or none; then what is
	 * known of them into change->features. */
	int (*plan)(struct change *change, struct diag *diag);
	/** In state.db, and in force. */
	int (*apply)(struct change *change, struct diag *diag);
	/** Who asked; r as plan() or apply() returned it. */
	void (*tell)(struct change *change, int r, const char *why);
	bool settles; /* other versions may have to look at supports now */
};

struct change {
	const struct change_kind *kind;
	struct serve *serve;
	struct site *site;             /* referenced */
	struct control_client *client; /* in use, NULL: nobody waits */
	uint64_t id;
	char who[CONTROL_WHO_BYTES];
	uint32_t version;
	char reason[128];
	char name[CLASSES_NAME_BYTES];
	struct digest hashes[CLASS_MAX_SUPPORTS];
	bool is_brought[CLASS_MAX_SUPPORTS];
	uint32_t n_images;

	struct serving *serving; /* referenced */
	struct features features;
	struct embedding embedding;
	bool is_lent; /* the embedding: the inference thread has it */
	struct change *next;
};

static void change_free(struct change *change)
{
	if (change->client)
		control_unuse(change->client);
	features_done(&change->features);
	serving_unref(change->serving);
	site_unref(change->site);
	free(change);
}

/* ---- plans */

static int read_features(struct change *change)
{
	features_done(&change->features);
	return state_features_read(change->serve->state, change->site->name,
		&change->serving->space, embedding_dim(change->serving), &change->features);
}

/* What is wrong with a version is said, and better, where it is made champion. */
static int plan_version(struct change *change, uint32_t version)
{
	struct diag diag = { .text = "" };

	serving_unref(TAKE_PTR(change->serving));
	if (change->site->n_classes == 0 || site_serving(change->serve, change->site, version,
						    SHM_PX_SITE, &change->serving, &diag) < 0)
		return 0;
	return read_features(change);
}

static int plan_promotion(struct change *change, struct diag *diag)
{
	(void)diag;
	return plan_version(change, change->version);
}

static bool knows_supports(const struct features *features)
{
	for (uint32_t i = 0; i < features->n; i++)
		if (!features->rows[i].is_known && features->rows[i].class != FEATURE_OF_LINE)
			return false;
	return true;
}

/* What it has not seen of the line is no reason to look: that changes all the time. */
static int plan_supports(struct change *change, uint32_t version)
{
	int r = plan_version(change, version);

	if (r >= 0 && knows_supports(&change->features))
		features_done(&change->features);
	return r;
}

/* Whoever goes back is in a hurry. */
static int plan_return(struct change *change, struct diag *diag)
{
	(void)diag;
	return plan_supports(change, change->site->predecessor);
}

static int plan_nothing(struct change *change, struct diag *diag)
{
	(void)change;
	(void)diag;
	return 0;
}

static struct class_wish wish_of(const struct change *change)
{
	return (struct class_wish){ change->name, change->hashes, change->is_brought,
		change->n_images, change->who };
}

static int plan_class(struct change *change, struct diag *diag)
{
	struct class_wish wish = wish_of(change);

	serving_unref(change->serving);
	change->serving = scheduler_champion(change->serve->scheduler, &change->site->queue);
	features_done(&change->features);
	return state_class_plan(change->serve->state, change->site->name, &wish,
		&change->serving->space, embedding_dim(change->serving), &change->features, diag);
}

/* ---- classes */

/* A class of which an image cannot be read would be another one than was asked for. */
static int check_supports(const struct change *change, struct diag *diag)
{
	const struct features *features = &change->features;

	for (uint32_t i = 0; i < features->n; i++)
		if (features->rows[i].class == features->n_classes - 1 &&
			!features->rows[i].is_known)
			return diag_set(diag, EIO, "%s",
				change->embedding.diag.text[0] ? change->embedding.diag.text
							       : "an image cannot be read");
	return 0;
}

static int apply_class(struct change *change, struct diag *diag)
{
	struct class_wish wish = wish_of(change);
	int r = check_supports(change, diag);

	if (r >= 0)
		r = state_class_add(change->serve->state, change->site->name, &wish, diag);
	if (r < 0)
		return r;
	site_renew_classes(change->serve, change->site);
	log_notice("site %s: class '%s' of %u images (%s)", change->site->name, change->name,
		change->n_images, change->who);
	serve_log_audit(change->serve);
	return 0;
}

static void tell_error(struct change *change, int r, const char *why)
{
	if (change->client)
		control_error(
			change->client, change->id, r, "site %s: %s", change->site->name, why);
}

static void tell_class(struct change *change, int r, const char *why)
{
	if (r < 0)
		tell_error(change, r, why);
	else if (change->client)
		control_reply_class(
			change->client, change->id, change->site, change->name, change->n_images);
}

static int apply_removal(struct change *change, struct diag *diag)
{
	int r = state_class_remove(
		change->serve->state, change->site->name, change->name, change->who);

	if (r < 0)
		return diag_set(diag, -r, "%s%s", r == -ENODATA ? "it has no class " : "",
			r == -ENODATA ? change->name
			: r == -EROFS ? "it is frozen: resume it first"
				      : strerror(-r));
	site_renew_classes(change->serve, change->site);
	log_notice(
		"site %s: class '%s' is gone (%s)", change->site->name, change->name, change->who);
	serve_log_audit(change->serve);
	return 0;
}

static void tell_removal(struct change *change, int r, const char *why)
{
	if (r < 0)
		tell_error(change, r, why);
	else if (change->client)
		control_done(change->client, change->id);
}

/* ---- champions */

static int apply_promotion(struct change *change, struct diag *diag)
{
	return promotion_make(change->serve, change->site, change->version, change->who, diag);
}

static int apply_rollback(struct change *change, struct diag *diag)
{
	return promotion_take_back(
		change->serve, change->site, change->who, &change->version, diag);
}

static int apply_reset(struct change *change, struct diag *diag)
{
	return promotion_reset(change->serve, change->site, change->who, diag);
}

static int apply_withdrawal(struct change *change, struct diag *diag)
{
	(void)diag;
	promotion_withdraw(change->serve, change->site, change->version, change->reason);
	return 0;
}

static void tell_promotion(struct change *change, int r, const char *why)
{
	if (r >= 0)
		control_mask_changed(change->client, change->id, change->site, change->version);
	else
		control_error(change->client, change->id, r, "%s", why);
}

static void tell_reset(struct change *change, int r, const char *why)
{
	if (r >= 0)
		control_site_was_reset(change->client, change->id, change->site);
	else
		tell_error(change, r, why);
}

static void tell_nobody(struct change *change, int r, const char *why)
{
	(void)change;
	(void)r;
	(void)why;
}

/* The round is over, whatever became of its promotion. */
static void tell_learnt(struct change *change, int r, const char *why)
{
	struct serve *serve = change->serve;
	struct version_row row;
	int q;

	/* changes_site_gone() did. */
	if (change->site->gone)
		return;
	if (r < 0)
		log_error("site %s: version %u stays a candidate: %s", change->site->name,
			change->version, why);
	serve->rounds.n_promoted += r >= 0;
	q = site_publish(serve, change->site);
	if (state_version_get(serve->state, change->site->name, change->version, &row) < 0)
		return;
	if (q < 0)
		control_learn_unserved(serve, &row, q);
	else
		control_learn_done(serve, &row);
	serve_notify_status(serve);
}

/* ---- only looking */

static int plan_look(struct change *change, struct diag *diag)
{
	(void)diag;
	return plan_supports(change, change->version);
}

/* Rolling back must not have to wait: so what the predecessor says is kept, too. */
static int apply_look(struct change *change, struct diag *diag)
{
	struct site *site = change->site;
	const struct digest *champion = &site->queue.champion->space;
	int r = 0;

	if (change->serving && change->version == site->predecessor)
		r = state_features_trim(
			change->serve->state, site->name, champion, &change->serving->space);
	return r < 0 ? diag_set(diag, -r, "%s", strerror(-r)) : 0;
}

static void tell_look(struct change *change, int r, const char *why)
{
	if (r >= 0 && change->embedding.n_failed > 0)
		why = change->embedding.diag.text;
	else if (r >= 0)
		return;
	log_error("site %s: version %u does not know all images of its classes: %s",
		change->site->name, change->version, why);
}

static const struct change_kind class_addition = { "add a class", plan_class, apply_class,
	tell_class, true };
static const struct change_kind class_removal = { "remove a class", plan_nothing, apply_removal,
	tell_removal, false };
static const struct change_kind promotion = { "promote", plan_promotion, apply_promotion,
	tell_promotion, true };
static const struct change_kind rollback = { "roll back", plan_return, apply_rollback,
	tell_promotion, true };
static const struct change_kind reset = { "reset", plan_promotion, apply_reset, tell_reset, true };
static const struct change_kind learnt = { "promote by policy", plan_promotion, apply_promotion,
	tell_learnt, true };
static const struct change_kind withdrawal = { "roll back by itself", plan_return, apply_withdrawal,
	tell_nobody, true };
static const struct change_kind looking = { "embed", plan_look, apply_look, tell_look, false };

/* ---- one after the other */

static struct change *first_of(const struct serve *serve, const struct site *site)
{
	struct change *change = serve->changes.head;

	while (change && change->site != site)
		change = change->next;
	return change;
}

static void unlink_change(struct serve *serve, struct change *change)
{
	struct change **at = &serve->changes.head;

	while (*at != change)
		at = &(*at)->next;
	*at = change->next;
}

static bool knows_all(const struct features *features)
{
	for (uint32_t i = 0; i < features->n; i++)
		if (!features->rows[i].is_known)
			return false;
	return true;
}

/* True: the inference thread has something to do for it. */
static bool lend(struct change *change)
{
	struct embedding *embedding = &change->embedding;

	if (!change->serving || knows_all(&change->features) ||
		state_path(change->serve->state, embedding->replay, change->site->name, "replay") <
			0)
		return false;
	embedding->serving = change->serving;
	embedding->features = &change->features;
	change->is_lent = true;
	scheduler_embed(change->serve->scheduler, embedding);
	return true;
}

static void settle(struct serve *serve, struct site *site)
{
	if (site->n_classes == 0)
		return;
	if (!site->queue.champion->classes)
		changes_embed(serve, site, site->champion);
	changes_embed(serve, site, site->predecessor);
}

/* It is over: tells, and makes room for the next. */
static void finish(struct change *change, int r, const struct diag *diag)
{
	struct serve *serve = change->serve;

	serve->changes.n_failed += r < 0;
	change->kind->tell(change, r, diag->text[0] ? diag->text : strerror(-r));
	if (r >= 0 && change->kind->settles && !change->site->gone)
		settle(serve, change->site);
	unlink_change(serve, change);
	change_free(change);
}

static void apply(struct change *change)
{
	struct diag diag = { .text = "" };
	int r;

	r = change->site->gone ? diag_set(&diag, ENOENT, "the site was deleted")
			       : change->kind->apply(change, &diag);
	finish(change, r, &diag);
}

/* From its beginning as far as it goes. */
static void begin(struct change *change)
{
	struct diag diag = { .text = "" };
	int r;

	r = change->site->gone ? diag_set(&diag, ENOENT, "the site was deleted")
			       : change->kind->plan(change, &diag);
	if (r < 0)
		finish(change, r, &diag);
	else if (!lend(change))
		apply(change);
}

static void run(struct serve *serve, struct site *site)
{
	struct change *change;

	(void)site_ref(site);
	while ((change = first_of(serve, site)) && !change->is_lent)
		begin(change);
	site_unref(site);
}

/* Stored by itself: it is true whatever becomes of the change. */
static void take_back(struct change *change)
{
	struct serve *serve = change->serve;
	struct embedding *embedding = &change->embedding;
	struct diag diag = { .text = "" };
	int r = 0;

	change->is_lent = false;
	serve->changes.n_images += embedding->n_done;
	serve->changes.n_images_failed += embedding->n_failed;
	if (!change->site->gone)
		r = state_features_store(serve->state, change->site->name, &change->features);
	if (r >= 0 && !change->site->gone)
		site_renew_classes(serve, change->site);
	if (r < 0)
		finish(change, diag_set(&diag, -r, "%s", strerror(-r)), &diag);
	else
		apply(change);
}

void changes_reap(struct serve *serve)
{
	struct embedding *next;

	for (struct embedding *e = scheduler_reap_embeddings(serve->scheduler); e; e = next) {
		struct change *change =
			(struct change *)((char *)e - offsetof(struct change, embedding));
		struct site *site = site_ref(change->site);

		next = e->next;
		/* Given up: the threads have ended, and so does all of this. */
		change->is_lent = e->is_whole;
		if (e->is_whole) {
			take_back(change);
			run(serve, site);
		}
		site_unref(site);
	}
}

/* Not when it is its turn: there may be another of that name then. */
void changes_site_gone(struct serve *serve, const struct site *site)
{
	for (const struct change *c = serve->changes.head; c; c = c->next)
		if (c->site == site && c->kind == &learnt)
			control_learn_failed(serve, site->name, c->version, "the site was deleted");
}

void changes_close(struct serve *serve)
{
	struct change *change;

	while ((change = serve->changes.head)) {
		serve->changes.head = change->next;
		change_free(change);
	}
}

/* ---- asking */

static uint32_t n_waiting(const struct serve *serve, const struct site *site)
{
	uint32_t n = 0;

	for (const struct change *c = serve->changes.head; c; c = c->next)
		n += c->site == site;
	return n;
}

static struct change *change_new(
	struct serve *serve, struct site *site, const struct change_kind *kind, uint32_t version)
{
	struct change *change = calloc(1, sizeof(*change));

	if (!change) {
		log_error("site %s: no memory to %s", site->name, kind->name);
		return NULL;
	}
	change->kind = kind;
	change->serve = serve;
	change->site = site_ref(site);
	change->version = version;
	return change;
}

static void ask(struct change *change)
{
	struct change **at = &change->serve->changes.head;
	struct serve *serve = change->serve;
	struct site *site = change->site;
	bool is_first = !first_of(serve, site);

	while (*at)
		at = &(*at)->next;
	*at = change;
	if (is_first)
		run(serve, site);
}

/* NULL: it was answered. */
static struct change *change_by(struct control_client *client, uint64_t id, struct site *site,
	const struct change_kind *kind, uint32_t version)
{
	struct change *change;

	if (n_waiting(client->serve, site) >= CHANGES_MAX_WAITING) {
		control_error(client, id, -EBUSY,
			"site %s: %u changes of its classes and masks wait already", site->name,
			CHANGES_MAX_WAITING);
		return NULL;
	}
	change = change_new(client->serve, site, kind, version);
	if (!change) {
		control_error(client, id, -ENOMEM, "no memory for a change");
		return NULL;
	}
	change->client = client;
	change->id = id;
	client->n_using++;
	control_who(client, change->who);
	return change;
}

void changes_add_class(struct control_client *client, uint64_t id, struct site *site,
	const struct class_wish *wish)
{
	struct change *change = change_by(client, id, site, &class_addition, 0);

	if (!change)
		return;
	(void)snprintf(change->name, sizeof(change->name), "%s", wish->name);
	change->n_images = wish->n;
	memcpy(change->hashes, wish->hashes, wish->n * sizeof(*change->hashes));
	memcpy(change->is_brought, wish->is_brought, wish->n * sizeof(*change->is_brought));
	ask(change);
}

void changes_remove_class(
	struct control_client *client, uint64_t id, struct site *site, const char *name)
{
	struct change *change = change_by(client, id, site, &class_removal, 0);

	if (!change)
		return;
	(void)snprintf(change->name, sizeof(change->name), "%s", name);
	ask(change);
}

void changes_promote(
	struct control_client *client, uint64_t id, struct site *site, uint32_t version)
{
	struct change *change = change_by(client, id, site, &promotion, version);

	if (change)
		ask(change);
}

void changes_roll_back(struct control_client *client, uint64_t id, struct site *site)
{
	struct change *change = change_by(client, id, site, &rollback, 0);

	if (change)
		ask(change);
}

void changes_reset(struct control_client *client, uint64_t id, struct site *site)
{
	struct change *change = change_by(client, id, site, &reset, 0);

	if (change)
		ask(change);
}

int changes_promote_learnt(struct serve *serve, struct site *site, uint32_t version)
{
	struct change *change = change_new(serve, site, &learnt, version);

	if (!change)
		return -ENOMEM;
	(void)snprintf(change->who, sizeof(change->who), "policy auto");
	ask(change);
	return 0;
}

void changes_withdraw(struct serve *serve, struct site *site, uint32_t version, const char *reason)
{
	struct change *change = change_new(serve, site, &withdrawal, version);

	if (!change)
		return;
	(void)snprintf(change->reason, sizeof(change->reason), "%s", reason);
	ask(change);
}

void changes_embed(struct serve *serve, struct site *site, uint32_t version)
{
	struct change *change;

	for (const struct change *c = serve->changes.head; c; c = c->next)
		if (c->site == site && c->kind == &looking && c->version == version)
			return;
	change = change_new(serve, site, &looking, version);
	if (change)
		ask(change);
}
