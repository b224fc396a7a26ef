/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "clock.h"
#include "wire.h"

#define DEFAULT_SLOTS 8u
#define DEFAULT_SLOT_BYTES (4u << 20)
#define DEFAULT_SPIN_US 20u
#define DEFAULT_RECONNECT_NS (30 * NS_PER_S)
#define WELCOME_MS 10000
/* What the first version of the struct had. */
#define LEAST_OPTIONS_BYTES offsetof(struct kamen_options, reconnect_ns)

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

static bool has_several_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

static uint64_t spin_of(uint32_t spin_us)
{
	if (spin_us == KAMEN_NO_SPIN || !has_several_cpus())
		return 0;
	return (spin_us > 0 ? spin_us : DEFAULT_SPIN_US) * UINT64_C(1000);
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

/* Of a program built with another version: what it does not know is 0, what we do not must be. */
static int options_take(struct kamen_options *ret_options, const struct kamen_options *options)
{
	size_t n = options->size < sizeof(*options) ? options->size : sizeof(*options);

	if (n < LEAST_OPTIONS_BYTES)
		return -EINVAL;
	for (size_t i = n; i < options->size; i++)
		if (((const uint8_t *)options)[i])
			return -EINVAL;
	memcpy(ret_options, options, n);
	if (ret_options->slot_bytes > SHM_MAX_SLOT_BYTES || ret_options->n_slots > SHM_MAX_SLOTS ||
		ret_options->flags & ~KAMEN_NO_RECONNECT)
		return -EINVAL;
	return 0;
}

static int client_new(
	struct kamen_client **ret_client, const char *endpoint, const struct kamen_options *o)
{
	struct kamen_client *client = calloc(1, sizeof(*client));
	int r;

	if (!client)
		return -ENOMEM;
	client->sock = client->doorbell = -1;
	client->spin_ns = spin_of(o->spin_us);
	client->may_reconnect = !(o->flags & KAMEN_NO_RECONNECT);
	client->n_slots = slots_of(o->n_slots);
	client->slot_bytes = o->slot_bytes ? o->slot_bytes : DEFAULT_SLOT_BYTES;
	client->reconnect_ns = o->reconnect_ns ? o->reconnect_ns : DEFAULT_RECONNECT_NS;
	client->epoll = epoll_create1(EPOLL_CLOEXEC);
	r = client->epoll < 0 ? -errno : address_of(&client->address, endpoint);
	if (r >= 0)
		r = wire_new(&client->wire);
	if (r < 0) {
		(void)kamen_client_free(client);
		return r;
	}
	*ret_client = client;
	return 0;
}

static int connect_now(struct kamen_client *client)
{
	struct pollfd poller = { .events = POLLIN };
	int r;

	r = session_begin(client, true);
	if (r < 0)
		return r;
	poller.fd = client->sock;
	r = poll(&poller, 1, WELCOME_MS);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	return session_finish(client);
}

int kamen_client_connect(
	struct kamen_client **ret_client, const char *endpoint, const struct kamen_options *options)
{
	struct kamen_options o = { .size = sizeof(o) };
	struct kamen_client *client;
	int r;

	if (!ret_client)
		return -EINVAL;
	r = options ? options_take(&o, options) : 0;
	if (r >= 0)
		r = client_new(&client, endpoint, &o);
	if (r < 0)
		return r;
	r = connect_now(client);
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
	session_hang_up(client);
	for (uint32_t i = 0; i < SHM_MAX_SLOTS; i++)
		slot_free(&client->slots[i]);
	(void)region_unref(client->results);
	(void)region_unref(client->frames);
	closep(&client->epoll);
	wire_free(client->wire);
	free(client);
	return NULL;
}

int kamen_client_get_fd(const struct kamen_client *client)
{
	return client->epoll;
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
