/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/selection.h"

#include <errno.h>

#include "serve/serve.h"

bool selection_allows_px(uint32_t px, uint32_t site_px, uint32_t native_px, bool may_admin)
{
	return may_admin || px == SHM_PX_SITE || px == SHM_PX_NATIVE || px == site_px ||
	       px == native_px;
}

static bool has_space(const struct request *request, const struct serving *serving)
{
	return memcmp(request->wire.space, serving->space.bytes, DIGEST_BYTES) == 0;
}

/* Services that store embeddings go on in the old space while they move to the new one. */
static int select_predecessor(struct serve *serve, struct request *request, struct diag *diag)
{
	const struct site *site = request->site;
	struct serving *serving = NULL;
	int r;

	if (site->predecessor == site->champion)
		return -ESTALE;
	r = site_serving(serve, request->site, site->predecessor, request->wire.px, &serving, diag);
	if (r < 0)
		return r;
	if (!has_space(request, serving)) {
		serving_unref(serving);
		return -ESTALE;
	}
	serving_unref(request->serving);
	request->serving = serving;
	return 0;
}

static int select_space(struct serve *serve, struct request *request, struct diag *diag)
{
	/* Pinned: a promotion on the way must not change the space again. */
	if (!request->serving)
		request->serving = scheduler_champion(serve->scheduler, &request->site->queue);
	if (request->serving && has_space(request, request->serving))
		return 0;
	if (request->wire.mask == SHM_MASK_CHAMPION &&
		select_predecessor(serve, request, diag) == 0)
		return 0;
	return diag_set(
		diag, ESTALE, "site %s is served in another space now", request->site->name);
}

int selection_make(struct serve *serve, struct request *request, struct diag *diag)
{
	uint32_t native_px = vit_native_prep(inference_vit(serve->inference)).input_px;
	const struct shm_request *wire = &request->wire;
	const struct site *site = request->site;
	uint32_t version = wire->mask == SHM_MASK_VERSION ? wire->version : site->champion;
	int r = 0;

	/* Together they would not fit the values of a result. */
	if (wire->flags & SHM_WANT_FEATURE && wire->flags & SHM_WANT_HARDNESS)
		return diag_set(diag, EINVAL, "a feature and a hardness map in one answer");
	if (!selection_allows_px(
		    wire->px, site->prep.input_px, native_px, request->session->peer.may_admin))
		return diag_set(diag, EACCES, "only admins may ask for sizes other than %u and %u",
			site->prep.input_px, native_px);
	if (wire->mask != SHM_MASK_CHAMPION || wire->px != SHM_PX_SITE)
		r = site_serving(serve, request->site, version, wire->px, &request->serving, diag);
	if (r >= 0 && wire->flags & SHM_WANT_SPACE)
		r = select_space(serve, request, diag);
	return r;
}
