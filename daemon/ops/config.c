/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "ops/config.h"
#include "ops/config_file.h"
#include "ops/setting.h"

#define FIELD(type, name) .offset = offsetof(type, name), .size = sizeof(((type *)0)->name)
#define DAEMON(section_, key_, kind_, name, ...) \
	{ \
		.section = section_, .key = key_, .kind = SETTING_##kind_, \
		FIELD(struct config, name), __VA_ARGS__ \
	}
#define SITE(name, kind_, ...) \
	{ \
		.section = "site", .key = #name, .kind = SETTING_##kind_, \
		FIELD(struct site_settings, name), __VA_ARGS__ \
	}

static const struct setting daemon_settings[] = {
	DAEMON("model", "path", PATH, model_path),
	DAEMON("model", "family", CHOICE, model_family, .choices = "|vit"),
	DAEMON("daemon", "state", PATH, state_dir),
	DAEMON("daemon", "runtime", PATH, runtime_dir),
	DAEMON("serve", "threads", COUNT, threads, .max = 256),
	DAEMON("serve", "workers", COUNT, n_workers, .min = 1, .max = 64),
	DAEMON("serve", "cpus", CPUS, serve_cpus),
	DAEMON("serve", "max_batch", COUNT, max_batch, .min = 1, .max = 64),
	DAEMON("serve", "batch_delay_us", COUNT, batch_delay_us, .max = 1e6),
	DAEMON("serve", "spin_us", COUNT, spin_us, .max = 1e5),
	DAEMON("serve", "precision", CHOICE, serve_precision, .choices = "auto|f32|bf16|int8"),
	DAEMON("serve", "slots", COUNT, n_slots, .min = 1, .max = 1024),
	DAEMON("serve", "slot_memory", BYTES, slot_memory, .zero = true, .min = 65536,
		.max = 0x1p44),
	DAEMON("serve", "max_clients", COUNT, max_clients, .min = 1, .max = 1024),
	DAEMON("serve", "max_frame_bytes", BYTES, max_frame_bytes, .min = 65536, .max = 1 << 28),
	DAEMON("serve", "uid_clients", COUNT, uid_clients, .max = 1024),
	DAEMON("serve", "uid_bytes", BYTES, uid_bytes, .zero = true, .min = 1 << 20, .max = 0x1p44),
	DAEMON("serve", "uid_depth", COUNT, uid_depth, .max = 131072),
	DAEMON("serve", "uid_rate", COUNT, uid_rate, .max = 1e6),
	DAEMON("serve", "uid_burst", COUNT, uid_burst, .max = 1e6),
	DAEMON("ingest", "backend", CHOICE, ingest_backend, .choices = "auto|uring|threads"),
	DAEMON("ingest", "max_file_bytes", BYTES, ingest_max_bytes, .min = 4096, .max = 1 << 30),
	DAEMON("ingest", "decode_timeout_ms", COUNT, decode_timeout_ms, .min = 10, .max = 600000),
	DAEMON("zmq", "router", ENDPOINTS, zmq_router),
	DAEMON("zmq", "publish", ENDPOINTS, zmq_publish),
	DAEMON("zmq", "slots", COUNT, zmq_slots, .min = 1, .max = 64),
	DAEMON("zmq", "server_key", PATH, zmq_server_key),
	DAEMON("zmq", "peers", PATH, zmq_peers),
	DAEMON("zmq", "plain_tcp", ON_OFF, zmq_plain_tcp),
	DAEMON("zmq", "memory_bytes", BYTES, zmq_memory_bytes, .min = 64 << 20, .max = 0x1p40),
	DAEMON("learner", "enabled", ON_OFF, learner_on),
	DAEMON("learner", "cpu", CPU, learner_cpu, .min = 1, .max = 100),
	DAEMON("learner", "threads", COUNT, learner_threads, .max = 256),
	DAEMON("learner", "cpus", CPUS, learner_cpus),
	DAEMON("learner", "memory", BYTES, learner_memory, .min = 1 << 24, .max = 0x1p44),
	DAEMON("mask", "require_signature", ON_OFF, mask_require_signature),
	DAEMON("mask", "trusted_keys", PATH, mask_trusted_keys),
};

