// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/node_ranges.h>

#include "kube_http.h"
#include "kube_lease.h"

#define API "coordination.k8s.io/v1"
#define PAGE 500

void kube_lease_name(const struct ipam_range *block, char buf[KUBE_LEASE_NAME])
{
	char text[IPAM_RANGE_KEY];

	snprintf(buf, KUBE_LEASE_NAME, "waggle-ipam-%s", node_range_text(block, text));
	/* Still one name a block: the last dash was the slash. */
	for (char *c = buf; *c; c++)
		if (*c == '.' || *c == ':' || *c == '/')
			*c = '-';
}

void kube_lease_size(bool v6, unsigned mask, char buf[16])
{
	snprintf(buf, 16, "v%c-%u", v6 ? '6' : '4', mask);
}

void kube_lease_node(const char *node, char buf[64])
{
	uint64_t h = 0xcbf29ce484222325ULL;

	if (strlen(node) < 64) {
		snprintf(buf, 64, "%s", node);
		return;
	}
	for (const char *c = node; *c; c++)
		h = (h ^ (uint8_t)*c) * 0x100000001b3ULL;
	snprintf(buf, 64, "%.46s-%016llx", node, (unsigned long long)h);
}

static json_t *micro_time(void)
{
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	return json_sprintf("%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ", tm.tm_year + 1900,
			    tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
			    now.tv_nsec / 1000);
}

json_t *kube_lease_make(const struct ipam_range *block, const char *node, const char *node_uid,
			const struct kube_lease *old)
{
	char name[KUBE_LEASE_NAME], size[16], label[64], text[IPAM_RANGE_KEY];
	json_t *meta;

	kube_lease_name(block, name);
	kube_lease_size(!wag_addr_is_v4(&block->subnet), block->bits, size);
	kube_lease_node(node, label);
	meta = json_pack("{s:s, s:{s:s, s:s}, s:{s:s}, s:[{s:s, s:s, s:s, s:s}]}", "name", name,
			 "labels", KUBE_LEASE_IPAM, size, KUBE_LEASE_NODE, label, "annotations",
			 KUBE_LEASE_BLOCK, node_range_text(block, text), "ownerReferences",
			 "apiVersion", "v1", "kind", "Node", "name", node, "uid", node_uid);
	if (meta && old) {
		json_object_set_new(meta, "uid", json_string(old->uid));
		json_object_set_new(meta, "resourceVersion", json_string(old->rv));
	}
	return json_pack("{s:s, s:s, s:o, s:{s:s, s:o}}", "apiVersion", API, "kind", "Lease",
			 "metadata", meta, "spec", "holderIdentity", node, "acquireTime",
			 micro_time());
}

static void copy(char *buf, size_t size, const json_t *value)
{
	const char *text = json_string_value(value);

	snprintf(buf, size, "%s", text ? text : "");
}

int kube_lease_read(const json_t *tree, struct kube_lease *ret)
{
	const json_t *meta = json_object_get(tree, "metadata"), *owner;
	const char *block = json_string_value(
		json_object_get(json_object_get(meta, "annotations"), KUBE_LEASE_BLOCK));
	struct kube_lease lease = { 0 };
	char name[KUBE_LEASE_NAME];
	size_t i;

	if (!block || ipam_range_parse(block, &lease.block) < 0)
		return -EINVAL;
	kube_lease_name(&lease.block, name);
	copy(lease.name, sizeof(lease.name), json_object_get(meta, "name"));
	copy(lease.uid, sizeof(lease.uid), json_object_get(meta, "uid"));
	copy(lease.rv, sizeof(lease.rv), json_object_get(meta, "resourceVersion"));
	copy(lease.holder, sizeof(lease.holder),
	     json_object_get(json_object_get(tree, "spec"), "holderIdentity"));
	/* The name is the lock: what an annotation says beside it counts for nothing. */
	if (strcmp(name, lease.name) != 0 || !lease.holder[0])
		return -EINVAL;
	json_array_foreach(json_object_get(meta, "ownerReferences"), i, owner) {
		const char *kind = json_string_value(json_object_get(owner, "kind"));

		if (kind && strcmp(kind, "Node") == 0)
			copy(lease.owner_uid, sizeof(lease.owner_uid),
			     json_object_get(owner, "uid"));
	}
	*ret = lease;
	return 0;
}

json_t *kube_lease_delete_options(const struct kube_lease *lease)
{
	return json_pack("{s:s, s:s, s:{s:s, s:s}}", "apiVersion", "v1", "kind", "DeleteOptions",
			 "preconditions", "uid", lease->uid, "resourceVersion", lease->rv);
}

int kube_lease_path(char **ret, const char *ns, const char *name)
{
	char *path;

	if (asprintf(&path, "/apis/" API "/namespaces/%s/leases%s%s", ns, name ? "/" : "",
		     name ? name : "") < 0)
		return -ENOMEM;
	*ret = path;
	return 0;
}

int kube_lease_list_path(char **ret, const char *ns, const char *selector, const char *page)
{
	_cleanup_free_ char *escaped = NULL, *token = NULL;
	char *path;
	int r;

	r = kube_http_escape(selector, &escaped);
	if (r == 0 && page)
		r = kube_http_escape(page, &token);
	if (r < 0)
		return r;
	if (asprintf(&path, "/apis/" API "/namespaces/%s/leases?limit=%d&labelSelector=%s%s%s", ns,
		     PAGE, escaped, token ? "&continue=" : "", token ? token : "") < 0)
		return -ENOMEM;
	*ret = path;
	return 0;
}
