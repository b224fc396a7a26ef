/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/shadow.h"

#include <math.h>

#include "ops/log.h"
#include "serve/serve.h"

/* Figures of samples that a power cut may cost: a transaction on the loop is not free. */
#define STORE_EVERY 256u

/* ---- which one */

static void store(struct serve *serve, struct site *site)
{
	struct live *live = &site->live;
	int r;

	if (live->n_shadow_unstored == 0 || site->gone)
		return;
	live->n_shadow_unstored = 0;
	r = state_shadow_store(serve->state, site->name, live->shadow->version, &live->shadow_sum);
	if (r < 0)
		log_error("site %s: figures of the shadow, version %u: %s", site->name,
			live->shadow->version, strerror(-r));
}

void shadow_stop(struct serve *serve, struct site *site)
{
	struct live *live = &site->live;

	if (!live->shadow)
		return;
	store(serve, site);
	serving_unref(TAKE_PTR(live->shadow));
}

/* The newest candidate after the champion; 0: none. */
static uint32_t newest(struct serve *serve, const struct site *site, struct version_row *ret_row)
{
	_cleanup_(freep) struct version_row *rows = NULL;
	struct digest prep = prep_digest(&site->prep);
	uint32_t n = 0;

	if (strcmp(site->settings.policy, "shadow") != 0 ||
		state_version_list(serve->state, site->name, &rows, &n) < 0)
		return 0;
	for (uint32_t i = n; i > 0 && rows[i - 1].version > site->champion; i--) {
		if (rows[i - 1].state != VERSION_CANDIDATE ||
			!digest_equal(&rows[i - 1].prep, &prep))
			continue;
		*ret_row = rows[i - 1];
		return rows[i - 1].version;
	}
	return 0;
}

/* Figures beside another champion are others. */
static void compare_with_champion(struct site *site)
{
	struct live *live = &site->live;

	if (live->shadow && live->shadow_champion != site->champion)
		live->shadow_sum = (struct shadow_row){ 0 };
	live->shadow_champion = site->champion;
}

void shadow_choose(struct serve *serve, struct site *site)
{
	struct live *live = &site->live;
	struct serving *serving = NULL;
	struct diag diag = { .text = "" };
	struct version_row row;
	uint32_t version = newest(serve, site, &row);
	int r;

	if (live->shadow && live->shadow->version != version)
		shadow_stop(serve, site);
	if (version == 0)
		return;
	if (site_has_snapshot(site, live->shadow, version)) {
		compare_with_champion(site);
		return;
	}
	r = site_serving(serve, site, version, SHM_PX_SITE, &serving, &diag);
	if (r < 0) {
		log_error("site %s: version %u cannot run as a shadow: %s", site->name, version,
			diag.text[0] ? diag.text : strerror(-r));
		shadow_stop(serve, site);
		return;
	}
	compare_with_champion(site);
	if (!live->shadow) {
		live->shadow_sum = row.shadow;
		log_notice("site %s: version %u runs beside version %u", site->name, version,
			site->champion);
	}
	serving_unref(live->shadow);
	live->shadow = serving;
}

void shadow_overlay(const struct site *site, struct version_row *row)
{
	if (site->live.shadow && site->live.shadow->version == row->version)
		row->shadow = site->live.shadow_sum;
}

/* ---- samples */

void shadow_free(struct serve *serve, struct shadow_sample *sample)
{
	if (!sample)
		return;
	serve->n_shadow_samples--;
	serving_unref(sample->serving);
	site_unref(sample->site);
	free(sample);
}

/* One piece of memory: the sample, its input, the champion's embedding. */
static struct shadow_sample *sample_new(struct serve *serve, struct site *site)
{
	struct serving *serving = site->live.shadow;
	size_t n_input = (size_t)3 * serving->prep.input_px * serving->prep.input_px;
	size_t width = vit_shape(inference_vit(serve->inference))->width;
	struct shadow_sample *sample = malloc(sizeof(*sample) + (n_input + width) * sizeof(float));

	if (!sample)
		return NULL;
	*sample = (struct shadow_sample){ .site = site_ref(site),
		.serving = serving_ref(serving),
		.n_input = n_input,
		.input = (float *)(sample + 1) };
	sample->embedding = sample->input + n_input;
	serve->n_shadow_samples++;
	return sample;
}

void shadow_draw(struct serve *serve, struct request *request)
{
	struct site *site = request->site;
	struct live *live = &site->live;

	if (!live->shadow || request->serving || request->sample || request->wire.verb != SHM_INFER)
		return;
	live->shadow_turn += site->settings.shadow_share;
	if (live->shadow_turn < 1)
		return;
	live->shadow_turn = fmod(live->shadow_turn, 1);
	if (serve->n_shadow_samples < SHADOW_MAX)
		request->sample = sample_new(serve, site);
	live->n_shadow_dropped += !request->sample;
}

/* ---- figures */

static double mean_with(double mean, uint64_t n, double x)
{
	return isfinite(x) ? mean + (x - mean) / (double)n : mean;
}

static void count(struct serve *serve, const struct shadow_sample *sample)
{
	struct live *live = &sample->site->live;
	struct shadow_row *sum = &live->shadow_sum;

	/* Another pair by now. */
	if (!live->shadow || live->shadow->version != sample->serving->version ||
		sample->champion != sample->site->champion)
		return;
	sum->n++;
	sum->n_agreed += sample->ours.verdict == sample->theirs.verdict;
	sum->n_ng += sample->ours.verdict == SHM_NG;
	sum->n_champion_ng += sample->theirs.verdict == SHM_NG;
	sum->novelty = mean_with(sum->novelty, sum->n, (double)sample->ours.novelty);
	sum->champion_novelty =
		mean_with(sum->champion_novelty, sum->n, (double)sample->theirs.novelty);
	sum->cosine = mean_with(sum->cosine, sum->n, sample->cosine);
	sum->seconds =
		mean_with(sum->seconds, sum->n, (double)sample->ours.compute_ns / (double)NS_PER_S);
	live->n_shadow++;
	live->n_shadow_agreed += sample->ours.verdict == sample->theirs.verdict;
	if (++live->n_shadow_unstored >= STORE_EVERY)
		store(serve, sample->site);
}

void shadow_reap(struct serve *serve)
{
	struct shadow_sample *next;

	for (struct shadow_sample *s = scheduler_reap_samples(serve->scheduler); s; s = next) {
		next = s->next;
		if (s->is_done)
			count(serve, s);
		else
			s->site->live.n_shadow_dropped++;
		shadow_free(serve, s);
	}
}