/* In the order of config_site_keys[]. */
static const struct setting site_settings[] = {
	SITE(input_px, COUNT, .zero = true, .min = 16, .max = 1024),
	SITE(resize, CHOICE, .choices = "|crop|squash"),
	SITE(crop, FLOAT, .zero = true, .min = .1, .max = 1),
	SITE(mean, FLOAT_3, .min = 0, .max = 1),
	SITE(std, FLOAT_3, .min = .001, .max = 10),
	SITE(spool, PATH),
	SITE(spool_on, ON_OFF),
	SITE(zmq_pull, ENDPOINT),
	SITE(settle_ms, COUNT, .max = 600000),
	SITE(replay_bytes, BYTES, .min = 1 << 20, .max = 1024.0 * (1 << 30)),
	SITE(novelty_threshold, DOUBLE, .max = 1),
	SITE(priority, COUNT, .min = 1, .max = 16),
	SITE(policy, CHOICE, .choices = "auto|shadow|manual"),
	SITE(watch_answers, COUNT, .max = 100000),
	SITE(shadow_share, DOUBLE, .max = 1),
	SITE(learn_steps, COUNT, .max = 100000),
	SITE(recipe, RECIPE),
	SITE(experts, COUNT, .zero = true, .min = 2, .max = CASCADE_MAX_EXPERTS),
	SITE(cascade_mode, CHOICE, .choices = "conditional|unconditional"),
	SITE(learn_min_images, COUNT, .min = 2, .max = 1000000),
	SITE(learn_after, COUNT, .max = 1000000),
	SITE(learn_every, SECONDS, .zero = true, .min = 60, .max = 366 * 86400),
	SITE(learn_at, CLOCK),
	SITE(learn_on_drift, ON_OFF),
	SITE(keep_versions, COUNT, .min = 1, .max = 1000),
	SITE(replay_thin, DOUBLE, .zero = true, .min = .9, .max = 1),
	SITE(replay, CHOICE, .choices = "uniform|hard"),
};

const char *const config_site_keys[] = {
	"input_px",
	"resize",
	"crop",
	"mean",
	"std",
	"spool",
	"spool_on",
	"zmq_pull",
	"settle_ms",
	"replay_bytes",
	"novelty_threshold",
	"priority",
	"policy",
	"watch_answers",
	"shadow_share",
	"learn_steps",
	"recipe",
	"experts",
	"cascade_mode",
	"learn_min_images",
	"learn_after",
	"learn_every",
	"learn_at",
	"learn_on_drift",
	"keep_versions",
	"replay_thin",
	"replay",
	NULL,
};

_Static_assert(ARRAY_SIZE(config_site_keys) == ARRAY_SIZE(site_settings) + 1, "one row a key");
_Static_assert(
	ARRAY_SIZE(site_settings) <= ARRAY_SIZE(((struct site_file *)0)->lines), "a line each");

const struct setting *config_settings(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(daemon_settings);
	return daemon_settings;
}

const struct setting *config_site_settings(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(site_settings);
	return site_settings;
}

void config_default(struct config *ret_config)
{
	*ret_config = (struct config){
		.state_dir = "/var/lib/kamen",
		.runtime_dir = "/run/kamen",
		.n_workers = 1,
		.max_batch = 8,
		.n_slots = 4,
		.max_clients = 64,
		.max_frame_bytes = 16u << 20,
		.uid_clients = 48,
		.uid_bytes = UINT64_C(3) << 30,
		.uid_depth = 768,
		.serve_precision = "auto",
		.ingest_backend = "auto",
		.ingest_max_bytes = 32u << 20,
		.decode_timeout_ms = 10000,
		.zmq_slots = 16,
		.zmq_memory_bytes = UINT64_C(2) << 30,
		.learner_on = true,
		.learner_cpu = "idle",
		.learner_memory = UINT64_C(4) << 30,
		.site_defaults = {
			.spool_on = true,
			.replay_bytes = 1u << 30,
			.novelty_threshold = .99,
			.priority = SITE_PRIORITY,
			.policy = "auto",
			.watch_answers = 500,
			.shadow_share = .1,
			.cascade_mode = "conditional",
			.learn_min_images = 32,
			.keep_versions = 10,
			.replay_thin = .999,
			.replay = "uniform",
		},
	};
}

void config_done(struct config *config)
{
	free(config->sites);
	config->sites = NULL;
	config->n_sites = 0;
}

