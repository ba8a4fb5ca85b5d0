// SPDX-License-Identifier: Apache-2.0
/* Filters as JSON (--allowlist) and on the wire, and the input file's lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hubble-like/filter.h"
#include "hubble-like/json_in.h"
#include "hubble-like/json_out.h"
#include "hubble-like/observer.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_filter(Flow__FlowFilter *f)
{
	struct filter_list *list = NULL;
	Flow__Flow flow = FLOW__FLOW__INIT;
	Flow__Endpoint ep = FLOW__ENDPOINT__INIT;
	char *labels[] = { "k8s:a=b", "c" };

	ep.labels = labels;
	ep.n_labels = 2;
	flow.source = flow.destination = &ep;
	if (filter_list_new(&list, &f, 1, NULL) == 0)
		filter_pass(list, list, &flow);
	filter_list_free(list);
}

/* What was read can be written and read again. */
static void round_trip(const ProtobufCMessage *msg)
{
	ProtobufCMessage *again = NULL;
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	json_out_message(f, msg);
	fclose(f);
	if (json_in_message(&again, msg->descriptor, text, len, false, NULL) == 0)
		protobuf_c_message_free_unpacked(again, NULL);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	ProtobufCMessage *msg = NULL;
	Flow__FlowFilter *f;

	memcpy(text, data, size);
	text[size] = '\0';
	if (json_in_message(&msg, &flow__flow_filter__descriptor, text, size, true, NULL) == 0) {
		run_filter((Flow__FlowFilter *)msg);
		round_trip(msg);
		protobuf_c_message_free_unpacked(msg, NULL);
	}
	if (json_in_message(&msg, &observer__get_flows_response__descriptor, text, size, false,
			    NULL) == 0) {
		round_trip(msg);
		protobuf_c_message_free_unpacked(msg, NULL);
	}
	f = flow__flow_filter__unpack(NULL, size, data);
	if (f) {
		run_filter(f);
		round_trip(&f->base);
		flow__flow_filter__free_unpacked(f, NULL);
	}
	free(text);
	return 0;
}
