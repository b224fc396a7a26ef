/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "ingest/decoder_child.h"
#include "ingest/memfile.h"
#include "ingest/packet.h"

enum { CHANNEL = 3 };

/* The channel becomes descriptor 3 and every other one but stderr goes: the parent's sockets must
 * neither be reachable from here nor stay open after the parent. */
static int keep_only(int channel)
{
	int null = open("/dev/null", O_RDWR);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		return -errno;
	if (channel != CHANNEL && dup2(channel, CHANNEL) < 0)
		return -errno;
	return syscall(SYS_close_range, CHANNEL + 1, ~0u, 0) < 0 ? -errno : 0;
}

/* CPU time of one image. */
static void set_cpu_limit(uint32_t ms)
{
	struct itimerval limit = { .it_value = { ms / 1000, (suseconds_t)(ms % 1000) * 1000 } };

	(void)setitimer(ITIMER_PROF, &limit, NULL);
}

/* The parser cannot be stopped in the middle and used again: the worker ends with its answer. */
static void on_cpu_limit(int number)
{
	static const struct decoder_answer late = { .code = -ETIMEDOUT };

	(void)number;
	(void)packet_send(CHANNEL, &late, sizeof(late), -1);
	_exit(1);
}

static void copy_row(uint8_t *restrict to, const uint8_t *restrict from, size_t n, bool is_bgr)
{
	if (!is_bgr) {
		memcpy(to, from, n);
		return;
	}
	for (size_t i = 0; i + 2 < n; i += 3) {
		to[i] = from[i + 2];
		to[i + 1] = from[i + 1];
		to[i + 2] = from[i];
	}
}

static int raw_image(struct image **ret_image, const struct decoder_job *job, const uint8_t *data,
	struct diag *diag)
{
	uint32_t n_channels = decode_n_channels(job->format);
	size_t n_row = (size_t)job->width * n_channels;
	_cleanup_(image_freep) struct image *image = NULL;
	int r;

	if (job->width == 0 || job->height == 0 || job->stride < n_row ||
		job->n_bytes < (uint64_t)job->stride * (job->height - 1) + n_row)
		return diag_set(diag, EBADMSG, "%llu bytes do not hold %u x %u pixels",
			(unsigned long long)job->n_bytes, job->width, job->height);
	r = image_new(&image, job->width, job->height, n_channels);
	if (r < 0)
		return diag_set(
			diag, -r, "%u x %u pixels: %s", job->width, job->height, strerror(-r));
	for (uint32_t y = 0; y < job->height; y++)
		copy_row(image->pixels + y * n_row, data + (size_t)y * job->stride, n_row,
			job->format == DECODE_BGR8);
	*ret_image = TAKE_PTR(image);
	return 0;
}

static int decode_bytes(struct image **ret_image, const struct decoder_job *job, int fd,
	decoder_image_fn *decode, struct diag *diag)
{
	/* A copy of our own: the bytes must not change between two looks of a parser. */
	_cleanup_(freep) uint8_t *data = malloc(job->n_bytes + 1);
	int r;

	if (!data)
		return diag_set(
			diag, ENOMEM, "%llu bytes: no memory", (unsigned long long)job->n_bytes);
	r = memfile_read(fd, data, job->n_bytes);
	if (r < 0)
		return diag_set(diag, -r, "the bytes cannot be read");
	if (job->format == DECODE_ENCODED)
		return decode(ret_image, data, job->n_bytes, diag);
	return raw_image(ret_image, job, data, diag);
}

static int shrink(struct image **image, uint32_t shorter_px)
{
	uint32_t shorter = (*image)->width < (*image)->height ? (*image)->width : (*image)->height;
	struct image_view view = image_view(*image);
	struct image *small;
	int r;

	if (shorter_px == 0 || shorter <= shorter_px)
		return 0;
	r = image_shrink(&small, &view, shorter_px);
	if (r < 0)
		return r;
	image_free(*image);
	*image = small;
	return 0;
}

static int to_memfile(const struct image *image, int *ret_fd)
{
	size_t n_bytes = (size_t)image->width * image->height * image->n_channels;
	struct memfile file;
	int r = memfile_new(&file, n_bytes);

	if (r < 0)
		return r;
	memcpy(file.map, image->pixels, n_bytes);
	r = memfile_seal(&file, ret_fd);
	memfile_done(&file);
	return r;
}

static int work(struct decoder_answer *answer, const struct decoder_job *job, int fd,
	decoder_image_fn *decode, int *ret_fd)
{
	_cleanup_(image_freep) struct image *image = NULL;
	struct diag diag = { "" };
	int r;

	r = decode_bytes(&image, job, fd, decode, &diag);
	if (r == 0)
		r = shrink(&image, job->shorter_px);
	if (r == 0)
		r = to_memfile(image, ret_fd);
	if (r < 0) {
		(void)snprintf(answer->reason, sizeof(answer->reason), "%.255s",
			diag.text[0] ? diag.text : strerror(-r));
		return r;
	}
	answer->width = image->width;
	answer->height = image->height;
	answer->n_channels = image->n_channels;
	return 0;
}

static _Noreturn void worker(decoder_image_fn *decode)
{
	struct decoder_answer answer = { 0 };
	struct decoder_job job;
	int fd;

	(void)signal(SIGPROF, on_cpu_limit);
	answer.code = decoder_confine();
	if (packet_send(CHANNEL, &answer, sizeof(answer), -1) < 0 || answer.code < 0)
		_exit(1);
	while (packet_recv(CHANNEL, &job, sizeof(job), 0, &fd) == (int)sizeof(job)) {
		int result_fd = -1;

		set_cpu_limit(job.timeout_ms);
		memset(&answer, 0, sizeof(answer));
		answer.code = work(&answer, &job, fd, decode, &result_fd);
		set_cpu_limit(0);
		(void)close(fd);
		if (packet_send(CHANNEL, &answer, sizeof(answer), result_fd) < 0)
			_exit(1);
		closep(&result_fd);
	}
	_exit(0);
}

static int fork_worker(int channel, decoder_image_fn *decode, int *ret_pidfd)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		if (keep_only(channel) < 0)
			_exit(1);
		worker(decode);
	}
	*ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	return *ret_pidfd < 0 ? -errno : 0;
}

_Noreturn void decoder_template(int channel, decoder_image_fn *decode)
{
	struct decoder_fork message;
	int fd;

	(void)prctl(PR_SET_NAME, "kamend-decode");
	/* Workers are never waited for: the pidfd and the channel say what there is to know. */
	(void)signal(SIGCHLD, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	if (keep_only(channel) < 0)
		_exit(1);
	while (packet_recv(CHANNEL, &message, sizeof(message), 0, &fd) == (int)sizeof(message)) {
		int pidfd = -1;

		message.code = fork_worker(fd, decode, &pidfd);
		(void)close(fd);
		(void)packet_send(CHANNEL, &message, sizeof(message), pidfd);
		closep(&pidfd);
	}
	_exit(0);
}
