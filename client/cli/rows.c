/* SPDX-License-Identifier: Apache-2.0 */
/* Replies as JSON objects: the names are promises of contract.md. */
#include "output.h"

static void put(json_t *o, const char *key, json_t *value)
{
	(void)json_object_set_new(o, key, value);
}

static void put_text(json_t *o, const char *key, const char *text)
{
	put(o, key, text ? json_string(text) : json_null());
}

static void put_bytes(json_t *o, const char *key, const ProtobufCBinaryData *bytes, int has)
{
	put(o, key, has ? output_hex(bytes->data, bytes->len) : json_null());
}

static void put_number(json_t *o, const char *key, int has, double number)
{
	put(o, key, has ? output_number(number) : json_null());
}

static void put_int(json_t *o, const char *key, int has, uint64_t number)
{
	put(o, key, has ? output_integer(number) : json_null());
}

static json_t *pairs_object(Kamen__KeyValue *const *pairs, size_t n)
{
	json_t *o = json_object();

	for (size_t i = 0; i < n; i++)
		put_text(o, pairs[i]->key, pairs[i]->value);
	return o;
}

static json_t *status_object(const Kamen__Status *s)
{
	json_t *o = json_object(), *sites = json_array(), *roles = json_array();

	put_text(o, "version", s->version);
	put_text(o, "model", s->model);
	put_bytes(o, "model_digest", &s->model_digest, s->has_model_digest);
	put_text(o, "isa", s->isa);
	put_text(o, "precision", s->precision);
	put_number(o, "uptime_s", s->has_uptime_ns, (double)s->uptime_ns * 1e-9);
	put_int(o, "native_px", s->has_native_px, s->native_px);
	put_int(o, "width", s->has_width, s->width);
	put_text(o, "ingest_backend", s->ingest_backend);
	put_text(o, "learner", s->learner);
	for (size_t i = 0; i < s->n_roles; i++) {
		json_t *role = json_object();

		put_text(role, "name", s->roles[i]->name);
		put_int(role, "pid", s->roles[i]->has_pid, (uint64_t)s->roles[i]->pid);
		put_int(role, "restarts", s->roles[i]->has_restarts, s->roles[i]->restarts);
		(void)json_array_append_new(roles, role);
	}
	put(o, "roles", roles);
	for (size_t i = 0; i < s->n_sites; i++)
		(void)json_array_append_new(sites, json_string(s->sites[i]));
	put(o, "sites", sites);
	return o;
}

static json_t *site_object(const Kamen__Site *s)
{
	json_t *o = json_object();

	put_text(o, "site", s->site);
	put_int(o, "champion", s->has_champion, s->champion);
	put_int(o, "images", s->has_images, s->images);
	put_text(o, "state", s->state);
	put_int(o, "input_px", s->has_input_px, s->input_px);
	put_text(o, "resize", s->resize);
	put_number(o, "crop", s->has_crop, (double)s->crop);
	put_text(o, "precision", s->precision);
	put_int(o, "duplicates", s->has_duplicates, s->duplicates);
	put_int(o, "rejected", s->has_rejected, s->rejected);
	put_int(o, "gaps", s->has_gaps, s->gaps);
	put_int(o, "replay_bytes", s->has_replay_bytes, s->replay_bytes);
	put_int(o, "requests", s->has_requests, s->requests);
	put_text(o, "drift", s->drift);
	put_number(o, "novelty", s->has_novelty, s->novelty);
	put_int(o, "answers", s->has_answers, s->answers);
	put_int(o, "drift_answers", s->has_drift_answers, s->drift_answers);
	put_int(o, "shadow", s->has_shadow, s->shadow);
	put_int(o, "watch_left", s->has_watch_left, s->watch_left);
	put_int(o, "new_images", s->has_new_images, s->new_images);
	put_int(o, "round_us", s->has_round_us, s->round_us);
	put_text(o, "due", s->due);
	put_bytes(o, "prep_digest", &s->prep_digest, s->has_prep_digest);
	put(o, "settings", pairs_object(s->settings, s->n_settings));
	put(o, "set_by", pairs_object(s->set_by, s->n_set_by));
	return o;
}

/* Where labels exist; names of the figures as in eval. */
static void put_shots(json_t *o, const Kamen__Judgement *j)
{
	if (!j->has_labelled)
		return;
	put_int(o, "labelled", 1, j->labelled);
	put_int(o, "classes", j->has_classes, j->classes);
	put_number(o, "shot1", j->has_shot1, (double)j->shot1);
	put_number(o, "shot5", j->has_shot5, (double)j->shot5);
	if (!j->has_shot5_diff_hi)
		return;
	put_number(o, "shot1_diff_lo", j->has_shot1_diff_lo, (double)j->shot1_diff_lo);
	put_number(o, "shot1_diff_hi", j->has_shot1_diff_hi, (double)j->shot1_diff_hi);
	put_number(o, "shot5_diff_lo", j->has_shot5_diff_lo, (double)j->shot5_diff_lo);
	put_number(o, "shot5_diff_hi", 1, (double)j->shot5_diff_hi);
}

