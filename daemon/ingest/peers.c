/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <zmq.h>

#include "ingest/peers.h"
#include "wire.h"

#define MAX_FILE (1u << 20)
#define MAX_LINE 1024
#define MAX_PEERS 1024u
#define MAX_SITES 4096u /* of one peer */
#define KEY_BYTES 32u
#define KEY_CHARS 40u /* in Z85 */

struct peer {
	SLIST_ENTRY(peer) next;
	char section[64];
	char name[PEER_CHARS]; /* "": not said yet */
	uint32_t line;
	char (*sites)[64];
	unsigned n_sites;
	bool all;
};

struct peers {
	SLIST_HEAD(, peer) list;
	unsigned n;
	bool is_for_nobody;
};

static void peer_free(struct peer *peer)
{
	free(peer->sites);
	free(peer);
}

void peers_free(struct peers *peers)
{
	struct peer *peer;

	if (!peers)
		return;
	while ((peer = SLIST_FIRST(&peers->list))) {
		SLIST_REMOVE_HEAD(&peers->list, next);
		peer_free(peer);
	}
	free(peers);
}

/* ---- reading */

/* The handler of inih knows no line numbers, and has no way to tell of an error. */
struct reading {
	struct peers *peers;
	const char *path, *text, *end;
	uint32_t line;
	int r;
	struct diag *diag;
};

static int fail(struct reading *reading, const char *what)
{
	if (reading->r == 0)
		reading->r = diag_set(
			reading->diag, EINVAL, "%s:%u: %s", reading->path, reading->line, what);
	return 0;
}

static char *read_line(char *line, int size, void *stream)
{
	struct reading *reading = stream;
	const char *newline;
	size_t n;

	if (reading->r < 0 || reading->text == reading->end)
		return NULL;
	reading->line++;
	newline = memchr(reading->text, '\n', (size_t)(reading->end - reading->text));
	n = (size_t)((newline ? newline : reading->end) - reading->text);
	if (n + 2 > (size_t)size || memchr(reading->text, '\0', n)) {
		(void)fail(reading, "not a line of text of at most 1000 bytes");
		return NULL;
	}
	/* Indented lines would continue the value above (Python's way). */
	while (n > 0 && isspace((unsigned char)*reading->text)) {
		reading->text++;
		n--;
	}
	memcpy(line, reading->text, n);
	line[n] = '\n';
	line[n + 1] = '\0';
	reading->text = newline ? newline + 1 : reading->end;
	return line;
}

static struct peer *section_of(struct reading *reading, const char *section)
{
	struct peers *peers = reading->peers;
	struct peer *peer = SLIST_FIRST(&peers->list);

	if (peer && strcmp(peer->section, section) == 0)
		return peer;
	SLIST_FOREACH(peer, &peers->list, next)
	if (strcmp(peer->section, section) == 0) {
		(void)fail(reading, "a second section of this name");
		return NULL;
	}
	if (!*section || strlen(section) >= sizeof(peer->section) || peers->n == MAX_PEERS) {
		(void)fail(reading, "no [name] of a peer above, or too long a one, or too many");
		return NULL;
	}
	peer = calloc(1, sizeof(*peer));
	if (!peer) {
		reading->r = -ENOMEM;
		return NULL;
	}
	(void)snprintf(peer->section, sizeof(peer->section), "%s", section);
	peer->line = reading->line;
	SLIST_INSERT_HEAD(&peers->list, peer, next);
	peers->n++;
	return peer;
}

static int set_name(struct reading *reading, struct peer *peer, const char *kind, const char *value)
{
	if (peer->name[0])
		return fail(reading, "one of key=, uid= and address= is enough");
	if ((size_t)snprintf(peer->name, sizeof(peer->name), "%s:%s", kind, value) >=
		sizeof(peer->name))
		return fail(reading, "too long");
	return 1;
}

/* In the one spelling that libzmq has for it, too. */
static int set_address(struct reading *reading, struct peer *peer, const char *value)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET6, value, &six) == 1) {
		if (!IN6_IS_ADDR_V4MAPPED(&six))
			return set_name(reading, peer, "address",
				inet_ntop(AF_INET6, &six, text, sizeof(text)));
		memcpy(&four, &six.s6_addr[12], sizeof(four));
	} else if (inet_pton(AF_INET, value, &four) != 1) {
		return fail(reading, "address: not one of IPv4 or IPv6");
	}
	return set_name(reading, peer, "address", inet_ntop(AF_INET, &four, text, sizeof(text)));
}

static bool is_key(const char *text)
{
	uint8_t key[KEY_BYTES];

	return strlen(text) == KEY_CHARS && zmq_z85_decode(key, text);
}

static bool is_uid(const char *text)
{
	size_t n = strspn(text, "0123456789");

	return n > 0 && n <= 10 && !text[n] && (n == 1 || *text != '0');
}

