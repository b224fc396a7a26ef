/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "classify/figures.h"
#include "cleanup.h"
#include "control.h"
#include "ctl.h"
#include "flow.h"
#include "output.h"

struct eval_options {
	const char *mask, *part, *px, *seed, *against, *episodes, *feature, *opta, *ratio;
};

/* What is asked of the site. */
struct question {
	const char *site;
	uint32_t px, px_said; /* to ask for; to print */
	bool pooled;
	struct figures_options figures;
};

/* The embeddings of every image through one mask. */
struct pass {
	const struct ctl *ctl;
	const struct images *images;
	float *embeddings; /* (n, width), allocated at the first answer */
	uint8_t *answered; /* (n) */
	uint32_t width;
	size_t n_answered, n_failed;
	uint64_t compute_ns, last_ns;
	char why[256]; /* of the first that failed */
};

static void pass_done(struct pass *pass)
{
	free(pass->embeddings);
	free(pass->answered);
}

static void pass_fail(struct pass *pass, size_t i, const char *why)
{
	if (pass->n_failed++ == 0)
		(void)snprintf(pass->why, sizeof(pass->why), "%s: %s", pass->images->paths[i], why);
}

static void on_result(void *data, size_t i, const struct kamen_result *result)
{
	struct pass *pass = data;

	if (result->code < 0 || !result->embedding) {
		pass_fail(pass, i,
			*result->reason    ? result->reason
			: result->code < 0 ? strerror(-result->code)
					   : "no embedding");
		return;
	}
	if (!pass->embeddings) {
		pass->width = result->n_embedding;
		pass->embeddings = calloc(pass->images->n, pass->width * sizeof(float));
	}
	if (!pass->embeddings || result->n_embedding != pass->width) {
		pass_fail(pass, i, "embedding of another width");
		return;
	}
	memcpy(pass->embeddings + i * pass->width, result->embedding, pass->width * sizeof(float));
	pass->answered[i] = 1;
	pass->n_answered++;
	/* The images of one batch all carry the batch's time, to the nanosecond: it counts once. */
	if (result->compute_ns != pass->last_ns)
		pass->compute_ns += result->compute_ns;
	pass->last_ns = result->compute_ns;
}

static int pass_run(struct pass *pass, const struct question *question, const char *mask)
{
	struct flow flow = { .done = on_result, .data = pass };
	int status;

	flow.request = (struct kamen_request){ .verb = KAMEN_INFER,
		.format = KAMEN_ENCODED,
		.site = question->site,
		.px = question->px,
		.flags = question->pooled ? KAMEN_WANT_FEATURE : KAMEN_WANT_EMBEDDING };
	if (!flow_mask_parse(mask, &flow.request))
		return ctl_fail(pass->ctl, EXIT_USAGE, "%s: base, champion or a version", mask);
	pass->answered = calloc(pass->images->n, 1);
	if (!pass->answered)
		return ctl_fail(pass->ctl, EXIT_FAILED, "out of memory");
	status = flow_run(pass->ctl, pass->images, &flow);
	if (status == EXIT_DONE && pass->n_answered == 0)
		return ctl_fail(pass->ctl, EXIT_FAILED, "%s", pass->why);
	if (status == EXIT_DONE && pass->n_failed)
		(void)ctl_fail(pass->ctl, EXIT_FAILED, "left out %zu, the first: %s",
			pass->n_failed, pass->why);
	return status;
}

/* Which images count, and their labels, dense: a class whose images all failed is no class. */
struct chosen {
	size_t *index;    /* (n) */
	uint32_t *labels; /* (n) */
	uint32_t n, n_classes;
};

static void chosen_done(struct chosen *chosen)
{
	free(chosen->index);
	free(chosen->labels);
}

static int choose(struct chosen *chosen, const struct images *images, const struct pass *a,
	const struct pass *b)
{
	_cleanup_(freep) uint32_t *dense = calloc(images->n_classes, sizeof(*dense));

	chosen->index = calloc(images->n, sizeof(*chosen->index));
	chosen->labels = calloc(images->n, sizeof(*chosen->labels));
	if (!dense || !chosen->index || !chosen->labels)
		return -ENOMEM;
	for (size_t i = 0; i < images->n; i++) {
		uint32_t *label = &dense[images->labels[i]];

		if (!a->answered[i] || (b && !b->answered[i]))
			continue;
		if (*label == 0)
			*label = ++chosen->n_classes;
		chosen->index[chosen->n] = i;
		chosen->labels[chosen->n++] = *label - 1;
	}
	return 0;
}

