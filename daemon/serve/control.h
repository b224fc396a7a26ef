/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_CONTROL_H
#define KAMEN_SERVE_CONTROL_H

#include <systemd/sd-event.h>

#include "kamen.pb-c.h"
#include "serve/packet_queue.h"
#include "serve/peer.h"
#include "site/state.h"

struct serve;
struct site;

#define CONTROL_MAX_WATCHES 16

/** A Learn that waits for its end. */
struct control_watch {
	uint64_t id; /* of the request, 0: free */
	char site[64];
	uint32_t version;
};

/** A client on control.sock. */
struct control_client {
	struct serve *serve;
	struct peer peer;
	int fd;
	sd_event_source *io, *hello;
	struct packet_queue out; /* while it is not empty no request is read */
	bool said_hello, closed;
	int refusal;      /* told in answer to its first packet */
	unsigned n_using; /* callers up the stack that still hold it */
	struct control_watch watches[CONTROL_MAX_WATCHES];
	struct control_client *next, *previous;
};

struct control {
	struct control_client *head;
	uint32_t n;
	int listen_fd;
	sd_event_source *listen, *listen_pause;
	uint64_t n_requests, n_errors;
};

/** Whether one more is served: 0, -EACCES, or -EUSERS. Admins find room where others do not. */
int control_admit(const struct control *control, const struct peer *peer);
int control_open(struct serve *serve, const char *path);
void control_stop(struct serve *serve); /* no new ones */
void control_close(struct serve *serve);

/** Ends what began with n_using++; frees a client that was closed meanwhile. */
void control_unuse(struct control_client *client);

/* ---- answers; last ends the request */
/** Sends one row, or keeps it until there is room. A client that does not read at all is dropped. */
void control_reply(
	struct control_client *client, uint64_t id, bool last, Kamen__Reply *row, int fd);
void control_done(struct control_client *client, uint64_t id);
void control_error(struct control_client *client, uint64_t id, int code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- verbs: control_site.c, control_life.c, control_mask.c, control_label.c, control_class.c, control_audit.c, control_learn.c, control_top.c,
 * metrics_serve.c, reproduce.c, restart.c */
void control_status(struct control_client *client, const Kamen__Request *request);
void control_site_create(struct control_client *client, const Kamen__Request *request);
void control_site_list(struct control_client *client, const Kamen__Request *request);
void control_site_show(struct control_client *client, const Kamen__Request *request);
void control_site_hold(struct control_client *client, const Kamen__Request *request);
void control_site_reset(struct control_client *client, const Kamen__Request *request);
void control_top(struct control_client *client, const Kamen__Request *request);
void control_mask_pin(struct control_client *client, const Kamen__Request *request);
void control_mask_unpin(struct control_client *client, const Kamen__Request *request);
void control_mask_reproduce(struct control_client *client, const Kamen__Request *request);
void control_site_delete(struct control_client *client, const Kamen__Request *request);
void control_learn(struct control_client *client, const Kamen__Request *request);
void control_mask_list(struct control_client *client, const Kamen__Request *request);
void control_mask_show(struct control_client *client, const Kamen__Request *request);
void control_mask_promote(struct control_client *client, const Kamen__Request *request);
void control_mask_rollback(struct control_client *client, const Kamen__Request *request);
void control_mask_export(struct control_client *client, const Kamen__Request *request);
void control_mask_import(struct control_client *client, const Kamen__Request *request);
void control_audit_show(struct control_client *client, const Kamen__Request *request);
void control_restart(struct control_client *client, const Kamen__Request *request);
void control_label_set(struct control_client *client, const Kamen__Request *request);
void control_site_hardest(struct control_client *client, const Kamen__Request *request);
void control_label_list(struct control_client *client, const Kamen__Request *request);
void control_metrics(struct control_client *client, const Kamen__Request *request);

void control_class_add(struct control_client *client, const Kamen__Request *request);
void control_class_list(struct control_client *client, const Kamen__Request *request);
void control_class_remove(struct control_client *client, const Kamen__Request *request);
void control_class_drop(struct control_client *client, const Kamen__Request *request);
void control_class_prototypes(struct control_client *client, const Kamen__Request *request);

/* ---- what the learner has to say, to everybody who waits for it */
void control_learn_progress(struct serve *serve, const Kamen__Progress *progress);
void control_learn_done(struct serve *serve, const struct version_row *row);
void control_learn_failed(
	struct serve *serve, const char *site, uint32_t version, const char *reason);
/** The last reply, whatever it is, to everybody who waits for this version. */
void control_learn_last(
	struct serve *serve, const char *site, uint32_t version, Kamen__Reply *reply);
/** Who asked waits for this version from now on; answers the error itself and returns NULL. */
struct control_watch *control_watch_new(
	struct control_client *client, uint64_t id, const char *site, uint32_t version);
/** The round is stored, yet what is served has not changed. */
void control_learn_unserved(struct serve *serve, const struct version_row *row, int code);

/** Who asks, for the audit and the log: "uid 0". */
#define CONTROL_WHO_BYTES 32
void control_who(const struct control_client *client, char ret_who[CONTROL_WHO_BYTES]);
/** One row, the last. */
void control_reply_site(struct control_client *client, uint64_t id, const struct site *site);
void control_reply_mask(struct control_client *client, uint64_t id, const struct version_row *row);
void control_reply_class(struct control_client *client, uint64_t id, const struct site *site,
	const char *name, uint32_t n_supports);

/* ---- state.db has another champion: puts it in force and answers with it */
void control_mask_changed(
	struct control_client *client, uint64_t id, struct site *site, uint32_t version);
void control_site_was_reset(struct control_client *client, uint64_t id, struct site *site);
/** Whether everything that was sent has been read. */
bool control_has_read(const struct control_client *client);
/** The site that a request names; answers the error itself and returns NULL where there is none. */
struct site *control_find_site(struct control_client *client, uint64_t id, const char *name);

#endif
