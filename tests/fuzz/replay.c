/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>

#include "base/blob.h"
#include "base/cleanup.h"

#define MAX_BYTES (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* Without libFuzzer: runs every file of the folder once, so that the corpus is a normal test. */
int main(int argc, char **argv)
{
	_cleanup_(closedirp) DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	unsigned n_run = 0;

	if (!dir) {
		fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
		return 2;
	}
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		_cleanup_(freep) void *data = NULL;
		size_t n_bytes;
		int r;

		if (entry->d_name[0] == '.')
			continue;
		r = blob_read(dirfd(dir), entry->d_name, MAX_BYTES, &data, &n_bytes);
		if (r < 0) {
			fprintf(stderr, "%s/%s: %s\n", argv[1], entry->d_name, strerror(-r));
			return 1;
		}
		(void)LLVMFuzzerTestOneInput(data, n_bytes);
		n_run++;
	}
	printf("%u inputs\n", n_run);
	return n_run > 0 ? 0 : 1;
}
