/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "ops/log.h"
#include "serve/control.h"
#include "serve/limits.h"
#include "serve/rows.h"
#include "serve/serve.h"
#include "serve/shadow.h"

static void reply_mask(struct control_client *client, uint64_t id, bool last,
	const struct version_row *row, int fd)
{
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	struct mask_message message;

	mask_message_fill(&message, row);
	reply.row_case = KAMEN__REPLY__ROW_MASK;
	reply.mask = &message.mask;
	control_reply(client, id, last, &reply, fd);
}

void control_reply_mask(struct control_client *client, uint64_t id, const struct version_row *row)
{
	reply_mask(client, id, true, row, -1);
}

/* The base is version 0 of every site; no table holds it. */
static void reply_base(struct control_client *client, uint64_t id, struct site *site)
{
	struct serve *serve = client->serve;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	Kamen__Mask mask = KAMEN__MASK__INIT;
	struct serving *serving = NULL;
	struct diag diag = { .text = "" };
	int r;

	r = site_serving(serve, site, 0, SHM_PX_SITE, &serving, &diag);
	if (r < 0) {
		control_error(client, id, r, "site %s: %s", site->name, diag.text);
		return;
	}
	mask.site = site->name;
	mask.state = (char *)(site->champion == 0 ? "champion" : "retired");
	mask.has_density = mask.has_bytes = mask.has_bits_per_weight = true;
	mask.density = 1;
	mask.has_base_digest = mask.has_space = true;
	mask.base_digest = (ProtobufCBinaryData){ DIGEST_BYTES,
		(uint8_t *)vit_digest(inference_vit(serve->inference))->bytes };
	mask.space = (ProtobufCBinaryData){ DIGEST_BYTES, serving->space.bytes };
	reply.row_case = KAMEN__REPLY__ROW_MASK;
	reply.mask = &mask;
	control_reply(client, id, true, &reply, -1);
	serving_unref(serving);
}

/* Answers the error itself. */
static int find_version(struct control_client *client, uint64_t id, const Kamen__SiteVersion *named,
	struct site **ret_site, struct version_row *ret_row)
{
	struct site *site = control_find_site(client, id, named->site);
	int r;

	if (!site)
		return -ENOENT;
	if (!named->has_version) {
		control_error(client, id, -EINVAL, "site %s: which version?", site->name);
		return -EINVAL;
	}
	*ret_site = site;
	if (named->version == 0)
		return 0;
	r = state_version_get(client->serve->state, site->name, named->version, ret_row);
	if (r < 0)
		control_error(
			client, id, r, "site %s has no version %u", site->name, named->version);
	return r;
}

void control_mask_list(struct control_client *client, const Kamen__Request *request)
{
	_cleanup_(freep) struct version_row *rows = NULL;
	struct site *site;
	uint32_t n = 0;
	int r;

	site = control_find_site(client, request->id, request->mask_list->site);
	if (!site)
		return;
	r = state_version_list(client->serve->state, site->name, &rows, &n);
	if (r < 0) {
		control_error(client, request->id, r, "site %s: %s", site->name, strerror(-r));
		return;
	}
	for (uint32_t i = 0; i < n && !client->closed; i++)
		reply_mask(client, request->id, i + 1 == n, &rows[i], -1);
	if (n == 0)
		control_done(client, request->id);
}

void control_mask_show(struct control_client *client, const Kamen__Request *request)
{
	struct version_row row;
	struct site *site;

	if (find_version(client, request->id, request->mask_show, &site, &row) < 0)
		return;
	if (request->mask_show->version == 0) {
		reply_base(client, request->id, site);
	} else {
		shadow_overlay(site, &row);
		reply_mask(client, request->id, true, &row, -1);
	}
}

/* ---- changes of champion */

void control_mask_changed(
	struct control_client *client, uint64_t id, struct site *site, uint32_t version)
{
	struct serve *serve = client->serve;
	struct version_row row;
	int r;

