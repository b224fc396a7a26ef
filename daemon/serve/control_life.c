/* SPDX-License-Identifier: Apache-2.0 */
/* Pause, freeze, resume and reset of a site; pinning of its versions. */
#include <errno.h>

#include "ops/log.h"
#include "serve/need.h"
#include "serve/control.h"
#include "serve/rows.h"
#include "serve/serve.h"

/* ---- sites */

static const char *hold_error(int r)
{
	return r == -EBUSY ? "it is frozen: resume it first" : strerror(-r);
}

static void hold(
	struct control_client *client, uint64_t id, struct site *site, enum site_hold wanted)
{
	static const char *const done[] = { "resumed", "paused", "frozen" };
	struct serve *serve = client->serve;
	char who[CONTROL_WHO_BYTES];
	int r;

	control_who(client, who);
	/* What was accepted before stays accepted. */
	admission_commit(serve);
	r = state_site_hold(serve->state, site->name, wanted, who);
	if (r < 0) {
		control_error(client, id, r, "site %s: %s", site->name, hold_error(r));
		return;
	}
	if (wanted == SITE_FROZEN)
		rounds_cancel(serve, site->name, "the site was frozen");
	if (site->hold != wanted)
		log_notice("site %s was %s by %s", site->name, done[wanted], who);
	r = site_publish(serve, site);
	serve_log_audit(serve);
	admission_send_sites(serve);
	serve_notify_status(serve);
	rounds_kick(serve);
	need_soon(serve);
	if (r < 0)
		control_error(client, id, r, "site %s is %s now, but: %s", site->name, done[wanted],
			strerror(-r));
	else
		control_reply_site(client, id, site);
}

void control_site_hold(struct control_client *client, const Kamen__Request *request)
{
	struct site *site = control_find_site(client, request->id, request->site_hold->site);

	if (!site)
		return;
	switch (request->site_hold->hold) {
	case KAMEN__HOLD__RUN:
		hold(client, request->id, site, SITE_ACTIVE);
		break;
	case KAMEN__HOLD__PAUSE:
		hold(client, request->id, site, SITE_PAUSED);
		break;
	case KAMEN__HOLD__FREEZE:
		hold(client, request->id, site, SITE_FROZEN);
		break;
	default:
		control_error(client, request->id, -EINVAL, "run, pause or freeze?");
	}
}

void control_site_reset(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__SiteDelete *reset = request->site_reset;
	struct site *site = control_find_site(client, request->id, reset->site);

	if (!site)
		return;
	if (!reset->yes)
		control_error(client, request->id, -EINVAL,
			"resetting site %s takes it back to the base: say yes", site->name);
	else
		changes_reset(client, request->id, site);
}

void control_site_was_reset(struct control_client *client, uint64_t id, struct site *site)
{
	struct serve *serve = client->serve;
	int r = site_publish(serve, site);

	serve_notify_status(serve);
	if (r < 0)
		control_error(client, id, r, "site %s is reset, but: %s", site->name, strerror(-r));
	else
		control_reply_site(client, id, site);
}

/* ---- versions */

static void pin(
	struct control_client *client, uint64_t id, const Kamen__SiteVersion *named, bool is_kept)
{
	struct site *site = control_find_site(client, id, named->site);
	struct serve *serve = client->serve;
	struct version_row row;
	char who[CONTROL_WHO_BYTES];
	int r;

	if (!site)
		return;
	control_who(client, who);
	r = state_version_keep(serve->state, site->name, named->version, is_kept, who);
	if (r >= 0)
		r = state_version_get(serve->state, site->name, named->version, &row);
	if (r < 0) {
		control_error(client, id, r, "version %u of site %s %s", named->version, site->name,
			r == -ENOENT  ? "is not there"
			: r == -EPERM ? "has no mask: it is being learnt or failed"
				      : strerror(-r));
		return;
	}
	serve_log_audit(serve);
	control_reply_mask(client, id, &row);
}

void control_mask_pin(struct control_client *client, const Kamen__Request *request)
{
	pin(client, request->id, request->mask_pin, true);
}

void control_mask_unpin(struct control_client *client, const Kamen__Request *request)
{
	pin(client, request->id, request->mask_unpin, false);
}
