/* SPDX-License-Identifier: Apache-2.0 */
/* What both kinds of policies are read with. Readers: 0 or -errno with rd->err filled. */
#pragma once

#include "kube_field.h"
#include "model.h"

#define PATH_MAX_LEN 160

/* The path of the field is for errors. Bits behind the prefix become zero. */
int kube_policy_cidr(const struct reader *rd, const json_t *value, const char *path,
		     struct policy_cidr *ret);
/* One more of the rule's; NULL without memory. */
struct policy_peer *kube_policy_peer(struct policy_rule *rule, enum policy_peer_kind kind);
struct policy_port *kube_policy_port(struct policy_rule *rule, uint8_t proto, uint16_t first,
				     uint16_t last);

/* Every element of a list through fn. */
typedef int (*kube_policy_item_fn)(const struct reader *rd, const json_t *tree, const char *path,
		       struct policy_rule *rule);
int kube_policy_each(const struct reader *rd, const json_t *list, const char *path, const char *key,
		     kube_policy_item_fn fn, struct policy_rule *rule);
/* Every rule of spec.ingress or spec.egress; peers: the name of their list of peers. */
typedef int (*kube_policy_rule_fn)(const struct reader *rd, const json_t *tree, const char *path,
		       const char *peers, struct policy_rule *rule);
int kube_policy_rules(const struct reader *rd, const json_t *spec, enum policy_dir dir,
		      kube_policy_rule_fn fn, struct policy *p);

int kube_read_cluster_policy(const struct reader *rd, const json_t *spec, struct policy *p);
