/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_H
#define KAMEN_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "cli.h"
#include "output.h"
#include "samples.h"

int infer_run(struct ctl *ctl, int argc, char **argv);
int switch_run(struct ctl *ctl, int argc, char **argv);
int learn_run(struct ctl *ctl, int argc, char **argv);
int serve_run(struct ctl *ctl, int argc, char **argv);
int ipc_run(struct ctl *ctl, int argc, char **argv);

uint64_t bench_now_ns(void);
void bench_sleep_until(uint64_t ns);
/** What every figure is worth nothing without: processor, how many of it. */
void bench_put_machine(json_t *row);
/** name_unit_p50, _p90, _p99 and _p999; sorts. */
void bench_put_percentiles(
	json_t *row, const char *name, const char *unit, struct samples *samples);
/** Runs something for every name of a list NAME[,NAME]..., until one is not EXIT_DONE. */
int bench_each(const char *names, int (*run)(void *data, const char *name), void *data);
/** An option that is a number within [min, max], or fallback where it is absent. */
bool bench_number(const struct ctl *ctl, const char *option, const char *text,
	unsigned long long min, unsigned long long max, unsigned long long fallback,
	unsigned long long *ret_number);
/** The same of a real number from 0. */
bool bench_real(
	const struct ctl *ctl, const char *option, const char *text, double fallback, double *ret);

#endif