	r = site_publish(serve, site);
	if (r < 0) {
		control_error(client, id, r,
			"version %u of site %s is stored but cannot be served: %s", version,
			site->name, strerror(-r));
		return;
	}
	serve_notify_status(serve);
	if (version == 0)
		reply_base(client, id, site);
	else if (state_version_get(serve->state, site->name, version, &row) < 0)
		control_done(client, id);
	else
		reply_mask(client, id, true, &row, -1);
}

void control_mask_promote(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__SiteVersion *named = request->mask_promote;
	struct version_row row;
	struct site *site;

	if (find_version(client, request->id, named, &site, &row) >= 0)
		changes_promote(client, request->id, site, named->version);
}

void control_mask_rollback(struct control_client *client, const Kamen__Request *request)
{
	struct site *site = control_find_site(client, request->id, request->mask_rollback->site);

	if (site)
		changes_roll_back(client, request->id, site);
}

/* ---- files */

/* @return a descriptor, -ENODATA: there is none of that kind, or another errno */
static int open_export(struct serve *serve, const struct site *site, const struct version_row *row,
	bool is_hardness)
{
	char path[512], name[32];
	int fd, r;

	if (is_hardness && row->hardness_bytes == 0)
		return -ENODATA;
	(void)snprintf(
		name, sizeof(name), is_hardness ? "masks/%u.khard" : "masks/%u", row->version);
	r = is_hardness ? state_path(serve->state, path, site->name, name)
			: state_mask_path(serve->state, path, site->name, name);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

void control_mask_export(struct control_client *client, const Kamen__Request *request)
{
	_cleanup_(closep) int fd = -1;
	struct version_row row;
	struct site *site;

	if (find_version(client, request->id, request->mask_export, &site, &row) < 0)
		return;
	if (request->mask_export->version == 0) {
		control_error(
			client, request->id, -EINVAL, "version 0 is the base: it has no mask");
		return;
	}
	/* Descriptors that nobody takes count against ours, until none can be sent to the roles. */
	if (!control_has_read(client)) {
		control_error(client, request->id, -EBUSY,
			"one mask at a time: first read the answers so far");
		return;
	}
	fd = open_export(client->serve, site, &row, request->mask_export->hardness);
	if (fd == -ENODATA) {
		control_error(client, request->id, fd,
			"version %u of site %s has no hardness map: its objective learns none",
			row.version, site->name);
		return;
	}
	if (fd < 0) {
		control_error(client, request->id, fd, "version %u of site %s has no file: %s",
			row.version, site->name, strerror(-fd));
		return;
	}
	reply_mask(client, request->id, true, &row, fd);
}

/* Copied out once; a memfd that can still change or shrink is not looked at. */
static int read_import(int fd, void **ret_data, size_t *ret_n, struct diag *diag)
{
	const int needed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	_cleanup_(freep) uint8_t *data = NULL;
	struct stat st;
	int seals;

	seals = fd < 0 ? -1 : fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & needed) != needed)
		return diag_set(diag, EINVAL, "an import carries a memfd sealed against changes");
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0 || (uint64_t)st.st_size > SERVE_MAX_MASK_BYTES)
		return diag_set(diag, EFBIG, "a mask of %lld bytes: 1 to %u are allowed",
			(long long)st.st_size, SERVE_MAX_MASK_BYTES);
	data = malloc((size_t)st.st_size);
	if (!data)
		return -ENOMEM;
	if (pread(fd, data, (size_t)st.st_size, 0) != (ssize_t)st.st_size)
		return diag_set(diag, EIO, "cannot read the mask");
	*ret_data = TAKE_PTR(data);
	*ret_n = (size_t)st.st_size;
	return 0;
}

/* Whether the list has the signer. What the list says today holds, not what it said at the start. */
static int find_signer(const struct config *config, const struct kmask_key *signer,
	bool *ret_listed, struct diag *diag)
{
	_cleanup_(freep) void *text = NULL;
	struct diag why = { .text = "" };
	size_t n = 0;
	int r;

	*ret_listed = false;
	if (!config->mask_trusted_keys[0])
		return 0;
	r = blob_read(AT_FDCWD, config->mask_trusted_keys, SERVE_MAX_KEYS_BYTES, &text, &n);
	if (r == 0)
		r = kmask_keys_find(text, n, signer, &why);
	if (r < 0)
		return diag_set(diag, -r, "the trusted keys of %s cannot be read: %s",
			config->mask_trusted_keys, why.text[0] ? why.text : strerror(-r));
	*ret_listed = r > 0;
	return 0;
}

