// SPDX-License-Identifier: Apache-2.0
/* flow-observe: asks an observer.Observer, prints what it says. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "filter.h"
#include "grpc_client.h"
#include "json_in.h"
#include "json_out.h"
#include "observe_args.h"

struct observe {
	struct observe_args args;
	struct printer printer;
	Observer__GetFlowsRequest *request;
};

static void fail(const struct wag_err *err)
{
	fprintf(stderr, "flow-observe: %s\n", err->msg);
}

/* A reader that went away is no error of ours. */
static int output_error(int r, struct wag_err *err)
{
	if (r == -EPIPE)
		return r;
	return wag_err_set(err, r, "cannot write the output: %s", strerror(-r));
}

static int show(struct observe *o, const Observer__GetFlowsResponse *response)
{
	int r = print_response(&o->printer, response);

	if (r < 0)
		return errno == EPIPE ? -EPIPE : r;
	if (o->args.follow && fflush(o->printer.out))
		return -errno;
	return 0;
}

static int on_flow(void *ctx, const uint8_t *data, size_t len)
{
	Observer__GetFlowsResponse *response =
		observer__get_flows_response__unpack(NULL, len, data);
	struct observe *o = ctx;
	int r;

	if (!response) {
		if (!o->args.silent)
			fputs("flow-observe: skipped an answer that cannot be decoded\n", stderr);
		return 0;
	}
	r = show(o, response);
	observer__get_flows_response__free_unpacked(response, NULL);
	return r;
}

static int on_status(void *ctx, const uint8_t *data, size_t len)
{
	Observer__ServerStatusResponse *status =
		observer__server_status_response__unpack(NULL, len, data);
	struct observe *o = ctx;
	int r;

	if (!status)
		return -EPROTO;
	r = print_status(&o->printer, status);
	observer__server_status_response__free_unpacked(status, NULL);
	return r;
}

static int on_nodes(void *ctx, const uint8_t *data, size_t len)
{
	Observer__GetNodesResponse *response =
		observer__get_nodes_response__unpack(NULL, len, data);
	struct observe *o = ctx;

	if (!response)
		return -EPROTO;
	if (o->args.output == PRINT_JSONPB) {
		json_out_message(o->printer.out, &response->base);
		fputc('\n', o->printer.out);
	} else {
		for (size_t i = 0; i < response->n_nodes; i++) {
			print_safe(o->printer.out, response->nodes[i]->name);
			fputc('\n', o->printer.out);
		}
	}
	observer__get_nodes_response__free_unpacked(response, NULL);
	return 0;
}

static int on_namespaces(void *ctx, const uint8_t *data, size_t len)
{
	Observer__GetNamespacesResponse *response =
		observer__get_namespaces_response__unpack(NULL, len, data);
	struct observe *o = ctx;

	if (!response)
		return -EPROTO;
	if (o->args.output == PRINT_JSONPB) {
		json_out_message(o->printer.out, &response->base);
		fputc('\n', o->printer.out);
	} else {
		for (size_t i = 0; i < response->n_namespaces; i++) {
			print_safe(o->printer.out, response->namespaces[i]->namespace_);
			fputc('\n', o->printer.out);
		}
	}
	observer__get_namespaces_response__free_unpacked(response, NULL);
	return 0;
}

/* ---- from a server ---- */

static int ask(struct observe *o, struct wag_err *err)
{
	static const struct {
		const char *path;
		grpc_client_fn fn;
	} calls[] = {
		[OBSERVE_FLOWS] = { "/observer.Observer/GetFlows", on_flow },
		[OBSERVE_STATUS] = { "/observer.Observer/ServerStatus", on_status },
		[OBSERVE_LIST_NODES] = { "/observer.Observer/GetNodes", on_nodes },
		[OBSERVE_LIST_NAMESPACES] = { "/observer.Observer/GetNamespaces", on_namespaces },
	};
	_cleanup_(grpc_client_freep) struct grpc_client *client = NULL;
	bool flows = o->args.command == OBSERVE_FLOWS;
	_cleanup_free_ uint8_t *buf = NULL;
	size_t len = 0;
	int r;

	if (flows) {
		len = observer__get_flows_request__get_packed_size(o->request);
		buf = malloc(len + 1);
		if (!buf)
			return wag_err_set(err, -ENOMEM, "out of memory");
		observer__get_flows_request__pack(o->request, buf);
	}
	r = grpc_client_new(&client, o->args.server, o->args.timeout_ms, err);
	if (r < 0)
		return r;
	err->code = 0;
	r = grpc_client_call(client, calls[o->args.command].path, buf, len,
			     flows ? 0 : o->args.request_timeout_ms, calls[o->args.command].fn, o,
			     err);
	if (r < 0 && !err->code)
		return output_error(r, err);
	return r;
}

