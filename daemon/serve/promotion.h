/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_PROMOTION_H
#define KAMEN_SERVE_PROMOTION_H

#include "serve/sites.h"

/*
 * Changes of champion: checked, stored with their audit row in one transaction, logged. They are in
 * force with the next site_publish(), which swaps mask, references, threshold and prototypes by one
 * pointer. Who asks for one does it by changes.h, which has the supports looked at before.
 */

/** @return 0, or a negative errno with its reason in diag */
int promotion_make(struct serve *serve, struct site *site, uint32_t version, const char *who,
	struct diag *diag);
/** Back to the predecessor. -ENODATA: there is none. */
int promotion_take_back(struct serve *serve, struct site *site, const char *who,
	uint32_t *ret_version, struct diag *diag);
/** Back to the base; a round that runs ends. */
int promotion_reset(struct serve *serve, struct site *site, const char *who, struct diag *diag);
/** After a round: whether policy auto promotes it. What was withdrawn stays away. */
bool promotion_is_due(struct serve *serve, struct site *site, const struct version_row *row);
/** The champion's live figures broke their limits: the predecessor serves, and is published. */
void promotion_withdraw(
	struct serve *serve, struct site *site, uint32_t version, const char *reason);

#endif
