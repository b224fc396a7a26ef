/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "ops/log.h"
#include "serve/control.h"
#include "serve/rows.h"
#include "serve/serve.h"

/* ---- status */

struct status_message {
	Kamen__Status status;
	Kamen__Role roles[N_ROLES + 1], *role_list[N_ROLES + 1];
	char learner[96];
};

static void fill_roles(struct serve *serve, struct status_message *out)
{
	out->status.roles = out->role_list;
	for (unsigned i = 0; i <= N_ROLES; i++) {
		const struct role *role = i > 0 ? &serve->roles[i - 1] : NULL;
		Kamen__Role *m = &out->roles[out->status.n_roles];

		if (role && role->pid == 0 && role->n_restarts == 0)
			continue;
		kamen__role__init(m);
		m->name = (char *)(role ? role->name : "serve");
		m->has_pid = m->has_restarts = true;
		m->pid = role ? role->pid : getpid();
		m->restarts = role ? role->n_restarts : 0;
		out->role_list[out->status.n_roles++] = m;
	}
}

static void fill_status(struct serve *serve, struct status_message *out, char **names)
{
	struct vit *vit = inference_vit(serve->inference);
	Kamen__Status *m = &out->status;
	size_t n_bytes = 0;

	kamen__status__init(m);
	m->version = (char *)serve_version();
	m->model = (char *)serve->boot->model_path;
	m->has_model_digest = true;
	m->model_digest = (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)vit_digest(vit)->bytes };
	m->isa = (char *)vit_isa(vit);
	m->precision = (char *)precision_name(inference_precision(serve->inference));
	m->has_uptime_ns = m->has_native_px = m->has_width = true;
	m->uptime_ns = clock_now_ns() - serve->started_ns;
	m->native_px = vit_native_prep(vit).input_px;
	m->width = vit_shape(vit)->width;
	m->ingest_backend = serve->roles[ROLE_INGEST].backend;
	rounds_describe(serve, out->learner, sizeof(out->learner));
	m->learner = out->learner;
	/* As many names as a packet holds beside the rest; site list has them all. */
	for (uint32_t i = 0; i < serve->sites.n && n_bytes < WIRE_MAX_PACKET / 2; i++) {
		names[m->n_sites++] = serve->sites.sites[i]->name;
		n_bytes += sizeof(serve->sites.sites[i]->name);
	}
	m->sites = names;
	fill_roles(serve, out);
}

void control_status(struct control_client *client, const Kamen__Request *request)
{
	struct serve *serve = client->serve;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	_cleanup_(freep) char **names = NULL;
	struct status_message message;

	names = calloc(serve->sites.n + 1, sizeof(*names));
	if (!names) {
		control_error(client, request->id, -ENOMEM, "out of memory");
		return;
	}
	fill_status(serve, &message, names);
	reply.row_case = KAMEN__REPLY__ROW_STATUS;
	reply.status = &message.status;
	control_reply(client, request->id, true, &reply, -1);
}

/* ---- sites */

static void reply_site(
	struct control_client *client, uint64_t id, bool last, const struct site *site)
{
	struct serve *serve = client->serve;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	struct site_message message;
	struct site_row row;
	int r;

	r = state_site_get(serve->state, site->name, &row);
	if (r < 0) {
		control_error(client, id, r, "site %s: %s", site->name, strerror(-r));
		return;
	}
	memset(&message, 0, sizeof(message));
	site_message_fill(&message, site, &row, rounds_find(serve, site->name) != NULL);
	reply.row_case = KAMEN__REPLY__ROW_SITE;
	reply.site = &message.site;
	control_reply(client, id, last, &reply, -1);
}

void control_reply_site(struct control_client *client, uint64_t id, const struct site *site)
{
	reply_site(client, id, true, site);
}

/* A file that names this site already owns its keys. */
static int check_owner(struct serve *serve, const char *site, const char *key, struct diag *diag)
{
	for (uint32_t i = 0; i < serve->config.n_sites; i++) {
		const struct site_file *file = &serve->config.sites[i];

		for (unsigned k = 0; strcmp(file->site, site) == 0 && config_site_keys[k]; k++)
			if (strcmp(config_site_keys[k], key) == 0 && file->lines[k] > 0)
				return diag_set(diag, EPERM, "%s is set by %s:%u", key, file->path,
					file->lines[k]);
	}
	return 0;
}

static uint32_t key_bit(const char *key)
{
	for (unsigned i = 0; config_site_keys[i]; i++)
		if (strcmp(config_site_keys[i], key) == 0)
			return 1u << i;
	return 0;
}

/* What was said stays the site's own, also where it is what the defaults say today. */
static int read_settings(struct serve *serve, const Kamen__SiteCreate *create,
	struct site_settings *settings, uint32_t *ret_keys, struct diag *diag)
{
	struct prep native = vit_native_prep(inference_vit(serve->inference)), prep;
	int r;

	*ret_keys = 0;
	*settings = serve->config.site_defaults;
	for (size_t i = 0; i < create->n_set; i++) {
		const Kamen__KeyValue *set = create->set[i];

		r = check_owner(serve, create->site, set->key, diag);
		if (r >= 0)
			r = site_settings_set(settings, set->key, set->value, diag);
		if (r < 0)
			return r;
		*ret_keys |= key_bit(set->key);
	}
	prep = site_settings_prep(settings, &native);
	return serve_prep_check(serve, &prep, diag);
}

