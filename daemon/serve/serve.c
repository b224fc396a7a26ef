/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/serve.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>

#include "ops/log.h"
#include "role.h"
#include "serve/limits.h"
#include "serve/need.h"
#include "serve/session_resume.h"

/* How often a start that takes long asks systemd for more time, and how much. */
#define EXTEND_EVERY_USEC (2 * 1000 * 1000)
#define EXTEND_BY_USEC (30 * 1000 * 1000)

/* ---- what others ask */

const char *serve_version(void)
{
	return KAMEN_VERSION;
}

void serve_fill_welcome(Kamen__Welcome *welcome)
{
	welcome->major = WIRE_MAJOR;
	welcome->minor = WIRE_MINOR;
	welcome->has_features = welcome->has_clock_ns = true;
	welcome->version = (char *)serve_version();
	welcome->clock_ns = clock_now_ns();
}

struct serving_model serve_model(const struct serve *serve)
{
	const struct vit *vit = inference_vit(serve->inference);
	struct serving_model model = {
		.layout = vit_layout(vit),
		.base = vit_digest(vit),
		.width = vit_shape(vit)->width,
		.precision = inference_precision(serve->inference),
	};

	for (enum precision p = 0; p < N_PRECISIONS; p++)
		model.has[p] = inference_has(serve->inference, p);
	return model;
}

int serve_prep_check(const struct serve *serve, const struct prep *prep, struct diag *diag)
{
	const struct vit *vit = inference_vit(serve->inference);
	uint32_t native = vit_native_prep(vit).input_px;
	uint32_t limit = native > SERVE_MAX_PX ? native : SERVE_MAX_PX;

	if (prep->input_px > limit)
		return diag_set(diag, EINVAL, "input_px %u: at most %u", prep->input_px, limit);
	return prep_check(prep, vit_shape(vit)->patch, diag);
}

void serve_notify_status(struct serve *serve)
{
	char learner[96];

	rounds_describe(serve, learner, sizeof(learner));
	notes_say(&serve->notes, serve->event, "STATUS=%u sites, %u clients, learner %s",
		serve->sites.n, serve->sessions.n, learner);
}

/* Who keeps the heads of the journal elsewhere can tell later whether the chain was replaced. */
void serve_log_audit(struct serve *serve)
{
	char hex[DIGEST_HEX_CHARS + 1], fields[32 + DIGEST_HEX_CHARS];
	struct digest head;
	uint64_t n;
	int r;

	r = state_audit_head(serve->state, &n, &head);
	if (r < 0) {
		log_error("audit: the head cannot be read: %s", strerror(-r));
		return;
	}
	digest_to_hex(&head, hex);
	(void)snprintf(fields, sizeof(fields), "KAMEN_AUDIT_HEAD=%s", hex);
	log_write(LOG_NOTICE, fields, "audit: %llu rows, head %s", (unsigned long long)n, hex);
	feed_audit(serve);
}

/*
 * No ingest is started any more: what waits for one is answered by the next serve, where systemd has
 * stored its session, or by whom its client finds when it connects anew.
 */
static bool is_drained(const struct serve *serve)
{
	if (serve->n_pending == 0)
		return true;
	return serve->roles[ROLE_INGEST].sock < 0 && serve->n_pending == decoder_n_waiting(serve);
}

void serve_check_drained(struct serve *serve)
{
	restart_look(serve);
	if (!serve->draining || !is_drained(serve))
		return;
	if (serve->n_pending > 0)
		log_notice("stopping: %u requests wait for a decoder that has ended",
			serve->n_pending);
	/* What is admitted but not committed has nobody waiting; serve_close() commits it. */
	(void)sd_event_exit(serve->event, 0);
}

/* ---- signals */

static int on_drain_over(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct serve *serve = userdata;

	(void)source;
	(void)usec;
	log_warning("%u requests are left without an answer", serve->n_pending);
	return sd_event_exit(serve->event, 0);
}

static int on_terminate(
	sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct serve *serve = userdata;

	(void)source;
	(void)info;
	notes_say(&serve->notes, serve->event, "STOPPING=1");
	if (!serve->serving || serve->draining)
		return sd_event_exit(serve->event, 0);
	log_info("stopping: %u requests are still to be answered", serve->n_pending);
	serve->draining = true;
	restart_cancel(serve);
	control_stop(serve);
	/* Held: what is answered at once must not end the loop before the rest is taken. */
	serve->n_pending++;
	sessions_stop(serve);
	serve->n_pending--;
	roles_drain(serve);
	if (sd_event_add_time_relative(serve->event, &serve->drain_timer, CLOCK_MONOTONIC,
		    SERVE_DRAIN_NS / NS_PER_US, 0, on_drain_over, serve) < 0)
		return sd_event_exit(serve->event, 0);
	serve_check_drained(serve);
	return 0;
}

