/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "ops/config_file.h"
#include "ops/endpoint.h"
#include "wire.h"

#define DEFAULT_PATH "/etc/kamen/kamend.conf"
#define MAX_LINE 1024
#define MAX_FILE (1u << 20)
#define MAX_SITES 4096

/* What is left of the text, and the first error: the handler of inih knows no line numbers. */
struct parse {
	struct config *config;
	struct site_file *site;
	const char *path;
	const char *text, *end;
	uint32_t line;
	int r;
	struct diag *diag;
};

static int fail(struct parse *p, const char *what)
{
	if (p->r == 0)
		p->r = diag_set(p->diag, EINVAL, "%s:%u: %s", p->path, p->line, what);
	return p->r;
}

/* inih calls its handler for keys only, so an unknown section without any would go unnoticed. */
static bool heading_is_known(const struct parse *p, const char *line)
{
	char section[32];
	const char *end = strchr(line, ']');

	if (line[0] != '[')
		return true;
	if (!end || (size_t)(end - line) > sizeof(section))
		return false;
	(void)snprintf(section, sizeof(section), "%.*s", (int)(end - line - 1), line + 1);
	return config_has_section(section, p->site != NULL);
}

/* Like fgets(): one line at a time, and none after an error. */
static char *read_line(char *line, int size, void *stream)
{
	struct parse *p = stream;
	const char *newline;
	size_t n;

	if (p->r < 0 || p->text == p->end)
		return NULL;
	p->line++;
	newline = memchr(p->text, '\n', (size_t)(p->end - p->text));
	n = (size_t)((newline ? newline : p->end) - p->text);
	if (memchr(p->text, '\0', n)) {
		(void)fail(p, "a zero byte; this is not a text file");
		return NULL;
	}
	if (n + 2 > (size_t)size) {
		(void)fail(p, "line too long");
		return NULL;
	}
	/* Indented lines would continue the value above (Python's way): here they are plain lines. */
	while (n > 0 && isspace((unsigned char)*p->text)) {
		p->text++;
		n--;
	}
	memcpy(line, p->text, n);
	line[n] = '\n';
	line[n + 1] = '\0';
	p->text = newline ? newline + 1 : p->end;
	if (!heading_is_known(p, line)) {
		(void)fail(p, "unknown section");
		return NULL;
	}
	return line;
}

static int set_site_key(struct parse *p, const char *key, const char *value, struct diag *diag)
{
	int r = site_settings_set(&p->site->settings, key, value, diag);

	for (unsigned i = 0; r == 0 && config_site_keys[i]; i++)
		if (strcmp(config_site_keys[i], key) == 0)
			p->site->lines[i] = p->line;
	return r;
}

enum { FROM_ROUTER, FROM_PUBLISH, FROM_PULL };

/* For what can only be checked once every file is read. */
static void remember(const struct parse *p, const char *section, const char *key)
{
	static const struct {
		const char *section, *key;
	} endpoints[] = {
		[FROM_ROUTER] = { "zmq", "router" },
		[FROM_PUBLISH] = { "zmq", "publish" },
		[FROM_PULL] = { "site", "zmq_pull" },
	};
	struct config *config = p->config;

	if (strcmp(section, "site") == 0 && strcmp(key, "input_px") == 0)
		(void)snprintf(config->input_px_from, sizeof(config->input_px_from), "%s:%u",
			p->path, p->line);
	for (size_t i = 0; i < ARRAY_SIZE(endpoints); i++)
		if (strcmp(section, endpoints[i].section) == 0 &&
			strcmp(key, endpoints[i].key) == 0)
			(void)snprintf(config->endpoint_from[i], sizeof(config->endpoint_from[i]),
				"%s:%u", p->path, p->line);
}

static int handle_key(void *user, const char *section, const char *key, const char *value)
{
	struct parse *p = user;
	struct diag diag = { 0 };
	int r;

	if (!*section) {
		(void)fail(p, "a key before any [section]");
		return 0;
	}
	if (p->site)
		r = set_site_key(p, key, value, &diag);
	else
		r = config_set(p->config, section, key, value, &diag);
	if (r == 0 && !p->site)
		remember(p, section, key);
	if (r < 0)
		(void)fail(p, diag.text);
	return r == 0;
}

int config_parse(struct config *config, struct site_file *site, const char *path, const char *text,
	size_t n_bytes, struct diag *diag)
{
	struct parse p = { config, site, path, text, text + n_bytes, 0, 0, diag };
	int r;

	/* The library's default of 200 bytes would cut long paths in two without a word. */
	ini_max_line = MAX_LINE;
	r = ini_parse_stream(read_line, &p, handle_key, &p);
	if (p.r < 0)
		return p.r;
	if (r > 0)
		return diag_set(diag, EINVAL, "%s:%d: neither [section], key = value nor a comment",
			path, r);
	return r < 0 ? -ENOMEM : 0;
}

static int parse_file(
	struct config *config, struct site_file *site, const char *path, struct diag *diag)
{
	_cleanup_(freep) char *text = NULL;
	_cleanup_(closep) int fd = -1;
	struct stat st;
	size_t n = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE)
		return diag_set(diag, EINVAL, "%s:1: not a regular file of at most %u bytes", path,
			MAX_FILE);
	text = malloc(MAX_FILE + 1);
	if (!text)
		return -ENOMEM;
	for (ssize_t got = 1; got > 0 && n <= MAX_FILE; n += (size_t)got) {
		got = read(fd, text + n, MAX_FILE + 1 - n);
		if (got < 0)
			return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	}
	if (n > MAX_FILE)
		return diag_set(diag, EINVAL, "%s:1: more than %u bytes", path, MAX_FILE);
	return config_parse(config, site, path, text, n, diag);
}

