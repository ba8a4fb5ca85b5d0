// SPDX-License-Identifier: Apache-2.0
/*
 * ADD. The record goes to disk before anything else is made, and again whenever it learns what the
 * way back must know: docs/cni.md "What a crash leaves".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>
#include <waggle/ipam.h>

#include "chain.h"
#include "delegate.h"
#include "job.h"
#include "policy.h"
#include "result.h"
#include "wire.h"

static bool is_alive(const struct job *job)
{
	struct nl_link link;

	return job->rec.ready && strcmp(job->rec.boot_id, job->boot_id) == 0 &&
	       nl_link_get(job->nl, job->rec.host_ifname, &link) == 0 &&
	       link.ifindex == job->rec.ifindex;
}

static void intent_fill(struct job *job, unsigned probe)
{
	const struct conf_runtime *runtime = &job->conf.runtime;
	const struct cni_env *env = &job->env;
	struct record *rec = &job->rec;

	record_init(rec, env->container_id, env->ifname, probe);
	memcpy(rec->network, job->conf.name, sizeof(rec->network));
	memcpy(rec->netns, env->netns, sizeof(rec->netns));
	memcpy(rec->ns, env->ns, sizeof(rec->ns));
	memcpy(rec->pod, env->pod, sizeof(rec->pod));
	memcpy(rec->uid, env->uid, sizeof(rec->uid));
	memcpy(rec->boot_id, job->boot_id, sizeof(rec->boot_id));
	memcpy(rec->ipam, job->conf.ipam_type, sizeof(rec->ipam));
	rec->chained = job->conf.chained;
	rec->mtu = job->conf.mtu;
	if (job->meta.route_mtu && job->meta.route_mtu < rec->mtu)
		rec->route_mtu = job->meta.route_mtu;
	rec->egress_rate = runtime->egress_rate;
	rec->egress_burst = runtime->egress_burst;
	rec->ingress_rate = runtime->ingress_rate;
	rec->ingress_burst = runtime->ingress_burst;
	if (runtime->has_mac)
		memcpy(rec->mac, runtime->mac, sizeof(rec->mac));
}

/* Of an attachment whose record was lost; its addresses are for GC to find. */
static int unrecorded_drop(struct job *job, struct wag_err *err)
{
	int r = job->conf.chained ? 0 : wire_remove(job->nl, &job->rec, err);

	return r ? r : pins_fail(endpoint_detach(job->conf.pin_dir, &job->rec, err), err);
}

/* Clears what a killed ADD left, then writes the intent. */
static int add_begin(struct job *job, struct wag_err *err)
{
	bool recorded = false;
	unsigned probe = 0;
	int r;

	r = job_find(job, &recorded, &probe, err);
	if (r)
		return r;
	if (recorded && is_alive(job))
		return wag_err_set(err, CNI_E_EXISTS, "container %s already has %s: DEL it first",
				   job->env.container_id, job->env.ifname);
	r = recorded ? tear_down(job, true, err) : unrecorded_drop(job, err);
	if (r)
		return r;
	intent_fill(job, probe);
	return record_save(job, err);
}

/* ---- addresses ---- */

static const struct wag_addr *wanted_addr(const struct job *job, bool v4)
{
	const struct conf_runtime *runtime = &job->conf.runtime;

	for (unsigned i = 0; i < runtime->ip_count; i++)
		if (wag_addr_is_v4(&runtime->ips[i]) == v4)
			return &runtime->ips[i];
	return NULL;
}

static int take_wanted(struct job *job, struct ipam *ipam, const struct conf_set *set,
		       const struct ipam_owner *owner, const struct wag_addr *addr,
		       struct wag_err *err)
{
	struct record_addr *a = &job->rec.addrs[job->rec.addr_count];
	char text[WAG_ADDR_TEXT];
	int r = -ERANGE;

	wag_addr_format(addr, text);
	for (unsigned i = 0; r == -ERANGE && i < set->range_count; i++) {
		r = ipam_take(ipam, &set->ranges[i], addr, owner);
		ipam_range_key(&set->ranges[i], a->range);
	}
	if (r == -ERANGE)
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.ips: %s is not in a range of this node", text);
	if (r == -EEXIST)
		return wag_err_set(err, CNI_E_AGAIN,
				   "runtimeConfig.ips: %s belongs to another container", text);
	if (r < 0)
		return state_fail(job, r, err);
	a->addr = *addr;
	job->rec.addr_count++;
	return 0;
}

