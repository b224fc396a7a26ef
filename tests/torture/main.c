/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kamen-torture: a daemon of its own, honest clients whose every answer is checked and timed, and
 * liars that do to it what kamen-security(7) says it stands. Quiet and stormy phases take turns, so
 * that both are measured on the same machine in the same minutes; and bare ones, in which the liars
 * take as much of the CPUs as they did in storms and leave the daemon alone.
 */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "liar.h"
#include "report.h"

#define OTHER_UID 54321u /* the daemon and the honest, where we may choose */
#define LIAR_UID 54322u

enum { N_ECHO = 2, N_INFER = 2, N_ENCODED = 1, N_HONEST = N_ECHO + N_INFER + N_ENCODED };
enum { WARM_ANSWERS = 60 * N_HONEST };

struct options {
	uint64_t seed, n_faults;
	const char *kamend, *only;
	unsigned n_liars, quiet_ms, storm_ms, patience_s, pause_ms;
	int liar_nice;
	double max_ratio, max_over_bare;
	bool as_json, keeps, are_root;
};

struct run {
	const struct options *options;
	struct world *world;
	struct victim victim;
	struct outcome outcome;
	pid_t pids[N_HONEST + WORLD_MAX_LIARS];
	unsigned n_pids;
};

/* ---- the world */

void world_note(struct world *world, enum violation violation, const char *format, ...)
{
	uint32_t at = atomic_fetch_add(&world->n_notes, 1);
	va_list ap;

	(void)atomic_fetch_add(&world->n_of_violation[violation], 1);
	if (at >= WORLD_N_NOTES)
		return;
	va_start(ap, format);
	(void)vsnprintf(world->notes[at], sizeof(world->notes[at]), format, ap);
	va_end(ap);
}

static void rest_ms(unsigned ms)
{
	(void)nanosleep(&(const struct timespec){ ms / 1000, (long)(ms % 1000) * 1000000 }, NULL);
}

/* ---- processes */

static void start_honest(struct run *run, enum honest_kind kind)
{
	unsigned number = run->n_pids;
	pid_t pid = fork();

	if (pid == 0) {
		if (run->world->is_other && (setgid(OTHER_UID) < 0 || setuid(OTHER_UID) < 0))
			_exit(1);
		honest_main(run->world, kind, number);
	}
	run->pids[run->n_pids++] = pid;
}

static void start_liar(struct run *run, unsigned number)
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)setpriority(PRIO_PROCESS, 0, run->options->liar_nice);
		if (run->world->is_ordinary &&
			(setgroups(0, NULL) < 0 || setgid(OTHER_UID) < 0 || setuid(LIAR_UID) < 0))
			_exit(1);
		liar_main(run->world, number);
	}
	run->pids[run->n_pids++] = pid;
}

static bool is_alive(struct run *run)
{
	run->outcome.is_dead |= !victim_is_alive(&run->victim);
	return !run->outcome.is_dead;
}

/* ---- phases */

/* False: it did not come to that in time. */
static bool wait_for(struct run *run, bool (*has_come)(struct run *run), unsigned ms)
{
	uint64_t end = clock_now_ns() + ms * NS_PER_MS;

	while (!has_come(run)) {
		if (clock_now_ns() > end || !is_alive(run))
			return false;
		rest_ms(5);
	}
	return true;
}

static bool is_warm(struct run *run)
{
	return atomic_load(&run->world->n_answers) >= WARM_ANSWERS;
}

static bool are_parked(struct run *run)
{
	return atomic_load(&run->world->n_parked) >= run->options->n_liars;
}

static bool is_through(struct run *run)
{
	return atomic_load(&run->world->n_done) >= run->world->n_faults;
}

static bool has_begun(struct run *run)
{
	return atomic_load(&run->world->n_done) >= run->world->n_faults / 8;
}

static void note_stuck(struct run *run)
{
	for (unsigned i = 0; i < run->options->n_liars; i++) {
		uint64_t at = atomic_load(&run->world->at[i]);
		const struct fault *fault = liar_fault((unsigned)(at >> 56));

		world_note(run->world, VIOLATION_HANG, "liar %u is still at fault %llu, %s", i,
			(unsigned long long)(at & ((UINT64_C(1) << 56) - 1)),
			fault ? fault->name : "none");
	}
}

