/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine.h"
#include "learner/process.h"
#include "ops/log.h"

static const char oom_score_adj[] = "800";

static void offer_to_oom_killer(void)
{
	_cleanup_(closep) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, oom_score_adj, strlen(oom_score_adj)) < 0)
		log_info("oom_score_adj stays as it is: %s", strerror(errno));
}

uint32_t process_step_back(const char *cpu)
{
	const struct sched_param param = { .sched_priority = 0 };
	long percentage;

	offer_to_oom_killer();
	/* The kernel clears a large page without a break: 7 ms and more where a host has to find the memory
	 * first, in which a thread of inference that is woken on that CPU waits. */
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) < 0)
		log_info("large pages stay: %s", strerror(errno));
	if (strcmp(cpu, "idle") == 0) {
		if (setpriority(PRIO_PROCESS, 0, 19) < 0)
			log_info("nice stays as it is: %s", strerror(errno));
		if (sched_setscheduler(0, SCHED_IDLE, &param) < 0)
			log_warning("SCHED_IDLE refused: %s", strerror(errno));
		return 100;
	}
	/* Nice would make the share a wish: behind serving that never rests it would get nothing. */
	percentage = strtol(cpu, NULL, 10);
	return percentage >= 1 && percentage <= 100 ? (uint32_t)percentage : 100;
}

uint64_t process_rest_ns(uint32_t percentage, uint64_t worked_ns)
{
	return worked_ns / percentage * (100 - percentage);
}
