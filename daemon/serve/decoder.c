/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/decoder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "serve/limits.h"
#include "serve/serve.h"

#define JOB_TRIES 2

void decoder_init(struct decoder *decoder)
{
	*decoder = (struct decoder){ .jobs = NULL };
	decoder->tail = &decoder->jobs;
}

/* ---- the list */

static uint64_t job_bytes(const struct shm_request *wire)
{
	if (wire->format == SHM_ENCODED)
		return wire->n_bytes;
	return (uint64_t)wire->width * wire->height * shm_n_channels(wire->format);
}

static void close_job(struct serve *serve, struct request *request)
{
	/* Ingest may have closed its own, and the pages go with ours. */
	if (job_bytes(&request->wire) > SERVE_COPY_AT_ONCE)
		hand_close(serve->hand, request->job_fd);
	else
		closep(&request->job_fd);
	request->job_fd = -1;
}

static void job_unlink(struct serve *serve, struct request *request)
{
	struct decoder *decoder = &serve->decoder;
	struct request **at = &decoder->jobs;

	while (*at != request)
		at = &(*at)->job_next;
	*at = request->job_next;
	if (decoder->tail == &request->job_next)
		decoder->tail = at;
	request->job_next = NULL;
	request->job_id = 0;
	close_job(serve, request);
}

void decoder_forget(struct serve *serve, struct request *request)
{
	job_unlink(serve, request);
}

struct request *decoder_take(struct serve *serve, uint64_t id)
{
	for (struct request *q = serve->decoder.jobs; q; q = q->job_next) {
		if (q->job_id != id)
			continue;
		job_unlink(serve, q);
		return q;
	}
	return NULL;
}

uint32_t decoder_n_waiting(const struct serve *serve)
{
	uint32_t n = 0;

	for (const struct request *q = serve->decoder.jobs; q; q = q->job_next)
		n++;
	return n;
}

/* ---- to ingest */

/* write() from the client's pages: where one is missing it fails, where a load would kill us. */
static int write_whole(int fd, const uint8_t *data, size_t n_bytes)
{
	while (n_bytes > 0) {
		ssize_t n = write(fd, data, n_bytes);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			n_bytes -= (size_t)n;
		}
	}
	return 0;
}

static bool is_dense(const struct shm_request *wire)
{
	return wire->format == SHM_ENCODED ||
	       wire->stride == (uint64_t)wire->width * shm_n_channels(wire->format);
}

int decoder_copy(struct request *request, size_t n_bytes)
{
	const struct shm_request *wire = &request->wire;
	const uint8_t *slot = session_shm_slot(&request->session->shm, wire->slot);
	uint64_t n_all = job_bytes(wire), n_end = request->n_read + n_bytes;
	size_t row = (size_t)wire->width * shm_n_channels(wire->format);
	int r = 0;

	n_end = n_end < n_all ? n_end : n_all;
	if (is_dense(wire)) {
		r = write_whole(request->job_fd, slot + request->n_read, n_end - request->n_read);
		request->n_read = n_end;
	}
	while (r >= 0 && request->n_read < n_end) {
		r = write_whole(request->job_fd,
			slot + (size_t)(request->n_read / row) * wire->stride, row);
		request->n_read += row;
	}
	return r < 0 ? r : request->n_read >= n_all;
}

static int post_job(struct serve *serve, struct request *request)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__DecodeJob job = KAMEN__DECODE_JOB__INIT;
	const struct shm_request *wire = &request->wire;
	char sender[64];

	(void)snprintf(sender, sizeof(sender), "uid %u", request->session->peer.uid);
	job.id = request->job_id;
	job.site = request->site->name;
	job.push = wire->verb == SHM_PUSH;
	job.n_bytes = job_bytes(wire);
	job.has_format = true;
	job.format = (Kamen__PixelFormat)wire->format;
	if (wire->format != SHM_ENCODED) {
		job.has_width = job.has_height = true;
		job.width = wire->width;
		job.height = wire->height;
	}
	job.sender = sender;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_DECODE;
	message.decode = &job;
	request->job_tries++;
	return role_post(&serve->roles[ROLE_INGEST], &message, request->job_fd);
}