void control_site_create(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__SiteCreate *create = request->site_create;
	struct serve *serve = client->serve;
	struct diag diag = { .text = "" };
	struct site_settings settings;
	char who[CONTROL_WHO_BYTES];
	uint32_t keys;
	int r;

	control_who(client, who);
	r = read_settings(serve, create, &settings, &keys, &diag);
	if (r >= 0)
		r = sites_create(serve, create->site, &settings, keys, who, &diag);
	if (r < 0) {
		control_error(client, request->id, r, "%s", diag.text);
		return;
	}
	log_notice("site %s created by uid %u", create->site, client->peer.uid);
	admission_send_sites(serve);
	serve_log_audit(serve);
	serve_notify_status(serve);
	reply_site(client, request->id, true, sites_find(&serve->sites, create->site));
}

void control_site_list(struct control_client *client, const Kamen__Request *request)
{
	const struct site_table *table = &client->serve->sites;

	for (uint32_t i = 0; i < table->n && !client->closed; i++)
		reply_site(client, request->id, i + 1 == table->n, table->sites[i]);
	if (table->n == 0)
		control_done(client, request->id);
}

void control_site_show(struct control_client *client, const Kamen__Request *request)
{
	struct site *site = control_find_site(client, request->id, request->site_show->site);

	if (site)
		reply_site(client, request->id, true, site);
}

void control_site_delete(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__SiteDelete *delete = request->site_delete;
	struct serve *serve = client->serve;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	struct site_message message;
	struct site_row row;
	struct site *site;
	char name[64], who[CONTROL_WHO_BYTES];
	int r;

	site = control_find_site(client, request->id, delete->site);
	if (!site)
		return;
	if (!delete->yes) {
		control_error(client, request->id, -EINVAL,
			"deleting site %s takes its images and masks along: say yes", site->name);
		return;
	}
	if (site->file) {
		control_error(client, request->id, -EPERM, "site %s is set by %s", site->name,
			site->file->path);
		return;
	}
	memcpy(name, site->name, sizeof(name));
	/* Rows that wait for their commit are told first: they name the site. */
	admission_commit(serve);
	rounds_cancel(serve, name, NULL);
	r = state_site_get(serve->state, name, &row);
	if (r >= 0) {
		/* What it was at the end; of the site itself nothing is left to point to. */
		memset(&message, 0, sizeof(message));
		site_message_fill(&message, site, &row, false);
		message.site.site = name;
		message.site.state = (char *)"deleted";
		control_who(client, who);
		r = sites_delete(serve, site, who);
	}
	if (r < 0) {
		control_error(
			client, request->id, r, "cannot delete site %s: %s", name, strerror(-r));
		return;
	}
	log_notice("site %s deleted by uid %u", name, client->peer.uid);
	admission_send_sites(serve);
	serve_log_audit(serve);
	serve_notify_status(serve);
	reply.row_case = KAMEN__REPLY__ROW_SITE;
	reply.site = &message.site;
	control_reply(client, request->id, true, &reply, -1);
}

/* ---- its hardest images */

static void reply_hard(struct control_client *client, uint64_t id, bool last, struct site *site,
	struct hard_row *row)
{
	Kamen__HardImage out = KAMEN__HARD_IMAGE__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	out.site = site->name;
	out.hash = (ProtobufCBinaryData){ DIGEST_BYTES, row->hash.bytes };
	out.hardness = row->hardness;
	out.source = row->source;
	out.sender = row->sender[0] ? row->sender : NULL;
	out.part_id = row->part_id[0] ? row->part_id : NULL;
	out.label = row->label[0] ? row->label : NULL;
	out.has_capture_us = row->capture_us > 0;
	out.capture_us = row->capture_us;
	out.has_arrived_us = true;
	out.arrived_us = row->arrived_us;
	reply.row_case = KAMEN__REPLY__ROW_HARD_IMAGE;
	reply.hard_image = &out;
	control_reply(client, id, last, &reply, -1);
}

void control_site_hardest(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__SiteHardest *asked = request->site_hardest;
	struct site *site = control_find_site(client, request->id, asked->site);
	_cleanup_(freep) struct hard_row *rows = NULL;
	uint32_t n = 0;
	int r;

	if (!site)
		return;
	if (asked->count < 1 || asked->count > SERVE_MAX_HARDEST) {
		control_error(client, request->id, -EINVAL, "%u images: 1 to %u", asked->count,
			SERVE_MAX_HARDEST);
		return;
	}
	hard_store_finish(client->serve);
	r = state_hardest(client->serve->state, site->name, asked->count, &rows, &n);
	if (r < 0) {
		control_error(client, request->id, r, "site %s: %s", site->name, strerror(-r));
		return;
	}
	for (uint32_t i = 0; i < n && !client->closed; i++)
		reply_hard(client, request->id, i + 1 == n, site, &rows[i]);
	if (n == 0)
		control_done(client, request->id);
}
