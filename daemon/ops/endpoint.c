/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ops/endpoint.h"

static bool is_port(const char *text)
{
	char *end;
	unsigned long port;

	if (*text < '1' || *text > '9')
		return false;
	port = strtoul(text, &end, 10);
	return !*end && port <= 65535;
}

/* ADDRESS:PORT, an IPv6 address in brackets. No names: what they mean is another's to say. */
static enum endpoint_place place_of_tcp(const char *text)
{
	const char *colon = strrchr(text, ':');
	struct in6_addr six;
	struct in_addr four;
	char address[64];
	size_t n;

	if (!colon || !is_port(colon + 1))
		return ENDPOINT_NONE;
	n = (size_t)(colon - text);
	if (n == 1 && *text == '*')
		return ENDPOINT_TCP;
	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (n >= sizeof(address))
		return ENDPOINT_NONE;
	memcpy(address, text, n);
	address[n] = '\0';
	if (text[-1] == '[')
		return inet_pton(AF_INET6, address, &six) != 1 ? ENDPOINT_NONE
		       : IN6_IS_ADDR_LOOPBACK(&six)            ? ENDPOINT_LOOPBACK
							       : ENDPOINT_TCP;
	if (inet_pton(AF_INET, address, &four) != 1)
		return ENDPOINT_NONE;
	return ntohl(four.s_addr) >> 24 == 127 ? ENDPOINT_LOOPBACK : ENDPOINT_TCP;
}

enum endpoint_place endpoint_place(const char *endpoint)
{
	if (strncmp(endpoint, "ipc:///", 7) == 0 && endpoint[7])
		return ENDPOINT_IPC;
	if (strncmp(endpoint, "tcp://", 6) == 0)
		return place_of_tcp(endpoint + 6);
	return ENDPOINT_NONE;
}

bool endpoint_next(const char **at, char ret_endpoint[ENDPOINT_CHARS])
{
	const char *begin = *at + strspn(*at, " ");
	size_t n = strcspn(begin, " ");

	*at = begin + n;
	if (n == 0)
		return false;
	if (n >= ENDPOINT_CHARS)
		n = 0;
	memcpy(ret_endpoint, begin, n);
	ret_endpoint[n] = '\0';
	return true;
}

int endpoint_check(const char *endpoint, bool has_key, bool plain_tcp, struct diag *diag)
{
	switch (endpoint_place(endpoint)) {
	case ENDPOINT_NONE:
		return diag_set(diag, EINVAL,
			"'%.100s' is neither ipc:///PATH nor tcp://ADDRESS:PORT", endpoint);
	case ENDPOINT_IPC:
		return 0;
	case ENDPOINT_LOOPBACK:
		if (has_key || plain_tcp)
			return 0;
		return diag_set(diag, EINVAL,
			"%.100s takes server_key=, or plain_tcp=on in [zmq], which lets in whoever "
			"runs on this machine",
			endpoint);
	case ENDPOINT_TCP:
		if (has_key)
			return 0;
		return diag_set(diag, EINVAL,
			"%.100s takes server_key= in [zmq]: what leaves this machine is encrypted",
			endpoint);
	}
	return -EINVAL;
}
