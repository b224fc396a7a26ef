/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_STATE_FIXTURE_H
#define KAMEN_TESTS_STATE_FIXTURE_H

#include "site/state.h"
#include "site/state_disk.h"

/** A state folder below /tmp with one open state; every test gets its own. */
struct fixture {
	char dir[64];
	struct state *state;
	struct state_disk *disk; /* NULL: commits wait for the disk themselves */
	struct site_settings defaults;
};

int fixture_setup(void **state);
int fixture_teardown(void **state);
/** Batches are written by one call and made durable by another from now on, as in serve; asserts. */
void fixture_open_disk(struct fixture *fixture);
/** Closes and opens again, as a restart does; asserts. */
void fixture_reopen(struct fixture *fixture);
/** Content hash of image number i. */
struct digest fixture_hash(uint32_t i);
/** Writes blob number i of a site and fills the row that names it. */
struct image_row fixture_image(struct fixture *fixture, const char *site, uint32_t i);
/** Admits and commits images [from, to); asserts that all are new. */
void fixture_fill(struct fixture *fixture, const char *site, uint32_t from, uint32_t to);
uint32_t fixture_count_files(const struct fixture *fixture, const char *site, const char *folder);
/** Puts a .khard into the round folder, of that base and mask. */
void fixture_hardness(struct fixture *fixture, const struct version_row *row);
/** Puts a learner's results into the round folder and fills the row that describes them. */
struct version_row fixture_results(
	struct fixture *fixture, const char *site, uint32_t version, bool passed);
/** Puts a cascade in place of the mask of these results, and into the row. */
void fixture_make_cascade(struct fixture *fixture, const char *site, struct version_row *row);

#define FIXTURE_BLOB_BYTES 1000u
#define FIXTURE_WIDTH 4u /* of the model's embeddings */

#endif