static int is_conf(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name);

	return entry->d_name[0] != '.' && n > 5 && strcmp(entry->d_name + n - 5, ".conf") == 0;
}

/* Names in byte order, whatever the locale: the order decides which value wins. */
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int parse_site_file(
	struct config *config, const char *path, const char *name, struct diag *diag)
{
	struct site_file *site, *grown;

	if (config->n_sites == MAX_SITES)
		return diag_set(diag, EINVAL, "%s:1: more than %u sites", path, MAX_SITES);
	grown = reallocarray(config->sites, config->n_sites + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	config->sites = grown;
	site = &config->sites[config->n_sites];
	*site = (struct site_file){ .settings = config->site_defaults };
	(void)snprintf(site->site, sizeof(site->site), "%.*s", (int)(strlen(name) - 5), name);
	if (strlen(name) - 5 >= sizeof(site->site) || wire_site_name_check(site->site) < 0)
		return diag_set(diag, EINVAL,
			"%s:1: not the name of a site, [a-z0-9][a-z0-9._-]{0,62}", path);
	if ((size_t)snprintf(site->path, sizeof(site->path), "%s", path) >= sizeof(site->path))
		return diag_set(diag, EINVAL, "%s:1: path too long", path);
	config->n_sites++;
	return parse_file(config, site, path, diag);
}

static int parse_drop_in(
	struct config *config, const char *path, const char *name, struct diag *diag)
{
	(void)name;
	return parse_file(config, NULL, path, diag);
}

static int parse_folder(struct config *config, const char *dir,
	int (*parse)(struct config *, const char *, const char *, struct diag *), struct diag *diag)
{
	struct dirent **entries;
	char path[512];
	int n, r = 0;

	n = scandir(dir, &entries, is_conf, by_bytes);
	if (n < 0)
		return errno == ENOENT ? 0 : diag_set(diag, errno, "%s: %s", dir, strerror(errno));
	for (int i = 0; i < n; i++) {
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, entries[i]->d_name) >=
			sizeof(path))
			r = r < 0 ? r : diag_set(diag, EINVAL, "%.200s:1: path too long", dir);
		if (r == 0)
			r = parse(config, path, entries[i]->d_name, diag);
		free(entries[i]);
	}
	free(entries);
	return r;
}

static int check_endpoints(
	const struct config *config, const char *list, const char *from, struct diag *diag)
{
	bool has_key = config->zmq_server_key[0];
	char endpoint[ENDPOINT_CHARS];
	struct diag why;

	while (endpoint_next(&list, endpoint))
		if (endpoint_check(endpoint, has_key, config->zmq_plain_tcp, &why) < 0)
			return diag_set(diag, EINVAL, "%s: %s", from, why.text);
	return 0;
}

static int check_all_endpoints(const struct config *config, struct diag *diag)
{
	char from[300];
	unsigned key = 0;
	int r;

	r = check_endpoints(config, config->zmq_router, config->endpoint_from[FROM_ROUTER], diag);
	if (r == 0)
		r = check_endpoints(
			config, config->zmq_publish, config->endpoint_from[FROM_PUBLISH], diag);
	if (r == 0)
		r = check_endpoints(config, config->site_defaults.zmq_pull,
			config->endpoint_from[FROM_PULL], diag);
	while (strcmp(config_site_keys[key], "zmq_pull") != 0)
		key++;
	for (uint32_t i = 0; i < config->n_sites && r == 0; i++) {
		const struct site_file *site = &config->sites[i];

		(void)snprintf(from, sizeof(from), "%s:%u", site->path, site->lines[key]);
		if (site->lines[key] > 0)
			r = check_endpoints(config, site->settings.zmq_pull, from, diag);
	}
	return r;
}

static int load(struct config *config, const char *path, struct diag *diag)
{
	const char *slash = strrchr(path, '/');
	char folder[512];
	int r;

	if ((size_t)snprintf(config->path, sizeof(config->path), "%s", path) >=
		sizeof(config->path))
		return diag_set(diag, EINVAL, "%.200s...:1: path too long", path);
	r = parse_file(config, NULL, path, diag);
	if (r < 0)
		return r;
	(void)snprintf(folder, sizeof(folder), "%s.d", path);
	r = parse_folder(config, folder, parse_drop_in, diag);
	if (r < 0)
		return r;
	(void)snprintf(
		folder, sizeof(folder), "%.*ssites.d", slash ? (int)(slash - path + 1) : 0, path);
	r = parse_folder(config, folder, parse_site_file, diag);
	return r < 0 ? r : check_all_endpoints(config, diag);
}

int config_load(struct config *config, const char *path, struct diag *diag)
{
	struct config loaded;
	int r;

	config_default(&loaded);
	if (path || access(DEFAULT_PATH, F_OK) == 0) {
		r = load(&loaded, path ? path : DEFAULT_PATH, diag);
		if (r < 0) {
			config_done(&loaded);
			return r;
		}
	}
	*config = loaded;
	return 0;
}