static int figures_of(const struct pass *pass, const struct chosen *chosen,
	const struct figures_options *options, struct figures *figures,
	struct figures_detail *detail)
{
	_cleanup_(freep) float *rows =
		malloc(((size_t)chosen->n * pass->width + 1) * sizeof(float));

	if (!rows)
		return -ENOMEM;
	for (uint32_t i = 0; i < chosen->n; i++)
		memcpy(rows + (size_t)i * pass->width,
			pass->embeddings + chosen->index[i] * pass->width,
			pass->width * sizeof(float));
	return figures_measure(figures, detail, rows, chosen->labels, chosen->n, pass->width,
		chosen->n_classes, options);
}

static void put_number(json_t *o, const char *name, unsigned shots, const char *rest, double value)
{
	char key[64];

	(void)snprintf(key, sizeof(key), "%s%u%s", name, shots, rest);
	(void)json_object_set_new(o, key, output_number(value));
}

static void put_gain(json_t *o, const char *name, unsigned shots, const struct figures_diff *gain)
{
	put_number(o, name, shots, "_diff", gain->diff);
	put_number(o, name, shots, "_diff_lo", gain->lo);
	put_number(o, name, shots, "_diff_hi", gain->hi);
}

static void put_batch(json_t *o, unsigned shots, const struct figures_batch *batch)
{
	put_number(o, "opta", shots, "", batch->opta);
	put_number(o, "opta", shots, "_ci", batch->opta_ci);
	put_gain(o, "opta", shots, &batch->opta_gain);
	put_number(o, "guarded", shots, "", batch->guarded);
	put_number(o, "guarded", shots, "_ci", batch->guarded_ci);
	put_gain(o, "guarded", shots, &batch->guarded_gain);
	put_number(o, "balanced", shots, "", batch->balanced);
}

static void put_figures(
	json_t *o, const char *mask, const struct pass *pass, const struct figures *f, bool opta)
{
	(void)json_object_set_new(o, "mask", json_string(mask));
	(void)json_object_set_new(o, "n", json_integer(f->n));
	(void)json_object_set_new(o, "classes", json_integer(f->n_classes));
	(void)json_object_set_new(o, "ms_per_image",
		json_real((double)pass->compute_ns * 1e-6 / (double)pass->n_answered));
	(void)json_object_set_new(o, "knn", output_number(f->knn));
	(void)json_object_set_new(o, "shot1", output_number(f->shot1));
	(void)json_object_set_new(o, "shot1_ci", output_number(f->shot1_ci));
	(void)json_object_set_new(o, "shot5", output_number(f->shot5));
	(void)json_object_set_new(o, "shot5_ci", output_number(f->shot5_ci));
	if (!opta)
		return;
	put_batch(o, 1, &f->batch1);
	put_batch(o, 5, &f->batch5);
}

static json_t *row_new(const struct question *question)
{
	json_t *row = json_object();

	(void)json_object_set_new(row, "site", json_string(question->site));
	(void)json_object_set_new(row, "px", json_integer(question->px_said));
	(void)json_object_set_new(
		row, "feature", json_string(question->pooled ? "pooled" : "class"));
	(void)json_object_set_new(row, "episodes", json_integer(question->figures.n_episodes));
	(void)json_object_set_new(row, "ratio", json_integer(question->figures.ratio));
	return row;
}

/* What the site, or the model, takes where no number was given. */
static int px_ask(struct ctl *ctl, const char *site, bool native, uint32_t *ret_px)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName name = KAMEN__SITE_NAME__INIT;
	Kamen__Empty empty = KAMEN__EMPTY__INIT;
	const Kamen__Reply *reply;
	int status = control_open(ctl, &control);

	if (status != EXIT_DONE)
		return status;
	name.site = (char *)(uintptr_t)site;
	request.verb_case = native ? KAMEN__REQUEST__VERB_STATUS : KAMEN__REQUEST__VERB_SITE_SHOW;
	if (native)
		request.status = &empty;
	else
		request.site_show = &name;
	status = control_ask(control, &request, -1,
		native ? KAMEN__REPLY__ROW_STATUS : KAMEN__REPLY__ROW_SITE, &reply);
	if (status == EXIT_DONE)
		*ret_px = native ? reply->status->native_px : reply->site->input_px;
	return status;
}

