/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#define SYSTEM_BYTES (256u << 10) /* some 20 microseconds of the kernel's */
#define LONGEST_PIECE_NS (50 * NS_PER_MS)

static uint64_t cpu_ns(void)
{
	struct timespec at;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
	return (uint64_t)at.tv_sec * NS_PER_S + (uint64_t)at.tv_nsec;
}

static uint64_t ns_of(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * NS_PER_S + (uint64_t)time->tv_usec * NS_PER_US;
}

struct load load_now(void)
{
	static const int whose[] = { RUSAGE_SELF, RUSAGE_CHILDREN };
	struct load load = { .wall_ns = clock_now_ns() };

	for (unsigned i = 0; i < 2; i++) {
		struct rusage usage;

		if (getrusage(whose[i], &usage) < 0)
			continue;
		load.user_ns += ns_of(&usage.ru_utime);
		load.system_ns += ns_of(&usage.ru_stime);
		load.n_pieces += (uint64_t)usage.ru_nvcsw;
	}
	return load;
}

void load_add(struct load *load, const struct load *since)
{
	const struct load now = load_now();

	load->user_ns += now.user_ns - since->user_ns;
	load->system_ns += now.system_ns - since->system_ns;
	load->wall_ns += now.wall_ns - since->wall_ns;
	load->n_pieces += now.n_pieces - since->n_pieces;
}

static void burn_user(uint64_t until_ns)
{
	volatile uint64_t word = until_ns;

	while (cpu_ns() < until_ns)
		for (int i = 0; i < 1000; i++)
			word = word * UINT64_C(6364136223846793005) + 1;
}

/* Pages come and go, as they do where sessions are opened. */
static void burn_system(uint64_t until_ns)
{
	while (cpu_ns() < until_ns) {
		void *at = mmap(NULL, SYSTEM_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		if (at != MAP_FAILED)
			(void)munmap(at, SYSTEM_BYTES);
	}
}

void load_burn(const struct load *load)
{
	uint64_t n = load->n_pieces > 0 ? load->n_pieces : 1, piece_ns = load->wall_ns / n;
	uint64_t user_ns = load->user_ns / n, system_ns = load->system_ns / n, begin = cpu_ns();

	if (piece_ns > LONGEST_PIECE_NS) {
		user_ns = user_ns * LONGEST_PIECE_NS / piece_ns;
		system_ns = system_ns * LONGEST_PIECE_NS / piece_ns;
		piece_ns = LONGEST_PIECE_NS;
	}
	burn_user(begin + user_ns);
	burn_system(begin + user_ns + system_ns);
	if (piece_ns > user_ns + system_ns)
		(void)nanosleep(
			&(const struct timespec){ 0, (long)(piece_ns - user_ns - system_ns) },
			NULL);
}

double load_cpus(const struct load *load)
{
	return load->wall_ns > 0 ? (double)(load->user_ns + load->system_ns) / (double)load->wall_ns
				 : 0;
}
