// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/suggest.h>

#include "kube_yaml.h"
#include "masquerade.h"

#define FILE_MOST (1 << 20)
#define RESYNC_MS 60000

static const char *const private_v4[] = { "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16" };
static const char *const known_keys[] = { "nonMasqueradeCIDRs", "masqLinkLocal",
					  "masqLinkLocalIPv6", "cidrLimit", "resyncInterval" };
#define N_KEYS (sizeof(known_keys) / sizeof(known_keys[0]))

struct masq_reader {
	struct kube_yaml *yaml;
	struct wag_err *err;
	struct masq_cidrs *to;
};

void masq_cidrs_done(struct masq_cidrs *m)
{
	free(m->list);
	*m = (struct masq_cidrs){ 0 };
}

static int bad(const struct masq_reader *rd, const json_t *at, const char *what)
{
	unsigned line = at ? kube_yaml_line(rd->yaml, at) : 0;

	if (!line)
		return wag_err_set(rd->err, -EINVAL, "%s", what);
	return wag_err_set(rd->err, -EINVAL, "line %u: %s", line, what);
}

/* Why text is no CIDR to take, or NULL. */
static const char *cidr_wrong(const char *text, struct node_prefix *ret)
{
	struct wag_addr addr;
	unsigned bits, at;

	if (!strchr(text, '/') || wag_cidr_parse(text, &addr, &bits) < 0)
		return "is no CIDR such as 10.0.0.0/8 or fd00::/8";
	if (wag_addr_is_v4(&addr) && strchr(text, ':'))
		return "is IPv4: write it as 10.0.0.0/8";
	at = bits + (wag_addr_is_v4(&addr) ? 96 : 0);
	for (unsigned i = at; i < 128; i++)
		if (addr.b[i / 8] & 0x80 >> i % 8)
			return "has bits set behind its prefix";
	*ret = (struct node_prefix){ .addr = addr, .bits = bits };
	return NULL;
}

static int add_cidr(const struct masq_reader *rd, const char *text, const json_t *at)
{
	struct masq_cidrs *m = rd->to;
	struct node_prefix prefix, *list;
	const char *why = cidr_wrong(text, &prefix);
	char msg[256];

	if (why) {
		snprintf(msg, sizeof(msg), "nonMasqueradeCIDRs: '%.80s' %s", text, why);
		return bad(rd, at, msg);
	}
	list = reallocarray(m->list, m->n + 1, sizeof(*list));
	if (!list)
		return wag_err_set(rd->err, -ENOMEM, "out of memory");
	m->list = list;
	m->list[m->n++] = prefix;
	return 0;
}

/* A key with nothing behind it is an empty list; only a key that is not there means the defaults.
 */
static int read_cidrs(const struct masq_reader *rd, const json_t *tree)
{
	const json_t *list = json_object_get(tree, "nonMasqueradeCIDRs"), *item;
	int r = 0;

	if (!list) {
		for (size_t i = 0; i < sizeof(private_v4) / sizeof(private_v4[0]) && r == 0; i++)
			r = add_cidr(rd, private_v4[i], NULL);
		return r;
	}
	if (json_is_null(list))
		return 0;
	if (!json_is_array(list))
		return bad(rd, list, "nonMasqueradeCIDRs: is no list");
	for (size_t i = 0; i < json_array_size(list) && r == 0; i++) {
		item = json_array_get(list, i);
		if (!json_is_string(item))
			return bad(rd, item, "nonMasqueradeCIDRs: every item must be a string");
		r = add_cidr(rd, json_string_value(item), item);
	}
	return r;
}

static int read_limit(const struct masq_reader *rd, const json_t *tree)
{
	const json_t *limit = json_object_get(tree, "cidrLimit");
	char msg[128];

	if (!limit || json_is_null(limit))
		return 0;
	if (!json_is_integer(limit) || json_integer_value(limit) < 0)
		return bad(rd, limit, "cidrLimit: is no number");
	if (rd->to->n <= (size_t)json_integer_value(limit))
		return 0;
	snprintf(msg, sizeof(msg), "nonMasqueradeCIDRs: has %zu CIDRs, and cidrLimit is %lld",
		 rd->to->n, (long long)json_integer_value(limit));
	return bad(rd, limit, msg);
}

static int read_bool(const struct masq_reader *rd, const json_t *tree, const char *key, bool *ret)
{
	const json_t *value = json_object_get(tree, key);
	char msg[64];

	*ret = json_is_true(value);
	if (!value || json_is_null(value) || json_is_boolean(value))
		return 0;
	snprintf(msg, sizeof(msg), "%s: must be true or false", key);
	return bad(rd, value, msg);
}