/* The least of some looks: an honest session may just be changing hands. */
static int look(struct run *run, struct holding *ret_holding)
{
	struct holding least = { UINT32_MAX, UINT64_MAX }, holding;

	for (int i = 0; i < 10; i++) {
		if (victim_holding(&run->victim, &holding) < 0)
			return -ESRCH;
		least.n_fds = holding.n_fds < least.n_fds ? holding.n_fds : least.n_fds;
		if (holding.anonymous < least.anonymous)
			least.anonymous = holding.anonymous;
		rest_ms(10);
	}
	*ret_holding = least;
	return 0;
}

/* Everybody but the honest lets go; what the daemon holds is looked at in the end. */
static bool quiet(struct run *run, struct holding *ret_holding)
{
	atomic_store(&run->world->phase, PHASE_WARM);
	if (!wait_for(run, are_parked, 2000 * run->options->patience_s)) {
		if (!run->outcome.is_dead)
			note_stuck(run);
		return false;
	}
	rest_ms(50);
	atomic_store(&run->world->phase, PHASE_QUIET);
	rest_ms(run->options->quiet_ms);
	return look(run, ret_holding) >= 0 && is_alive(run);
}

/* After a storm, whose load it is. */
static void bare(struct run *run)
{
	atomic_store(&run->world->phase, PHASE_BARE);
	rest_ms(run->options->quiet_ms);
}

static void storms(struct run *run)
{
	struct holding ignored;

	if (!wait_for(run, is_warm, 1000 * run->options->patience_s)) {
		world_note(run->world, VIOLATION_HANG, "the honest do not get warm");
		return;
	}
	if (!quiet(run, &ignored))
		return;
	/* Sizes of batches that the honest never make are planned when they are first asked for. */
	atomic_store(&run->world->phase, PHASE_STORM);
	(void)wait_for(run, has_begun, run->options->storm_ms);
	if (!quiet(run, &run->outcome.before))
		return;
	atomic_store(&run->world->is_measured, true);
	while (!is_through(run)) {
		uint64_t begin = clock_now_ns();

		atomic_store(&run->world->phase, PHASE_STORM);
		(void)wait_for(run, is_through, run->options->storm_ms);
		run->outcome.storm_seconds += (double)(clock_now_ns() - begin) / 1e9;
		if (!quiet(run, &run->outcome.after))
			return;
		bare(run);
	}
	/* Once more, so that there are two looks in any case, and none at a session just closed. */
	(void)quiet(run, &run->outcome.after);
}

static void end_all(struct run *run)
{
	atomic_store(&run->world->phase, PHASE_END);
	rest_ms(200);
	for (unsigned i = 0; i < run->n_pids; i++) {
		int status;

		for (int k = 0; k < 100 && waitpid(run->pids[i], &status, WNOHANG) == 0; k++) {
			if (k == 99)
				(void)kill(run->pids[i], SIGKILL);
			rest_ms(20);
		}
	}
}

