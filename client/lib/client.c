/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "cleanup.h"

#define DEFAULT_SLOTS 8u
#define DEFAULT_SLOT_BYTES (4u << 20)
#define CONNECT_SECONDS 10

static int address_of(struct sockaddr_un *ret_address, const char *endpoint)
{
	const char *runtime = getenv("KAMEN_RUNTIME");
	int n;

	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (endpoint)
		n = snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%s", endpoint);
	else
		n = snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%s/data.sock",
			runtime && *runtime ? runtime : "/run/kamen");
	return n < 0 || (size_t)n >= sizeof(ret_address->sun_path) ? -ENAMETOOLONG : 0;
}

static int socket_connect(int *ret_sock, const char *endpoint)
{
	/* A daemon whose queue of connections is full makes connect() wait: not for ever. */
	struct timeval patience = { .tv_sec = CONNECT_SECONDS };
	_cleanup_(closep) int sock = -1;
	struct sockaddr_un address;
	int r;

	r = address_of(&address, endpoint);
	if (r < 0)
		return r;
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	(void)setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(sock, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_sock = TAKE_FD(sock);
	return 0;
}

static bool has_several_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

/* The daemon takes powers of two: the next one that is enough. */
static uint32_t slots_of(uint32_t wanted)
{
	uint32_t n = 1;

	if (wanted == 0)
		return DEFAULT_SLOTS;
	while (n < wanted && n < SHM_MAX_SLOTS)
		n *= 2;
	return n;
}

int kamen_client_connect(
	struct kamen_client **ret_client, const char *endpoint, const struct kamen_options *options)
{
	struct kamen_options o = { .size = sizeof(o) };
	struct kamen_client *client;
	int r;

	if (!ret_client)
		return -EINVAL;
	if (options) {
		if (options->size < sizeof(o) || options->slot_bytes > SHM_MAX_SLOT_BYTES ||
			options->n_slots > SHM_MAX_SLOTS)
			return -EINVAL;
		o = *options;
	}
	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->sock = client->doorbell = -1;
	client->may_spin = has_several_cpus();
	r = socket_connect(&client->sock, endpoint);
	if (r >= 0)
		r = session_open(client, slots_of(o.n_slots),
			o.slot_bytes ? o.slot_bytes : DEFAULT_SLOT_BYTES);
	if (r < 0) {
		(void)kamen_client_free(client);
		return r;
	}
	*ret_client = client;
	return 0;
}

struct kamen_client *kamen_client_free(struct kamen_client *client)
{
	if (!client)
		return NULL;
	session_close(client);
	closep(&client->doorbell);
	closep(&client->sock);
	free(client);
	return NULL;
}

int kamen_client_get_fd(const struct kamen_client *client)
{
	return client->sock;
}

int kamen_client_get_events(const struct kamen_client *client)
{
	(void)client;
	return POLLIN;
}

const char *kamen_verdict_name(enum kamen_verdict verdict)
{
	switch (verdict) {
	case KAMEN_OK:
		return "OK";
	case KAMEN_NG:
		return "NG";
	case KAMEN_UNKNOWN:
		return "UNKNOWN";
	case KAMEN_NO_VERDICT:
	default:
		return "NO_VERDICT";
	}
}

const char *kamen_version(void)
{
	return KAMEN_VERSION;
}
