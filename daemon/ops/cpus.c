/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/cpus.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_NODES 64u

/* A number below CPU_SETSIZE, moved past. */
static bool take_number(const char **text, unsigned *ret_number)
{
	unsigned number = 0;
	const char *c = *text;

	for (; *c >= '0' && *c <= '9' && number < CPU_SETSIZE; c++)
		number = 10 * number + (unsigned)(*c - '0');
	if (c == *text || number >= CPU_SETSIZE)
		return false;
	*text = c;
	*ret_number = number;
	return true;
}

bool cpus_parse(const char *text, cpu_set_t *ret_cpus)
{
	CPU_ZERO(ret_cpus);
	for (;;) {
		unsigned first, last;

		if (!take_number(&text, &first))
			return false;
		last = first;
		if (*text == '-') {
			text++;
			if (!take_number(&text, &last) || last < first)
				return false;
		}
		for (unsigned i = first; i <= last; i++)
			CPU_SET(i, ret_cpus);
		if (!*text)
			return true;
		if (*text++ != ',')
			return false;
	}
}

int cpus_allowed(const char *text, cpu_set_t *ret_cpus, struct diag *diag)
{
	cpu_set_t wanted, ours;

	if (sched_getaffinity(0, sizeof(ours), &ours) < 0)
		return diag_set(diag, errno, "the CPUs of this process: %s", strerror(errno));
	if (!*text) {
		*ret_cpus = ours;
		return 0;
	}
	if (!cpus_parse(text, &wanted))
		return diag_set(diag, EINVAL, "cpus = %s: not a list of CPUs", text);
	CPU_AND(&wanted, &wanted, &ours);
	if (CPU_COUNT(&wanted) == 0)
		return diag_set(diag, ENODEV, "cpus = %s: this process may use none of them", text);
	*ret_cpus = wanted;
	return 0;
}

int cpus_keep_to(const char *text, struct diag *diag)
{
	cpu_set_t cpus;
	int r;

	if (!*text)
		return 0;
	r = cpus_allowed(text, &cpus, diag);
	if (r == 0 && sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
		r = diag_set(diag, errno, "cpus = %s: %s", text, strerror(errno));
	return r;
}

/* The CPUs of a node; false: there is no such node, or nothing is told of it. */
static bool node_cpus(unsigned node, cpu_set_t *ret_cpus)
{
	char path[64], line[4096];
	_cleanup_(fclosep) FILE *file = NULL;

	(void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist", node);
	file = fopen(path, "re");
	if (!file || !fgets(line, sizeof(line), file))
		return false;
	line[strcspn(line, "\n")] = 0;
	return cpus_parse(line, ret_cpus);
}

/* Hands out those of some CPUs whose turn is in [first, end), *at turns having passed. */
static void hand_out(
	const cpu_set_t *cpus, unsigned first, unsigned end, unsigned *at, cpu_set_t *share)
{
	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, cpus))
			continue;
		if (*at >= first && *at < end)
			CPU_SET(cpu, share);
		(*at)++;
	}
}

cpu_set_t cpus_share(const cpu_set_t *cpus, unsigned i, unsigned n)
{
	const unsigned n_cpus = (unsigned)CPU_COUNT(cpus);
	unsigned first = i * n_cpus / n, end = (i + 1) * n_cpus / n, at = 0;
	cpu_set_t share, node, left = *cpus;

	if (end == first)
		end = first + 1;
	CPU_ZERO(&share);
	for (unsigned k = 0; k < MAX_NODES; k++) {
		if (!node_cpus(k, &node))
			continue;
		CPU_AND(&node, &node, &left);
		hand_out(&node, first, end, &at, &share);
		CPU_XOR(&left, &left, &node);
	}
	hand_out(&left, first, end, &at, &share);
	return share;
}
