/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "control.h"
#include "ctl.h"
#include "output.h"

#define MAX_PAIRS 448u /* buckets of the daemon's histogram */
#define NS_PER_S 1000000000.0

/** What a site was at the last look: what is shown is what came since. */
struct seen {
	char site[64];
	uint64_t requests, ok, ng;
	uint64_t edges[MAX_PAIRS], counts[MAX_PAIRS];
	unsigned n_pairs;
	bool is_here; /* in the look that is being taken */
	struct seen *next;
};

struct top {
	struct ctl *ctl;
	struct control *control;
	struct seen *seen;
	double since; /* seconds since the last look; 0: there was none */
	bool is_terminal;
	unsigned n_lines, max_lines;
};

static void seen_free(struct seen *seen)
{
	while (seen) {
		struct seen *next = seen->next;

		free(seen);
		seen = next;
	}
}

static struct seen *seen_find(struct top *top, const char *site)
{
	struct seen *seen = top->seen;

	while (seen && strcmp(seen->site, site) != 0)
		seen = seen->next;
	if (seen)
		return seen;
	seen = calloc(1, sizeof(*seen));
	if (!seen)
		return NULL;
	(void)snprintf(seen->site, sizeof(seen->site), "%s", site);
	seen->next = top->seen;
	top->seen = seen;
	return seen;
}

/* ---- what came since the last look, or since the daemon's start where there was none */

static uint64_t since(uint64_t now, uint64_t was)
{
	return now >= was ? now - was : now; /* another daemon counts from 0 */
}

static uint64_t count_was(const struct seen *seen, uint64_t edge)
{
	for (unsigned i = 0; i < seen->n_pairs; i++)
		if (seen->edges[i] == edge)
			return seen->counts[i];
	return 0;
}

/* The upper edge of the bucket that holds the quantile, in ms; not a number: there was no request. */
static double quantile(const Kamen__Site *site, const struct seen *seen, double q)
{
	uint64_t n = 0, below = 0, rank;

	for (size_t i = 0; i + 1 < site->n_latency; i += 2)
		n += since(site->latency[i + 1], count_was(seen, site->latency[i]));
	if (n == 0)
		return (double)NAN;
	rank = (uint64_t)ceil(q * (double)n);
	for (size_t i = 0; i + 1 < site->n_latency; i += 2) {
		below += since(site->latency[i + 1], count_was(seen, site->latency[i]));
		if (below >= rank)
			return (double)site->latency[i] * 1e-6;
	}
	return (double)NAN;
}

static void seen_take(struct seen *seen, const Kamen__Site *site)
{
	seen->requests = site->requests;
	seen->ok = site->ok;
	seen->ng = site->ng;
	seen->n_pairs = 0;
	for (size_t i = 0; i + 1 < site->n_latency && seen->n_pairs < MAX_PAIRS; i += 2) {
		seen->edges[seen->n_pairs] = site->latency[i];
		seen->counts[seen->n_pairs++] = site->latency[i + 1];
	}
	seen->is_here = true;
}

struct live {
	double rate, p50_ms, p99_ms, ng_share;
};

static struct live live_of(const struct top *top, const Kamen__Site *site, const struct seen *seen)
{
	uint64_t n_ok = since(site->ok, seen->ok), n_ng = since(site->ng, seen->ng);

	return (struct live){
		.rate = top->since > 0 ? (double)since(site->requests, seen->requests) / top->since
				       : (double)NAN,
		.p50_ms = quantile(site, seen, .5),
		.p99_ms = quantile(site, seen, .99),
		.ng_share = n_ok + n_ng > 0 ? (double)n_ng / (double)(n_ok + n_ng) : (double)NAN,
	};
}

/* ---- showing it */

