// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include "endpoint.h"

#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_REMOTE_NODE 6

struct names {
	struct model *model;
	int pods, endpoints, node_addrs, svc, svc_names, rules; /* borrowed fds */
};

static int resolve_local(const struct names *n, const struct wag_addr *addr,
			 struct flow_endpoint *ret)
{
	struct wag_endpoint ep;
	struct wag_pod pod;

	if (bpfsys_map_lookup(n->pods, addr, &pod) < 0)
		return -ENOENT;
	ret->id = pod.ep_id;
	if (bpfsys_map_lookup(n->endpoints, &pod.ep_id, &ep) < 0 || !ep.pod[0])
		return 1; /* local, but its name must come from elsewhere */
	memcpy(ret->ns, ep.ns, sizeof(ret->ns));
	memcpy(ret->pod, ep.pod, sizeof(ret->pod));
	ret->ns[sizeof(ret->ns) - 1] = 0;
	ret->pod[sizeof(ret->pod) - 1] = 0;
	return 0;
}

static int resolve_endpoint(void *ctx, const struct wag_addr *addr, struct flow_endpoint *ret)
{
	struct flow_endpoint found = { 0 };
	struct wag_node_addr node;
	struct names *n = ctx;
	int r = resolve_local(n, addr, &found);

	if (r < 0 && bpfsys_map_lookup(n->node_addrs, addr, &node) == 0) {
		found.identity = IDENTITY_HOST;
		r = 0;
	}
	if (r != 0) {
		int named = model_name_by_addr(n->model, addr, found.ns, sizeof(found.ns),
					       found.pod, sizeof(found.pod));

		if (named == 1)
			found.pod[0] = 0; /* a node is told by its identity */
		found.identity = named == 1		     ? IDENTITY_REMOTE_NODE
				 : named < 0 && r == -ENOENT ? IDENTITY_WORLD
							     : 0;
	}
	*ret = found;
	return 0;
}

static int resolve_by_index(void *ctx, uint32_t index, uint32_t svc_id, struct flow_service *ret)
{
	const struct names *n = ctx;
	struct wag_svc_name name;

	if (bpfsys_map_lookup(n->svc_names, &index, &name) < 0 || (svc_id && name.svc_id != svc_id))
		return -ENOENT;
	memcpy(ret->ns, name.ns, sizeof(ret->ns));
	memcpy(ret->name, name.name, sizeof(ret->name));
	ret->ns[sizeof(ret->ns) - 1] = 0;
	ret->name[sizeof(ret->name) - 1] = 0;
	return 0;
}

static int resolve_service(void *ctx, const struct wag_addr *addr, __be16 port, uint8_t proto,
			   struct flow_service *ret)
{
	struct wag_svc_key key = { .addr = *addr, .port = port, .proto = proto };
	const struct names *n = ctx;
	struct wag_node_addr node;
	struct wag_svc svc;

	if (bpfsys_map_lookup(n->svc, &key, &svc) < 0) {
		if (bpfsys_map_lookup(n->node_addrs, addr, &node) < 0)
			return -ENOENT;
		key.addr = wag_addr_is_v4(addr) ? wag_addr_from_v4(0) : (struct wag_addr){ 0 };
		if (bpfsys_map_lookup(n->svc, &key, &svc) < 0)
			return -ENOENT;
	}
	return resolve_by_index(ctx, svc.index, 0, ret);
}

/* A socket that has no address yet is known by its pod's endpoint. */
static int resolve_by_id(void *ctx, uint32_t ep_id, struct flow_endpoint *ret)
{
	struct flow_endpoint found = { .id = ep_id };
	const struct names *n = ctx;
	struct wag_endpoint ep;

	if (bpfsys_map_lookup(n->endpoints, &ep_id, &ep) < 0)
		return -ENOENT;
	memcpy(found.ns, ep.ns, sizeof(found.ns));
	memcpy(found.pod, ep.pod, sizeof(found.pod));
	found.ns[sizeof(found.ns) - 1] = 0;
	found.pod[sizeof(found.pod) - 1] = 0;
	found.v4 = ep.v4;
	found.v6 = ep.v6;
	*ret = found;
	return 0;
}

static int resolve_policy(void *ctx, uint32_t rule, struct flow_policy *ret)
{
	const struct names *n = ctx;
	struct wag_rule_name name;

	if (bpfsys_map_lookup(n->rules, &rule, &name) < 0)
		return -ENOENT;
	snprintf(ret->ns, sizeof(ret->ns), "%s", name.ns);
	snprintf(ret->name, sizeof(ret->name), "%s", name.name);
	if (name.rule[0])
		snprintf(ret->rule, sizeof(ret->rule), "%s", name.rule);
	else if (name.index != 0xffff)
		snprintf(ret->rule, sizeof(ret->rule), "%u", name.index);
	return 0;
}

struct flow_resolver names_resolver(struct names *n)
{
	return (struct flow_resolver){ n, resolve_endpoint, resolve_service, resolve_by_index,
				       resolve_by_id, resolve_policy };
}

int names_new(struct names **ret, const struct dataplane *dp, struct model *model)
{
	struct names *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->model = model;
	n->pods = dataplane_map_fd(dp, "wag_pods");
	n->endpoints = dataplane_map_fd(dp, "wag_endpoint");
	n->node_addrs = dataplane_map_fd(dp, "wag_node_addr");
	n->svc = dataplane_map_fd(dp, "wag_svc");
	n->svc_names = dataplane_map_fd(dp, "wag_svc_name");
	n->rules = dataplane_map_fd(dp, "wag_rule_name");
	*ret = n;
	return 0;
}

void names_free(struct names *n)
{
	free(n);
}

void names_freep(struct names **n)
{
	names_free(*n);
}

size_t endpoint_count(const struct dataplane *dp)
{
	int fd = dataplane_map_fd(dp, "wag_endpoint");
	uint32_t key = 0;
	size_t n = 0;

	for (int r = bpfsys_map_next_key(fd, NULL, &key); r == 0;
	     r = bpfsys_map_next_key(fd, &key, &key))
		n++;
	return n;
}
