/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Kubernetes says of one flow, worked out from the objects' JSON by brute force: nothing here
 * is shared with the agent. Slow and plain on purpose.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

struct oracle {
	json_t *namespaces, *pods, *nodes; /* arrays of objects */
	json_t *policies, *cluster_policies;
};

enum oracle_verdict { ORACLE_ALLOW = 1, ORACLE_DENY, ORACLE_ISOLATED };

struct oracle_answer {
	enum oracle_verdict verdict;
	const char *name; /* of the policy that decides; NULL: none, or more than one may say so */
	long rule;
};

/* The pod that has the address as its own; NULL: none. */
const json_t *oracle_pod(const struct oracle *o, const char *addr);
const json_t *oracle_node(const struct oracle *o, const char *addr);
/*
 * One direction of a flow: may pod be reached from (ingress) or reach (egress) the peer's address?
 * proto: "TCP", "UDP", "SCTP", or anything that has no ports.
 */
struct oracle_answer oracle_judge(const struct oracle *o, int egress, const json_t *pod,
				  const char *peer, const char *proto, int port);
