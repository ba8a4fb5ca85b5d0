// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "policies.h"

void policy_rule_text(const struct wag_rule_name *name, struct policy_rule_text *ret)
{
	static const char *const tiers[] = { "Admin", "NetworkPolicy", "Baseline" };

	ret->tier = name->tier < 3 ? tiers[name->tier] : "?";
	ret->direction = name->direction ? "egress" : "ingress";
	snprintf(ret->policy, sizeof(ret->policy), "%.63s%s%.255s", name->ns,
		 name->ns[0] ? "/" : "", name->name);
	if (name->rule[0])
		snprintf(ret->rule, sizeof(ret->rule), "%.103s", name->rule);
	else if (name->index == 0xffff)
		snprintf(ret->rule, sizeof(ret->rule), "isolates");
	else
		snprintf(ret->rule, sizeof(ret->rule), "%u", name->index);
}

void policies_done(struct policies *p)
{
	pinned_map_done(&p->pods);
	pinned_map_done(&p->policy);
	pinned_map_done(&p->rule);
	pinned_map_done(&p->port);
	pinned_map_done(&p->port_exact);
	pinned_map_done(&p->names);
}

int policies_open(const struct cli *cli, struct policies *ret, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map runtime = PINNED_MAP_NONE;
	struct wag_runtime value;
	uint32_t zero = 0;
	int r;

	r = pinned_map_open_typed(cli, "wag_runtime", sizeof(zero), sizeof(value), &runtime, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_pods", sizeof(struct wag_addr),
					  sizeof(struct wag_pod), &ret->pods, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_policy", sizeof(struct wag_policy_key),
					  sizeof(struct wag_policy), &ret->policy, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_rule", sizeof(struct wag_rule_key),
					  sizeof(uint32_t), &ret->rule, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_port", sizeof(struct wag_port_key),
					  sizeof(uint32_t), &ret->port, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_port_exact", sizeof(struct wag_port_key),
					  sizeof(uint32_t), &ret->port_exact, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_rule_name", sizeof(uint32_t),
					  sizeof(struct wag_rule_name), &ret->names, err);
	if (r < 0)
		return r;
	r = pinned_map_lookup(&runtime, &zero, &value);
	if (r < 0)
		return wag_err_set(err, r, "wag_runtime: %s", strerror(-r));
	ret->gen = wag_policy_gen(value.policy_epoch);
	return 0;
}

static bool rule_of(struct policies *p, uint32_t verdict, struct policy_rule_text *ret)
{
	uint32_t rule = WAG_VERDICT_RULE(verdict);
	struct wag_rule_name name;

	if (!rule || pinned_map_lookup(&p->names, &rule, &name) < 0)
		return false;
	policy_rule_text(&name, ret);
	return true;
}

void policies_verdict(struct policies *p, uint32_t verdict, char *buf, size_t size)
{
	struct policy_rule_text text;
	bool named = rule_of(p, verdict, &text);

	switch (WAG_VERDICT_ACTION(verdict)) {
	case WAG_VERDICT_PORTS:
		snprintf(buf, size, "by port");
		break;
	case WAG_VERDICT_ALLOW:
		if (named)
			snprintf(buf, size, "allowed by %s, rule %s", text.policy, text.rule);
		else
			snprintf(buf, size, "allowed");
		break;
	case WAG_VERDICT_DENY:
		snprintf(buf, size, "denied by %s, rule %s", named ? text.policy : "?",
			 named ? text.rule : "?");
		break;
	default:
		snprintf(buf, size, "denied: no rule allows it, isolated by %s",
			 named ? text.policy : "?");
	}
}

/* ---- which policies have a say ---- */

struct naming {
	struct policies *p;
	uint32_t ruleset;
	uint32_t profile;
	json_t *seen; /* policies, as an object's keys */
};

static int visit_port(const void *key, const void *value, void *ctx);

