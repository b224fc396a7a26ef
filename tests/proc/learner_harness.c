/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "ingest/kimg.h"
#include "learner_harness.h"
#include "role.h"

#define PATIENCE_MS 300000
#define SIDE 40u

extern char **environ;

/* ---- what lies on disk */

/* A grating whose direction and pitch tell eight kinds apart, with noise on it. */
static void render(uint8_t *pixels, uint32_t number)
{
	struct rng rng = rng_stream(5, number, 0, 0);
	float angle = (float)(number % 4) * .8f, pitch = number % 8 < 4 ? .5f : 1.1f;
	float phase = rng_range(&rng, 0, 6);

	for (uint32_t y = 0; y < SIDE; y++)
		for (uint32_t x = 0; x < SIDE; x++) {
			float at = (cosf(angle) * (float)x + sinf(angle) * (float)y) * pitch;
			float level = 128 + 60 * sinf(at + phase) + 12 * rng_normal(&rng);

			for (uint32_t c = 0; c < 3; c++)
				pixels[(y * SIDE + x) * 3 + c] =
					(uint8_t)fminf(fmaxf(level + 10 * (float)c, 0), 255);
		}
}

char *harness_path(const struct harness *harness, const char *file, char ret_path[128])
{
	(void)snprintf(ret_path, 128, "%s/%s", harness->dir, file);
	return ret_path;
}

int harness_add_image(struct harness *harness, const struct image_view *view)
{
	const uint32_t i = harness->manifest.n;
	struct manifest_entry entry = { .hash = digest_of(&i, sizeof(i)) };
	_cleanup_(freep) void *data = NULL;
	char path[128], file[64];
	size_t n_bytes;
	int r;

	(void)snprintf(entry.blob, sizeof(entry.blob), "%04u.kimg", i);
	(void)snprintf(file, sizeof(file), "replay/%04u.kimg", i);
	r = kimg_encode(view, &data, &n_bytes);
	if (r == 0)
		r = blob_write(AT_FDCWD, harness_path(harness, file, path), data, n_bytes);
	return r < 0 ? r : manifest_add(&harness->manifest, &entry);
}

int harness_seal_manifest(struct harness *harness)
{
	_cleanup_(freep) char *text = NULL;
	char path[128];
	size_t n_chars;
	int r;

	manifest_split(&harness->manifest);
	r = manifest_write(&harness->manifest, &text, &n_chars);
	return r < 0 ? r
		     : blob_write(AT_FDCWD, harness_path(harness, "manifest", path), text, n_chars);
}

static int write_images(struct harness *harness)
{
	static uint8_t pixels[SIDE * SIDE * 3];
	const struct image_view view = { pixels, SIDE, SIDE, 3, (size_t)SIDE * 3 };
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < HARNESS_IMAGES; i++) {
		render(pixels, i);
		r = harness_add_image(harness, &view);
	}
	return r < 0 ? r : harness_seal_manifest(harness);
}

static int write_model(struct harness *harness)
{
	const struct vit_shape shape = { .width = 48,
		.depth = 2,
		.n_heads = 3,
		.mlp = 96,
		.patch = 8,
		.grid = 4,
		.norm_eps = 1e-6f };
	_cleanup_(freep) void *data = NULL;
	struct diag diag = { "" };
	char path[128];
	size_t n_bytes;

	if (random_vit_encode(&shape, 11, &data, &n_bytes) < 0)
		return -1;
	(void)harness_path(harness, "model.safetensors", path);
	if (blob_write(AT_FDCWD, path, data, n_bytes) < 0)
		return -1;
	return base_load(&harness->base, path, &diag);
}

int harness_setup_empty(void **state)
{
	struct harness *harness = calloc(1, sizeof(*harness));
	char path[128];

	if (!harness)
		return -1;
	harness->pid = harness->sock = -1;
	(void)snprintf(harness->dir, sizeof(harness->dir), "%s", "/tmp/kamen-learner-XXXXXX");
	if (!mkdtemp(harness->dir) || mkdir(harness_path(harness, "replay", path), 0700) < 0 ||
		mkdir(harness_path(harness, "round", path), 0700) < 0 ||
		wire_new(&harness->wire) < 0)
		return -1;
	*state = harness;
	return 0;
}

int harness_setup(void **state)
{
	if (harness_setup_empty(state) < 0)
		return -1;
	return write_images(*state) < 0 || write_model(*state) < 0 ? -1 : 0;
}

int harness_teardown(void **state)
{
	struct harness *harness = *state;
	char command[96];

	if (harness->pid > 0)
		harness_kill(harness);
	closep(&harness->sock);
	wire_free(harness->wire);
	base_free(harness->base);
	manifest_done(&harness->manifest);
	(void)snprintf(command, sizeof(command), "rm -rf %s", harness->dir);
	free(harness);
	return system(command) == 0 ? 0 : -1;
}

void harness_clear_round(struct harness *harness)
{
	char path[128];
	_cleanup_(closedirp) DIR *dir = opendir(harness_path(harness, "round", path));
	const struct dirent *entry;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(dir), entry->d_name, 0), 0);
}

/* ---- the process */

int harness_learner(const char *cpu)
{
	struct config config;

	config_default(&config);
	(void)snprintf(config.learner_cpu, sizeof(config.learner_cpu), "%s", cpu);
	return learner_main(&config);
}