static json_t *judgement_object(const Kamen__Judgement *j)
{
	json_t *o;

	if (!j)
		return json_null();
	o = json_object();
	put_int(o, "n", j->has_n, j->n);
	put_number(o, "retrieval", j->has_retrieval, (double)j->retrieval);
	put_number(o, "margin", j->has_margin, (double)j->margin);
	put_number(o, "effective_rank", j->has_effective_rank, (double)j->effective_rank);
	put_number(o, "retrieval_error", j->has_retrieval_error, (double)j->retrieval_error);
	put_number(o, "margin_error", j->has_margin_error, (double)j->margin_error);
	if (j->has_prototype_entropy)
		put_number(o, "prototype_entropy", 1, (double)j->prototype_entropy);
	if (j->has_neighbours)
		put_number(o, "neighbours", 1, (double)j->neighbours);
	put_shots(o, j);
	return o;
}

static json_t *gate_object(const Kamen__Gate *g)
{
	json_t *o, *reasons;

	if (!g)
		return json_null();
	o = json_object();
	reasons = json_array();
	put(o, "passed", json_boolean(g->passed));
	for (size_t i = 0; i < g->n_reasons; i++)
		(void)json_array_append_new(reasons, json_string(g->reasons[i]));
	put(o, "reasons", reasons);
	put(o, "frozen", judgement_object(g->frozen));
	put(o, "candidate", judgement_object(g->candidate));
	return o;
}

static json_t *shadow_object(const Kamen__Shadow *s)
{
	json_t *o;

	if (!s)
		return json_null();
	o = json_object();
	put_int(o, "n", 1, s->n);
	put_int(o, "agreed", s->has_agreed, s->agreed);
	put_int(o, "ng", s->has_ng, s->ng);
	put_int(o, "champion_ng", s->has_champion_ng, s->champion_ng);
	put_number(o, "novelty", s->has_novelty, s->novelty);
	put_number(o, "champion_novelty", s->has_champion_novelty, s->champion_novelty);
	put_number(o, "cosine", s->has_cosine, s->cosine);
	put_number(o, "seconds", s->has_seconds, s->seconds);
	return o;
}

static json_t *figures_object(const Kamen__Mask *m)
{
	json_t *o = json_object();

	for (size_t i = 0; i < m->n_figures; i++)
		put_number(o, m->figures[i]->name, 1, m->figures[i]->value);
	return o;
}

static json_t *mask_object(const Kamen__Mask *m)
{
	json_t *o = json_object();

	put_text(o, "site", m->site);
	put_int(o, "version", 1, m->version);
	put_text(o, "state", m->state);
	put_number(o, "density", m->has_density, m->density);
	put_int(o, "bytes", m->has_bytes, m->bytes);
	put_number(o, "bits_per_weight", m->has_bits_per_weight, m->bits_per_weight);
	put_number(o, "loss_ratio", m->has_loss_ratio, m->loss_ratio);
	put_int(o, "steps", m->has_steps, m->steps);
	put_int(o, "seed", m->has_seed, m->seed);
	put_int(o, "images", m->has_n_images, m->n_images);
	put_int(o, "created_us", m->has_created_us, m->created_us);
	put_text(o, "isa", m->isa);
	put_int(o, "threads", m->has_threads, m->threads);
	put_int(o, "kept_step", m->has_kept_step, m->kept_step);
	put_bytes(o, "base_digest", &m->base_digest, m->has_base_digest);
	put_bytes(o, "space", &m->space, m->has_space);
	put_bytes(o, "manifest_digest", &m->manifest_digest, m->has_manifest_digest);
	put_bytes(o, "recipe_digest", &m->recipe_digest, m->has_recipe_digest);
	put_text(o, "recipe", m->recipe);
	put_text(o, "why", m->why);
	put(o, "pinned", m->has_pinned ? json_boolean(m->pinned) : json_null());
	put(o, "gate", gate_object(m->gate));
	put_text(o, "withdrawn", m->withdrawn);
	put(o, "shadow", shadow_object(m->shadow));
	put(o, "figures", figures_object(m));
	put_int(o, "hardness_bytes", m->has_hardness_bytes, m->hardness_bytes);
	return o;
}

static json_t *progress_object(const Kamen__Progress *p)
{
	json_t *o = json_object();

	put_text(o, "site", p->site);
	put_int(o, "version", 1, p->version);
	put_int(o, "step", p->has_step, p->step);
	put_int(o, "steps", p->has_steps, p->steps);
	put_number(o, "loss_ratio", p->has_loss_ratio, (double)p->loss_ratio);
	put_number(o, "density", p->has_density, p->density);
	put_number(o, "lowest_density", p->has_lowest_density, p->lowest_density);
	put_number(o, "seconds", p->has_seconds, p->seconds);
	put_number(o, "seconds_left", p->has_seconds_left, p->seconds_left);
	return o;
}

