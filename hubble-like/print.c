// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "json_out.h"
#include "print.h"

#define HOST_SIZE 512
#define WORD_SIZE 256

void printer_init(struct printer *p, FILE *out, FILE *err)
{
	memset(p, 0, sizeof(*p));
	p->out = out;
	p->err = err;
}

void printer_done(struct printer *p)
{
	print_table_free(TAKE_PTR(p->table));
}

int printer_finish(struct printer *p)
{
	if (p->table)
		print_table_flush(p->table, p->out);
	errno = 0;
	if (fflush(p->out) || ferror(p->out))
		return errno ? -errno : -EIO;
	return 0;
}

int print_output_parse(const char *text, enum print_output *ret)
{
	static const struct {
		const char *name;
		enum print_output output;
	} names[] = { { "compact", PRINT_COMPACT }, { "table", PRINT_TABLE },
		      { "tab", PRINT_TABLE },	    { "dict", PRINT_DICT },
		      { "json", PRINT_JSONPB },	    { "JSON", PRINT_JSONPB },
		      { "jsonpb", PRINT_JSONPB } };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(names[i].name, text)) {
			*ret = names[i].output;
			return 0;
		}
	}
	return -EINVAL;
}

static int table_row(struct printer *p, const char *const cells[7])
{
	static const char *const header[] = { "TIMESTAMP", "NODE",    "SOURCE", "DESTINATION",
					      "TYPE",	   "VERDICT", "SUMMARY" };
	const char *row[7];
	int r;

	if (!p->table)
		p->table = print_table_new();
	if (!p->table)
		return -ENOMEM;
	for (int head = !p->lines; head >= 0; head--) {
		size_t n = 0;

		for (size_t i = 0; i < 7; i++)
			if (i != 1 || p->node_name)
				row[n++] = head ? header[i] : cells[i];
		r = print_table_row(p->table, row, n);
		if (r < 0)
			return r;
	}
	return 0;
}

static void dict_line(struct printer *p, const char *key, const char *value)
{
	fprintf(p->out, "%11s: ", key);
	print_safe(p->out, value);
	fputc('\n', p->out);
}

static void dict_separator(struct printer *p)
{
	if (p->lines)
		fputs("------------\n", p->out);
}

static void print_compact(struct printer *p, const Flow__Flow *flow, const char *time,
			  const char *source, const char *destination, const char *type,
			  const char *verdict)
{
	bool flip = flow->is_reply && flow->is_reply->value;
	char ids[2][64];

	print_identity(flip ? flow->destination : flow->source, ids[0], sizeof(ids[0]));
	print_identity(flip ? flow->source : flow->destination, ids[1], sizeof(ids[1]));
	fputs(time, p->out);
	if (p->node_name) {
		fputs(" [", p->out);
		print_safe(p->out, flow->node_name);
		fputc(']', p->out);
	}
	fputs(": ", p->out);
	print_safe(p->out, flip ? destination : source);
	fprintf(p->out, " %s %s ", ids[0], !flow->is_reply ? "<>" : flip ? "<-" : "->");
	print_safe(p->out, flip ? source : destination);
	fprintf(p->out, " %s ", ids[1]);
	print_safe(p->out, type);
	fprintf(p->out, " %s (", verdict);
	if (flow->ip_trace_id && flow->ip_trace_id->trace_id)
		fprintf(p->out, "IP Trace ID: %" PRIu64 "; ", flow->ip_trace_id->trace_id);
	print_safe(p->out, flow->summary);
	fputs(")\n", p->out);
}

static int print_flow(struct printer *p, const Flow__Flow *flow)
{
	char time[64], source[HOST_SIZE], destination[HOST_SIZE], type[WORD_SIZE],
		verdict[HOST_SIZE];
	int r = 0;

	print_time_format(p->time_format, flow->time, time, sizeof(time));
	print_hosts(p, flow, source, destination, HOST_SIZE);
	print_type(flow, type, sizeof(type));
	print_verdict(p, flow, verdict, sizeof(verdict));
	switch (p->output) {
	case PRINT_COMPACT:
		print_compact(p, flow, time, source, destination, type, verdict);
		break;
	case PRINT_DICT:
		dict_separator(p);
		dict_line(p, "TIMESTAMP", time);
		if (p->node_name)
			dict_line(p, "NODE", flow->node_name);
		dict_line(p, "SOURCE", source);
		dict_line(p, "DESTINATION", destination);
		dict_line(p, "TYPE", type);
		fprintf(p->out, "%11s: %s\n", "VERDICT", verdict);
		dict_line(p, "SUMMARY", flow->summary);
		break;
	default:
		r = table_row(p, (const char *const[]){ time, flow->node_name, source, destination,
							type, verdict, flow->summary });
	}
	p->lines++;
	return r;
}

static const char *lost_source(const Flow__LostEvent *lost)
{
	const ProtobufCEnumValue *name = protobuf_c_enum_descriptor_get_value(
		&flow__lost_event_source__descriptor, lost->source);

	return name ? name->name : "UNKNOWN_LOST_EVENT_SOURCE";
}