static int json_print(struct top *top, const Kamen__Reply *reply, const struct live *live)
{
	const Kamen__Site *site = reply->site;
	json_t *row = output_object(reply);

	if (!row)
		return ctl_fail(top->ctl, EXIT_FAILED, "out of memory");
	(void)json_object_del(row, "settings");
	(void)json_object_del(row, "set_by");
	(void)json_object_set_new(row, "ok", json_integer((json_int_t)site->ok));
	(void)json_object_set_new(row, "ng", json_integer((json_int_t)site->ng));
	(void)json_object_set_new(row, "unknown", json_integer((json_int_t)site->unknown));
	(void)json_object_set_new(row, "late", json_integer((json_int_t)site->late));
	(void)json_object_set_new(row, "failed", json_integer((json_int_t)site->failed));
	(void)json_object_set_new(row, "requests_per_s", output_number(live->rate));
	(void)json_object_set_new(row, "p50_ms", output_number(live->p50_ms));
	(void)json_object_set_new(row, "p99_ms", output_number(live->p99_ms));
	(void)json_object_set_new(row, "ng_share", output_number(live->ng_share));
	if (site->progress) {
		(void)json_object_set_new(row, "version", json_integer(site->progress->version));
		(void)json_object_set_new(row, "step", json_integer(site->progress->step));
		(void)json_object_set_new(row, "steps", json_integer(site->progress->steps));
		(void)json_object_set_new(row, "seconds_left",
			output_number(site->progress->has_seconds_left
					      ? site->progress->seconds_left
					      : (double)NAN));
	}
	return output_row(top->ctl, row, false);
}

static const char *number_text(char text[16], int n_decimals, double number, const char *unit)
{
	if (isfinite(number))
		(void)snprintf(text, 16, "%.*f%s", n_decimals, number, unit);
	else
		(void)snprintf(text, 16, "-");
	return text;
}

static const char *bytes_text(char text[16], uint64_t n_bytes)
{
	static const char units[] = "BKMGT";
	double n = (double)n_bytes;
	unsigned unit = 0;

	for (; n >= 999.5 && units[unit + 1]; unit++)
		n /= 1024;
	(void)snprintf(text, 16, unit > 0 && n < 99.95 ? "%.1f%c" : "%.0f%c", n, units[unit]);
	return text;
}

static const char *round_text(char text[32], const Kamen__Site *site)
{
	const Kamen__Progress *p = site->progress;

	if (!p)
		(void)snprintf(
			text, 32, "%s%s", site->due ? "due: " : "-", site->due ? site->due : "");
	else if (p->step == 0)
		(void)snprintf(text, 32, "v%u begins", p->version);
	else if (p->step >= p->steps)
		(void)snprintf(text, 32, "v%u is judged", p->version);
	else
		(void)snprintf(text, 32, "v%u %u/%u %.0f s", p->version, p->step, p->steps,
			p->seconds_left);
	return text;
}

static void line_print(struct top *top, const Kamen__Site *site, const struct live *live)
{
	char rate[16], p50[16], p99[16], ng[16], bytes[16], round[32];

	if (top->is_terminal && ++top->n_lines > top->max_lines)
		return;
	(void)printf("%-20.20s %-10s %8llu %7llu %-22s %6u %8s %8s %8s %6s %7s%s\n", site->site,
		site->state ? site->state : "", (unsigned long long)site->images,
		(unsigned long long)site->new_images, round_text(round, site), site->champion,
		number_text(rate, 1, live->rate, ""), number_text(p50, 2, live->p50_ms, ""),
		number_text(p99, 2, live->p99_ms, ""),
		number_text(ng, 1, 100 * live->ng_share, "%"),
		bytes_text(bytes, site->replay_bytes), top->is_terminal ? "\033[K" : "");
}

static void head_print(struct top *top)
{
	struct winsize size = { .ws_row = 0 };

	/* Home, not a cleared screen: that would flicker. */
	if (top->is_terminal)
		(void)fputs("\033[H\033[7m", stdout);
	(void)printf("%-20s %-10s %8s %7s %-22s %6s %8s %8s %8s %6s %7s", "SITE", "STATE", "IMAGES",
		"NEW", "ROUND", "CHAMP", "REQ/S", "P50 ms", "P99 ms", "NG", "REPLAY");
	(void)puts(top->is_terminal ? "\033[0m\033[K" : "");
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row < 4)
		size.ws_row = 24;
	top->n_lines = 0;
	top->max_lines = size.ws_row - 3u;
}

