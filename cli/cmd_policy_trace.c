// SPDX-License-Identifier: Apache-2.0
/* waggle policy trace: what would become of a new flow's first packet, and who decides. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "bpf_trace.h"
#include "policies.h"

#define SPORT 40000

/* ---- NS/NAME -> addresses ---- */

struct finding {
	const char *name; /* NS/NAME */
	struct wag_addr v4, v6;
	uint32_t index; /* of a Service port */
	__be16 port;
	bool found;
};

static int visit_pod(const void *key, const void *value, void *ctx)
{
	struct finding *f = ctx;
	struct wag_endpoint ep;
	char title[330];

	memcpy(&ep, value, sizeof(ep));
	snprintf(title, sizeof(title), "%.63s/%.255s", ep.ns, ep.pod);
	if (strcmp(title, f->name) != 0)
		return 0;
	f->v4 = ep.v4;
	f->v6 = ep.v6;
	f->found = true;
	return 1;
}

static int find_pod(const struct cli *cli, struct finding *f, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	int r = pinned_map_open_typed(cli, "wag_endpoint", sizeof(uint32_t),
				      sizeof(struct wag_endpoint), &map, err);

	if (r == 0)
		r = pinned_map_each(&map, visit_pod, f);
	return r < 0 ? r : 0;
}

struct frontends {
	struct finding *f;
	struct pinned_map *names;
};

static int visit_frontend(const void *key, const void *value, void *ctx)
{
	struct frontends *fs = ctx;
	struct wag_svc_name name;
	struct wag_svc_key k;
	struct wag_svc svc;
	char title[140];

	memcpy(&k, key, sizeof(k));
	memcpy(&svc, value, sizeof(svc));
	if (k.port != fs->f->port || !(svc.flags & WAG_SVC_CLUSTER_IP) ||
	    pinned_map_lookup(fs->names, &svc.index, &name) < 0)
		return 0;
	snprintf(title, sizeof(title), "%.63s/%.63s", name.ns, name.name);
	if (strcmp(title, fs->f->name) != 0)
		return 0;
	*(wag_addr_is_v4(&k.addr) ? &fs->f->v4 : &fs->f->v6) = k.addr;
	fs->f->found = true;
	return 0;
}

static int find_service(const struct cli *cli, struct finding *f, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map svc = PINNED_MAP_NONE, names = PINNED_MAP_NONE;
	struct frontends fs = { f, &names };
	int r = pinned_map_open_typed(cli, "wag_svc", sizeof(struct wag_svc_key),
				      sizeof(struct wag_svc), &svc, err);

	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_svc_name", sizeof(uint32_t),
					  sizeof(struct wag_svc_name), &names, err);
	return r == 0 ? pinned_map_each(&svc, visit_frontend, &fs) : r;
}

static int find_end(const struct cli *cli, const char *what, const char *option, __be16 port,
		    struct finding *ret, struct wag_err *err)
{
	struct wag_addr addr;
	int r;

	*ret = (struct finding){ .name = what, .port = port };
	if (!what)
		return wag_err_set(err, -EINVAL, "policy trace: %s is missing: NAMESPACE/POD or an "
				   "address", option);
	if (wag_addr_parse(what, &addr) == 0) {
		*(wag_addr_is_v4(&addr) ? &ret->v4 : &ret->v6) = addr;
		return 0;
	}
	r = find_pod(cli, ret, err);
	if (r == 0 && !ret->found && port)
		r = find_service(cli, ret, err);
	if (r == 0 && !ret->found)
		return wag_err_set(err, -ENOENT, "%s %s: no pod of this node%s: for one elsewhere "
				   "give its address", option, what,
				   port ? ", and no Service with that port" : "");
	return r;
}

/* ---- the packet ---- */

static int make_tuple(const struct cli *cli, struct wag_tuple *ret, struct wag_err *err)
{
	struct finding from, to;
	__u8 proto = IPPROTO_TCP;
	__u16 port;
	int r;

	if (cli->protocol && wag_proto_parse(cli->protocol, &proto) < 0)
		return wag_err_set(err, -EINVAL, "--protocol %s: is not TCP, UDP or SCTP",
				   cli->protocol);
	if (!cli->port)
		return wag_err_set(err, -EINVAL, "policy trace: --port is missing: 1 to 65535");
	if (wag_port_parse(cli->port, &port) < 0)
		return wag_err_set(err, -EINVAL, "--port '%s': must be 1 to 65535", cli->port);
	r = find_end(cli, cli->from, "--from", 0, &from, err);
	if (r == 0)
		r = find_end(cli, cli->to, "--to", htons(port), &to, err);
	if (r < 0)
		return r;
	*ret = (struct wag_tuple){ .sport = htons(SPORT), .dport = htons(port), .proto = proto };
	if (!wag_addr_is_zero(&from.v4) && !wag_addr_is_zero(&to.v4)) {
		ret->saddr = from.v4;
		ret->daddr = to.v4;
	} else if (!wag_addr_is_zero(&from.v6) && !wag_addr_is_zero(&to.v6)) {
		ret->saddr = from.v6;
		ret->daddr = to.v6;
	} else {
		return wag_err_set(err, -EINVAL, "policy trace: both ends must have an address of "
				   "one family");
	}
	return 0;
}

