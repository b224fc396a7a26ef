/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/rows.h"

#include <errno.h>

static void fill_judgement(Kamen__Judgement *out, const struct judgement_row *row)
{
	kamen__judgement__init(out);
	out->has_n = out->has_retrieval = out->has_margin = out->has_effective_rank = true;
	out->n = row->n;
	out->retrieval = row->retrieval;
	out->margin = row->margin;
	out->effective_rank = row->effective_rank;
	out->has_retrieval_error = out->has_margin_error = true;
	out->retrieval_error = row->retrieval_error;
	out->margin_error = row->margin_error;
	out->has_prototype_entropy = row->has_entropy;
	out->prototype_entropy = row->entropy;
	out->has_neighbours = row->has_neighbours;
	out->neighbours = row->neighbours;
}

static void fill_accuracy(
	Kamen__Judgement *out, const struct shots_row *row, double shot1, double shot5)
{
	out->has_labelled = out->has_classes = out->has_shot1 = out->has_shot5 = row->n > 0;
	out->labelled = row->n;
	out->classes = row->n_classes;
	out->shot1 = (float)shot1;
	out->shot5 = (float)shot5;
}

static void fill_shots(struct gate_message *out, const struct shots_row *row)
{
	Kamen__Judgement *candidate = &out->candidate;

	fill_accuracy(&out->frozen, row, row->frozen1, row->frozen5);
	fill_accuracy(candidate, row, row->candidate1, row->candidate5);
	candidate->has_shot1_diff_lo = candidate->has_shot1_diff_hi = row->n > 0;
	candidate->has_shot5_diff_lo = candidate->has_shot5_diff_hi = row->n > 0;
	candidate->shot1_diff_lo = (float)row->lo1;
	candidate->shot1_diff_hi = (float)row->hi1;
	candidate->shot5_diff_lo = (float)row->lo5;
	candidate->shot5_diff_hi = (float)row->hi5;
}

void gate_message_fill(struct gate_message *out, const struct version_row *row)
{
	char *save = NULL;

	kamen__gate__init(&out->gate);
	out->gate.passed = row->passed;
	memcpy(out->text, row->reasons, sizeof(out->text));
	for (char *line = strtok_r(out->text, "\n", &save);
		line && out->gate.n_reasons < ROW_MAX_REASONS; line = strtok_r(NULL, "\n", &save))
		out->reasons[out->gate.n_reasons++] = line;
	out->gate.reasons = out->reasons;
	fill_judgement(&out->frozen, &row->frozen);
	fill_judgement(&out->candidate, &row->candidate);
	fill_shots(out, &row->shots);
	out->gate.frozen = &out->frozen;
	out->gate.candidate = &out->candidate;
}

static ProtobufCBinaryData bytes_of(const struct digest *digest)
{
	return (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)digest->bytes };
}

static void fill_origin(Kamen__Mask *m, const struct version_row *row)
{
	m->has_base_digest = m->has_space = true;
	m->base_digest = bytes_of(&row->base);
	m->space = bytes_of(&row->space);
	m->has_manifest_digest = m->has_recipe_digest = true;
	m->manifest_digest = bytes_of(&row->manifest);
	m->recipe_digest = bytes_of(&row->recipe);
	m->isa = (char *)row->isa;
	m->has_threads = m->has_n_images = m->has_created_us = true;
	m->threads = row->threads;
	m->has_kept_step = true;
	m->kept_step = row->kept_step;
	m->n_images = row->n_images;
	m->created_us = row->created_us;
}

static void fill_live(struct mask_message *out, const struct version_row *row)
{
	const struct shadow_row *s = &row->shadow;

	out->mask.withdrawn = row->withdrawn[0] ? (char *)row->withdrawn : NULL;
	if (s->n == 0)
		return;
	kamen__shadow__init(&out->shadow);
	out->shadow = (Kamen__Shadow){
		.base = out->shadow.base,
		.n = s->n,
		.has_agreed = true,
		.agreed = s->n_agreed,
		.has_ng = true,
		.ng = s->n_ng,
		.has_champion_ng = true,
		.champion_ng = s->n_champion_ng,
		.has_novelty = true,
		.novelty = s->novelty,
		.has_champion_novelty = true,
		.champion_novelty = s->champion_novelty,
		.has_cosine = true,
		.cosine = s->cosine,
		.has_seconds = true,
		.seconds = s->seconds,
	};
	out->mask.shadow = &out->shadow;
}

static void fill_figures(struct mask_message *out, const struct version_row *row)
{
	for (uint32_t i = 0; i < row->n_figures; i++) {
		kamen__figure__init(&out->figures[i]);
		out->figures[i].name = (char *)row->figures[i].name;
		out->figures[i].value = row->figures[i].value;
		out->figures_list[i] = &out->figures[i];
	}
	out->mask.n_figures = row->n_figures;
	out->mask.figures = out->figures_list;
}