static void foot_print(const struct top *top)
{
	if (!top->is_terminal)
		return;
	if (top->n_lines > top->max_lines)
		(void)printf("and %u more: a larger terminal, or --json\033[K\n",
			top->n_lines - top->max_lines);
	(void)fputs("\033[J", stdout);
}

/* ---- looking */

static int row_take(struct top *top, const Kamen__Reply *reply)
{
	struct seen *seen = seen_find(top, reply->site->site);
	struct live live;

	if (!seen)
		return ctl_fail(top->ctl, EXIT_FAILED, "out of memory");
	live = live_of(top, reply->site, seen);
	seen_take(seen, reply->site);
	if (top->ctl->json)
		return json_print(top, reply, &live);
	line_print(top, reply->site, &live);
	return EXIT_DONE;
}

static void forget_the_gone(struct top *top)
{
	for (struct seen **at = &top->seen; *at;) {
		struct seen *seen = *at;

		if (seen->is_here) {
			seen->is_here = false;
			at = &seen->next;
			continue;
		}
		*at = seen->next;
		free(seen);
	}
}

static int look(struct top *top)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Empty empty = KAMEN__EMPTY__INIT;
	const Kamen__Reply *reply;
	int status;

	request.verb_case = KAMEN__REQUEST__VERB_TOP;
	request.top = &empty;
	status = control_send(top->control, &request, -1);
	if (status == EXIT_DONE && !top->ctl->json)
		head_print(top);
	while (status == EXIT_DONE) {
		status = control_next(top->control, false, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		if (reply->row_case == KAMEN__REPLY__ROW_SITE)
			status = row_take(top, reply);
	}
	if (status == EXIT_DONE && !top->ctl->json)
		foot_print(top);
	forget_the_gone(top);
	if (fflush(stdout) != 0)
		return ctl_fail(top->ctl, EXIT_FAILED, "cannot write stdout");
	return status;
}

static double now_s(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / NS_PER_S;
}

static void wait_s(double seconds)
{
	struct timespec rest = { (time_t)seconds, (long)((seconds - floor(seconds)) * NS_PER_S) };

	while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
		;
}

static int watch(struct top *top, double interval, unsigned long long n_looks)
{
	double last = 0;
	int status = EXIT_DONE;

	if (top->is_terminal)
		(void)fputs("\033[2J", stdout);
	for (unsigned long long i = 0; status == EXIT_DONE && (n_looks == 0 || i < n_looks); i++) {
		double now;

		if (i > 0)
			wait_s(interval);
		now = now_s();
		top->since = last > 0 ? now - last : 0;
		last = now;
		status = look(top);
	}
	return status;
}

int top_run(struct ctl *ctl, int argc, char **argv)
{
	const char *once = NULL, *interval_text = NULL, *n_text = NULL;
	const struct option_spec specs[] = {
		{ "once", NULL, "one look, figures since the daemon's start", &once, NULL },
		{ "interval", "SECONDS", "between two looks, .1 to 3600, else 2", &interval_text,
			NULL },
		{ "count", "N", "so many looks; else until it is interrupted", &n_text, NULL },
	};
	struct top top = { .ctl = ctl };
	unsigned long long n_looks = 0;
	double interval = 2;
	char *end;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (interval_text) {
		interval = strtod(interval_text, &end);
		if (*end || end == interval_text || !(interval >= .1 && interval <= 3600))
			return ctl_fail(ctl, EXIT_USAGE, "--interval %s: .1 to 3600 seconds",
				interval_text);
	}
	if (n_text && (!number_parse(n_text, 1000000000, &n_looks) || n_looks == 0))
		return ctl_fail(ctl, EXIT_USAGE, "--count %s: not a number of looks", n_text);
	if (once)
		n_looks = 1;
	top.is_terminal = !ctl->json && n_looks != 1 && isatty(STDOUT_FILENO);
	status = control_open(ctl, &top.control);
	if (status == EXIT_DONE)
		status = watch(&top, interval, n_looks);
	control_free(top.control);
	seen_free(top.seen);
	return status;
}