static int torture(struct run *run)
{
	const struct options *options = run->options;
	struct world *world = run->world;
	uint64_t begin;
	bool holds;
	int r;

	world->is_other = geteuid() == 0 && victim_is_reachable(options->kamend);
	r = victim_start(&run->victim, options->kamend, world->is_other ? OTHER_UID : (uid_t)-1,
		(int)options->patience_s * 4000);
	if (r < 0) {
		victim_tell(&run->victim);
		(void)victim_stop(&run->victim, 1000);
		victim_remove(&run->victim);
		return EXIT_FAILURE;
	}
	world->is_ordinary = run->victim.has_group && !options->are_root;
	(void)snprintf(
		world->data_path, sizeof(world->data_path), "%s/run/data.sock", run->victim.dir);
	(void)snprintf(world->control_path, sizeof(world->control_path), "%s/run/control.sock",
		run->victim.dir);
	for (unsigned i = 0; i < N_HONEST; i++)
		start_honest(run, i < N_ECHO             ? HONEST_ECHO
				  : i < N_ECHO + N_INFER ? HONEST_INFER
							 : HONEST_ENCODED);
	for (unsigned i = 0; i < options->n_liars; i++)
		start_liar(run, i);
	begin = clock_now_ns();
	storms(run);
	run->outcome.seconds = (double)(clock_now_ns() - begin) / 1e9;
	end_all(run);
	(void)is_alive(run);
	run->outcome.exit_status = victim_stop(&run->victim, (int)options->patience_s * 1000);
	run->outcome.is_unsound = victim_is_unsound(&run->victim);
	holds = report(world, &run->outcome, options->as_json);
	if (!holds)
		victim_tell(&run->victim);
	if (!options->keeps)
		victim_remove(&run->victim);
	return holds ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- options */

static const char usage[] =
	"usage: kamen-torture --kamend PROGRAM [OPTION]...\n"
	"  --faults N      how many, default 500\n"
	"  --seed N        of their kinds and what they do, default from the clock; printed\n"
	"  --only NAME     faults of one kind\n"
	"  --liars N       processes, 1 to 16, default 4\n"
	"  --quiet-ms N    between storms, default 300\n"
	"  --storm-ms N    default 1000\n"
	"  --pause-ms N    of a liar between two faults, default 0\n"
	"  --liar-nice N   of liars, default 0\n"
	"  --root-liars    liars that may everything, where they are ordinary users else\n"
	"  --patience N    seconds after which an answer is lost, default 60\n"
	"  --max-ratio X   honest p99 of storms over that of quiet phases, at most; default: any\n"
	"  --max-over-bare X  over that of phases in which liars only burn as much CPU; default: "
	"any\n"
	"  --json          one object instead of text\n"
	"  --keep          leave the daemon's folder\n";

static int read_options(struct options *ret_options, int argc, char **argv)
{
	static const struct option names[] = { { "faults", 1, NULL, 'f' }, { "seed", 1, NULL, 's' },
		{ "liars", 1, NULL, 'l' }, { "quiet-ms", 1, NULL, 'q' },
		{ "storm-ms", 1, NULL, 't' }, { "patience", 1, NULL, 'p' },
		{ "max-ratio", 1, NULL, 'r' }, { "json", 0, NULL, 'j' }, { "keep", 0, NULL, 'k' },
		{ "kamend", 1, NULL, 'd' }, { "only", 1, NULL, 'o' }, { "pause-ms", 1, NULL, 'u' },
		{ "liar-nice", 1, NULL, 'n' }, { "max-over-bare", 1, NULL, 'b' },
		{ "root-liars", 0, NULL, 'R' }, { 0 } };
	struct options o = { .seed = clock_now_ns() & 0xffffffff,
		.n_faults = 500,
		.n_liars = 4,
		.quiet_ms = 300,
		.storm_ms = 1000,
		.patience_s = 60 };
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) >= 0) {
		switch (c) {
		case 'f':
			o.n_faults = strtoull(optarg, NULL, 10);
			break;
		case 's':
			o.seed = strtoull(optarg, NULL, 10);
			break;
		case 'l':
			o.n_liars = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'q':
			o.quiet_ms = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 't':
			o.storm_ms = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'p':
			o.patience_s = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'r':
			o.max_ratio = strtod(optarg, NULL);
			break;
		case 'b':
			o.max_over_bare = strtod(optarg, NULL);
			break;
		case 'R':
			o.are_root = true;
			break;
		case 'n':
			o.liar_nice = (int)strtol(optarg, NULL, 10);
			break;
		case 'j':
			o.as_json = true;
			break;
		case 'k':
			o.keeps = true;
			break;
		case 'd':
			o.kamend = optarg;
			break;
		case 'u':
			o.pause_ms = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'o':
			o.only = optarg;
			break;
		default:
			return -EINVAL;
		}
	}
	if (optind < argc || !o.kamend || o.n_liars < 1 || o.n_liars > WORLD_MAX_LIARS ||
		o.n_faults == 0)
		return -EINVAL;
	*ret_options = o;
	return 0;
}

static int number_of(const char *name)
{
	const struct fault *fault;

	for (unsigned i = 0; name && (fault = liar_fault(i)); i++)
		if (strcmp(fault->name, name) == 0)
			return (int)i;
	return -1;
}

int main(int argc, char **argv)
{
	struct options options;
	struct run run = { .options = &options };

	if (read_options(&options, argc, argv) < 0) {
		(void)fputs(usage, stderr);
		return 2;
	}
	run.world = mmap(NULL, sizeof(*run.world), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (run.world == MAP_FAILED)
		return EXIT_FAILURE;
	(void)fprintf(stderr, "seed %llu\n", (unsigned long long)options.seed);
	run.world->seed = options.seed;
	run.world->n_faults = options.n_faults;
	run.world->pause_ms = options.pause_ms;
	run.world->only = number_of(options.only);
	if (options.only && run.world->only < 0) {
		(void)fprintf(stderr, "there is no fault '%s'\n", options.only);
		return 2;
	}
	run.world->patience_ms = options.patience_s * 1000;
	run.outcome.max_ratio = options.max_ratio;
	run.outcome.max_over_bare = options.max_over_bare;
	run.outcome.n_liars = options.n_liars;
	return torture(&run);
}
