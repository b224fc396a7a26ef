/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "classify/figures.h"
#include "output.h"
#include "pretrain.h"

/* In the environment of a program that has executed itself: once is enough whatever unblocks. */
#define AGAIN "KAMEN_PRETRAIN_AGAIN"

static const struct command command = { "", "", "DIR --out FILE",
	"learns a vision transformer from the images of a folder, for kamend --model", NULL };

/** One run of the program. */
struct run {
	struct ctl ctl;
	struct pretrain_options options;
	struct pretrain pretrain;
	char *checkpoint; /* path */
	uint64_t begun_ns, saved_ns;
	pthread_t watcher;
	atomic_bool is_learning;      /* and has something to lose */
	atomic_bool is_asked_to_stop; /* after the step */
};

static int fail(const struct run *run, int r, const struct diag *diag)
{
	return ctl_fail(&run->ctl, EXIT_FAILED, "%s", *diag->text ? diag->text : strerror(-r));
}

static sigset_t ending_signals(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	return set;
}

/* SIGINT and SIGTERM end a run after its step, with a checkpoint; before the first one at once. */
static void *watch(void *data)
{
	const sigset_t set = ending_signals();
	struct run *run = data;
	int signal;

	while (sigwait(&set, &signal) == 0) {
		if (atomic_load(&run->is_learning)) {
			atomic_store(&run->is_asked_to_stop, true);
			continue;
		}
		(void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		(void)raise(signal);
		/* It was to be ignored, and the next one may have something to lose. */
		(void)pthread_sigmask(SIG_BLOCK, &set, NULL);
	}
	return NULL;
}

/* What threads inherit is that these are not theirs. A BLAS has some before main() begins: the program
 * executes itself once more, and they find them blocked. */
static int watch_signals(struct run *run, char **argv)
{
	const sigset_t set = ending_signals();
	sigset_t before;
	int r = -pthread_sigmask(SIG_BLOCK, &set, &before);

	if (r < 0)
		return r;
	if ((!sigismember(&before, SIGTERM) || !sigismember(&before, SIGINT)) && !getenv(AGAIN)) {
		(void)setenv(AGAIN, "1", 1);
		(void)execv("/proc/self/exe", argv);
	}
	(void)unsetenv(AGAIN);
	return -pthread_create(&run->watcher, NULL, watch, run);
}

static void watch_end(struct run *run)
{
	(void)pthread_cancel(run->watcher);
	(void)pthread_join(run->watcher, NULL);
}

static double seconds_since(uint64_t then_ns)
{
	return (double)(clock_now_ns() - then_ns) * 1e-9;
}

static json_t *progress_row(const struct run *run, const struct round_progress *progress)
{
	json_t *row = json_object();

	(void)json_object_set_new(row, "step", json_integer(progress->step));
	(void)json_object_set_new(row, "steps", json_integer(progress->steps));
	(void)json_object_set_new(row, "loss_ratio", output_number(progress->loss_ratio));
	for (uint32_t i = 0; i < progress->n_figures; i++)
		(void)json_object_set_new(
			row, progress->figures[i].name, output_number(progress->figures[i].value));
	(void)json_object_set_new(row, "seconds", json_real(seconds_since(run->begun_ns)));
	return row;
}

static int save(struct run *run)
{
	int r = round_save(run->pretrain.round, AT_FDCWD, run->checkpoint);

	run->saved_ns = clock_now_ns();
	return r;
}

/* A checkpoint of another run is not overwritten without a word. */
static int resume(struct run *run, struct diag *diag)
{
	struct diag why = { "" };
	int r = run->options.anew
			? -ENOENT
			: round_resume(run->pretrain.round, AT_FDCWD, run->checkpoint, &why);

	if (r == -ENOENT)
		return 0;
	return r < 0 ? diag_set(diag, -r, "%s: %s; --anew begins anew, over it", run->checkpoint,
			       *why.text ? why.text : strerror(-r))
		     : r;
}

/* @return EXIT_DONE: all steps are done, EXIT_FAILED, or -EINTR: it was asked to stop */
static int learn(struct run *run, struct round_progress *progress)
{
	struct diag diag = { "" };
	int more = 1;

	atomic_store(&run->is_learning, true);
	while (more > 0) {
		more = round_step(run->pretrain.round, progress);
		if (more == -EDOM)
			return ctl_fail(&run->ctl, EXIT_FAILED,
				"step %u: the loss is no number any more; try a smaller weight_lr",
				progress->step + 1);
		if (more < 0)
			return fail(run, more, &diag);
		if (progress->step % run->options.report == 0 || more == 0)
			(void)output_row(&run->ctl, progress_row(run, progress), false);
		if (atomic_load(&run->is_asked_to_stop)) {
			int r = save(run);

			return r < 0 ? fail(run, r, &diag) : -EINTR;
		}
		if (more > 0 && seconds_since(run->saved_ns) >= run->options.every_s) {
			int r = save(run);

			if (r < 0)
				return fail(run, r, &diag);
		}
	}
	return EXIT_DONE;
}

static int put_worth(struct run *run, json_t *row, const char *prefix, bool teacher)
{
	struct figures figures;
	struct diag diag = { "" };
	char name[32];
	int r = pretrain_worth(&figures, &run->pretrain, &run->options, teacher, &diag);

	if (r < 0)
		return fail(run, r, &diag);
	(void)snprintf(name, sizeof(name), "%sknn", prefix);
	(void)json_object_set_new(row, name, json_real(figures.knn));
	(void)snprintf(name, sizeof(name), "%sshot1", prefix);
	(void)json_object_set_new(row, name, json_real(figures.shot1));
	(void)snprintf(name, sizeof(name), "%sshot5", prefix);
	(void)json_object_set_new(row, name, json_real(figures.shot5));
	return EXIT_DONE;
}

static int finish(struct run *run, const struct round_progress *progress, json_t *row)
{
	size_t n_bytes;
	int r;

	r = pretrain_write(&run->pretrain, run->options.out, run->options.teacher, &n_bytes);
	if (r < 0)
		return ctl_fail(&run->ctl, EXIT_FAILED, "%s: %s", run->options.out, strerror(-r));
	(void)unlink(run->checkpoint);
	atomic_store(&run->is_learning, false);
	(void)json_object_set_new(row, "out", json_string(run->options.out));
	(void)json_object_set_new(row, "bytes", json_integer((json_int_t)n_bytes));
	(void)json_object_set_new(row, "steps", json_integer(progress->steps));
	(void)json_object_set_new(row, "loss_ratio", output_number(progress->loss_ratio));
	(void)json_object_set_new(row, "images", json_integer(run->pretrain.folder->n));
	(void)json_object_set_new(row, "seconds", json_real(seconds_since(run->begun_ns)));
	return run->options.worth ? put_worth(run, row, "", run->options.teacher) : EXIT_DONE;
}

static int go(struct run *run)
{
	json_t *row = json_object();
	struct round_progress progress = { 0 };
	struct diag diag = { "" };
	int status = EXIT_DONE, r;

	/* Of the start, whatever a checkpoint says next. */
	if (run->options.worth)
		status = put_worth(run, row, "start_", false);
	r = status == EXIT_DONE ? resume(run, &diag) : 0;
	if (r < 0)
		status = fail(run, r, &diag);
	if (status == EXIT_DONE)
		status = learn(run, &progress);
	if (status == -EINTR)
		status = ctl_fail(&run->ctl, EXIT_FAILED,
			"stopped after step %u of %u; the same command goes on from %s",
			progress.step, progress.steps, run->checkpoint);
	else if (status == EXIT_DONE)
		status = finish(run, &progress, row);
	if (status == EXIT_DONE)
		return output_row(&run->ctl, row, true);
	json_decref(row);
	return status;
}

int main(int argc, char **argv)
{
	struct run run = {
		.ctl = { .program = "kamen-pretrain", .command = &command, .is_alone = true }
	};
	struct diag diag = { "" };
	int status, r;

	if (!pretrain_options_parse(&run.options, &run.ctl, argc, argv, &status))
		return status;
	if (run.options.checkpoint)
		run.checkpoint = strdup(run.options.checkpoint);
	else if (asprintf(&run.checkpoint, "%s.round", run.options.out) < 0)
		run.checkpoint = NULL;
	run.begun_ns = run.saved_ns = clock_now_ns();
	if (!run.checkpoint || watch_signals(&run, argv) < 0)
		return ctl_fail(&run.ctl, EXIT_FAILED, "cannot begin");
	r = pretrain_init(&run.pretrain, &run.options, &diag);
	status = r < 0 ? fail(&run, r, &diag) : go(&run);
	pretrain_done(&run.pretrain);
	free(run.checkpoint);
	watch_end(&run);
	return status;
}