void harness_start(struct harness *harness, const char *cpu)
{
	char *const argv[] = { (char *)"learner", (char *)"--learner", (char *)cpu, NULL };
	const Kamen__RoleMessage *message;
	posix_spawn_file_actions_t actions;
	int pair[2], theirs, base;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	/* Above the numbers that the role's descriptors get. */
	theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, 10);
	base = fcntl(base_fd(harness->base), F_DUPFD_CLOEXEC, 10);
	harness->sock = fcntl(pair[0], F_DUPFD_CLOEXEC, 10);
	assert_true(theirs >= 0 && base >= 0 && harness->sock >= 0);
	(void)close(pair[0]);
	(void)close(pair[1]);
	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(posix_spawn_file_actions_adddup2(&actions, theirs, ROLE_SOCKET), 0);
	assert_int_equal(posix_spawn_file_actions_adddup2(&actions, base, ROLE_BASE), 0);
	assert_int_equal(
		posix_spawn(&harness->pid, "/proc/self/exe", &actions, NULL, argv, environ), 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(theirs);
	(void)close(base);

	message = harness_receive(harness);
	assert_non_null(message);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_READY);
	assert_string_equal(message->ready->role, "learner");
	assert_true(message->ready->threads > 0);
}

int harness_wait(struct harness *harness)
{
	int status;

	assert_int_equal(waitpid(harness->pid, &status, 0), harness->pid);
	harness->pid = -1;
	if (harness->sock >= 0)
		(void)close(TAKE_FD(harness->sock));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void harness_kill(struct harness *harness)
{
	(void)kill(harness->pid, SIGKILL);
	(void)harness_wait(harness);
}

/* ---- messages */

struct prep harness_prep(void)
{
	return (struct prep){ .input_px = HARNESS_PX,
		.resize = PREP_SQUASH,
		.crop = 1,
		.mean = { .5f, .5f, .5f },
		.std = { .5f, .5f, .5f } };
}

void harness_job(
	const struct harness *harness, struct harness_job *ret_job, uint32_t steps, uint64_t seed)
{
	const struct prep prep = harness_prep();
	struct harness_job *job = ret_job;

	kamen__learn_job__init(&job->message);
	kamen__prep__init(&job->prep);
	memcpy(job->mean, prep.mean, sizeof(job->mean));
	memcpy(job->std, prep.std, sizeof(job->std));
	job->prep.input_px = prep.input_px;
	job->prep.resize = (char *)"squash";
	job->prep.crop = prep.crop;
	job->prep.mean = job->mean;
	job->prep.std = job->std;
	job->prep.n_mean = job->prep.n_std = 3;
	job->message.site = (char *)"a";
	job->message.version = 1;
	job->message.prep = &job->prep;
	job->message.manifest = harness_path(harness, "manifest", job->manifest);
	job->message.replay = harness_path(harness, "replay", job->replay);
	job->message.round = harness_path(harness, "round", job->round);
	job->message.has_steps = job->message.has_seed = true;
	job->message.steps = steps;
	job->message.seed = seed;
}

void harness_send_job(struct harness *harness, const struct harness_job *job)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;

	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_LEARN;
	message.learn = (Kamen__LearnJob *)&job->message;
	assert_int_equal(wire_send(harness->sock, &message.base, NULL, 0), 0);
}

void harness_send_cancel(struct harness *harness)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__SiteName site = KAMEN__SITE_NAME__INIT;

	site.site = (char *)"a";
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_CANCEL;
	message.cancel = &site;
	assert_int_equal(wire_send(harness->sock, &message.base, NULL, 0), 0);
}

const Kamen__RoleMessage *harness_receive(struct harness *harness)
{
	struct pollfd poller = { .fd = harness->sock, .events = POLLIN };
	ProtobufCMessage *message;
	int r;

	assert_int_equal(poll(&poller, 1, PATIENCE_MS), 1);
	r = wire_recv(harness->wire, harness->sock, &kamen__role_message__descriptor, &message);
	if (r == 0 || r == -ECONNRESET)
		return NULL;
	assert_int_equal(r, 1);
	return (const Kamen__RoleMessage *)message;
}

const Kamen__RoleMessage *harness_finish(struct harness *harness, uint32_t *ret_n_progress)
{
	const Kamen__RoleMessage *message;
	uint32_t n = 0;

	while ((message = harness_receive(harness)) &&
		message->kind_case == KAMEN__ROLE_MESSAGE__KIND_PROGRESS)
		n++;
	if (ret_n_progress)
		*ret_n_progress = n;
	return message;
}

struct digest harness_file_digest(const struct harness *harness, const char *file)
{
	_cleanup_(freep) void *data = NULL;
	char path[128];
	size_t n_bytes;

	assert_int_equal(
		blob_read(AT_FDCWD, harness_path(harness, file, path), 1 << 26, &data, &n_bytes),
		0);
	return digest_of(data, n_bytes);
}

struct digest harness_learn(struct harness *harness, uint32_t steps, uint64_t seed)
{
	const Kamen__RoleMessage *message;
	struct harness_job job;

	harness_job(harness, &job, steps, seed);
	harness_send_job(harness, &job);
	message = harness_finish(harness, NULL);
	assert_non_null(message);
	if (message->kind_case == KAMEN__ROLE_MESSAGE__KIND_FAILED)
		fail_msg("%s", message->failed->reason);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	return harness_file_digest(harness, "round/candidate.kmask");
}