/* A path that the command line may overrule; none of the roles' own. */
static bool is_argument(const struct setting *setting)
{
	return setting->kind == SETTING_PATH &&
	       (strcmp(setting->section, "model") == 0 || strcmp(setting->section, "daemon") == 0);
}

int config_text(const struct config *config, char **ret_text, size_t *ret_n_bytes)
{
	_cleanup_(freep) char *text = NULL;
	size_t size = ARRAY_SIZE(daemon_settings) * 600, n = 0;
	char value[512];

	text = malloc(size);
	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(daemon_settings); i++) {
		const struct setting *setting = &daemon_settings[i];
		int r;

		if (is_argument(setting))
			continue;
		r = setting_get(setting, config, value, sizeof(value));
		if (r < 0)
			return r;
		n += (size_t)snprintf(text + n, size - n, "[%s]\n%s = %s\n", setting->section,
			setting->key, value);
	}
	*ret_text = TAKE_PTR(text);
	*ret_n_bytes = n;
	return 0;
}

unsigned config_changes(const struct config *a, const struct config *b,
	bool (*cares)(const char *section, const char *key), char *ret_text, size_t n_bytes)
{
	unsigned n_changes = 0;
	char was[512], is[512];
	size_t n = 0;

	ret_text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(daemon_settings); i++) {
		const struct setting *setting = &daemon_settings[i];

		if (is_argument(setting) || !cares(setting->section, setting->key) ||
			setting_get(setting, a, was, sizeof(was)) < 0 ||
			setting_get(setting, b, is, sizeof(is)) < 0 || strcmp(was, is) == 0)
			continue;
		if (n < n_bytes)
			n += (size_t)snprintf(ret_text + n, n_bytes - n, "%s[%s] %s",
				n_changes > 0 ? ", " : "", setting->section, setting->key);
		n_changes++;
	}
	return n_changes;
}

static const struct setting *find(
	const struct setting *settings, size_t n, const char *section, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(settings[i].section, section) == 0 && strcmp(settings[i].key, key) == 0)
			return &settings[i];
	return NULL;
}

bool config_has_section(const char *section, bool of_site)
{
	if (strcmp(section, "site") == 0)
		return true;
	for (size_t i = 0; !of_site && i < ARRAY_SIZE(daemon_settings); i++)
		if (strcmp(daemon_settings[i].section, section) == 0)
			return true;
	return false;
}

int config_set(struct config *config, const char *section, const char *key, const char *value,
	struct diag *diag)
{
	const struct setting *setting;

	if (strcmp(section, "site") == 0)
		return site_settings_set(&config->site_defaults, key, value, diag);
	setting = find(daemon_settings, ARRAY_SIZE(daemon_settings), section, key);
	if (!setting)
		return diag_set(diag, EINVAL, "[%s] has no key '%s'", section, key);
	return setting_set(setting, config, value, diag);
}

int site_settings_set(
	struct site_settings *settings, const char *key, const char *value, struct diag *diag)
{
	const struct setting *setting = find(site_settings, ARRAY_SIZE(site_settings), "site", key);

	if (!setting)
		return diag_set(diag, EINVAL, "a site has no key '%.64s'", key);
	return setting_set(setting, settings, value, diag);
}

int site_settings_get(
	const struct site_settings *settings, const char *key, char *ret_value, size_t n_bytes)
{
	const struct setting *setting = find(site_settings, ARRAY_SIZE(site_settings), "site", key);

	if (!setting)
		return -EINVAL;
	return setting_get(setting, settings, ret_value, n_bytes);
}

static bool is_set(const float x[3])
{
	return x[0] != 0 || x[1] != 0 || x[2] != 0;
}

struct prep site_settings_prep(const struct site_settings *settings, const struct prep *native)
{
	struct prep prep = *native;

	if (settings->input_px)
		prep.input_px = settings->input_px;
	if (*settings->resize)
		prep.resize = strcmp(settings->resize, "crop") == 0 ? PREP_CROP : PREP_SQUASH;
	if (settings->crop > 0)
		prep.crop = settings->crop;
	/* A std without a mean means mean 0: pixels are only scaled. */
	if (is_set(settings->mean) || is_set(settings->std))
		memcpy(prep.mean, settings->mean, sizeof(prep.mean));
	if (is_set(settings->std))
		memcpy(prep.std, settings->std, sizeof(prep.std));
	return prep;
}
