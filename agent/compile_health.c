// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "compile_health.h"
#include "compile_service.h"
#include "model.h"

struct source {
	const struct service *svc;
	const struct object *const *slices;
	size_t n_slices;
	const char *node_name;
};

static bool is_local(const struct source *s, const struct slice_endpoint *ep)
{
	return ep->node_name && s->node_name && strcmp(ep->node_name, s->node_name) == 0;
}

static bool of_family(const struct slice *slice, int family)
{
	return !slice->fqdn && !slice->other_proxy && slice->v6 == (family == HEALTH_V6);
}

static bool has_port(const struct slice *slice)
{
	for (size_t i = 0; i < slice->n_ports; i++)
		if (slice->ports[i].port)
			return true;
	return false;
}

static int compare_addrs(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct wag_addr));
}

/* An endpoint may stand in more than one slice, or come once for each of its port's names. */
static int count_local(const struct source *s, int family, uint32_t *ret)
{
	_cleanup_free_ struct wag_addr *addrs = NULL;
	size_t n = 0, room = 0;

	for (size_t i = 0; i < s->n_slices; i++)
		room += s->slices[i]->slice.n_endpoints;
	addrs = calloc(room ? room : 1, sizeof(*addrs));
	if (!addrs)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_slices; i++) {
		const struct slice *slice = &s->slices[i]->slice;

		if (!of_family(slice, family) || !has_port(slice))
			continue;
		for (size_t k = 0; k < slice->n_endpoints; k++) {
			const struct slice_endpoint *ep = &slice->endpoints[k];

			if (ep->ready && ep->n_addrs && is_local(s, ep))
				addrs[n++] = ep->addrs[0];
		}
	}
	qsort(addrs, n, sizeof(*addrs), compare_addrs);
	*ret = 0;
	for (size_t i = 0; i < n; i++)
		*ret += i == 0 || !wag_addr_equal(&addrs[i - 1], &addrs[i]);
	return 0;
}

static bool serves(const struct service *svc, int family)
{
	for (size_t i = 0; i < svc->n_cluster_ips; i++)
		if (wag_addr_is_v4(&svc->cluster_ips[i]) == (family == HEALTH_V4))
			return true;
	return false;
}

int compile_health(const struct object *obj, const struct object *const *slices, size_t n_slices,
		   const struct compile_facts *facts, struct health_check *ret)
{
	const struct service *svc = &obj->service;
	const struct source s = { svc, slices, n_slices, facts ? facts->node_name : NULL };
	struct health_check check = { 0 };
	int r;

	*ret = check;
	if (svc->headless || svc->other_proxy || svc->type != SVC_LOAD_BALANCER ||
	    !svc->external_local || !svc->health_check_node_port)
		return 0;
	check.port = svc->health_check_node_port;
	for (int f = 0; f < HEALTH_FAMILIES; f++) {
		check.family[f].serves = serves(svc, f);
		if (!check.family[f].serves)
			continue;
		r = count_local(&s, f, &check.family[f].local);
		if (r < 0)
			return r;
	}
	*ret = check;
	return 0;
}
