/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "ops/config.h"
#include "ops/setting.h"

struct folder {
	char dir[64], conf[96];
};

static void write_file(const struct folder *f, const char *name, const char *text)
{
	char path[192];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	file = fopen(path, "we");
	assert_non_null(file);
	assert_int_equal(fputs(text, file) < 0, 0);
	assert_int_equal(fclose(file), 0);
}

static void make_folder(const struct folder *f, const char *name)
{
	char path[192];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

static int make(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/kamen-config-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	(void)snprintf(f->conf, sizeof(f->conf), "%s/kamend.conf", f->dir);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int clean(void **state)
{
	struct folder *f = *state;
	int r = nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);

	free(f);
	return r;
}

/* Loads kamend.conf with this text, expects -EINVAL and this in the message. */
static void assert_refused(const struct folder *f, const char *text, const char *message)
{
	struct config config;
	struct diag diag = { 0 };

	write_file(f, "kamend.conf", text);
	assert_int_equal(config_load(&config, f->conf, &diag), -EINVAL);
	if (!strstr(diag.text, message))
		fail_msg("'%s' does not say '%s'", diag.text, message);
}

static void without_a_file_there_are_defaults(void **state)
{
	struct config config;

	(void)state;
	config_default(&config);
	assert_string_equal(config.state_dir, "/var/lib/kamen");
	assert_string_equal(config.runtime_dir, "/run/kamen");
	assert_int_equal(config.max_batch, 8);
	assert_true(config.learner_on);
	assert_string_equal(config.learner_cpu, "idle");
	assert_int_equal(config.site_defaults.replay_bytes, 1u << 30);
	assert_int_equal(config.site_defaults.learn_min_images, 32);
}

static void a_file_sets_every_kind_of_value(void **state)
{
	const struct folder *f = *state;
	struct config config;
	struct diag diag;

	write_file(f, "kamend.conf",
		"# comment\n[model]\npath = /m.safetensors ; "
		"why\n\tfamily=vit\n[serve]\nmax_batch: 64\n"
		"max_frame_bytes=2M\n[learner]\nenabled=off\ncpu=100\n[site]\ninput_px=112\nmean=."
		"5,.25, 1\n"
		"novelty_threshold=.5\n[ingest]\nbackend=threads");
	assert_int_equal(config_load(&config, f->conf, &diag), 0);
	assert_string_equal(config.path, f->conf);
	assert_string_equal(config.model_path, "/m.safetensors");
	assert_string_equal(config.model_family, "vit");
	assert_int_equal(config.max_batch, 64);
	assert_int_equal(config.max_frame_bytes, 2 << 20);
	assert_false(config.learner_on);
	assert_string_equal(config.learner_cpu, "100");
	assert_string_equal(config.ingest_backend, "threads");
	assert_int_equal(config.site_defaults.input_px, 112);
	assert_true(config.site_defaults.mean[0] == .5f && config.site_defaults.mean[1] == .25f &&
		    config.site_defaults.mean[2] == 1);
	assert_true(config.site_defaults.novelty_threshold == .5);
	config_done(&config);
}

static void drop_ins_win_in_order_of_name(void **state)
{
	const struct folder *f = *state;
	struct config config;
	struct diag diag;

	write_file(f, "kamend.conf", "[serve]\nthreads=1\nmax_batch=1\n");
	make_folder(f, "kamend.conf.d");
	write_file(f, "kamend.conf.d/20-b.conf", "[serve]\nmax_batch=20\n");
	write_file(f, "kamend.conf.d/10-a.conf", "[serve]\nmax_batch=10\nslots=10\n");
	write_file(f, "kamend.conf.d/.30.conf", "not read\n");
	write_file(f, "kamend.conf.d/30.conf~", "not read\n");
	assert_int_equal(config_load(&config, f->conf, &diag), 0);
	assert_int_equal(config.threads, 1);
	assert_int_equal(config.max_batch, 20);
	assert_int_equal(config.n_slots, 10);
	config_done(&config);
	write_file(f, "kamend.conf.d/10-a.conf", "[serve]\n\nslots=none\n");
	assert_int_equal(config_load(&config, f->conf, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "kamend.conf.d/10-a.conf:3: slots: 'none'"));
}

static void a_site_file_says_where_each_key_was_set(void **state)
{
	const struct folder *f = *state;
	struct config config;
	struct diag diag;

	write_file(f, "kamend.conf", "[site]\npolicy=manual\n");
	make_folder(f, "sites.d");
	write_file(f, "sites.d/b-1.conf", "[site]\n");
	write_file(f, "sites.d/a.conf", "[site]\n\ninput_px=96\nlearn_min_images=64\n");
	assert_int_equal(config_load(&config, f->conf, &diag), 0);
	assert_int_equal(config.n_sites, 2);
	assert_string_equal(config.sites[0].site, "a");
	assert_string_equal(config.sites[1].site, "b-1");
	assert_int_equal(config.sites[0].settings.input_px, 96);
	assert_string_equal(config.sites[0].settings.policy, "manual");
	assert_non_null(strstr(config.sites[0].path, "/sites.d/a.conf"));
	for (unsigned i = 0; config_site_keys[i]; i++) {
		uint32_t line = strcmp(config_site_keys[i], "input_px") == 0           ? 3
				: strcmp(config_site_keys[i], "learn_min_images") == 0 ? 4
										       : 0;
		assert_int_equal(config.sites[0].lines[i], line);
		assert_int_equal(config.sites[1].lines[i], 0);
	}
	config_done(&config);
}

static void a_site_file_has_sections_and_a_name_of_a_site_only(void **state)
{
	const struct folder *f = *state;
	struct config config;
	struct diag diag;

	write_file(f, "kamend.conf", "");
	make_folder(f, "sites.d");
	write_file(f, "sites.d/a.conf", "[serve]\nthreads=1\n");
	assert_int_equal(config_load(&config, f->conf, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "sites.d/a.conf:1: unknown section"));
	write_file(f, "sites.d/a.conf", "");
	write_file(f, "sites.d/Line 1.conf", "");
	assert_int_equal(config_load(&config, f->conf, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "Line 1.conf:1: not the name of a site"));
}

static void what_is_not_understood_is_named_with_file_and_line(void **state)
{
	const struct folder *f = *state;
	struct config config;
	struct diag diag;
	char line[1400];

	assert_refused(f, "[serve]\nthread=1\n", "/kamend.conf:2: [serve] has no key 'thread'");
	assert_refused(f, "[site]\ninputpx=1\n", "/kamend.conf:2: a site has no key 'inputpx'");
	assert_refused(f, "\n\n[nope]\n", "/kamend.conf:3: unknown section");
	assert_refused(f, "[serve]\n\nthreads\nmax_batch=8\n", "/kamend.conf:3: neither [section]");
	assert_refused(f, "[serve\nthreads=1\n", "/kamend.conf:1: unknown section");
	assert_refused(f, "threads=1\n", "/kamend.conf:1: a key before any [section]");
	assert_refused(f, "[serve]\nmax_batch=0\n", "max_batch: '0' is not allowed, only 1 to 64");
	assert_refused(f, "[site]\ninput_px=15\n", "only 0 or 16 to 1024");
	assert_refused(f, "[site]\nresize=fit\n", "only nothing or crop or squash");
	assert_refused(f, "[site]\nrecipe=colour=1\n", "recipe: 'colour=1' is not allowed");
	assert_refused(f, "[site]\nrecipe=keep=2\n", "only NAME=VALUE of RECIPE");
	assert_refused(f, "[learner]\nmemory=1M\n", "memory: '1M' is not allowed");
	/* The first error is the one reported. */
	assert_refused(f, "[serve]\nmax_batch=0\n[nope]\n", ":2: max_batch");
	(void)snprintf(line, sizeof(line), "[model]\npath=/%01200d\n", 0);
	assert_refused(f, line, "/kamend.conf:2: line too long");
	(void)snprintf(line, sizeof(line), "[model]\npath=/%0255d\n", 0);
	assert_refused(f, line, "/kamend.conf:2: path: ");
	(void)snprintf(line, sizeof(line), "[model]\npath=/%0254d\n", 0);
	write_file(f, "kamend.conf", line);
	assert_int_equal(config_load(&config, f->conf, &diag), 0);
	assert_int_equal(strlen(config.model_path), 255);
	config_done(&config);
}

static void a_missing_file_is_an_error_and_leaves_the_struct_alone(void **state)
{
	const struct folder *f = *state;
	struct config config, before;
	struct diag diag = { 0 };

	memset(&config, 0xab, sizeof(config));
	before = config;
	assert_int_equal(config_load(&config, f->conf, &diag), -ENOENT);
	assert_non_null(strstr(diag.text, f->conf));
	assert_memory_equal(&config, &before, sizeof(config));
	assert_int_equal(config_load(&config, f->dir, &diag), -EINVAL);
	assert_memory_equal(&config, &before, sizeof(config));
}

/* Values just inside and just outside of a row's range, by its kind. */
static void check_number_edges(const struct setting *s, void *base)
{
	bool is_whole =
		s->kind == SETTING_COUNT || s->kind == SETTING_SECONDS || s->kind == SETTING_BYTES;
	double step = is_whole ? 1 : 1e-3;
	const double inside[] = { s->min, s->max }, outside[] = { s->min - step, s->max + step };
	char text[96], back[96];
	struct diag diag;

	for (unsigned i = 0; i < 2; i++) {
		(void)snprintf(text, sizeof(text), "%.17g", inside[i]);
		if (setting_set(s, base, text, &diag) != 0)
			fail_msg("%s", diag.text);
		assert_int_equal(setting_get(s, base, back, sizeof(back)), 0);
		assert_int_equal(setting_set(s, base, back, &diag), 0);
		if (outside[i] == 0 && s->zero)
			continue;
		(void)snprintf(text, sizeof(text), "%.17g", outside[i]);
		if (setting_set(s, base, text, &diag) != -EINVAL)
			fail_msg("%s takes %s", s->key, text);
	}
	assert_int_equal(setting_set(s, base, "0", &diag), s->zero || s->min <= 0 ? 0 : -EINVAL);
	assert_int_equal(setting_set(s, base, "-1", &diag), -EINVAL);
	assert_int_equal(setting_set(s, base, "", &diag), -EINVAL);
	assert_int_equal(setting_set(s, base, "1x", &diag), -EINVAL);
	assert_int_equal(setting_set(s, base, " 1", &diag), -EINVAL);
	assert_int_equal(setting_set(s, base, "nan", &diag), -EINVAL);
}

static void check_text_edges(const struct setting *s, char *base)
{
	const char *prefix =
		s->kind == SETTING_ENDPOINT || s->kind == SETTING_ENDPOINTS ? "ipc:///" : "/";
	char text[600], back[600];
	struct diag diag;

	(void)snprintf(
		text, sizeof(text), "%s%0*d", prefix, (int)(s->size - 1 - strlen(prefix)), 0);
	assert_int_equal(strlen(text), s->size - 1);
	assert_int_equal(setting_set(s, base, text, &diag), 0);
	assert_int_equal(setting_get(s, base, back, sizeof(back)), 0);
	assert_string_equal(back, text);
	assert_int_equal(setting_get(s, base, back, s->size - 1), -ENOBUFS);
	memcpy(text + s->size - 1, "0", 2);
	assert_int_equal(setting_set(s, base, text, &diag), -EINVAL);
	assert_string_equal(base + s->offset, back);
	assert_int_equal(setting_set(s, base, "relative", &diag), -EINVAL);
	assert_int_equal(setting_set(s, base, "/a\nb", &diag), -EINVAL);
	assert_int_equal(setting_set(s, base, "", &diag), 0);
}

static void check_row(const struct setting *s, void *base)
{
	struct diag diag;

	switch (s->kind) {
	case SETTING_SECONDS:
		assert_int_equal(setting_set(s, base, "90m", &diag), 0);
		assert_int_equal(*(uint32_t *)((char *)base + s->offset), 5400);
		assert_int_equal(setting_set(s, base, "1h", &diag), 0);
		assert_int_equal(*(uint32_t *)((char *)base + s->offset), 3600);
		assert_int_equal(setting_set(s, base, "2d", &diag), 0);
		assert_int_equal(*(uint32_t *)((char *)base + s->offset), 172800);
		assert_int_equal(setting_set(s, base, "2dd", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "d", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "18446744073709551615d", &diag), -EINVAL);
		check_number_edges(s, base);
		break;
	case SETTING_CLOCK:
		assert_int_equal(setting_set(s, base, "00:00", &diag), 0);
		assert_int_equal(setting_set(s, base, "23:59", &diag), 0);
		assert_int_equal(setting_set(s, base, "", &diag), 0);
		assert_int_equal(setting_set(s, base, "24:00", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "7:30", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "07:60", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "07:30:00", &diag), -EINVAL);
		break;
	case SETTING_COUNT:
	case SETTING_BYTES:
	case SETTING_FLOAT:
	case SETTING_DOUBLE:
		check_number_edges(s, base);
		break;
	case SETTING_TEXT:
	case SETTING_PATH:
	case SETTING_ENDPOINT:
	case SETTING_ENDPOINTS:
		check_text_edges(s, base);
		break;
	case SETTING_CHOICE:
		assert_int_equal(setting_set(s, base, "none of these", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "|", &diag), -EINVAL);
		break;
	case SETTING_ON_OFF:
		assert_int_equal(setting_set(s, base, "on", &diag), 0);
		assert_int_equal(setting_set(s, base, "off", &diag), 0);
		assert_int_equal(setting_set(s, base, "1", &diag), -EINVAL);
		break;
	case SETTING_RECIPE:
		assert_int_equal(setting_set(s, base, "mask=topk keep=.8", &diag), 0);
		assert_int_equal(setting_set(s, base, "keep=2", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "mask", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "", &diag), 0);
		break;
	case SETTING_CPUS:
		assert_int_equal(setting_set(s, base, "0-3,8", &diag), 0);
		assert_int_equal(setting_set(s, base, "", &diag), 0);
		assert_int_equal(setting_set(s, base, "3-0", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "1 2", &diag), -EINVAL);
		break;
	case SETTING_CPU:
		assert_int_equal(setting_set(s, base, "idle", &diag), 0);
		assert_int_equal(setting_set(s, base, "1", &diag), 0);
		assert_int_equal(setting_set(s, base, "100", &diag), 0);
		assert_int_equal(setting_set(s, base, "0", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "101", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "10%", &diag), -EINVAL);
		break;
	case SETTING_FLOAT_3:
		assert_int_equal(setting_set(s, base, "0.5,0.5, 0.5", &diag), 0);
		assert_int_equal(setting_set(s, base, "0.5,0.5", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "0.5,0.5,0.5,0.5", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "0.5,0.5,11", &diag), -EINVAL);
		assert_int_equal(setting_set(s, base, "", &diag), 0);
		break;
	}
}

static void every_setting_keeps_its_range(void **state)
{
	const struct setting *rows;
	struct config config;
	size_t n;

	(void)state;
	config_default(&config);
	rows = config_settings(&n);
	for (size_t i = 0; i < n; i++)
		check_row(&rows[i], &config);
	rows = config_site_settings(&n);
	for (size_t i = 0; i < n; i++)
		check_row(&rows[i], &config.site_defaults);
}

static void every_default_is_in_its_range_and_reads_back(void **state)
{
	const struct setting *rows;
	struct config config;
	struct diag diag;
	char text[300];
	size_t n;

	(void)state;
	config_default(&config);
	rows = config_settings(&n);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(setting_get(&rows[i], &config, text, sizeof(text)), 0);
		if (setting_set(&rows[i], &config, text, &diag) < 0)
			fail_msg("%s", diag.text);
	}
	for (unsigned i = 0; config_site_keys[i]; i++) {
		assert_int_equal(site_settings_get(&config.site_defaults, config_site_keys[i], text,
					 sizeof(text)),
			0);
		if (site_settings_set(&config.site_defaults, config_site_keys[i], text, &diag) < 0)
			fail_msg("%s", diag.text);
	}
	assert_int_equal(
		site_settings_get(&config.site_defaults, "nope", text, sizeof(text)), -EINVAL);
	rows = config_site_settings(&n);
	for (size_t i = 0; i < n; i++)
		assert_string_equal(rows[i].key, config_site_keys[i]);
}

