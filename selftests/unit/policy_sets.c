// SPDX-License-Identifier: Apache-2.0
/*
 * Random policy sets and what Kubernetes says of flows, for tests that are not in C.
 *
 *	policy_sets SEED
 *
 * "step" on its standard input is one random change: the whole cluster comes back as one line of
 * JSON, {"namespaces": [], "pods": [], "nodes": [], "policies": [], "cluster_policies": []}. Such a
 * cluster with "probes": [[source, destination, "TCP", port], ...] comes back as an array of
 * booleans: is the flow let by, at both of its ends?
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "policy_oracle.h"
#include "policy_world.h"

static void say(json_t *tree)
{
	json_dumpf(tree, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(tree);
}

static json_t *cluster(const struct oracle *o)
{
	return json_pack("{s:O, s:O, s:O, s:O, s:O}", "namespaces", o->namespaces, "pods", o->pods,
			 "nodes", o->nodes, "policies", o->policies, "cluster_policies",
			 o->cluster_policies);
}

static bool let_by(const struct oracle *o, const char *src, const char *dst, const char *proto,
		   int port)
{
	const json_t *from = oracle_pod(o, src), *to = oracle_pod(o, dst);

	if (from && oracle_judge(o, 1, from, dst, proto, port).verdict != ORACLE_ALLOW)
		return false;
	return !to || oracle_judge(o, 0, to, src, proto, port).verdict == ORACLE_ALLOW;
}

static int judge(const char *line)
{
	json_error_t err;
	json_t *in = json_loads(line, 0, &err), *probes, *said = json_array();
	struct oracle o;

	if (json_unpack_ex(in, &err, 0, "{s:o, s:o, s:o, s:o, s:o, s:o}", "namespaces",
			   &o.namespaces, "pods", &o.pods, "nodes", &o.nodes, "policies",
			   &o.policies, "cluster_policies", &o.cluster_policies, "probes",
			   &probes) < 0) {
		fprintf(stderr, "policy_sets: %s\n", err.text);
		return 1;
	}
	for (size_t i = 0; i < json_array_size(probes); i++) {
		const char *src, *dst, *proto;
		int port;

		if (json_unpack_ex(json_array_get(probes, i), &err, 0, "[s, s, s, i]", &src, &dst,
				   &proto, &port) < 0) {
			fprintf(stderr, "policy_sets: probe %zu: %s\n", i, err.text);
			return 1;
		}
		json_array_append_new(said, json_boolean(let_by(&o, src, dst, proto, port)));
	}
	say(said);
	json_decref(in);
	return 0;
}

int main(int argc, char **argv)
{
	struct policy_world world;
	struct model *m;
	char *line = NULL;
	size_t size = 0;
	int r = 0;

	if (argc != 2 || model_new(&m) < 0) {
		fputs("usage: policy_sets SEED\n", stderr);
		return 2;
	}
	policy_world_init(&world, m, strtoull(argv[1], NULL, 0));
	while (r == 0 && getline(&line, &size, stdin) > 0) {
		if (strcmp(line, "step\n") == 0) {
			policy_world_step(&world);
			say(cluster(&world.o));
		} else {
			r = judge(line);
		}
	}
	free(line);
	policy_world_done(&world);
	model_free(m);
	return r;
}