/* ret_px: what to ask for; ret_said: what to print. */
static int px_parse(
	struct ctl *ctl, const char *site, const char *text, uint32_t *ret_px, uint32_t *ret_said)
{
	unsigned long long number;

	*ret_px = text ? KAMEN_PX_NATIVE : KAMEN_PX_SITE;
	if (!text || strcmp(text, "native") == 0)
		return px_ask(ctl, site, text != NULL, ret_said);
	if (!number_parse(text, 4096, &number) || number == 0)
		return ctl_fail(ctl, EXIT_USAGE, "--px %s: native or pixels", text);
	*ret_px = *ret_said = (uint32_t)number;
	return EXIT_DONE;
}

static int one_mask(const struct ctl *ctl, const struct images *images,
	const struct question *question, const char *mask)
{
	_cleanup_(pass_done) struct pass pass = { .ctl = ctl, .images = images };
	_cleanup_(chosen_done) struct chosen chosen = { 0 };
	struct figures figures;
	json_t *row;
	int r = pass_run(&pass, question, mask);

	if (r != EXIT_DONE)
		return r;
	r = choose(&chosen, images, &pass, NULL);
	if (r >= 0)
		r = figures_of(&pass, &chosen, &question->figures, &figures, NULL);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s",
			r == -EINVAL ? "wants two classes or more, of two images or more each"
				     : strerror(-r));
	row = row_new(question);
	put_figures(row, mask, &pass, &figures, question->figures.opta);
	(void)json_object_set_new(row, "left_out", json_integer((json_int_t)pass.n_failed));
	return output_row(ctl, row, true);
}

static json_t *per_figure(double knn, double shot1, double shot5)
{
	return json_pack("{s:f, s:f, s:f}", "knn", knn, "shot1", shot1, "shot5", shot5);
}

static void put_diffs(json_t *row, const struct figures_diff d[3])
{
	(void)json_object_set_new(row, "diff", per_figure(d[0].diff, d[1].diff, d[2].diff));
	(void)json_object_set_new(row, "diff_lo", per_figure(d[0].lo, d[1].lo, d[2].lo));
	(void)json_object_set_new(row, "diff_hi", per_figure(d[0].hi, d[1].hi, d[2].hi));
	(void)json_object_set_new(row, "effect",
		json_string(d[0].hi < -.005 ? "harmful"
			    : d[0].lo > 0   ? "helpful"
					    : "neutral"));
}

struct pair {
	struct pass pass[2];
	struct chosen chosen;
	struct figures figures[2];
	struct figures_detail detail[2];
};

static void pair_done(struct pair *pair)
{
	for (unsigned i = 0; i < 2; i++) {
		pass_done(&pair->pass[i]);
		figures_detail_done(&pair->detail[i]);
	}
	chosen_done(&pair->chosen);
}

static int two_masks(const struct ctl *ctl, const struct images *images,
	const struct question *question, const char *against)
{
	_cleanup_(freep) char *names = strdup(against);
	_cleanup_(pair_done) struct pair pair = { 0 };
	struct figures_diff diffs[3];
	const char *masks[2] = { names, NULL };
	char *comma = names ? strchr(names, ',') : NULL;
	json_t *row, *of;
	int r = 0;

	if (!comma)
		return ctl_fail(ctl, EXIT_USAGE, "--against %s: two masks, A,B", against);
	*comma = 0;
	masks[1] = comma + 1;
	for (unsigned i = 0; i < 2; i++) {
		pair.pass[i] = (struct pass){ .ctl = ctl, .images = images };
		r = pass_run(&pair.pass[i], question, masks[i]);
		if (r != EXIT_DONE)
			return r;
	}
	r = choose(&pair.chosen, images, &pair.pass[0], &pair.pass[1]);
	for (unsigned i = 0; i < 2 && r >= 0; i++)
		r = figures_of(&pair.pass[i], &pair.chosen, &question->figures, &pair.figures[i],
			&pair.detail[i]);
	if (r >= 0)
		r = figures_compare(&diffs[0], &diffs[1], &diffs[2], &pair.detail[0],
			&pair.detail[1], pair.chosen.n, question->figures.seed);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s",
			r == -EINVAL ? "wants two classes or more, of two images or more each"
				     : strerror(-r));
	row = row_new(question);
	put_figures(row, masks[1], &pair.pass[1], &pair.figures[1], question->figures.opta);
	put_diffs(row, diffs);
	for (unsigned i = 0; i < 2; i++) {
		of = json_object();
		put_figures(of, masks[i], &pair.pass[i], &pair.figures[i], question->figures.opta);
		(void)json_object_set_new(row, i ? "b" : "a", of);
	}
	return output_row(ctl, row, true);
}