static void sizes_take_a_suffix_and_do_not_wrap(void **state)
{
	struct site_settings s = { 0 };
	struct diag diag;

	(void)state;
	assert_int_equal(site_settings_set(&s, "replay_bytes", "3G", &diag), 0);
	assert_true(s.replay_bytes == UINT64_C(3) << 30);
	assert_int_equal(site_settings_set(&s, "replay_bytes", "1024K", &diag), 0);
	assert_true(s.replay_bytes == 1 << 20);
	assert_int_equal(site_settings_set(&s, "replay_bytes", "17179869185G", &diag), -EINVAL);
	assert_int_equal(
		site_settings_set(&s, "replay_bytes", "18446744073709551616", &diag), -EINVAL);
	assert_int_equal(site_settings_set(&s, "replay_bytes", "1GB", &diag), -EINVAL);
	assert_true(s.replay_bytes == 1 << 20);
}

static void a_site_keeps_the_models_preprocessing_where_it_says_nothing(void **state)
{
	const struct prep native = { .input_px = 224,
		.resize = PREP_CROP,
		.crop = .9f,
		.mean = { .4f, .4f, .4f },
		.std = { .2f, .2f, .2f } };
	struct site_settings s = { 0 };
	struct prep prep = site_settings_prep(&s, &native);
	struct diag diag;

	(void)state;
	assert_memory_equal(&prep, &native, sizeof(prep));
	assert_int_equal(site_settings_set(&s, "input_px", "112", &diag), 0);
	assert_int_equal(site_settings_set(&s, "resize", "squash", &diag), 0);
	assert_int_equal(site_settings_set(&s, "mean", "0.5,0.5,0.5", &diag), 0);
	prep = site_settings_prep(&s, &native);
	assert_int_equal(prep.input_px, 112);
	assert_int_equal(prep.resize, PREP_SQUASH);
	assert_true(prep.crop == native.crop && prep.mean[2] == .5f && prep.std[2] == .2f);
	assert_int_equal(site_settings_set(&s, "mean", "", &diag), 0);
	assert_int_equal(site_settings_set(&s, "std", "1,1,1", &diag), 0);
	prep = site_settings_prep(&s, &native);
	assert_true(prep.mean[0] == 0 && prep.std[0] == 1);
}