void mask_message_fill(struct mask_message *out, const struct version_row *row)
{
	Kamen__Mask *m = &out->mask;

	kamen__mask__init(m);
	m->site = (char *)row->site;
	m->version = row->version;
	m->state = (char *)version_state_name(row->state);
	m->has_steps = m->has_seed = m->has_pinned = true;
	m->pinned = row->keep;
	m->why = row->why[0] ? (char *)row->why : NULL;
	m->recipe = row->recipe_text[0] ? (char *)row->recipe_text : NULL;
	m->steps = row->steps;
	m->seed = row->seed;
	/* What is not known before the round has ended. */
	if (row->state == VERSION_LEARNING || row->state == VERSION_FAILED) {
		gate_message_fill(&out->gate, row);
		m->gate = row->state == VERSION_FAILED ? &out->gate.gate : NULL;
		return;
	}
	m->has_density = m->has_bytes = m->has_bits_per_weight = m->has_loss_ratio = true;
	m->density = row->density;
	m->bytes = row->n_bytes;
	m->bits_per_weight =
		row->n_elements > 0 ? 8.0 * (double)row->n_bytes / (double)row->n_elements : 0;
	m->loss_ratio = row->loss_ratio;
	fill_origin(m, row);
	gate_message_fill(&out->gate, row);
	m->gate = &out->gate.gate;
	m->has_hardness_bytes = row->hardness_bytes > 0;
	m->hardness_bytes = row->hardness_bytes;
	fill_figures(out, row);
	fill_live(out, row);
}

static void fill_settings(struct site_message *out, const struct site *site)
{
	Kamen__Site *m = &out->site;

	for (unsigned i = 0; i < CONFIG_MAX_SITE_KEYS && config_site_keys[i]; i++) {
		const char *key = config_site_keys[i];
		Kamen__KeyValue *set = &out->settings[m->n_settings];
		Kamen__KeyValue *by = &out->set_by[m->n_set_by];

		if (site_settings_get(
			    &site->settings, key, out->values[i], sizeof(out->values[i])) < 0)
			continue;
		kamen__key_value__init(set);
		set->key = (char *)key;
		set->value = out->values[i];
		out->settings_list[m->n_settings++] = set;
		if (!site_key_owner(site, key, out->owners[i], sizeof(out->owners[i])))
			continue;
		kamen__key_value__init(by);
		by->key = (char *)key;
		by->value = out->owners[i];
		out->set_by_list[m->n_set_by++] = by;
	}
	m->settings = out->settings_list;
	m->set_by = out->set_by_list;
}

static void fill_counts(Kamen__Site *m, const struct site *site, const struct site_row *row)
{
	m->has_images = m->has_duplicates = m->has_rejected = m->has_gaps = true;
	m->has_replay_bytes = m->has_requests = true;
	m->images = row->n_images;
	m->duplicates = row->n_duplicates;
	m->rejected = row->n_rejected;
	m->gaps = row->n_gaps;
	m->replay_bytes = row->replay_bytes;
	m->requests = site->n_requests;
	m->has_new_images = m->has_round_us = true;
	m->new_images = row->n_new;
	m->round_us = row->round_us;
}

static void fill_live_site(Kamen__Site *m, const struct live *live)
{
	const struct drift *drift = &live->row.drift;

	m->drift = (char *)drift_name(drift->alarm);
	m->has_novelty = m->has_answers = m->has_watch_left = true;
	m->novelty = drift->mean;
	m->answers = drift->n;
	m->has_drift_answers = drift->alarm != DRIFT_NONE;
	m->drift_answers = drift->alarm_n;
	m->watch_left = watch_left(&live->row.watch);
	m->has_shadow = live->shadow != NULL;
	m->shadow = live->shadow ? live->shadow->version : 0;
}

void site_message_fill_live(struct site_message *out, const struct site *site,
	const struct site_row *row, bool learning)
{
	Kamen__Site *m = &out->site;

	kamen__site__init(m);
	m->site = (char *)site->name;
	m->has_champion = m->has_input_px = m->has_prep_digest = true;
	m->champion = row->champion;
	m->state = (char *)(row->hold != SITE_ACTIVE ? site_hold_name(row->hold)
			    : learning               ? "learning"
			    : row->champion > 0      ? "serving"
						     : "collecting");
	m->due = (char *)due_name(site->due);
	m->input_px = site->prep.input_px;
	m->resize = (char *)(site->prep.resize == PREP_SQUASH ? "squash" : "crop");
	m->has_crop = true;
	m->crop = site->prep.crop;
	if (site->queue.champion)
		m->precision = (char *)precision_name(site->queue.champion->precision);
	out->prep = prep_digest(&site->prep);
	m->prep_digest = bytes_of(&out->prep);
	fill_counts(m, site, row);
	fill_live_site(m, &site->live);
}

void site_message_fill(struct site_message *out, const struct site *site,
	const struct site_row *row, bool learning)
{
	site_message_fill_live(out, site, row, learning);
	fill_settings(out, site);
}