/* ---- from a file ---- */

/* What the file's filters let through, in order; the last N wait here. */
struct input {
	struct filter_list *allow, *deny;
	Observer__GetFlowsResponse **kept;
	size_t n, size;
	uint64_t left;
};

static void input_done(struct input *in)
{
	for (size_t i = 0; i < in->n; i++)
		observer__get_flows_response__free_unpacked(in->kept[i], NULL);
	free(in->kept);
	filter_list_free(in->allow);
	filter_list_free(in->deny);
}

static bool input_wants(const struct observe *o, const struct input *in,
			const Observer__GetFlowsResponse *response)
{
	const Flow__Flow *flow = response->flow;
	uint64_t ns;

	if (response->response_types_case != OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_FLOW)
		return true;
	if (flow->time) {
		ns = flow->time->seconds * 1000000000ULL + flow->time->nanos;
		if (ns < o->args.since_ns || (o->args.until_ns && ns > o->args.until_ns))
			return false;
	}
	return filter_pass(in->allow, in->deny, flow);
}

/* A line is a response, or a bare flow as older outputs have it. */
static Observer__GetFlowsResponse *input_parse(const char *line, size_t len, struct wag_err *err)
{
	Observer__GetFlowsResponse *response;
	ProtobufCMessage *msg;

	if (json_in_message(&msg, &observer__get_flows_response__descriptor, line, len, false,
			    err) < 0)
		return NULL;
	response = (Observer__GetFlowsResponse *)msg;
	if (response->response_types_case || !strstr(line, "\"verdict\""))
		return response;
	if (json_in_message(&msg, &flow__flow__descriptor, line, len, false, err) < 0)
		return response;
	response->response_types_case = OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_FLOW;
	response->flow = (Flow__Flow *)msg;
	return response;
}

static int input_take(struct observe *o, struct input *in, Observer__GetFlowsResponse *response)
{
	if (!o->request->first && o->request->number) { /* the last N: keep them all for now */
		if (in->n == in->size) {
			size_t size = in->size ? in->size * 2 : 256;
			void *grown = realloc(in->kept, size * sizeof(*in->kept));

			if (!grown) {
				observer__get_flows_response__free_unpacked(response, NULL);
				return -ENOMEM;
			}
			in->kept = grown;
			in->size = size;
		}
		if (in->n == o->request->number) {
			observer__get_flows_response__free_unpacked(in->kept[0], NULL);
			memmove(in->kept, in->kept + 1, --in->n * sizeof(*in->kept));
		}
		in->kept[in->n++] = response;
		return 0;
	}
	if (in->left) {
		int r = show(o, response);

		in->left--;
		observer__get_flows_response__free_unpacked(response, NULL);
		return r;
	}
	observer__get_flows_response__free_unpacked(response, NULL);
	return 0;
}