static void print_lost_compact(struct printer *p, const Observer__GetFlowsResponse *response)
{
	const Flow__LostEvent *lost = response->lost_events;
	char time[64], first[64], last[64];

	print_time_format(p->time_format, response->time, time, sizeof(time));
	fputs(time, p->out);
	if (p->node_name) {
		fputs(" [", p->out);
		print_safe(p->out, response->node_name);
		fputc(']', p->out);
	}
	fprintf(p->out, " EVENTS LOST: %s CPU(%d) %" PRIu64, lost_source(lost),
		lost->cpu ? lost->cpu->value : 0, lost->num_events_lost);
	if (lost->first && lost->last) {
		print_time_format(p->time_format, lost->first, first, sizeof(first));
		print_time_format(p->time_format, lost->last, last, sizeof(last));
		fprintf(p->out, " (first: %s, last: %s)", first, last);
	}
	fputc('\n', p->out);
}

static int print_lost(struct printer *p, const Observer__GetFlowsResponse *response)
{
	const Flow__LostEvent *lost = response->lost_events;
	char summary[64];
	int r = 0;

	snprintf(summary, sizeof(summary), "CPU(%d) - %" PRIu64, lost->cpu ? lost->cpu->value : 0,
		 lost->num_events_lost);
	switch (p->output) {
	case PRINT_COMPACT:
		print_lost_compact(p, response);
		break;
	case PRINT_DICT:
		dict_separator(p);
		dict_line(p, "TIMESTAMP", "");
		if (p->node_name)
			dict_line(p, "NODE", "");
		dict_line(p, "SOURCE", lost_source(lost));
		dict_line(p, "TYPE", "EVENTS LOST");
		dict_line(p, "VERDICT", "");
		dict_line(p, "SUMMARY", summary);
		break;
	default:
		r = table_row(p, (const char *const[]){ "", "", lost_source(lost), "",
							"EVENTS LOST", "", summary });
	}
	p->lines++;
	return r;
}

/* Goes to stderr: it is about nodes, not a flow. */
static int print_node_status(struct printer *p, const Observer__GetFlowsResponse *response)
{
	const Relay__NodeStatusEvent *status = response->node_status;
	char time[64];

	if (status->state_change != RELAY__NODE_STATE__NODE_UNAVAILABLE &&
	    status->state_change != RELAY__NODE_STATE__NODE_ERROR)
		return 0;
	print_time_format(p->time_format, response->time, time, sizeof(time));
	fputs(time, p->err);
	if (*response->node_name) {
		fputs(" [", p->err);
		print_safe(p->err, response->node_name);
		fputc(']', p->err);
	}
	if (status->state_change == RELAY__NODE_STATE__NODE_ERROR) {
		fputs(": Error \"", p->err);
		print_safe(p->err, status->message);
		fprintf(p->err, "\" on %zu nodes", status->n_node_names);
	} else {
		fprintf(p->err, ": %zu nodes are unavailable", status->n_node_names);
	}
	for (size_t i = 0; i < status->n_node_names; i++) {
		const char *name = status->node_names[i];

		fputs(i ? ", " : ": ", p->err);
		print_safe(p->err, *name ? name : "(no name)");
	}
	fputc('\n', p->err);
	return 0;
}

int print_response(struct printer *p, const Observer__GetFlowsResponse *response)
{
	int r = 0;

	if (response->response_types_case == OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES__NOT_SET)
		return 0;
	if (response->response_types_case ==
	    OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_NODE_STATUS)
		return print_node_status(p, response);
	if (p->output == PRINT_JSONPB) {
		json_out_message(p->out, &response->base);
		fputc('\n', p->out);
		p->lines++;
	} else if (response->response_types_case ==
		   OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_FLOW) {
		r = print_flow(p, response->flow);
	} else {
		r = print_lost(p, response);
	}
	if (r == 0 && ferror(p->out))
		return -EIO;
	return r;
}

int print_status(struct printer *p, const Observer__ServerStatusResponse *status)
{
	double rate = status->flows_rate;

	if (p->output == PRINT_JSONPB) {
		json_out_message(p->out, &status->base);
		fputc('\n', p->out);
		return ferror(p->out) ? -EIO : 0;
	}
	if (!rate && status->uptime_ns)
		rate = status->seen_flows * 1e9 / status->uptime_ns;
	fprintf(p->out, "Current/Max Flows: %" PRIu64 "/%" PRIu64, status->num_flows,
		status->max_flows);
	if (status->max_flows)
		fprintf(p->out, " (%.2f%%)", 100.0 * status->num_flows / status->max_flows);
	fprintf(p->out, "\nFlows/s: %.2f\n", rate);
	if (status->num_connected_nodes) {
		int unavailable =
			status->num_unavailable_nodes ? status->num_unavailable_nodes->value : 0;

		fprintf(p->out, "Connected Nodes: %d/%d\n", status->num_connected_nodes->value,
			status->num_connected_nodes->value + unavailable);
		if (unavailable)
			fprintf(p->out, "Unavailable Nodes: %d\n", unavailable);
	}
	return ferror(p->out) ? -EIO : 0;
}