static int images_collect(
	const struct ctl *ctl, const char *dir, const char *part_name, struct images *images)
{
	enum images_part part = PART_ALL;
	int r;

	if (part_name && !images_part_parse(part_name, &part))
		return ctl_fail(ctl, EXIT_USAGE, "--part %s: all, learn or held", part_name);
	r = images_add(images, dir, part);
	if (r >= 0) {
		images_sort(images);
		r = images_label(images, dir);
	}
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", dir,
			r == -EINVAL ? "files outside of a class's folder" : strerror(-r));
	return images->n ? EXIT_DONE : ctl_fail(ctl, EXIT_FAILED, "%s: no files", dir);
}

/* N:1 */
static bool ratio_parse(const char *text, uint32_t *ret_ratio)
{
	_cleanup_(freep) char *number = strdup(text);
	char *colon = number ? strchr(number, ':') : NULL;
	unsigned long long ratio;

	if (!colon || strcmp(colon, ":1") != 0)
		return false;
	*colon = 0;
	if (!number_parse(number, 1000, &ratio) || ratio == 0)
		return false;
	*ret_ratio = (uint32_t)ratio;
	return true;
}

static int question_fill(
	const struct ctl *ctl, const struct eval_options *o, struct question *question)
{
	unsigned long long seed = 1, episodes = 200;

	if (wire_site_name_check(question->site) < 0)
		return ctl_fail(ctl, EXIT_USAGE, "%s: not a site's name", question->site);
	if (o->seed && !number_parse(o->seed, UINT64_MAX, &seed))
		return ctl_fail(ctl, EXIT_USAGE, "--seed %s: not a number", o->seed);
	if (o->episodes && (!number_parse(o->episodes, 1000000, &episodes) || episodes < 2))
		return ctl_fail(ctl, EXIT_USAGE, "--episodes %s: 2 to 1000000", o->episodes);
	if (o->feature && strcmp(o->feature, "class") != 0 && strcmp(o->feature, "pooled") != 0)
		return ctl_fail(ctl, EXIT_USAGE, "--feature %s: class or pooled", o->feature);
	question->pooled = o->feature && strcmp(o->feature, "pooled") == 0;
	question->figures = (struct figures_options){
		.seed = seed,
		.n_episodes = (uint32_t)episodes,
		.ratio = 1,
		.opta = o->opta != NULL,
	};
	if (o->ratio && !ratio_parse(o->ratio, &question->figures.ratio))
		return ctl_fail(ctl, EXIT_USAGE, "--ratio %s: N:1, N up to 1000", o->ratio);
	return EXIT_DONE;
}

int eval_run(struct ctl *ctl, int argc, char **argv)
{
	struct eval_options o = { 0 };
	const struct option_spec specs[] = {
		{ "mask", "MASK", "base, champion (default) or a version", &o.mask, NULL },
		{ "against", "A,B", "two masks, paired: b minus a with intervals", &o.against,
			NULL },
		{ "part", "PART", "all (default), learn or held", &o.part, NULL },
		{ "px", "PX", "pixels, or native; else the site's", &o.px, NULL },
		{ "seed", "N", "of episodes and bootstrap, 1", &o.seed, NULL },
		{ "episodes", "N", "of shot1 and shot5, 200", &o.episodes, NULL },
		{ "feature", "NAME", "class (default), or pooled: what classes compare", &o.feature,
			NULL },
		{ "opta", NULL, "answer the queries of an episode at once, too", &o.opta, NULL },
		{ "ratio", "N:1", "queries of one class for one of each other", &o.ratio, NULL },
	};
	_cleanup_(images_done) struct images images = { 0 };
	struct question question = { 0 };
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 2, 2, &first, &status))
		return status;
	question.site = argv[first];
	status = question_fill(ctl, &o, &question);
	if (status == EXIT_DONE)
		status = images_collect(ctl, argv[first + 1], o.part, &images);
	if (status == EXIT_DONE)
		status = px_parse(ctl, question.site, o.px, &question.px, &question.px_said);
	if (status != EXIT_DONE)
		return status;
	if (o.against)
		return two_masks(ctl, &images, &question, o.against);
	return one_mask(ctl, &images, &question, o.mask ? o.mask : "champion");
}