static int take_next(struct job *job, struct ipam *ipam, const struct conf_set *set,
		     const struct ipam_owner *owner, struct wag_err *err)
{
	struct record_addr *a = &job->rec.addrs[job->rec.addr_count];
	unsigned range = 0;
	int r;

	r = ipam_allocate(ipam, set->ranges, set->range_count, owner, &a->addr, &range, err);
	if (r < 0) {
		err->code = r == -EADDRNOTAVAIL ? CNI_E_AGAIN : CNI_E_IO;
		return err->code;
	}
	ipam_range_key(&set->ranges[range], a->range);
	job->rec.addr_count++;
	return 0;
}

static bool has_set(const struct cni_conf *conf, bool v4)
{
	for (unsigned i = 0; i < conf->set_count; i++)
		if (wag_addr_is_v4(&conf->sets[i].ranges[0].subnet) == v4)
			return true;
	return false;
}

/* Each address asked for is one that can be given. */
static int wanted_check(const struct job *job, struct wag_err *err)
{
	const struct conf_runtime *runtime = &job->conf.runtime;
	char text[WAG_ADDR_TEXT];

	for (unsigned i = 0; i < runtime->ip_count; i++) {
		const struct wag_addr *addr = &runtime->ips[i];
		bool v4 = wag_addr_is_v4(addr);
		int family = v4 ? 4 : 6;

		wag_addr_format(addr, text);
		if (!has_set(&job->conf, v4))
			return wag_err_set(err, CNI_E_CONFIG,
					   "runtimeConfig.ips: %s is IPv%d, and this node's pods "
					   "have no IPv%d range",
					   text, family, family);
		if (wanted_addr(job, v4) != addr)
			return wag_err_set(err, CNI_E_CONFIG,
					   "runtimeConfig.ips: %s is a second IPv%d address: a pod "
					   "gets one a family",
					   text, family);
	}
	return 0;
}

static int own_addresses(struct job *job, struct wag_err *err)
{
	const struct ipam_owner owner = { job->rec.container_id, job->rec.ifname };
	_cleanup_(ipam_done) struct ipam ipam = { .lock_fd = -1 };
	int r;

	r = wanted_check(job, err);
	if (r)
		return r;
	r = ipam_init(&ipam, job->conf.state_dir, job->boot_id, ipam_now_ms());
	if (r < 0)
		return state_fail(job, r, err);
	for (unsigned i = 0; !r && i < job->conf.set_count; i++) {
		const struct conf_set *set = &job->conf.sets[i];
		const struct wag_addr *wanted =
			wanted_addr(job, wag_addr_is_v4(&set->ranges[0].subnet));

		r = wanted ? take_wanted(job, &ipam, set, &owner, wanted, err)
			   : take_next(job, &ipam, set, &owner, err);
	}
	return r;
}

static void result_take(struct job *job, const struct conf_result *result)
{
	for (unsigned i = 0; i < result->addr_count; i++)
		job->rec.addrs[i].addr = result->addrs[i].addr;
	job->rec.addr_count = result->addr_count;
	for (unsigned i = 0; i < result->route_count; i++)
		job->rec.routes[i] = result->routes[i].to;
	job->rec.route_count = result->route_count;
}

static int delegated_addresses(struct job *job, struct wag_err *err)
{
	_cleanup_(conf_result_done) struct conf_result result = { 0 };
	_cleanup_free_ char *answer = NULL;
	size_t size = 0;
	char what[96];
	int r;

	snprintf(what, sizeof(what), "ipam plugin %s", job->conf.ipam_type);
	r = job_delegate(job, job->conf.ipam_type, "ADD", &answer, &size, err);
	if (!r)
		r = conf_parse_result(answer, size, what, &result, err);
	if (r)
		return r;
	if (!result.addr_count)
		return wag_err_set(err, CNI_E_CONFIG, "%s: gave no address", what);
	result_take(job, &result);
	job->dns = TAKE_PTR(result.dns);
	return 0;
}

/* ---- ports of the node: each asked for becomes one entry for each family it means ---- */

static int port_add(struct job *job, const struct conf_port *port, bool v4, struct wag_err *err)
{
	struct record *rec = &job->rec;
	struct record_port *p = &rec->ports[rec->port_count];

	if (!wire_has_family(rec, v4)) {
		if (!port->has_addr)
			return 0;
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.portMappings: hostIP of port %u is IPv%d, of "
				   "which the pod has no address",
				   port->host_port, v4 ? 4 : 6);
	}
	*p = (struct record_port){ .host_port = port->host_port,
				   .port = port->port,
				   .proto = port->proto };
	if (port->has_addr)
		p->host_addr = port->addr;
	else if (v4)
		p->host_addr = wag_addr_from_v4(0);
	for (unsigned i = 0; i < rec->port_count; i++)
		if (rec->ports[i].host_port == p->host_port && rec->ports[i].proto == p->proto &&
		    wag_addr_equal(&rec->ports[i].host_addr, &p->host_addr) &&
		    rec->ports[i].port != p->port)
			return wag_err_set(err, CNI_E_CONFIG,
					   "runtimeConfig.portMappings: port %u of the node would "
					   "lead to %u and to %u of the pod",
					   p->host_port, rec->ports[i].port, p->port);
	rec->port_count++;
	return 0;
}