static bool every(const char *section, const char *key)
{
	(void)section;
	(void)key;
	return true;
}

static void what_the_roles_are_handed_is_what_was_read(void **state)
{
	const struct folder *f = *state;
	struct config read, handed;
	_cleanup_(freep) char *text = NULL;
	struct diag diag = { "" };
	char changes[256];
	size_t n;

	write_file(f, "kamend.conf",
		"[ingest]\nbackend = threads\nmax_file_bytes = 5M\ndecode_timeout_ms = 77\n"
		"[learner]\ncpu = 35\nthreads = 3\n[model]\nfamily = vit\n");
	assert_int_equal(config_load(&read, f->conf, &diag), 0);
	assert_int_equal(config_text(&read, &text, &n), 0);
	assert_int_equal(strlen(text), n);
	write_file(f, "handed.conf", text);
	(void)snprintf(changes, sizeof(changes), "%s/handed.conf", f->dir);
	assert_int_equal(config_load(&handed, changes, &diag), 0);
	assert_int_equal(config_changes(&read, &handed, every, changes, sizeof(changes)), 0);
	assert_string_equal(handed.learner_cpu, "35");
	handed.decode_timeout_ms = 78;
	handed.learner_threads = 4;
	assert_int_equal(config_changes(&read, &handed, every, changes, sizeof(changes)), 2);
	assert_string_equal(changes, "[ingest] decode_timeout_ms, [learner] threads");
	config_done(&read);
	config_done(&handed);
}