/* ret_note: for the audit. A list that cannot be read matters only where a signature is asked for. */
static int check_signer(const struct config *config, const struct mask_set_header *header,
	char ret_note[128], struct diag *diag)
{
	char hex[KMASK_KEY_HEX_CHARS + 1];
	bool listed;
	int r;

	(void)snprintf(ret_note, 128, "not signed");
	if (!header->is_signed)
		return config->mask_require_signature
			       ? diag_set(diag, EACCES,
					 "the mask is not signed, and [mask] require_signature "
					 "is on")
			       : 0;
	kmask_key_to_hex(&header->signer, hex);
	r = find_signer(config, &header->signer, &listed, diag);
	if (r < 0 && config->mask_require_signature)
		return r;
	(void)snprintf(
		ret_note, 128, "signed by %s, %s", hex, listed ? "trusted" : "not on the list");
	if (!listed && config->mask_require_signature)
		return diag_set(diag, EACCES, "the mask is signed by %s, which %s does not list",
			hex,
			config->mask_trusted_keys[0] ? config->mask_trusted_keys
						     : "[mask] trusted_keys");
	return 0;
}

static int check_import(struct serve *serve, const struct site *site, const void *data, size_t n,
	char ret_note[128], struct diag *diag)
{
	struct serving_model model = serve_model(serve);
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	struct digest prep = prep_digest(&site->prep);
	struct mask_set_header header;
	int r;

	r = mask_set_decode(&set, &header, model.layout, model.base, model.width, data, n, diag);
	if (r < 0)
		return r;
	if (!digest_equal(&header.prep, &prep))
		return diag_set(diag, EXDEV,
			"the mask is for another preprocessing than site %s has", site->name);
	return check_signer(&serve->config, &header, ret_note, diag);
}

static int import(struct serve *serve, struct site *site, int fd, const char *who,
	uint32_t *ret_version, struct diag *diag)
{
	char note[128], asked[CONTROL_WHO_BYTES + 2 + sizeof(note)];
	_cleanup_(freep) void *data = NULL;
	size_t n = 0;
	int r;

	if (!serve->config.learner_on)
		return diag_set(
			diag, EOPNOTSUPP, "the learner is off: nobody could judge the mask");
	r = read_import(fd, &data, &n, diag);
	if (r < 0)
		return r;
	r = check_import(serve, site, data, n, note, diag);
	if (r < 0)
		return r;
	(void)snprintf(asked, sizeof(asked), "%.31s, %s", who, note);
	r = state_import_begin(serve->state, site->name, asked, data, n, ret_version, diag);
	if (r < 0)
		return r;
	serve_log_audit(serve);
	return rounds_add(serve, site, *ret_version, 0, 0, true);
}

/* A refusal is a decision, too. */
static void refuse(struct serve *serve, const struct site *site, const char *who, const char *why)
{
	char detail[640];

	(void)snprintf(detail, sizeof(detail), "by %s: %.590s", who, why);
	admission_audit(serve, site, "mask.refuse", detail);
	log_notice("site %s: import refused (%s): %s", site->name, who, why);
}

void control_mask_import(struct control_client *client, const Kamen__Request *request)
{
	_cleanup_(closep) int fd = wire_take_fd(client->serve->wire, 0);
	struct serve *serve = client->serve;
	struct diag diag = { .text = "" };
	struct version_row row;
	char who[CONTROL_WHO_BYTES];
	uint32_t version = 0;
	struct site *site;
	int r;

	site = control_find_site(client, request->id, request->mask_import->site);
	if (!site)
		return;
	control_who(client, who);
	r = import(serve, site, fd, who, &version, &diag);
	if (r < 0)
		refuse(serve, site, who, diag.text[0] ? diag.text : strerror(-r));
	if (r >= 0)
		r = state_version_get(serve->state, site->name, version, &row);
	if (r < 0) {
		control_error(
			client, request->id, r, "%s", diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	reply_mask(client, request->id, true, &row, -1);
}
