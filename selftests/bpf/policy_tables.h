/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of the policies' tables, in every generation. */
#pragma once

#include "world.h"

enum { INTO, OUT_OF }; /* ingress, egress */

void policy_epoch(struct world *w, __u32 epoch);
/* A pod that policies select for one direction. */
void policy_pod(struct world *w, enum who who, int dir, __u32 ruleset, __u32 verdict, __u32 flags);
void policy_pod_identity(struct world *w, enum who who, __u16 id); /* after policy_pod() */
void policy_identity(struct world *w, enum who who, __u32 id, __u32 flags);
void policy_rule(struct world *w, __u32 ruleset, __u32 id, __u32 verdict);
/* bits of the key: 64 and those of protocol and port that count. */
void policy_port(struct world *w, __u32 profile, __u32 bits, __u8 proto, __u16 port, __u32 verdict);
