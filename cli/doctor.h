/* SPDX-License-Identifier: Apache-2.0 */
/* What the doctor finds. A problem makes the exit status 1, a note does not. */
#pragma once

#include <jansson.h>
#include "cli.h"
#include "kube_proxy.h"

enum doctor_severity { DOCTOR_PROBLEM, DOCTOR_NOTE };

/* Adds {severity, area, what, remedy} to findings; takes what over. */
void doctor_add(json_t *findings, enum doctor_severity severity, const char *area, json_t *what,
		const char *remedy);

/* doctor_node.c: the agent, the maps, the kernel, other networks. */
void doctor_node(const struct cli *cli, json_t *findings);
/* doctor_kube_proxy.c */
void doctor_kube_proxy(const struct kube_proxy *kp, json_t *findings);
/* [{where, what}]: each single thing kube_proxy_clean() removes. */
json_t *doctor_clean_plan(const struct kube_proxy *kp);
/* Notes on what it leaves, and why. */
void doctor_clean_left(const struct kube_proxy *kp, json_t *findings);
