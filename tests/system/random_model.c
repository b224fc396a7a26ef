/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/random.h"

/* random_model NAME SEED FILE: an untrained model, for a demo without a model. Mechanics only. */
int main(int argc, char **argv)
{
	_cleanup_(fclosep) FILE *file = NULL;
	_cleanup_(freep) void *data = NULL;
	struct vit_shape shape;
	size_t n_bytes;

	if (argc != 4 || random_vit_shape(&shape, argv[1]) < 0) {
		fprintf(stderr, "usage: random_model vit_demo|vit_t|vit_s|vit_b SEED FILE\n");
		return 2;
	}
	file = fopen(argv[3], "we");
	if (!file || random_vit_encode(&shape, strtoull(argv[2], NULL, 10), &data, &n_bytes) < 0 ||
		fwrite(data, 1, n_bytes, file) != n_bytes || fflush(file) != 0) {
		perror(argv[3]);
		return 1;
	}
	return 0;
}