static bool takes_a_restart(const char *section, const char *key)
{
	static const char *const at_once[] = { "batch_delay_us", "max_clients", "max_frame_bytes",
		"spin_us", "uid_clients", "uid_bytes", "uid_depth", "uid_rate", "uid_burst" };

	if (strcmp(section, "mask") == 0)
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(at_once); i++)
		if (strcmp(section, "serve") == 0 && strcmp(key, at_once[i]) == 0)
			return false;
	return true;
}

/* The roles, too, stay with what serve was started with. */
static void warn_of_restart(const struct config *boot, const struct config *now)
{
	char keys[512];

	if (config_changes(boot, now, takes_a_restart, keys, sizeof(keys)) > 0)
		log_warning("a restart is needed before this takes effect: %s", keys);
}

/* Their list is ingest's to read. */
static void tell_of_peers(struct serve *serve)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Empty peers = KAMEN__EMPTY__INIT;

	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_PEERS;
	message.peers = &peers;
	(void)role_post(&serve->roles[ROLE_INGEST], &message, -1);
}

static void reload(struct serve *serve)
{
	struct config next, previous = serve->config;
	struct diag diag = { .text = "" };
	bool owned = serve->owns_config;
	int r;

	r = config_load(&next, serve->boot->path[0] ? serve->boot->path : NULL, &diag);
	if (r >= 0) {
		r = sites_check_files(serve, &next, &diag);
		if (r < 0)
			config_done(&next);
	}
	if (r < 0) {
		log_error("the configuration stays as it was: %s",
			diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	warn_of_restart(serve->boot, &next);
	next.learner_on = serve->boot->learner_on;
	serve->config = next;
	serve->owns_config = true;
	/* Sites point into the file list of the configuration: first the new, then away with the old. */
	sites_refresh(serve);
	if (owned)
		config_done(&previous);
	scheduler_set_delay(serve->scheduler, next.batch_delay_us * NS_PER_US);
	admission_send_sites(serve);
	tell_of_peers(serve);
	log_info("configuration read again");
}

static int on_reload(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct serve *serve = userdata;

	(void)source;
	(void)info;
	if (!serve->serving || serve->draining)
		return 0;
	notes_say(&serve->notes, serve->event, "RELOADING=1\nMONOTONIC_USEC=%llu",
		(unsigned long long)(clock_now_ns() / NS_PER_US));
	reload(serve);
	notes_say(&serve->notes, serve->event, "READY=1");
	serve_notify_status(serve);
	return 0;
}

static int on_restart(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct serve *serve = userdata;
	struct diag diag = { .text = "" };
	int r;

	(void)source;
	(void)info;
	r = restart_begin(serve, &diag);
	if (r < 0)
		log_error("no restart: %s", diag.text[0] ? diag.text : strerror(-r));
	return 0;
}

static int on_watchdog(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct serve *serve = userdata;

	(void)usec;
	/* Half the period without a finished batch, twice in a row, and systemd takes over. */
	if (inference_moves(serve->inference))
		notes_say(&serve->notes, serve->event, "WATCHDOG=1");
	else
		log_warning("the inference thread has not moved since the last look");
	if (sd_event_source_set_time_relative(source, serve->watchdog_usec / 2) < 0)
		return 0;
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static int start_watchdog(struct serve *serve)
{
	int r = sd_watchdog_enabled(0, &serve->watchdog_usec);

	if (r <= 0)
		return r;
	return sd_event_add_time_relative(serve->event, &serve->watchdog, CLOCK_MONOTONIC,
		serve->watchdog_usec / 2, 0, on_watchdog, serve);
}

/* ---- from a packed model to READY */

/* Each may take long where disks are slow or state is large. */
static void begin_phase(struct serve *serve, const char *what)
{
	/* The watchdog of the serve before goes on for who took its place in the same process. */
	notes_say(&serve->notes, serve->event, "EXTEND_TIMEOUT_USEC=%d\nSTATUS=%s%s",
		EXTEND_BY_USEC, what, serve->handover.was_executed ? "\nWATCHDOG=1" : "");
}

static int on_handed_back(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	(void)source;
	(void)fd;
	(void)revents;
	request_reap(userdata);
	return 0;
}

static int make_scheduler(struct serve *serve)
{
	const struct config *config = serve->boot;
	const struct scheduler_options options = {
		.max_batch = config->max_batch,
		.delay_ns = config->batch_delay_us * NS_PER_US,
		.px = vit_native_prep(inference_vit(serve->inference)).input_px,
	};
	int r;

	r = scheduler_new(&serve->scheduler, &options);
	if (r < 0)
		return r;
	return sd_event_add_io(serve->event, &serve->scheduler_io, scheduler_fd(serve->scheduler),
		EPOLLIN, on_handed_back, serve);
}

static int open_socket(
	struct serve *serve, const char *name, int (*open_it)(struct serve *, const char *))
{
	char path[320];
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s", serve->boot->runtime_dir, name);
	r = open_it(serve, path);
	if (r == -EADDRINUSE)
		log_error("%s: another kamend runs here", path);
	else if (r < 0)
		log_error("%s: %s", path, strerror(-r));
	return r;
}

static int say(const char *what, int r)
{
	if (r < 0)
		log_error("cannot start: %s: %s", what, strerror(-r));
	return r;
}

static int begin_to_serve(struct serve *serve)
{
	int r;

	begin_phase(serve, "reading the sites");
	r = say("scheduler", make_scheduler(serve));
	if (r >= 0)
		r = say("sites", sites_open(serve));
	if (r >= 0)
		r = say("rounds", rounds_open(serve));
	if (r >= 0)
		r = say("need", need_open(serve));
	if (r >= 0)
		r = open_socket(serve, "data.sock", sessions_open);
	if (r >= 0)
		r = open_socket(serve, "control.sock", control_open);
	if (r >= 0)
		r = say("roles", roles_start(serve));
	if (r >= 0)
		r = say("watchdog", start_watchdog(serve));
	if (r < 0)
		return r;
	inference_serve(serve->inference, serve->scheduler);
	serve->serving = true;
	sessions_resume(serve);
	log_notice("kamend " KAMEN_VERSION " serves %u sites with %s on %s", serve->sites.n,
		serve->boot->model_path, vit_isa(inference_vit(serve->inference)));
	serve_log_audit(serve);
	notes_say(&serve->notes, serve->event, "READY=1");
	serve_notify_status(serve);
	return 0;
}

static int on_inference(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct serve *serve = userdata;
	struct diag diag = { .text = "" };

	(void)source;
	(void)fd;
	(void)revents;
	serve->inference_io = sd_event_source_disable_unref(serve->inference_io);
	serve->starting = sd_event_source_disable_unref(serve->starting);
	if (inference_state(serve->inference) == INFERENCE_FAILED) {
		log_error(
			"model %s: %s", serve->boot->model_path, inference_error(serve->inference));
		return sd_event_exit(serve->event, EX_CONFIG);
	}
	if (sites_check_files(serve, serve->boot, &diag) < 0) {
		log_error("%s", diag.text);
		return sd_event_exit(serve->event, EX_CONFIG);
	}
	if (begin_to_serve(serve) < 0)
		return sd_event_exit(serve->event, EXIT_FAILURE);
	return 0;
}

static int on_still_starting(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)usec;
	begin_phase(userdata, "packing the model");
	if (sd_event_source_set_time_relative(source, EXTEND_EVERY_USEC) >= 0)
		(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* ---- from nothing to an inference thread */

void serve_block_signals(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGUSR2);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

static int make_loop(struct serve *serve)
{
	int r;

	r = wire_new(&serve->wire);
	if (r >= 0)
		r = sd_event_new(&serve->event);
	if (r >= 0)
		r = hand_new(&serve->hand, serve->event, "kamend-memory", SERVE_MEMORY_NICENESS);
	if (r >= 0)
		r = sd_event_add_signal(serve->event, NULL, SIGTERM, on_terminate, serve);
	if (r >= 0)
		r = sd_event_add_signal(serve->event, NULL, SIGINT, on_terminate, serve);
	if (r >= 0)
		r = sd_event_add_signal(serve->event, NULL, SIGHUP, on_reload, serve);
	if (r >= 0)
		r = sd_event_add_signal(serve->event, NULL, SIGUSR2, on_restart, serve);
	if (r >= 0)
		r = sd_event_add_time_relative(serve->event, &serve->starting, CLOCK_MONOTONIC, 0,
			0, on_still_starting, serve);
	return say("event loop", r);
}

/* Serving goes on: that somebody has changed the past is no reason to stop a line. */
static void verify_audit(struct serve *serve)
{
	struct diag diag = { .text = "" };
	struct digest head;
	uint64_t n;
	int r;

	r = state_audit_verify(serve->state, &n, &head, &diag);
	if (r < 0)
		log_error("the audit chain does not hold: %s",
			diag.text[0] ? diag.text : strerror(-r));
}

/* An exit status, 0: go on. */
static int open_parts(struct serve *serve)
{
	const struct config *config = serve->boot;
	struct inference_options options = {
		.family = config->model_family,
		.precision = config->serve_precision,
		.n_slots = config->n_slots,
		.slot_memory = config->slot_memory,
		.max_batch = config->max_batch,
		.n_workers = config->n_workers,
		.n_threads = config->threads,
		.cpus = config->serve_cpus,
		.hold = hold_is_due(config) ? &serve->hold : NULL,
	};
	struct diag diag = { .text = "" };
	int r;

	if (mkdir(config->runtime_dir, 0755) < 0 && errno != EEXIST) {
		log_error("%s: %s", config->runtime_dir, strerror(errno));
		return EXIT_FAILURE;
	}
	begin_phase(serve, "opening state.db");
	r = state_open(&serve->state, config->state_dir, &config->site_defaults, &diag);
	if (r < 0) {
		log_error("%s", diag.text[0] ? diag.text : strerror(-r));
		return EXIT_FAILURE;
	}
	if (admission_open(serve, &diag) < 0)
		log_warning("%s: the loop waits for the disk itself", diag.text);
	begin_phase(serve, "checking the audit chain");
	verify_audit(serve);
	begin_phase(serve, "reading the model");
	r = base_load(&serve->base, config->model_path, &diag);
	if (r < 0) {
		log_error("model %s: %s", config->model_path,
			diag.text[0] ? diag.text : strerror(-r));
		return EX_CONFIG;
	}
	options.base = serve->base;
	r = inference_start(&serve->inference, &options, &diag);
	if (r < 0 && diag.text[0]) {
		log_error("[serve] %s", diag.text);
		return EX_CONFIG;
	}
	if (r >= 0)
		r = sd_event_add_io(serve->event, &serve->inference_io,
			inference_fd(serve->inference), EPOLLIN, on_inference, serve);
	return say("inference", r) < 0 ? EXIT_FAILURE : 0;
}

static void unlink_sockets(const struct serve *serve)
{
	static const char *const names[] = { "data.sock", "control.sock" };
	char path[320];

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", serve->boot->runtime_dir, names[i]);
		(void)unlink(path);
	}
}

/* Clients first, then who works for them; what borrows from the model before the model. */
static void close_serving(struct serve *serve)
{
	restart_cancel(serve);
	/* What systemd has stored is for the next one, or goes when the unit has stopped. */
	serve->handover.is_leaving = true;
	hard_store_close(serve);
	admission_done(serve);
	sessions_stop(serve);
	sessions_close(serve);
	control_stop(serve);
	control_close(serve);
	/* Where systemd has the sockets, their files are the next one's. */
	if (serve->serving && serve->handover.max_stored == 0)
		unlink_sockets(serve);
	roles_stop(serve);
	need_close(serve);
	rounds_close(serve);
	if (serve->scheduler) {
		scheduler_stop(serve->scheduler);
		if (serve->serving)
			inference_finish(serve->inference);
		request_reap(serve);
	}
	changes_close(serve);
	sites_close(serve);
	hand_free(TAKE_PTR(serve->hand));
	quota_done(&serve->quotas);
}

static void serve_close(struct serve *serve)
{
	close_serving(serve);
	inference_free(serve->inference);
	hold_done(&serve->hold);
	sd_event_source_disable_unref(serve->starting);
	sd_event_source_disable_unref(serve->inference_io);
	sd_event_source_disable_unref(serve->scheduler_io);
	sd_event_source_disable_unref(serve->watchdog);
	sd_event_source_disable_unref(serve->drain_timer);
	notes_done(&serve->notes);
	scheduler_free(serve->scheduler);
	state_free(serve->state);
	base_free(serve->base);
	wire_free(serve->wire);
	sd_event_unref(serve->event);
	if (serve->owns_config)
		config_done(&serve->config);
}

/* A session that outlives us has five descriptors here. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void serve_init(
	struct serve *serve, const struct config *config, const char *self, char *const *argv)
{
	*serve = (struct serve){
		.boot = config,
		.config = *config,
		.self = self,
		.argv = argv,
		.started_ns = clock_now_ns(),
		.sessions.listen_fd = -1,
		.control.listen_fd = -1,
	};
	decoder_init(&serve->decoder);
	raise_limit();
	later_init(&serve->later, LATER_LOOP);
	reading_init(&serve->reading);
	admission_init(&serve->admission);
	roles_init(serve);
	hold_init(&serve->hold);
	peer_policy_read(&serve->policy);
}

int serve_main(const struct config *config, const char *self, char *const *argv)
{
	struct serve serve;
	int status, r;

	serve_init(&serve, config, self, argv);
	r = handover_read(&serve.handover);
	if (r < 0)
		log_warning("what an earlier kamend has left cannot be read: %s", strerror(-r));
	status = make_loop(&serve) < 0 ? EXIT_FAILURE : open_parts(&serve);
	if (status == 0)
		status = spin_loop(&serve);
	if (status < 0) {
		log_error("event loop: %s", strerror(-status));
		status = EXIT_FAILURE;
	}
	serve_close(&serve);
	handover_done(&serve.handover);
	handover_unsaid_done(&serve.handover);
	return status;
}