static int first_device(const void *key, const void *value, void *ctx)
{
	memcpy(ctx, key, sizeof(uint32_t));
	return 1;
}

/* Where the packet comes in: at its pod, or at a device of the node. */
static int find_point(const struct cli *cli, struct policies *p, struct bpf_trace *t,
		      struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	struct wag_pod pod;
	int r;

	if (pinned_map_lookup(&p->pods, &t->tuple.saddr, &pod) == 0) {
		t->ifindex = pod.ifindex;
		t->from_pod = true;
		return 0;
	}
	r = pinned_map_open_typed(cli, "wag_device", sizeof(uint32_t), sizeof(struct wag_device),
				  &map, err);
	if (r == 0)
		r = pinned_map_each(&map, first_device, &t->ifindex);
	if (r == 0)
		return wag_err_set(err, -ENODEV, "the node is served on no device yet");
	return r < 0 ? r : 0;
}

/* ---- what became of it ---- */

static void add_step(json_t *steps, const char *what, const char *result)
{
	json_array_append_new(steps, json_pack("{s:s, s:s}", "step", what, "result", result));
}

static void add_ends(json_t *steps, const struct wag_event *e)
{
	char from[WAG_ADDR_TEXT + 10], to[WAG_ADDR_TEXT + 10], line[200];

	wag_addr_port_format(&e->orig.saddr, e->orig.sport, from, sizeof(from));
	wag_addr_port_format(&e->orig.daddr, e->orig.dport, to, sizeof(to));
	snprintf(line, sizeof(line), "%s -> %s %s at %s", from, to, wag_proto_name(e->orig.proto),
		 wag_point_name(e->point));
	add_step(steps, "packet", line);
	if (!(e->flags & WAG_EVENT_F_XLAT))
		return;
	wag_addr_port_format(&e->xlat.saddr, e->xlat.sport, from, sizeof(from));
	wag_addr_port_format(&e->xlat.daddr, e->xlat.dport, to, sizeof(to));
	snprintf(line, sizeof(line), "leaves as %s -> %s", from, to);
	add_step(steps, "translation", line);
}

static json_t *tell(struct policies *p, const struct wag_event *e)
{
	json_t *steps = json_array();
	char line[480];

	add_ends(steps, e);
	for (int dir = 1; dir >= 0; dir--) {
		policies_verdict(p, e->policy[dir], line, sizeof(line));
		if (!e->policy[dir])
			snprintf(line, sizeof(line), "not judged: %s", dir || !e->reason ?
				 "no policy here is for that end" : "it ended before");
		add_step(steps, dir ? "egress" : "ingress", line);
	}
	if (e->type == WAG_EVENT_DROP)
		snprintf(line, sizeof(line), "DROPPED: %s", wag_reason_text(e->reason));
	else
		snprintf(line, sizeof(line), "FORWARDED%s%s",
			 e->flags & WAG_EVENT_F_AUDIT ? " (audit mode)" : "",
			 e->ct == WAG_EVENT_CT_NEW ? "" : ", as a flow that is known already");
	add_step(steps, "verdict", line);
	return steps;
}

int cmd_policy_trace(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	static const struct output_column columns[] = { { "STEP", "step" },
							{ "RESULT", "result" } };
	_cleanup_(policies_done) struct policies p = POLICIES_NONE;
	_cleanup_json_ json_t *steps = NULL;
	struct bpf_trace trace = { 0 };
	struct wag_event event;
	int r;

	r = make_tuple(cli, &trace.tuple, err);
	if (r == 0)
		r = policies_open(cli, &p, err);
	if (r == 0)
		r = find_point(cli, &p, &trace, err);
	if (r == 0)
		r = bpf_trace_run(cli, &trace, &event, err);
	if (r < 0)
		return r;
	if (!event.type)
		return wag_err_set(err, -ENODATA, "the packet is none of the datapath's: the "
				   "node's stack has it");
	steps = tell(&p, &event);
	return output_print(cli->format, steps, steps, columns, 2, err);
}
