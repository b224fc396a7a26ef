/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_H
#define KAMEN_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "cli.h"
#include "output.h"

int infer_run(struct ctl *ctl, int argc, char **argv);
int switch_run(struct ctl *ctl, int argc, char **argv);
int learn_run(struct ctl *ctl, int argc, char **argv);
int serve_run(struct ctl *ctl, int argc, char **argv);
int ipc_run(struct ctl *ctl, int argc, char **argv);

/** Measured values; grows as needed. */
struct samples {
	double *values;
	size_t n, room;
};

/** @return 0 or -ENOMEM */
int samples_add(struct samples *samples, double value);
/** Nearest rank, p in [0, 1]; sorts. NaN: empty. */
double samples_percentile(struct samples *samples, double p);
void samples_done(struct samples *samples);

uint64_t bench_now_ns(void);
/** What every figure is worth nothing without: processor, how many of it. */
void bench_put_machine(json_t *row);
/** Runs something for every name of a list NAME[,NAME]..., until one is not EXIT_DONE. */
int bench_each(const char *names, int (*run)(void *data, const char *name), void *data);
/** An option that is a number within [min, max], or fallback where it is absent. */
bool bench_number(const struct ctl *ctl, const char *option, const char *text,
	unsigned long long min, unsigned long long max, unsigned long long fallback,
	unsigned long long *ret_number);

#endif
