/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "ops/config.h"
#include "ops/log.h"
#include "ops/openmp.h"
#include "role.h"

#define INSTALLED_MODEL "/usr/share/kamen/model.safetensors"
#define SHARED_MODEL "shared/models/vit_tiny_patch16_224/model.safetensors"
#define EX_BAD_USAGE 2

enum option_name { CONFIG, MODEL, STATE, RUNTIME, ROLE, FOREGROUND, N_OPTIONS };

static const char help[] =
	"Usage: kamend [--config FILE] [--model FILE] [--state DIR] [--runtime DIR] "
	"[--foreground]\n"
	"\n"
	"Hosts one frozen vision model and serves every site through its own learnt mask.\n"
	"\n"
	"  --config FILE   kamend.conf(5); default /etc/kamen/kamend.conf if it is there\n"
	"  --model FILE    safetensors file of the base model\n"
	"  --state DIR     database and blobs, default /var/lib/kamen\n"
	"  --runtime DIR   sockets, default /run/kamen\n"
	"  --foreground    log to stderr even where systemd would take it\n"
	"  --help, --version\n";

/* 0: go on, 1: nothing left to do, negative: usage. ret_values: NULL where not given. */
static int parse_options(int argc, char **argv, const char *ret_values[N_OPTIONS])
{
	static const struct option table[] = {
		{ "config", required_argument, NULL, CONFIG },
		{ "model", required_argument, NULL, MODEL },
		{ "state", required_argument, NULL, STATE },
		{ "runtime", required_argument, NULL, RUNTIME },
		{ "role", required_argument, NULL, ROLE }, /* for serve, which starts the others */
		{ "foreground", no_argument, NULL, FOREGROUND },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "hV", table, NULL)) >= 0) {
		if (c == 'h')
			return fputs(help, stdout) < 0 ? -EIO : 1;
		if (c == 'V')
			return puts("kamend " KAMEN_VERSION) < 0 ? -EIO : 1;
		if (c >= N_OPTIONS)
			return -EINVAL;
		ret_values[c] = optarg ? optarg : "";
	}
	if (optind < argc)
		fprintf(stderr, "kamend: unexpected argument '%s'\n", argv[optind]);
	return optind < argc ? -EINVAL : 0;
}

static int override(char *field, size_t size, const char *value, const char *what)
{
	if (!value)
		return 0;
	if ((size_t)snprintf(field, size, "%s", value) < size)
		return 0;
	log_error("%s is longer than %zu bytes", what, size - 1);
	return -ENAMETOOLONG;
}

/* A build tree is CHECKOUT/build/PRESET/bin, and its models lie in CHECKOUT/../shared. */
static bool model_beside_checkout(const char *self, char *ret_path, size_t size)
{
	char dir[256];
	size_t n;

	(void)snprintf(dir, sizeof(dir), "%s", self);
	for (unsigned up = 0; up < 5; up++) {
		char *slash = strrchr(dir, '/');

		if (!slash || (up == 1 && strcmp(slash, "/bin") != 0) ||
			(up == 3 && strcmp(slash, "/build") != 0))
			return false;
		*slash = '\0';
	}
	n = (size_t)snprintf(ret_path, size, "%s/" SHARED_MODEL, dir);
	return n < size && access(ret_path, R_OK) == 0;
}

/* What neither the command line nor the configuration names. */
static int default_model(struct config *config, const char *self)
{
	const char *env = getenv("KAMEN_MODEL");
	size_t size = sizeof(config->model_path);

	if (*config->model_path)
		return 0;
	if (env && *env)
		return override(config->model_path, size, env, "$KAMEN_MODEL");
	if (model_beside_checkout(self, config->model_path, size))
		return 0;
	(void)snprintf(config->model_path, size, "%s", INSTALLED_MODEL);
	if (access(INSTALLED_MODEL, R_OK) == 0)
		return 0;
	log_error(
		"no model: give --model FILE, [model] path= or $KAMEN_MODEL, or install one as %s",
		INSTALLED_MODEL);
	return -ENOENT;
}

/* The configuration as the command line and the environment leave it; an exit status, 0: go on. */
static int load_config(struct config *config, const char *const o[N_OPTIONS], const char *self)
{
	struct diag diag = { 0 };
	int r = config_load(config, o[CONFIG], &diag);

	if (r < 0) {
		log_error("%s", *diag.text ? diag.text : strerror(-r));
		return EX_CONFIG;
	}
	r = override(config->model_path, sizeof(config->model_path), o[MODEL], "--model");
	if (r == 0)
		r = override(config->state_dir, sizeof(config->state_dir), o[STATE], "--state");
	if (r == 0)
		r = override(
			config->runtime_dir, sizeof(config->runtime_dir), o[RUNTIME], "--runtime");
	if (r == 0 && !o[ROLE])
		r = default_model(config, self);
	if (r < 0)
		config_done(config);
	return r < 0 ? EX_CONFIG : 0;
}

static int run(const struct config *config, const char *role, const char *self, char **argv)
{
	bool learner = strcmp(role, "learner") == 0;
	int r;

	/* The program is executed by /proc/self/exe, and would be called "exe". */
	(void)prctl(PR_SET_NAME, learner                       ? "kamend-learner"
				 : strcmp(role, "ingest") == 0 ? "kamend-ingest"
							       : "kamend");
	/* A role that computes does not read its socket: it dies with serve at any rate. */
	if (strcmp(role, "serve") != 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		log_warning("cannot tie this role to its parent: %s", strerror(errno));
	if (strcmp(role, "ingest") == 0)
		return ingest_main(config);
	/* It ends with its socket, after a checkpoint, also where everybody is sent a signal. */
	if (learner) {
		(void)signal(SIGTERM, SIG_IGN);
		(void)signal(SIGINT, SIG_IGN);
		(void)signal(SIGHUP, SIG_IGN);
	} else
		serve_block_signals();
	r = openmp_set_up(role, learner ? config->learner_cpus : "",
		learner ? config->learner_threads : config->threads, learner, argv);
	if (r < 0)
		log_warning("OpenMP keeps its own settings: %s", strerror(-r));
	return learner ? learner_main(config) : serve_main(config, self, argv);
}

int main(int argc, char **argv)
{
	const char *options[N_OPTIONS] = { 0 };
	const char *role;
	struct config config;
	char self[256];
	int r = parse_options(argc, argv, options);
	ssize_t n;

	if (r != 0)
		return r > 0 ? EXIT_SUCCESS : r == -EIO ? EXIT_FAILURE : EX_BAD_USAGE;
	role = options[ROLE] ? options[ROLE] : "serve";
	if (options[ROLE] && strcmp(role, "ingest") != 0 && strcmp(role, "learner") != 0) {
		fprintf(stderr, "kamend: no role '%s'\n", role);
		return EX_BAD_USAGE;
	}
	if (options[FOREGROUND])
		(void)unsetenv("JOURNAL_STREAM");
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0) {
		log_error("/proc/self/exe: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	self[n] = '\0';
	(void)umask(0027);
	(void)signal(SIGPIPE, SIG_IGN);
	r = load_config(&config, options, self);
	if (r != 0)
		return r;
	r = run(&config, role, self, argv);
	config_done(&config);
	return r;
}