static json_t *learnt_object(const Kamen__LearnResult *l)
{
	json_t *o = json_object();

	put_text(o, "site", l->site);
	put_int(o, "version", 1, l->version);
	put_text(o, "state", l->state);
	put_int(o, "steps", l->has_steps, l->steps);
	put_number(o, "seconds", l->has_seconds, l->seconds);
	put_number(o, "loss_ratio", l->has_loss_ratio, l->loss_ratio);
	put_number(o, "density", l->has_density, l->density);
	put(o, "gate", gate_object(l->gate));
	return o;
}

static json_t *reproduced_object(const Kamen__Reproduced *p)
{
	json_t *o = json_object();

	put_text(o, "site", p->site);
	put_int(o, "version", 1, p->version);
	put(o, "equal", json_boolean(p->equal));
	put_int(o, "images", p->has_n_images, p->n_images);
	put_number(o, "seconds", p->has_seconds, p->seconds);
	put_bytes(o, "mask_digest", &p->mask_digest, p->has_mask_digest);
	put_bytes(o, "again_digest", &p->again_digest, p->has_again_digest);
	put_text(o, "isa", p->isa);
	put_text(o, "again_isa", p->again_isa);
	put_int(o, "threads", p->has_threads, p->threads);
	put_int(o, "again_threads", p->has_again_threads, p->again_threads);
	return o;
}

static json_t *label_class_object(const Kamen__LabelClass *c)
{
	json_t *o = json_object();

	put_text(o, "site", c->site);
	put_text(o, "class", c->name);
	put_int(o, "images", 1, c->images);
	return o;
}

static json_t *hard_image_object(const Kamen__HardImage *h)
{
	json_t *o = json_object();

	put_text(o, "site", h->site);
	put_bytes(o, "hash", &h->hash, 1);
	put_number(o, "hardness", 1, h->hardness);
	put_text(o, "class", h->label);
	put_text(o, "part_id", h->part_id);
	put_text(o, "source", h->source);
	put_text(o, "sender", h->sender);
	put_int(o, "capture_us", h->has_capture_us, h->capture_us);
	put_int(o, "arrived_us", h->has_arrived_us, h->arrived_us);
	return o;
}

static json_t *class_object(const Kamen__Class *c)
{
	json_t *o = json_object();

	put_text(o, "site", c->site);
	put_text(o, "class", c->name);
	put_int(o, "images", 1, c->images);
	put_int(o, "created_us", c->has_created_us, c->created_us);
	put_int(o, "judged", c->has_judged, c->judged);
	put_int(o, "right", c->has_right, c->right);
	put_number(o, "confidence", c->has_confidence, (double)c->confidence);
	return o;
}

static json_t *text_object(const Kamen__Text *t)
{
	json_t *o = json_object();

	put_text(o, "text", t->text);
	return o;
}

static json_t *audit_object(const Kamen__AuditRow *a)
{
	json_t *o = json_object();

	put_int(o, "seq", 1, a->seq);
	put_int(o, "time_us", 1, a->time_us);
	put_text(o, "site", a->site);
	put_text(o, "what", a->what);
	put_text(o, "detail", a->detail);
	put_bytes(o, "prev", &a->prev, 1);
	put_bytes(o, "hash", &a->hash, 1);
	return o;
}

json_t *output_object(const Kamen__Reply *reply)
{
	switch (reply->row_case) {
	case KAMEN__REPLY__ROW_STATUS:
		return status_object(reply->status);
	case KAMEN__REPLY__ROW_SITE:
		return site_object(reply->site);
	case KAMEN__REPLY__ROW_MASK:
		return mask_object(reply->mask);
	case KAMEN__REPLY__ROW_PROGRESS:
		return progress_object(reply->progress);
	case KAMEN__REPLY__ROW_LEARNT:
		return learnt_object(reply->learnt);
	case KAMEN__REPLY__ROW_AUDIT:
		return audit_object(reply->audit);
	case KAMEN__REPLY__ROW_REPRODUCED:
		return reproduced_object(reply->reproduced);
	case KAMEN__REPLY__ROW_LABEL_CLASS:
		return label_class_object(reply->label_class);
	case KAMEN__REPLY__ROW_HARD_IMAGE:
		return hard_image_object(reply->hard_image);
	case KAMEN__REPLY__ROW_CLASS_:
		return class_object(reply->class_);
	case KAMEN__REPLY__ROW_TEXT:
		return text_object(reply->text);
	default:
		return NULL;
	}
}
