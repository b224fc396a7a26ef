/* SPDX-License-Identifier: Apache-2.0 */
/* The disk that forgets, for tests that are no C: see disk.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/disk.h"

static int loss_of(const char *name)
{
	for (int i = 0; disk_loss_names[i]; i++)
		if (strcmp(name, disk_loss_names[i]) == 0)
			return i;
	return -1;
}

int main(int argc, char **argv)
{
	int r = -1;

	if (argc == 5 && strcmp(argv[1], "settle") == 0) {
		r = disk_settle(argv[2], argv[3], strtoull(argv[4], NULL, 10));
	} else if (argc == 7 && strcmp(argv[1], "rebuild") == 0 && loss_of(argv[5]) >= 0) {
		r = disk_rebuild(argv[2], argv[3], argv[4], (enum disk_loss)loss_of(argv[5]),
			strtoull(argv[6], NULL, 10));
	} else if (argc == 3 && strcmp(argv[1], "points") == 0) {
		printf("%llu\n", (unsigned long long)disk_points(argv[2]));
		return 0;
	} else {
		fprintf(stderr,
			"usage: disk_tool settle ROOT SHADOW STOP_AT | "
			"rebuild ROOT SHADOW TO drop|names|mix|keep SEED | points SHADOW\n");
		return 2;
	}
	if (r < 0)
		fprintf(stderr, "%s: %s\n", argv[1], strerror(-r));
	return r < 0;
}