/* Everything is copied. */
static int hand_over(struct serve *serve, struct request *request)
{
	/* Nobody has mapped it: F_SEAL_WRITE says no more, and looks at every page in the loop. */
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
	struct decoder *decoder = &serve->decoder;

	if (fcntl(request->job_fd, F_ADD_SEALS, seals) < 0)
		return -errno;
	request->job_id = ++decoder->last_id;
	*decoder->tail = request;
	decoder->tail = &request->job_next;
	decoder->n_jobs++;
	/* An ingest that starts just now gets it when it says that it is ready. */
	if (serve->roles[ROLE_INGEST].ready && post_job(serve, request) < 0) {
		job_unlink(serve, request);
		return -EAGAIN;
	}
	return 0;
}

int decoder_submit(struct serve *serve, struct request *request)
{
	int r;

	request->n_read = 0;
	request->job_fd = memfd_create("kamen-job", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (request->job_fd < 0)
		return -errno;
	if (job_bytes(&request->wire) > SERVE_COPY_AT_ONCE) {
		r = reading_start(serve, request);
	} else {
		r = decoder_copy(request, SERVE_COPY_AT_ONCE);
		if (r >= 0)
			r = hand_over(serve, request);
	}
	if (r < 0)
		close_job(serve, request);
	return r;
}

void decoder_copied(struct serve *serve, struct request *request, int r)
{
	if (r >= 0)
		r = hand_over(serve, request);
	if (r >= 0)
		return;
	close_job(serve, request);
	request_fail(request, r, "cannot hand the image to ingest");
	request_finish(serve, request);
}

void decoder_resume(struct serve *serve)
{
	struct request *next;

	for (struct request *q = serve->decoder.jobs; q; q = next) {
		next = q->job_next;
		if (post_job(serve, q) >= 0)
			continue;
		job_unlink(serve, q);
		serve->decoder.n_failed++;
		request_fail(q, -EAGAIN, "cannot hand the image to ingest");
		request_finish(serve, q);
	}
}

void decoder_lost(struct serve *serve)
{
	struct request *next;

	for (struct request *q = serve->decoder.jobs; q; q = next) {
		next = q->job_next;
		if (q->job_tries < JOB_TRIES)
			continue;
		job_unlink(serve, q);
		serve->decoder.n_failed++;
		request_fail(q, -EIO, "the decoder died twice over this image");
		request_finish(serve, q);
	}
}

/* ---- from ingest */

static int map_pixels(
	struct decoder *decoder, struct request *request, const Kamen__Decoded *decoded, int fd)
{
	const int needed = F_SEAL_SHRINK | F_SEAL_WRITE;
	uint32_t channels = decoded->n_channels;
	size_t n_bytes;
	struct stat st;
	void *at;
	int seals;

	if (fd < 0)
		return -EMFILE;
	if (channels != 1 && channels != 3)
		return -EBADMSG;
	if (decoded->width == 0 || decoded->width > IMAGE_MAX_SIDE || decoded->height == 0 ||
		decoded->height > IMAGE_MAX_SIDE)
		return -EBADMSG;
	n_bytes = (size_t)decoded->width * decoded->height * channels;
	if (decoder->n_bytes + n_bytes > SERVE_MAX_DECODED_BYTES)
		return -ENOBUFS;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & needed) != needed)
		return -EPERM;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < n_bytes)
		return -EBADMSG;
	at = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	request->decoded = at;
	request->decoded_bytes = n_bytes;
	decoder->n_bytes += n_bytes;
	request->view = (struct image_view){ at, decoded->width, decoded->height, channels,
		(size_t)decoded->width * channels };
	return 0;
}

void decoder_decoded(struct serve *serve, const Kamen__Decoded *decoded, int fd)
{
	struct request *request = decoder_take(serve, decoded->id);
	int r;

	if (!request)
		return;
	if (decoded->code < 0) {
		serve->decoder.n_failed++;
		request_fail(request, decoded->code, "%s",
			decoded->reason ? decoded->reason : "cannot decode the image");
		request_finish(serve, request);
		return;
	}
	r = map_pixels(&serve->decoder, request, decoded, fd);
	if (r < 0) {
		request_fail(request, r, "%s",
			r == -EMFILE    ? "no descriptor is left for the pixels"
			: r == -ENOBUFS ? "too many decoded images wait already"
					: "ingest answered with pixels that do not fit its words");
		request_finish(serve, request);
		return;
	}
	request_queue(serve, request);
}

void decoder_refused(struct serve *serve, const Kamen__Refused *refused)
{
	struct request *request = refused->has_id ? decoder_take(serve, refused->id) : NULL;

	if (!request)
		return;
	request->answer.code = -EBADMSG;
	request->answer.outcome = KAMEN__OUTCOME__REJECTED;
	request->answer.reason = refused->reason ? refused->reason : "refused";
	request_complete(serve, request);
}