static void take_verdict(struct naming *n, uint32_t verdict)
{
	struct naming of = { .p = n->p, .profile = WAG_VERDICT_RULE(verdict), .seen = n->seen };
	struct policy_rule_text text;

	if (WAG_VERDICT_ACTION(verdict) == WAG_VERDICT_PORTS && WAG_VERDICT_RULE(verdict)) {
		pinned_map_each(&n->p->port, visit_port, &of);
		pinned_map_each(&n->p->port_exact, visit_port, &of);
	} else if (rule_of(n->p, verdict, &text)) {
		json_object_set_new(n->seen, text.policy, json_true());
	}
}

static int visit_port(const void *key, const void *value, void *ctx)
{
	struct naming *n = ctx;
	struct wag_port_key k;
	uint32_t verdict;

	memcpy(&k, key, sizeof(k));
	memcpy(&verdict, value, sizeof(verdict));
	if (k.gen == n->p->gen && k.profile == n->profile)
		take_verdict(n, verdict);
	return 0;
}

static int visit_rule(const void *key, const void *value, void *ctx)
{
	struct naming *n = ctx;
	struct wag_rule_key k;
	uint32_t verdict;

	memcpy(&k, key, sizeof(k));
	memcpy(&verdict, value, sizeof(verdict));
	if (k.gen == n->p->gen && k.ruleset == n->ruleset)
		take_verdict(n, verdict);
	return 0;
}

static json_t *names_of(struct policies *p, const struct wag_policy *pod, int dir)
{
	_cleanup_json_ json_t *seen = json_object();
	struct naming n = { .p = p, .ruleset = pod->ruleset[dir], .seen = seen };
	json_t *list = json_array(), *value;
	const char *name;

	if (n.ruleset) {
		take_verdict(&n, pod->verdict[dir]);
		pinned_map_each(&p->rule, visit_rule, &n);
	}
	json_object_foreach(seen, name, value)
		json_array_append_new(list, json_string(name));
	return list;
}

static bool is_pending(struct policies *p, const struct wag_endpoint *ep)
{
	struct wag_pod pod;

	return (pinned_map_lookup(&p->pods, &ep->v4, &pod) == 0 ||
		pinned_map_lookup(&p->pods, &ep->v6, &pod) == 0) &&
	       pod.flags & WAG_POD_PENDING;
}

json_t *policies_of(struct policies *p, uint32_t ep_id, const struct wag_endpoint *ep, int dir)
{
	struct wag_policy_key key = { .ep_id = ep_id, .gen = p->gen };
	struct wag_policy pod = { .verdict = { WAG_VERDICT(WAG_VERDICT_ALLOW, 0),
					       WAG_VERDICT(WAG_VERDICT_ALLOW, 0) } };
	char title[330], text[480], addr[WAG_ADDR_TEXT];
	json_t *addrs = json_array();
	const struct wag_addr *const of[] = { &ep->v4, &ep->v6 };

	if (pinned_map_lookup(&p->policy, &key, &pod) == 0 && !pod.ruleset[dir])
		pod.verdict[dir] = WAG_VERDICT(WAG_VERDICT_ALLOW, 0);
	for (int i = 0; i < 2; i++)
		if (!wag_addr_is_zero(of[i]))
			json_array_append_new(addrs, json_string(wag_addr_format(of[i], addr)));
	snprintf(title, sizeof(title), "%s/%s", ep->ns, ep->pod);
	policies_verdict(p, pod.verdict[dir], text, sizeof(text));
	return json_pack("{s:I, s:s, s:o, s:s, s:s, s:o, s:s}", "id", (json_int_t)ep_id, "title",
			 title, "addresses", addrs, "direction", dir ? "egress" : "ingress",
			 "verdict", text, "policies", names_of(p, &pod, dir), "state",
			 is_pending(p, ep)		  ? "waits for its policies" :
			 pod.flags & WAG_POLICY_AUDIT ? "audit" :
							    "enforced");
}