static int ports_fill(struct job *job, struct wag_err *err)
{
	const struct conf_runtime *runtime = &job->conf.runtime;
	int r = 0;

	for (unsigned i = 0; !r && i < runtime->port_count; i++) {
		const struct conf_port *port = &runtime->ports[i];

		for (int v4 = 1; !r && v4 >= 0; v4--)
			if (!port->has_addr || wag_addr_is_v4(&port->addr) == v4)
				r = port_add(job, port, v4, err);
	}
	return r;
}

/* ---- the steps ---- */

static int interface_make(struct job *job, struct wag_err *err)
{
	int r;

	if (job->conf.chained) {
		result_take(job, &job->conf.prev);
		job->rec.route_count = 0; /* another plugin's business */
		return chain_find(job->nl, &job->ns, &job->rec, err);
	}
	r = job->conf.ipam_type[0] ? delegated_addresses(job, err) : own_addresses(job, err);
	return r ? r : wire_create(job->nl, &job->ns, &job->rec, err);
}

static int endpoint_make(struct job *job, uint32_t *ret_flags, struct wag_err *err)
{
	int r;

	r = policy_flags(job->conf.pin_dir, job->rec.ns, ret_flags, err);
	return r ? r : pins_fail(endpoint_attach(job->conf.pin_dir, job->nl, &job->rec, *ret_flags,
						 err),
				 err);
}

static int add_steps(struct job *job, struct wag_err *err)
{
	uint32_t flags = 0;
	int r;

	r = interface_make(job, err);
	if (!r)
		r = ports_fill(job, err);
	if (r)
		return r;
	job->rec.netns_cookie = netns_cookie_of(job->conf.pin_dir, &job->ns);
	/* Addresses and ifindex on disk before a pin carries the ifindex in its name. */
	r = record_save(job, err);
	if (!r)
		r = endpoint_make(job, &flags, err);
	if (!r && !job->rec.chained)
		r = wire_host(job->nl, &job->rec, err);
	if (!r && !job->rec.chained)
		r = wire_pod(&job->ns, &job->rec, err);
	if (r)
		return r;
	job->rec.ready = true;
	r = record_save(job, err);
	if (!r && flags & WAG_POD_PENDING)
		r = policy_wait(job->conf.pin_dir, job->conf.state_dir, &job->rec, err);
	return r;
}

/* ---- before anything is made ---- */

static int ipv6_check(const struct job *job, struct wag_err *err)
{
	for (unsigned i = 0; i < job->conf.set_count; i++)
		if (!wag_addr_is_v4(&job->conf.sets[i].ranges[0].subnet) && !sysctl_has_ipv6())
			return wag_err_set(
				err, CNI_E_CONFIG,
				"ipam.ranges: has an IPv6 subnet, but this kernel has no "
				"IPv6: boot it without ipv6.disable=1 or remove the "
				"subnet");
	return 0;
}

static int add_prepare(struct job *job, struct wag_err *err)
{
	struct cni_conf *conf = &job->conf;
	int r;

	r = netns_open(job->env.netns, &job->ns, err);
	if (!r)
		r = pins_fail(endpoint_ready(conf->pin_dir, &job->meta, err), err);
	if (!r && conf->ipam_type[0])
		r = delegate_look(conf->ipam_type, err);
	else if (!r && !conf->chained && !conf->set_count)
		r = conf_node_ranges(conf, err);
	if (!r)
		r = conf_mtu(conf, job->meta.mtu, err);
	if (!r)
		r = ipv6_check(job, err);
	return r ? r : job_open(job, err);
}

static int add_print(const struct job *job, struct wag_err *err)
{
	int r = job->conf.chained ? result_print_text(job->conf.prev_result)
				  : result_print(&job->conf, &job->rec, job->dns);

	return r < 0 ? wag_err_set(err, CNI_E_IO, "stdout: %s", strerror(-r)) : 0;
}

int cmd_add(struct job *job, struct wag_err *err)
{
	struct wag_err ignored = { 0 };
	int r;

	r = add_prepare(job, err);
	if (!r)
		r = add_begin(job, err);
	if (r)
		return r;
	r = add_steps(job, err);
	if (!r)
		r = add_print(job, err);
	/* The first error is the one to tell; what stays here, DEL will take. */
	if (r)
		tear_down(job, true, &ignored);
	return r;
}