static int input_read(struct observe *o, struct input *in, FILE *f, struct wag_err *err)
{
	_cleanup_free_ char *line = NULL;
	unsigned number = 0;
	size_t size = 0;
	int failed, r = 0;
	ssize_t len;

	while (r == 0 && (len = getline(&line, &size, f)) > 0) {
		Observer__GetFlowsResponse *response;
		struct wag_err why;

		number++;
		if (strspn(line, " \t\r\n") == (size_t)len)
			continue;
		response = input_parse(line, len, &why);
		if (!response) {
			if (!o->args.silent)
				fprintf(stderr, "flow-observe: %s line %u skipped: %s\n",
					o->args.input_file, number, why.msg);
			continue;
		}
		if (input_wants(o, in, response))
			r = input_take(o, in, response);
		else
			observer__get_flows_response__free_unpacked(response, NULL);
	}
	failed = ferror(f) ? errno : 0;
	for (size_t i = 0; r == 0 && i < in->n; i++)
		r = show(o, in->kept[i]);
	if (r < 0)
		return output_error(r, err);
	if (failed)
		return wag_err_set(err, -failed, "cannot read %s: %s", o->args.input_file,
				   strerror(failed));
	return 0;
}

static int read_file(struct observe *o, struct wag_err *err)
{
	_cleanup_(input_done) struct input in = { .left = o->request->first ? o->request->number
									    : UINT64_MAX };
	_cleanup_fclose_ FILE *opened = NULL;
	FILE *f = stdin;
	int r;

	r = filter_list_new(&in.allow, o->request->whitelist, o->request->n_whitelist, err);
	if (r == 0)
		r = filter_list_new(&in.deny, o->request->blacklist, o->request->n_blacklist, err);
	if (r < 0)
		return r;
	if (strcmp(o->args.input_file, "-")) {
		f = opened = fopen(o->args.input_file, "re");
		if (!f)
			return wag_err_set(err, -errno, "cannot read %s: %s", o->args.input_file,
					   strerror(errno));
	}
	/* Without an amount the whole file is shown. */
	if (!o->args.has_last && !o->args.has_first) {
		o->request->number = 0;
		in.left = UINT64_MAX;
	}
	return input_read(o, &in, f, err);
}

static void print_raw_list(const char *name, Flow__FlowFilter *const *list, size_t n)
{
	if (!n)
		return;
	printf("%s:\n", name);
	for (size_t i = 0; i < n; i++) {
		fputs("    - '", stdout);
		json_out_message(stdout, &list[i]->base);
		fputs("'\n", stdout);
	}
}

static int run(struct observe *o, struct wag_err *err)
{
	int r = 0;

	printer_init(&o->printer, stdout, stderr);
	o->printer.output = o->args.output;
	o->printer.time_format = o->args.time_format;
	o->printer.node_name = o->args.node_name;
	o->printer.numeric = o->args.numeric;
	o->printer.policy_names = o->args.policy_names;
	o->printer.color = o->args.output != PRINT_TABLE &&
			   (o->args.color > 0 || (o->args.color == 0 && isatty(STDOUT_FILENO)));
	if (o->args.command == OBSERVE_FLOWS)
		r = observe_request(&o->args, &o->request, err);
	if (r < 0)
		return r;
	if (o->args.print_raw_filters && o->request) {
		print_raw_list("allowlist", o->request->whitelist, o->request->n_whitelist);
		print_raw_list("denylist", o->request->blacklist, o->request->n_blacklist);
	} else if (o->args.input_file && o->request) {
		r = read_file(o, err);
	} else {
		r = ask(o, err);
	}
	if (r < 0) {
		printer_finish(&o->printer); /* what did arrive is shown */
		return r;
	}
	r = printer_finish(&o->printer);
	return r < 0 ? output_error(r, err) : 0;
}

int main(int argc, char **argv)
{
	struct wag_err err = { 0 };
	struct observe o = { 0 };
	int r;

	signal(SIGPIPE, SIG_IGN);
	r = observe_args_parse(&o.args, argc, argv, &err);
	if (r == 0 && o.args.help)
		observe_args_help(stdout);
	else if (r == 0 && o.args.version)
		puts("flow-observe " WAGGLE_VERSION);
	else if (r == 0)
		r = run(&o, &err);
	if (r < 0 && r != -EPIPE)
		fail(&err);
	if (o.request)
		observer__get_flows_request__free_unpacked(o.request, NULL);
	printer_done(&o.printer);
	observe_args_done(&o.args);
	if (r == -EINVAL)
		return 2; /* wrong usage, as of waggle */
	return r < 0 && r != -EPIPE ? EXIT_FAILURE : EXIT_SUCCESS;
}
