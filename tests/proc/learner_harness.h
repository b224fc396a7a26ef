/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_LEARNER_HARNESS_H
#define KAMEN_TESTS_LEARNER_HARNESS_H

#include <sys/types.h>

#include "engine.h"
#include "kamen.pb-c.h"
#include "site/manifest.h"
#include "wire.h"

/*
 * The learner's role as a process of its own over a socket pair: this program executes itself as
 * `TEST --learner CPU`. A small seeded untrained ViT and rendered textures: mechanics only.
 */
#define HARNESS_IMAGES 100u
#define HARNESS_PX 32u

struct harness {
	char dir[64]; /* replay/, round/, manifest, model.safetensors */
	struct base *base;
	struct manifest manifest;
	struct wire *wire;
	pid_t pid;
	int sock;
};

int harness_setup(void **state);
int harness_teardown(void **state);
/** Folders alone: the caller brings images, then seals the manifest, and a base. */
int harness_setup_empty(void **state);
int harness_add_image(struct harness *harness, const struct image_view *view);
int harness_seal_manifest(struct harness *harness);
/** What the program does when it was executed as the learner. */
int harness_learner(const char *cpu);

/** Starts the role and takes its Ready. */
void harness_start(struct harness *harness, const char *cpu);
/** Kills it; what it leaves is what a power cut leaves. */
void harness_kill(struct harness *harness);
/** Waits for its end. @return exit status, or -1 where a signal ended it */
int harness_wait(struct harness *harness);
/** An empty round folder, as at the start of a round. */
void harness_clear_round(struct harness *harness);
char *harness_path(const struct harness *harness, const char *file, char ret_path[128]);

/** A job for site "a" version 1; fields may be changed before it is sent. */
struct harness_job {
	Kamen__LearnJob message;
	Kamen__Prep prep;
	float mean[3], std[3];
	char manifest[128], replay[128], round[128];
};
void harness_job(
	const struct harness *harness, struct harness_job *ret_job, uint32_t steps, uint64_t seed);
struct prep harness_prep(void);
void harness_send_job(struct harness *harness, const struct harness_job *job);
void harness_send_cancel(struct harness *harness);
/** The next message; NULL: the learner has closed. Lives until the next call. */
const Kamen__RoleMessage *harness_receive(struct harness *harness);
/** Receives progress until something else comes; counts it. */
const Kamen__RoleMessage *harness_finish(struct harness *harness, uint32_t *ret_n_progress);
/** Sends the job, waits for Done, hands out the digest of candidate.kmask's file. */
struct digest harness_learn(struct harness *harness, uint32_t steps, uint64_t seed);
struct digest harness_file_digest(const struct harness *harness, const char *file);

#endif
