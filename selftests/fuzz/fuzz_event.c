// SPDX-License-Identifier: Apache-2.0
/* Whatever stands in the ring buffer must become a message and a line, or be refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hubble-like/enrich.h"
#include "hubble-like/flow_build.h"
#include "hubble-like/print.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void print_all(const struct flow_msg *msg)
{
	static const enum print_output outputs[] = { PRINT_COMPACT, PRINT_TABLE, PRINT_DICT,
						     PRINT_JSONPB };
	static FILE *null;

	if (!null)
		null = fopen("/dev/null", "w");
	for (size_t i = 0; i < sizeof(outputs) / sizeof(outputs[0]); i++) {
		struct printer p;

		printer_init(&p, null, null);
		p.output = outputs[i];
		print_response(&p, &msg->response);
		printer_finish(&p);
		printer_done(&p);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct flow_names *names;
	static struct enricher enricher;
	struct flow_record records[ENRICH_RECORDS];
	struct wag_event event = { 0 };
	int n;

	if (!names) {
		if (flow_names_new(&names) < 0)
			abort();
		enrich_init(&enricher, names, &(struct flow_resolver){ 0 });
	}
	memcpy(&event, data, size < sizeof(event) ? size : sizeof(event));
	n = enrich_event(&enricher, &event, records);
	for (int i = 0; i < n; i++) {
		struct flow_msg msg;
		uint8_t *packed;

		flow_build(&msg, &records[i], "n", event.time_ns, event.cookie);
		packed = malloc(observer__get_flows_response__get_packed_size(&msg.response));
		observer__get_flows_response__pack(&msg.response, packed);
		free(packed);
		print_all(&msg);
		flow_record_done(&records[i]);
	}
	if (flow_names_count(names))
		abort();
	return 0;
}
