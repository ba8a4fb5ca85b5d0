// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "json_in.h"
#include "observe_args.h"

#define LAST_DEFAULT 20

/* What the compact, dict and table outputs show, and whose words to use for it. */
static const char default_mask[] =
	"time,verdict,ethernet,IP,l4,source.identity,source.namespace,source.pod_name,"
	"destination.identity,destination.namespace,destination.pod_name,Type,node_name,l7,event_"
	"type,"
	"source_service,destination_service,is_reply,Summary,ip_trace_id,emitter,policy_match_type,"
	"traffic_direction,sock_xlate_point,source_names,destination_names,debug_capture_point,"
	"egress_allowed_by,ingress_allowed_by,egress_denied_by,ingress_denied_by";

static int set_time(Google__Protobuf__Timestamp **ret, uint64_t ns)
{
	if (!ns)
		return 0;
	*ret = malloc(sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	google__protobuf__timestamp__init(*ret);
	(*ret)->seconds = ns / 1000000000;
	(*ret)->nanos = ns % 1000000000;
	return 0;
}

static int set_mask(Observer__GetFlowsRequest *request, const char *paths)
{
	_cleanup_free_ char *copy = strdup(paths);
	Google__Protobuf__FieldMask *mask = malloc(sizeof(*mask));
	char *save = NULL;
	size_t n = 1;

	if (!copy || !mask) {
		free(mask);
		return -ENOMEM;
	}
	google__protobuf__field_mask__init(mask);
	request->field_mask = mask;
	for (const char *p = paths; *p; p++)
		n += *p == ',';
	mask->paths = calloc(n, sizeof(*mask->paths));
	if (!mask->paths)
		return -ENOMEM;
	for (char *path = strtok_r(copy, ",", &save); path; path = strtok_r(NULL, ",", &save)) {
		mask->paths[mask->n_paths] = strdup(path);
		if (!mask->paths[mask->n_paths])
			return -ENOMEM;
		mask->n_paths++;
	}
	return 0;
}

static int add_raw(const struct observe_args *args, unsigned deny, Flow__FlowFilter ***list,
		   size_t *n, struct wag_err *err)
{
	for (size_t i = 0; i < args->n_raw[deny]; i++) {
		const char *text = args->raw[deny][i];
		Flow__FlowFilter **grown = realloc(*list, (*n + 1) * sizeof(**list));
		ProtobufCMessage *msg;
		int r;

		if (!grown)
			return wag_err_set(err, -ENOMEM, "out of memory");
		*list = grown;
		r = json_in_message(&msg, &flow__flow_filter__descriptor, text, strlen(text), true,
				    err);
		if (r < 0)
			return wag_err_prefix(err, deny ? "--denylist: " : "--allowlist: ");
		(*list)[(*n)++] = (Flow__FlowFilter *)msg;
	}
	return 0;
}

static void set_amount(const struct observe_args *args, Observer__GetFlowsRequest *request)
{
	request->follow = args->follow;
	request->first = args->has_first;
	if (args->has_first)
		request->number = args->first;
	else if (args->has_last)
		request->number = args->last;
	else if (!args->all && !args->follow && !args->since_ns && !args->until_ns)
		request->number = LAST_DEFAULT;
}

static int fill(struct observe_args *args, Observer__GetFlowsRequest *request, struct wag_err *err)
{
	bool text = args->output != PRINT_JSONPB;
	int r;

	set_amount(args, request);
	r = set_time(&request->since, args->since_ns);
	if (r == 0 && !args->follow)
		r = set_time(&request->until, args->until_ns);
	if (r == 0 && args->field_mask)
		r = set_mask(request, args->field_mask);
	else if (r == 0 && text && args->use_default_mask && !args->input_file)
		r = set_mask(request, default_mask);
	if (r < 0)
		return wag_err_set(err, r, "out of memory");
	r = observe_filter_expand(&args->filters[0], &request->whitelist, &request->n_whitelist,
				  err);
	if (r == 0)
		r = observe_filter_expand(&args->filters[1], &request->blacklist,
					  &request->n_blacklist, err);
	if (r == 0)
		r = add_raw(args, 0, &request->whitelist, &request->n_whitelist, err);
	if (r == 0)
		r = add_raw(args, 1, &request->blacklist, &request->n_blacklist, err);
	return r;
}

int observe_request(struct observe_args *args, Observer__GetFlowsRequest **ret, struct wag_err *err)
{
	Observer__GetFlowsRequest *request = malloc(sizeof(*request));
	int r;

	if (!request)
		return wag_err_set(err, -ENOMEM, "out of memory");
	observer__get_flows_request__init(request);
	r = fill(args, request, err);
	if (r < 0) {
		observer__get_flows_request__free_unpacked(request, NULL);
		return r;
	}
	*ret = request;
	return 0;
}
