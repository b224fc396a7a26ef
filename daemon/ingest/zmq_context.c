/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "ingest/zap.h"
#include "ingest/zmq_context.h"
#include "ops/log.h"

#define KEY_LINE "kamen-curve-secret "

enum { KEY_CHARS = 40, MAX_KEY_FILE = 4096 };

/* As `kamenctl zmq keygen` wrote it: one line. */
static int read_key(struct zmq_context *context, const char *path, struct diag *diag)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char text[MAX_KEY_FILE];
	struct stat st;
	uint8_t key[32];
	ssize_t n;
	int r = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || (st.st_mode & (S_IRWXO | S_IWGRP)))
		return diag_set(diag, EPERM,
			"%s: a secret key must not be open to others (chmod 0600)", path);
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (strncmp(text, KEY_LINE, strlen(KEY_LINE)) == 0 &&
		strlen(text) == strlen(KEY_LINE) + KEY_CHARS &&
		zmq_z85_decode(key, text + strlen(KEY_LINE)))
		memcpy(context->secret_key, text + strlen(KEY_LINE), KEY_CHARS + 1);
	else
		r = diag_set(diag, EINVAL, "%s:1: not '" KEY_LINE "KEY'", path);
	explicit_bzero(text, sizeof(text));
	explicit_bzero(key, sizeof(key));
	return r;
}

int zmq_context_init(struct zmq_context *context, sd_event *event, const struct config *config)
{
	struct diag diag = { "" };
	int r = 0;

	*context = (struct zmq_context){ .event = event, .config = config };
	if (config->zmq_server_key[0])
		r = read_key(context, config->zmq_server_key, &diag);
	/* Everything else goes on: without a key nothing of ours is bound to tcp. */
	if (r < 0)
		log_error("no CURVE: %s", diag.text);
	r = peers_read(&context->peers, config->zmq_peers, &diag);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		log_error("no peer may speak for any site: %s", diag.text);
		context->peers = peers_nobody();
		r = context->peers ? 0 : -ENOMEM;
	}
	return r;
}

void zmq_context_done(struct zmq_context *context)
{
	zap_free(context->zap);
	if (context->zmq)
		(void)zmq_ctx_term(context->zmq);
	peers_free(context->peers);
	explicit_bzero(context->secret_key, sizeof(context->secret_key));
	*context = (struct zmq_context){ .event = NULL };
}

/*
 * libzmq bounds the parts of a message, and the messages of a peer, but not how many parts a
 * message has. The sender of one without end loses its connection, or ingest ends and is started
 * again, before the machine has no memory.
 */
static int limit_memory(const struct config *config)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long long n_pages;
	struct rlimit limit;
	int n;

	if (!file)
		return -errno;
	n = fscanf(file, "%*u %*u %*u %*u %*u %llu", &n_pages);
	(void)fclose(file);
	if (n != 1)
		return -EIO;
	if (getrlimit(RLIMIT_DATA, &limit) < 0)
		return -errno;
	n_pages = n_pages * (unsigned long long)sysconf(_SC_PAGESIZE) + config->zmq_memory_bytes;
	if (limit.rlim_cur > n_pages)
		limit.rlim_cur = n_pages;
	return setrlimit(RLIMIT_DATA, &limit) < 0 ? -errno : 0;
}

int zmq_context_start(struct zmq_context *context)
{
	int r;

	if (context->zap)
		return 0;
	if (!context->zmq) {
		r = limit_memory(context->config);
		if (r < 0)
			log_warning("memory for ZeroMQ has no limit: %s", strerror(-r));
		context->zmq = zmq_ctx_new();
		if (!context->zmq)
			return -errno;
	}
	r = zap_new(&context->zap, context->zmq, context->event, &context->peers);
	return r < 0 ? r : 0;
}

void zmq_context_reload(struct zmq_context *context)
{
	struct diag diag = { "" };
	struct peers *peers;
	int r;

	r = peers_read(&peers, context->config->zmq_peers, &diag);
	if (r < 0) {
		log_error("the list of peers stays as it was: %s",
			diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	peers_free(context->peers);
	context->peers = peers;
}
