/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_CHANGES_H
#define KAMEN_SERVE_CHANGES_H

#include <stdint.h>

#include "site/state.h"

struct change;
struct control_client;
struct serve;
struct site;

/*
 * Changes of what a site is served with: of its classes, and of its champion. Where the site has
 * classes, their supports have to be looked at by the snapshot to come before it serves; so a change
 * takes its time, the loop goes on, and those of one site come one after the other.
 *
 *   asked --> planned --(what is not known: embedding.h)--> stored --> applied --> told
 *
 * What was looked at is stored by space, so it changes no answer; the change itself is one
 * transaction and one pointer.
 */
struct changes {
	struct change *head; /* in the order in which they were asked for */
	uint64_t n_failed, n_images, n_images_failed; /* of images that were looked at */
};

#define CHANGES_MAX_WAITING 16u /* of a site */

/** By command: answers the client itself, at the latest when all is done. */
void changes_add_class(struct control_client *client, uint64_t id, struct site *site,
	const struct class_wish *wish);
void changes_remove_class(
	struct control_client *client, uint64_t id, struct site *site, const char *name);
void changes_promote(
	struct control_client *client, uint64_t id, struct site *site, uint32_t version);
void changes_roll_back(struct control_client *client, uint64_t id, struct site *site);
void changes_reset(struct control_client *client, uint64_t id, struct site *site);

/** After a round, by policy; then who waits for the round is told. -ENOMEM: nobody is. */
int changes_promote_learnt(struct serve *serve, struct site *site, uint32_t version);
void changes_withdraw(struct serve *serve, struct site *site, uint32_t version, const char *reason);
/** Has a version look at the supports that it does not know. */
void changes_embed(struct serve *serve, struct site *site, uint32_t version);

/** Tells who waits for a round of a site that was deleted. */
void changes_site_gone(struct serve *serve, const struct site *site);
/** What the inference thread has handed back. */
void changes_reap(struct serve *serve);
void changes_close(struct serve *serve);

#endif
