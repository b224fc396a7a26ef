/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_CONFIG_H
#define KAMEN_OPS_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

/*
 * kamend.conf(5): INI through libinih, one table of settings with ranges and defaults. Read:
 * --config FILE, then FILE.d/ *.conf in order of name, then sites.d/ *.conf beside it (one file a
 * site). An unknown section or key, a value out of range, a broken line: -EINVAL, and diag says
 * FILE:LINE.
 */

#define SITE_PRIORITY 4u /* of a site that nobody favours */

/** Settings of one site. Also what `site create --set KEY=VALUE` takes. */
struct site_settings {
	uint32_t input_px;         /* 0: the model's own */
	char resize[8];            /* "", "crop" or "squash"; "" : the model's own */
	float crop;                /* 0: the model's own */
	float mean[3], std[3];     /* std 0: the model's own */
	char spool[256];           /* folder watched; "": STATE/spool/SITE */
	bool spool_on;             /* default true */
	char zmq_pull[256];        /* endpoint to bind; "": none */
	uint32_t settle_ms;        /* spool files must be this old; default 0 */
	uint64_t replay_bytes;     /* bound of the replay store, default 1 GiB */
	double novelty_threshold;  /* NG at or above this novelty, default .99 */
	uint32_t priority;         /* share of inference while others wait, default SITE_PRIORITY */
	char policy[8];            /* auto: a candidate that passes is promoted; shadow; manual */
	uint32_t watch_answers;    /* a new champion is on trial for so many; 0: it is not */
	double shadow_share;       /* of the requests that a shadow sees too */
	uint32_t learn_steps;      /* 0: the recipe's default */
	char recipe[200];          /* changes of the default recipe, "": none */
	uint32_t experts;          /* of a cascade beside its dispatcher; 0: one mask */
	char cascade_mode[16];     /* conditional, unconditional */
	uint32_t learn_min_images; /* refuse to learn from fewer, default 32 */
	uint32_t learn_after;      /* a round after so many new images; 0: not for that */
	uint32_t learn_every;   /* a round after so many seconds with new images; 0: not for that */
	char learn_at[8];       /* a round a day at HH:MM local time; "": not for that */
	bool learn_on_drift;    /* a round when the drift alarm rises; default false */
	uint32_t keep_versions; /* so many of the last versions stay, default 10 */
	char replay[8];         /* uniform, hard: what is kept of the older images */
	double replay_thin;     /* near-duplicate above this cosine, default .999; 0: never */
};

/** Room for the keys of a site: they are counted in the bits of a uint32_t. */
#define CONFIG_MAX_SITE_KEYS 32

/** Where a site's key was set, for "set by FILE:LINE"; NULL: not in a file. */
struct site_file {
	char site[64];
	struct site_settings settings;
	char path[256];
	uint32_t lines[CONFIG_MAX_SITE_KEYS]; /* by index in config_site_keys[], 0: not set here */
};

struct config {
	/* The file that config_load() read, "": none. Read again at SIGHUP, handed to the roles. */
	char path[256];
	char model_path[256], model_family[16];
	char state_dir[256], runtime_dir[256];
	uint32_t threads;         /* of inference; 0: all cores */
	uint32_t n_workers;       /* that share them, default 1 */
	char serve_cpus[128];     /* that inference may use, "": all */
	uint32_t max_batch;       /* 1-64, default 8 */
	uint32_t batch_delay_us;  /* how long a batch may wait to fill, default 0 */
	uint32_t spin_us;         /* how long the loop looks before it sleeps, default 0 */
	uint32_t n_slots;         /* weight slots, default 4 */
	uint64_t slot_memory;     /* of them, default 0: no bound but their number */
	uint32_t max_clients;     /* default 64 */
	uint64_t max_frame_bytes; /* default 16 MiB */
	/* Of one user, over all its sessions; 0: no limit. */
	uint32_t uid_clients;      /* default 48 */
	uint64_t uid_bytes;        /* of shared memory, default 3 GiB */
	uint32_t uid_depth;        /* requests in flight, default 768 */
	uint32_t uid_rate;         /* requests a second, default 0 */
	uint32_t uid_burst;        /* at once after a pause; 0: as many as uid_rate */
	char serve_precision[8];   /* auto, f32, bf16 */
	char ingest_backend[8];    /* auto, uring, threads */
	uint64_t ingest_max_bytes; /* of one image file, default 32 MiB */
	uint32_t decode_timeout_ms;
	char zmq_router[256], zmq_publish[256]; /* endpoints; "": none */
	uint32_t zmq_slots;                     /* requests that serve has at once, default 16 */
	char zmq_server_key[256];               /* secret key file; "": no CURVE */
	char zmq_peers[256];                    /* who may speak for what; "": nobody by key */
	uint64_t zmq_memory_bytes;              /* of ingest, default 2 GiB */
	bool zmq_plain_tcp;                     /* tcp on this machine without CURVE */
	bool learner_on;
	char learner_cpu[8];      /* "idle" or a percentage 1-100 */
	uint32_t learner_threads; /* 0: all cores */
	char learner_cpus[128];   /* that it may use, "": all */
	uint64_t learner_memory;  /* of the activations of a step, default 4 GiB */
	bool mask_require_signature;
	char mask_trusted_keys[256]; /* list of public keys; "": none */
	struct site_settings site_defaults;
	/* Where [site] input_px was set: only with the model it is known to be right. "": nowhere. */
	char input_px_from[300];
	/* Likewise of the endpoints above and of [site] zmq_pull: only with all files are they. */
	char endpoint_from[3][300];
	struct site_file *sites; /* of sites.d */
	uint32_t n_sites;
};

/** Names of the keys of struct site_settings, NULL-terminated. */
extern const char *const config_site_keys[];

/** The tables behind it (setting.h): every key with its section and range. */
struct setting;
const struct setting *config_settings(size_t *ret_n);
const struct setting *config_site_settings(size_t *ret_n);

/** Built-in defaults. */
void config_default(struct config *ret_config);
/**
 * Begins at the built-in defaults and writes *config on success only; what it held is not freed.
 *
 * @param path  NULL: /etc/kamen/kamend.conf if it is there
 * @return 0, or -ENOENT/-EINVAL/... with FILE:LINE in diag
 */
int config_load(struct config *config, const char *path, struct diag *diag);
/** Frees what config_load() made; the struct stays the caller's. */
void config_done(struct config *config);

/**
 * Everything but sites and the paths of [model] and [daemon] as the text of a file, for the roles:
 * they get these as arguments and from serve. *ret_text malloc'ed.
 */
int config_text(const struct config *config, char **ret_text, size_t *ret_n_bytes);
/**
 * Where a key of [section] differs between the two, as "[section] key, ..."; paths are not compared.
 * @return how many
 */
unsigned config_changes(const struct config *a, const struct config *b,
	bool (*cares)(const char *section, const char *key), char *ret_text, size_t n_bytes);

/** Sets one key of a site by name; -EINVAL with key, value and range in diag. */
int site_settings_set(
	struct site_settings *settings, const char *key, const char *value, struct diag *diag);
/** The value of a key as text, as it would be written in a file; -EINVAL: no such key. */
int site_settings_get(
	const struct site_settings *settings, const char *key, char *ret_value, size_t n_bytes);
/** The site's preprocessing: what is not set comes from the model. */
struct prep site_settings_prep(const struct site_settings *settings, const struct prep *native);

#endif