static void every_default_survives_being_handed_over(void **state)
{
	const struct folder *f = *state;
	_cleanup_(freep) char *text = NULL;
	struct config usual, handed;
	struct diag diag = { "" };
	char changes[256];
	size_t n;

	config_default(&usual);
	assert_int_equal(config_text(&usual, &text, &n), 0);
	write_file(f, "kamend.conf", text);
	if (config_load(&handed, f->conf, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(config_changes(&usual, &handed, every, changes, sizeof(changes)), 0);
	config_done(&handed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_file_there_are_defaults),
		cmocka_unit_test_setup_teardown(a_file_sets_every_kind_of_value, make, clean),
		cmocka_unit_test_setup_teardown(drop_ins_win_in_order_of_name, make, clean),
		cmocka_unit_test_setup_teardown(
			a_site_file_says_where_each_key_was_set, make, clean),
		cmocka_unit_test_setup_teardown(
			a_site_file_has_sections_and_a_name_of_a_site_only, make, clean),
		cmocka_unit_test_setup_teardown(
			what_is_not_understood_is_named_with_file_and_line, make, clean),
		cmocka_unit_test_setup_teardown(
			a_missing_file_is_an_error_and_leaves_the_struct_alone, make, clean),
		cmocka_unit_test(every_setting_keeps_its_range),
		cmocka_unit_test_setup_teardown(
			what_the_roles_are_handed_is_what_was_read, make, clean),
		cmocka_unit_test_setup_teardown(
			every_default_survives_being_handed_over, make, clean),
		cmocka_unit_test(every_default_is_in_its_range_and_reads_back),
		cmocka_unit_test(sizes_take_a_suffix_and_do_not_wrap),
		cmocka_unit_test(a_site_keeps_the_models_preprocessing_where_it_says_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