static int add_site(struct reading *reading, struct peer *peer, const char *name)
{
	char(*grown)[64];

	if (strcmp(name, "*") == 0) {
		peer->all = true;
		return 1;
	}
	if (wire_site_name_check(name) < 0 || peer->n_sites == MAX_SITES)
		return fail(reading, "not the name of a site, or too many");
	grown = reallocarray(peer->sites, peer->n_sites + 1, sizeof(*grown));
	if (!grown) {
		reading->r = -ENOMEM;
		return 0;
	}
	peer->sites = grown;
	(void)snprintf(grown[peer->n_sites++], sizeof(*grown), "%s", name);
	return 1;
}

static int add_sites(struct reading *reading, struct peer *peer, const char *value)
{
	char name[64];

	for (;;) {
		size_t n;

		value += strspn(value, ", \t");
		n = strcspn(value, ", \t");
		if (n == 0)
			return 1;
		if (n >= sizeof(name))
			return fail(reading, "not the name of a site");
		memcpy(name, value, n);
		name[n] = '\0';
		value += n;
		if (!add_site(reading, peer, name))
			return 0;
	}
}

static int handle_key(void *user, const char *section, const char *key, const char *value)
{
	struct reading *reading = user;
	struct peer *peer = section_of(reading, section);

	if (!peer)
		return 0;
	if (strcmp(key, "sites") == 0)
		return add_sites(reading, peer, value);
	if (strcmp(key, "key") == 0)
		return is_key(value) ? set_name(reading, peer, key, value)
				     : fail(reading, "key: not the 40 characters of a public key");
	if (strcmp(key, "uid") == 0)
		return is_uid(value) ? set_name(reading, peer, key, value)
				     : fail(reading, "uid: not a number");
	if (strcmp(key, "address") == 0)
		return set_address(reading, peer, value);
	return fail(reading, "a peer has key=, uid= or address=, and sites=");
}

static const struct peer *find(const struct peers *peers, const char *name)
{
	const struct peer *peer;

	SLIST_FOREACH(peer, &peers->list, next)
	if (strcmp(peer->name, name) == 0)
		return peer;
	return NULL;
}

static void check_whole(struct reading *reading)
{
	const struct peer *peer;

	SLIST_FOREACH(peer, &reading->peers->list, next)
	{
		reading->line = peer->line;
		if (!peer->name[0])
			(void)fail(reading, "this peer has neither key=, uid= nor address=");
		else if (find(reading->peers, peer->name) != peer)
			(void)fail(reading, "another section names the same peer");
	}
}

int peers_parse(struct peers **ret_peers, const char *path, const char *text, size_t n_bytes,
	struct diag *diag)
{
	_cleanup_(peers_freep) struct peers *peers = calloc(1, sizeof(*peers));
	struct reading reading = { peers, path, text, text + n_bytes, 0, 0, diag };
	int r;

	if (!peers)
		return -ENOMEM;
	SLIST_INIT(&peers->list);
	ini_max_line = MAX_LINE;
	r = ini_parse_stream(read_line, &reading, handle_key, &reading);
	if (reading.r == 0 && r > 0)
		return diag_set(
			diag, EINVAL, "%s:%d: neither [name], key = value nor a comment", path, r);
	if (reading.r == 0 && r < 0)
		return -ENOMEM;
	if (reading.r == 0)
		check_whole(&reading);
	if (reading.r < 0)
		return reading.r;
	*ret_peers = TAKE_PTR(peers);
	return 0;
}

int peers_read(struct peers **ret_peers, const char *path, struct diag *diag)
{
	_cleanup_(freep) void *text = NULL;
	size_t n_bytes = 0;
	struct stat st;
	int r;

	if (!*path)
		return peers_parse(ret_peers, path, "", 0, diag);
	if (stat(path, &st) < 0)
		return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || (st.st_mode & S_IWOTH))
		return diag_set(
			diag, EPERM, "%s: not a file that only its owner and group write", path);
	r = blob_read(AT_FDCWD, path, MAX_FILE, &text, &n_bytes);
	if (r < 0)
		return diag_set(diag, -r, "%s: %s", path, strerror(-r));
	return peers_parse(ret_peers, path, text ? text : "", n_bytes, diag);
}

struct peers *peers_nobody(void)
{
	struct peers *peers = calloc(1, sizeof(*peers));

	if (peers)
		peers->is_for_nobody = true;
	return peers;
}

/* ---- asking */

bool peers_has(const struct peers *peers, const char *peer)
{
	return find(peers, peer) != NULL;
}

bool peers_may(const struct peers *peers, const char *name, const char *site)
{
	const struct peer *peer = find(peers, name);

	if (peers->is_for_nobody)
		return false;
	if (!peer)
		return strncmp(name, "uid:", 4) == 0 || strncmp(name, "address:", 8) == 0;
	if (peer->all)
		return true;
	for (unsigned i = 0; i < peer->n_sites; i++)
		if (strcmp(peer->sites[i], site) == 0)
			return true;
	return false;
}

const char *peers_site(const struct peers *peers, const char *name, unsigned i)
{
	const struct peer *peer = find(peers, name);

	return peer && !peer->all && i < peer->n_sites ? peer->sites[i] : NULL;
}