/* Go's time.ParseDuration without signs: "1h2m3.5s"; 0 if it is none. */
static double duration_ms(const char *text)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = { { "ns", 1e-6 }, { "us", 1e-3 },  { "\u00b5s", 1e-3 }, { "\u03bcs", 1e-3 },
		      { "ms", 1 },    { "s", 1000 },   { "m", 60000 },	     { "h", 3600000 } };
	double sum = 0;

	do {
		size_t digits = strspn(text, "0123456789."), u = 0, len = 0;
		char number[32], *end;
		double value;

		if (!digits || digits >= sizeof(number))
			return 0;
		memcpy(number, text, digits);
		number[digits] = 0;
		value = strtod(number, &end);
		if (*end)
			return 0;
		text += digits;
		for (; u < sizeof(units) / sizeof(units[0]); u++) {
			len = strlen(units[u].name);
			if (!strncmp(text, units[u].name, len) &&
			    strchr("0123456789.", text[len])) /* or the end */
				break;
		}
		if (u == sizeof(units) / sizeof(units[0]))
			return 0;
		sum += value * units[u].ms;
		text += len;
	} while (*text);
	return sum;
}

static int read_resync(const struct masq_reader *rd, const json_t *tree)
{
	const json_t *value = json_object_get(tree, "resyncInterval");
	double ms;

	rd->to->resync_ms = RESYNC_MS;
	if (!value || json_is_null(value))
		return 0;
	ms = json_is_string(value) ? duration_ms(json_string_value(value)) : 0;
	if (ms < 1 || ms > 365.0 * 86400000)
		return bad(rd, value, "resyncInterval: must be a duration such as \"60s\"");
	rd->to->resync_ms = (uint64_t)ms;
	return 0;
}

static int read_keys(const struct masq_reader *rd, const json_t *tree)
{
	const char *key, *meant;
	char msg[256];
	void *iter;
	size_t i;

	for (iter = json_object_iter((json_t *)tree); iter;
	     iter = json_object_iter_next((json_t *)tree, iter)) {
		key = json_object_iter_key(iter);
		for (i = 0; i < N_KEYS && strcmp(key, known_keys[i]) != 0; i++)
			;
		if (i < N_KEYS)
			continue;
		meant = suggest(key, known_keys, N_KEYS);
		snprintf(msg, sizeof(msg), "unknown key '%.80s'%s%s%s", key,
			 meant ? " (did you mean " : "", meant ? meant : "", meant ? "?)" : "");
		return bad(rd, json_object_iter_value(iter), msg);
	}
	return 0;
}

static int read_tree(const struct masq_reader *rd, const json_t *tree)
{
	bool link_v4, link_v6;
	int r;

	if (tree && !json_is_null(tree) && !json_is_object(tree))
		return bad(rd, tree, "must be keys and values such as \"nonMasqueradeCIDRs:\"");
	r = read_keys(rd, tree);
	if (r == 0)
		r = read_cidrs(rd, tree);
	if (r == 0)
		r = read_limit(rd, tree);
	if (r == 0)
		r = read_bool(rd, tree, "masqLinkLocal", &link_v4);
	if (r == 0)
		r = read_bool(rd, tree, "masqLinkLocalIPv6", &link_v6);
	if (r == 0)
		r = read_resync(rd, tree);
	if (r == 0 && !link_v4)
		r = add_cidr(rd, "169.254.0.0/16", NULL);
	if (r == 0 && !link_v6)
		r = add_cidr(rd, "fe80::/10", NULL);
	return r;
}

int masq_parse(struct masq_cidrs *ret, const char *text, size_t size, struct wag_err *err)
{
	_cleanup_(masq_cidrs_done) struct masq_cidrs m = { 0 };
	_cleanup_(kube_yaml_freep) struct kube_yaml *yaml = NULL;
	struct masq_reader rd = { .err = err, .to = &m };
	json_t *tree = NULL;
	int r;

	r = kube_yaml_new(&yaml, text, size);
	if (r < 0)
		return wag_err_set(err, r, "%s", strerror(-r));
	rd.yaml = yaml;
	r = kube_yaml_next(yaml, &tree, err);
	if (r < 0)
		return r;
	r = read_tree(&rd, r ? tree : NULL);
	if (r < 0)
		return r;
	*ret = m;
	m = (struct masq_cidrs){ 0 };
	return 0;
}

int masq_read(struct masq_cidrs *ret, const char *path, struct wag_err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	ssize_t n;
	int r;

	if (fd < 0 && errno == ENOENT)
		return masq_parse(ret, "", 0, err);
	if (fd < 0)
		return wag_err_set(err, -errno, "%s: %s", path, strerror(errno));
	text = malloc(FILE_MOST);
	if (!text)
		return wag_err_set(err, -ENOMEM, "out of memory");
	do {
		n = read(fd, text + size, FILE_MOST - size);
		if (n < 0)
			return wag_err_set(err, -errno, "%s: %s", path, strerror(errno));
		size += n;
	} while (n > 0 && size < FILE_MOST);
	if (size == FILE_MOST)
		return wag_err_set(err, -EFBIG, "%s: larger than %d bytes", path, FILE_MOST);
	r = masq_parse(ret, text, size, err);
	if (r < 0)
		wag_err_prefix(err, "%s: ", path);
	return r;
}
