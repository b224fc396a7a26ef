/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/promotion.h"

#include <errno.h>

#include "ops/log.h"
#include "serve/serve.h"

int promotion_make(struct serve *serve, struct site *site, uint32_t version, const char *who,
	struct diag *diag)
{
	int r;

	r = site_check_promotion(serve, site, version, diag);
	if (r < 0)
		return diag->text[0] ? r : diag_set(diag, -r, "%s", strerror(-r));
	r = state_promote(serve->state, site->name, version, who);
	if (r < 0)
		return diag_set(diag, -r, "version %u of site %s %s", version, site->name,
			r == -EPERM   ? "is held or failed: it cannot be promoted"
			: r == -EROFS ? "cannot be promoted: the site is frozen, resume it first"
				      : strerror(-r));
	/* From here on it is on trial (live.h), unless it is champion already. */
	if (version != site->champion)
		site->live.promoted = version;
	log_notice("site %s: version %u is champion now (%s)", site->name, version, who);
	serve_log_audit(serve);
	return 0;
}

int promotion_take_back(struct serve *serve, struct site *site, const char *who,
	uint32_t *ret_version, struct diag *diag)
{
	struct site_row row;
	int r;

	r = state_site_get(serve->state, site->name, &row);
	if (r >= 0)
		r = site_check_servable(serve, site, row.predecessor, diag);
	if (r < 0)
		return diag->text[0] ? r : diag_set(diag, -r, "%s", strerror(-r));
	r = state_rollback(serve->state, site->name, who, ret_version);
	if (r < 0)
		return diag_set(diag, -r, "site %s: %s", site->name,
			r == -ENODATA ? "there is nothing to roll back to" : strerror(-r));
	log_notice("site %s: rolled back to version %u (%s)", site->name, *ret_version, who);
	serve_log_audit(serve);
	return 0;
}

int promotion_reset(struct serve *serve, struct site *site, const char *who, struct diag *diag)
{
	int r = site_check_servable(serve, site, 0, diag);

	if (r >= 0)
		r = state_site_reset(serve->state, site->name, who);
	if (r == -EROFS)
		return diag_set(diag, EROFS, "it is frozen: resume it first");
	if (r < 0)
		return diag->text[0] ? r : diag_set(diag, -r, "%s", strerror(-r));
	rounds_cancel(serve, site->name, "the site was reset");
	log_notice("site %s was reset to the base by %s", site->name, who);
	serve_log_audit(serve);
	return 0;
}

bool promotion_is_due(struct serve *serve, struct site *site, const struct version_row *row)
{
	int r;

	if (!row->passed || strcmp(site->settings.policy, "auto") != 0)
		return false;
	r = state_is_withdrawn(serve->state, site->name, &row->mask);
	if (r != 0)
		log_error("site %s: version %u stays a candidate: %s", site->name, row->version,
			r > 0 ? "a version of the same mask was rolled back" : strerror(-r));
	return r == 0;
}

void promotion_withdraw(
	struct serve *serve, struct site *site, uint32_t version, const char *reason)
{
	struct diag diag = { .text = "" };
	struct site_row row;
	uint32_t to = 0;
	int r;

	/* A predecessor that cannot be read is no way out. */
	r = state_site_get(serve->state, site->name, &row);
	if (r >= 0)
		r = site_check_servable(serve, site, row.predecessor, &diag);
	if (r >= 0)
		r = state_withdraw(serve->state, site->name, version, reason, &to);
	if (r < 0) {
		log_error("site %s: version %u should be rolled back (%s), but: %s", site->name,
			version, reason, diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	site->live.n_rollbacks++;
	log_warning("site %s: version %u is rolled back to version %u: %s", site->name, version, to,
		reason);
	serve_log_audit(serve);
	(void)site_publish(serve, site);
	serve_notify_status(serve);
}
