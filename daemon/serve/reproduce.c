/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/reproduce.h"

#include <errno.h>

#include "ops/log.h"
#include "serve/control.h"
#include "serve/serve.h"

static const char *const prep_keys[] = { "input_px", "resize", "crop", "mean", "std" };

/* ---- the preprocessing as text: that of a site's settings, which says every number exactly */

int reproduce_write_prep(
	const struct prep *prep, char ret_text[sizeof(((struct version_row *)0)->prep_text)])
{
	const size_t n_bytes = sizeof(((struct version_row *)0)->prep_text);
	struct site_settings settings = { .input_px = prep->input_px, .crop = prep->crop };
	char value[128];
	size_t n = 0;

	(void)snprintf(settings.resize, sizeof(settings.resize), "%s",
		prep->resize == PREP_CROP ? "crop" : "squash");
	memcpy(settings.mean, prep->mean, sizeof(settings.mean));
	memcpy(settings.std, prep->std, sizeof(settings.std));
	for (unsigned i = 0; i < ARRAY_SIZE(prep_keys); i++) {
		int r = site_settings_get(&settings, prep_keys[i], value, sizeof(value));

		if (r < 0)
			return r;
		n += (size_t)snprintf(ret_text + n, n_bytes - n, "%s=%s\n", prep_keys[i], value);
		if (n >= n_bytes)
			return -ENOBUFS;
	}
	return 0;
}

static int read_line(struct site_settings *settings, const char *line, size_t n)
{
	char text[128], *equals;

	if (n >= sizeof(text))
		return -EBADMSG;
	memcpy(text, line, n);
	text[n] = '\0';
	equals = strchr(text, '=');
	if (!equals)
		return -EBADMSG;
	*equals = '\0';
	return site_settings_set(settings, text, equals + 1, NULL) < 0 ? -EBADMSG : 0;
}

int reproduce_read_prep(struct prep *ret_prep, const char *text)
{
	const struct prep nothing = { .input_px = 0 };
	struct site_settings settings = { .input_px = 0 };

	while (*text) {
		const char *newline = strchr(text, '\n');
		int r = newline ? read_line(&settings, text, (size_t)(newline - text)) : -EBADMSG;

		if (r < 0)
			return r;
		text = newline + 1;
	}
	if (settings.input_px == 0 || !*settings.resize || settings.std[0] <= 0)
		return -EBADMSG;
	*ret_prep = site_settings_prep(&settings, &nothing);
	return 0;
}

/* ---- what came of it */

bool reproduce_is_equal(const struct version_row *row, const Kamen__LearnDone *done)
{
	return done->has_mask_digest && done->mask_digest.len == DIGEST_BYTES &&
	       memcmp(done->mask_digest.data, row->mask.bytes, DIGEST_BYTES) == 0;
}

void reproduce_tell(
	struct serve *serve, const struct version_row *row, const Kamen__LearnDone *done)
{
	Kamen__Reproduced message = KAMEN__REPRODUCED__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	message.site = (char *)row->site;
	message.version = row->version;
	message.equal = reproduce_is_equal(row, done);
	message.has_mask_digest = message.has_threads = message.has_n_images = true;
	message.mask_digest = (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)row->mask.bytes };
	message.has_again_digest = done->has_mask_digest;
	message.again_digest = done->mask_digest;
	message.isa = (char *)row->isa;
	message.again_isa = done->isa;
	message.threads = row->threads;
	message.has_again_threads = done->has_threads;
	message.again_threads = done->threads;
	message.n_images = row->n_images;
	message.has_seconds = done->has_seconds;
	message.seconds = done->seconds;
	reply.row_case = KAMEN__REPLY__ROW_REPRODUCED;
	reply.reproduced = &message;
	control_learn_last(serve, row->site, row->version, &reply);
}

/* ---- asking for it */

static int begin(struct serve *serve, struct site *site, uint32_t version, struct diag *diag)
{
	struct version_row row;
	struct prep prep;
	int r;

	if (!serve->config.learner_on)
		return diag_set(
			diag, EOPNOTSUPP, "the learner is off ([learner] in the configuration)");
	/* What waits for its turn holds images of its own. */
	if (rounds_find(serve, site->name))
		return diag_set(diag, EBUSY, "site %s has a round: wait for its end", site->name);
	admission_commit(serve);
	r = state_reproduce_begin(serve->state, site->name, version, &row, diag);
	if (r < 0)
		return r;
	r = reproduce_read_prep(&prep, row.prep_text);
	if (r < 0)
		(void)diag_set(diag, -r, "site %s: the preprocessing of version %u is damaged",
			site->name, version);
	if (r >= 0)
		r = rounds_add_again(serve, site, &row, &prep);
	if (r < 0)
		(void)state_reproduce_end(serve->state, site->name);
	return r;
}

void control_mask_reproduce(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__SiteVersion *named = request->mask_reproduce;
	struct serve *serve = client->serve;
	struct diag diag = { .text = "" };
	struct control_watch *watch;
	struct site *site;
	int r;

	site = control_find_site(client, request->id, named->site);
	if (!site)
		return;
	if (!named->has_version || named->version == 0) {
		control_error(client, request->id, -EINVAL,
			"site %s: which version? 0 is the base: it was not learnt here",
			site->name);
		return;
	}
	watch = control_watch_new(client, request->id, site->name, named->version);
	if (!watch)
		return;
	r = begin(serve, site, named->version, &diag);
	if (r >= 0)
		return;
	watch->version = 0;
	control_error(client, request->id, r, "%s", diag.text[0] ? diag.text : strerror(-r));
}
