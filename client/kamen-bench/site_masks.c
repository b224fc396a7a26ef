/* SPDX-License-Identifier: Apache-2.0 */
#include "site_masks.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "control.h"
#include "mask/kmask.h"
#include "model/vit.h"
#include "random_mask.h"
#include "sealed.h"

#define LOOK_NS 50000000L

struct giver {
	struct ctl *ctl;
	struct control *control;
	struct base *base;
	struct vit *vit;
};

static void giver_done(struct giver *giver)
{
	vit_free(giver->vit);
	base_free(giver->base);
	control_free(giver->control);
}

/* The masks are over the weights of the model that the daemon has read. */
static int model_open(struct giver *giver)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Empty nothing = KAMEN__EMPTY__INIT;
	const Kamen__Reply *reply;
	struct diag diag = { "" };
	int status, r;

	request.verb_case = KAMEN__REQUEST__VERB_STATUS;
	request.status = &nothing;
	status = control_ask(giver->control, &request, -1, KAMEN__REPLY__ROW_STATUS, &reply);
	if (status != EXIT_DONE)
		return status;
	r = base_load(&giver->base, reply->status->model, &diag);
	if (r == 0)
		r = vit_new(&giver->vit, giver->base, NULL, &diag);
	return r == 0 ? EXIT_DONE
		      : ctl_fail(giver->ctl, EXIT_FAILED, "%s: %s", reply->status->model,
				*diag.text ? diag.text : strerror(-r));
}

static int prep_of(struct giver *giver, char *name, struct digest *ret_prep)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName site = KAMEN__SITE_NAME__INIT;
	const Kamen__Reply *reply;
	int status;

	site.site = name;
	request.verb_case = KAMEN__REQUEST__VERB_SITE_SHOW;
	request.site_show = &site;
	status = control_ask(giver->control, &request, -1, KAMEN__REPLY__ROW_SITE, &reply);
	if (status != EXIT_DONE)
		return status;
	if (reply->site->prep_digest.len != DIGEST_BYTES)
		return ctl_fail(giver->ctl, EXIT_FAILED, "site %s: no digest", name);
	memcpy(ret_prep->bytes, reply->site->prep_digest.data, DIGEST_BYTES);
	return EXIT_DONE;
}

static int encode(struct giver *giver, uint32_t seed, double density, const struct digest *prep,
	int *ret_fd, size_t *ret_n_bytes)
{
	struct kmask_header header = {
		.base = *base_digest(giver->base), .prep = *prep, .steps = 1
	};
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) void *data = NULL;
	int r = random_mask(&mask, vit_layout(giver->vit), seed, density);

	if (r == 0)
		r = kmask_encode(mask, &header, &data, ret_n_bytes);
	return r < 0 ? r : sealed_new(data, *ret_n_bytes, ret_fd);
}

static int give(struct giver *giver, struct site_masks *masks, uint32_t i)
{
	_cleanup_(closep) int fd = -1;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName site = KAMEN__SITE_NAME__INIT;
	const Kamen__Reply *reply;
	struct digest prep;
	size_t n_bytes = 0;
	int status = prep_of(giver, masks->names[i], &prep), r;

	if (status != EXIT_DONE)
		return status;
	r = encode(giver, i, masks->density, &prep, &fd, &n_bytes);
	if (r < 0)
		return ctl_fail(giver->ctl, EXIT_FAILED, "a random mask: %s", strerror(-r));
	site.site = masks->names[i];
	request.verb_case = KAMEN__REQUEST__VERB_MASK_IMPORT;
	request.mask_import = &site;
	status = control_ask(giver->control, &request, fd, KAMEN__REPLY__ROW_MASK, &reply);
	if (status != EXIT_DONE)
		return status;
	masks->versions[i] = reply->mask->version;
	masks->coded_bytes += n_bytes;
	return EXIT_DONE;
}

static int wait_until_judged(struct giver *giver, const struct site_masks *masks, uint32_t i)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteVersion version = KAMEN__SITE_VERSION__INIT;
	const struct timespec pause = { 0, LOOK_NS };
	const Kamen__Reply *reply;
	int status;

	version.site = masks->names[i];
	version.has_version = 1;
	version.version = masks->versions[i];
	request.verb_case = KAMEN__REQUEST__VERB_MASK_SHOW;
	request.mask_show = &version;
	for (;;) {
		status = control_ask(giver->control, &request, -1, KAMEN__REPLY__ROW_MASK, &reply);
		if (status != EXIT_DONE)
			return status;
		if (strcmp(reply->mask->state, "failed") == 0)
			return ctl_fail(giver->ctl, EXIT_FAILED, "site %s: its mask was not judged",
				masks->names[i]);
		if (strcmp(reply->mask->state, "learning") != 0)
			return EXIT_DONE;
		(void)nanosleep(&pause, NULL);
	}
}

int site_masks_give(struct ctl *ctl, struct site_masks *masks)
{
	_cleanup_(giver_done) struct giver giver = { .ctl = ctl };
	int status = control_open(ctl, &giver.control);

	if (status == EXIT_DONE)
		status = model_open(&giver);
	masks->coded_bytes = 0;
	for (uint32_t i = 0; i < masks->n && status == EXIT_DONE; i++)
		status = give(&giver, masks, i);
	for (uint32_t i = 0; i < masks->n && status == EXIT_DONE; i++)
		status = wait_until_judged(&giver, masks, i);
	return status;
}
