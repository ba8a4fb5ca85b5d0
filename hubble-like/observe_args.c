// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <waggle/suggest.h>
#include "observe_args.h"

#define DEFAULT_SERVER "unix:///run/waggle/hubble.sock"

enum option_id {
	OPT_FILTER = 256, /* + side * 32 + kind */
	OPT_SERVER = 512,
	OPT_INPUT_FILE,
	OPT_TIMEOUT,
	OPT_REQUEST_TIMEOUT,
	OPT_PRINT_RAW,
	OPT_OUTPUT,
	OPT_TIME_FORMAT,
	OPT_NODE_NAME,
	OPT_NUMERIC,
	OPT_IP_TRANSLATION,
	OPT_POLICY_NAMES,
	OPT_COLOR,
	OPT_FIRST,
	OPT_LAST,
	OPT_ALL,
	OPT_FOLLOW,
	OPT_SINCE,
	OPT_UNTIL,
	OPT_FIELD_MASK,
	OPT_DEFAULT_MASK,
	OPT_ALLOWLIST,
	OPT_DENYLIST,
	OPT_NOT,
	OPT_ALL_NAMESPACES,
	OPT_FROM_ALL_NAMESPACES,
	OPT_TO_ALL_NAMESPACES,
	OPT_SILENT,
	OPT_DEBUG,
	OPT_HELP,
	OPT_VERSION,
};

#define ENDS(name, kind)                                                                           \
	{ name, required_argument, NULL, OPT_FILTER + OBSERVE_EITHER * 32 + (kind) },              \
		{ "from-" name, required_argument, NULL,                                           \
		  OPT_FILTER + OBSERVE_FROM * 32 + (kind) },                                       \
	{                                                                                          \
		"to-" name, required_argument, NULL, OPT_FILTER + OBSERVE_TO * 32 + (kind)         \
	}
#define ONE(name, has, kind)                                                                       \
	{                                                                                          \
		name, has, NULL, OPT_FILTER + (kind)                                               \
	}

static const struct option options[] = {
	ENDS("ip", OBSERVE_IP),
	ENDS("pod", OBSERVE_POD),
	ENDS("namespace", OBSERVE_NAMESPACE),
	ENDS("service", OBSERVE_SERVICE),
	ENDS("port", OBSERVE_PORT),
	ENDS("identity", OBSERVE_IDENTITY),
	ENDS("label", OBSERVE_LABEL),
	ENDS("workload", OBSERVE_WORKLOAD),
	ONE("verdict", required_argument, OBSERVE_VERDICT),
	ONE("type", required_argument, OBSERVE_TYPE),
	ONE("protocol", required_argument, OBSERVE_PROTOCOL),
	ONE("drop-reason-desc", required_argument, OBSERVE_DROP_REASON),
	ONE("node-name", required_argument, OBSERVE_NODE_NAME),
	ONE("reply", optional_argument, OBSERVE_REPLY),
	ONE("traffic-direction", required_argument, OBSERVE_DIRECTION),
	ONE("ip-version", required_argument, OBSERVE_IP_VERSION),
	ONE("tcp-flags", required_argument, OBSERVE_TCP_FLAGS),
	ONE("uuid", required_argument, OBSERVE_UUID),
	ONE("snat-ip", required_argument, OBSERVE_SNAT_IP),
	ONE("interface", required_argument, OBSERVE_INTERFACE),
	{ "ipv4", no_argument, NULL, '4' },
	{ "ipv6", no_argument, NULL, '6' },
	{ "server", required_argument, NULL, OPT_SERVER },
	{ "input-file", required_argument, NULL, OPT_INPUT_FILE },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "request-timeout", required_argument, NULL, OPT_REQUEST_TIMEOUT },
	{ "print-raw-filters", optional_argument, NULL, OPT_PRINT_RAW },
	{ "output", required_argument, NULL, OPT_OUTPUT },
	{ "time-format", required_argument, NULL, OPT_TIME_FORMAT },
	{ "print-node-name", optional_argument, NULL, OPT_NODE_NAME },
	{ "numeric", optional_argument, NULL, OPT_NUMERIC },
	{ "ip-translation", optional_argument, NULL, OPT_IP_TRANSLATION },
	{ "print-policy-names", optional_argument, NULL, OPT_POLICY_NAMES },
	{ "color", required_argument, NULL, OPT_COLOR },
	{ "first", required_argument, NULL, OPT_FIRST },
	{ "last", required_argument, NULL, OPT_LAST },
	{ "all", optional_argument, NULL, OPT_ALL },
	{ "follow", optional_argument, NULL, OPT_FOLLOW },
	{ "since", required_argument, NULL, OPT_SINCE },
	{ "until", required_argument, NULL, OPT_UNTIL },
	{ "field-mask", required_argument, NULL, OPT_FIELD_MASK },
	{ "use-default-field-masks", optional_argument, NULL, OPT_DEFAULT_MASK },
	{ "allowlist", required_argument, NULL, OPT_ALLOWLIST },
	{ "denylist", required_argument, NULL, OPT_DENYLIST },
	{ "not", optional_argument, NULL, OPT_NOT },
	{ "all-namespaces", optional_argument, NULL, OPT_ALL_NAMESPACES },
	{ "from-all-namespaces", optional_argument, NULL, OPT_FROM_ALL_NAMESPACES },
	{ "to-all-namespaces", optional_argument, NULL, OPT_TO_ALL_NAMESPACES },
	{ "silent-errors", optional_argument, NULL, OPT_SILENT },
	{ "debug", optional_argument, NULL, OPT_DEBUG },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

void observe_args_help(FILE *f)
{
	fputs("Usage: flow-observe [observe|status|list nodes|list namespaces|version] "
	      "[FLAG...]\n"
	      "Shows the flows of a node in the flags and shapes of \"hubble observe\".\n\n"
	      "Which flows:   --last N (default 20)  --first N  --all  -f --follow\n"
	      "               --since TIME  --until TIME (5m, 1h30m, 2006-01-02T15:04:05Z)\n"
	      "Filters:       --verdict V  -t --type TYPE[:SUBTYPE]  --drop-reason-desc R\n"
	      "               --ip A  --pod [NS/]P  -n --namespace NS  --service [NS/]S  --port P\n"
	      "               --identity I  -l --label L  --workload W, each also --from-... "
	      "--to-...\n"
	      "               --protocol P  --tcp-flags F,...  --reply  --traffic-direction D\n"
	      "               -4 -6 --ip-version V  --node-name N  --interface I  --snat-ip A\n"
	      "               --uuid U  -A --all-namespaces  --not (negates the next filter)\n"
	      "               --allowlist JSON  --denylist JSON  --print-raw-filters\n"
	      "Output:        -o --output compact|table|dict|json|jsonpb  --time-format F\n"
	      "               --print-node-name  --numeric  --ip-translation=false\n"
	      "               --color auto|always|never  --field-mask PATH,...\n"
	      "Source:        --server unix:///PATH|HOST:PORT (default " DEFAULT_SERVER ")\n"
	      "               --input-file FILE|-  --timeout 5s  --request-timeout 12s\n",
	      f);
}

/* Of a flag that is alone or has a truth: what check_truth() has made "true" or "false". */
static bool on(const char *value)
{
	return !value || !strcmp(value, "true");
}

/* Go's words for a truth. */
static int check_truth(const char **value, const char *flag, struct wag_err *err)
{
	static const char *const words[] = { "0", "f", "F", "false", "FALSE", "False",
					     "1", "t", "T", "true",  "TRUE",  "True" };
	const size_t n = sizeof(words) / sizeof(words[0]);

	for (size_t i = 0; i < n; i++) {
		if (!strcmp(words[i], *value)) {
			*value = i < n / 2 ? "false" : "true";
			return 0;
		}
	}
	return wag_err_set(err, -EINVAL, "--%s: \"%s\" is neither true nor false", flag, *value);
}

static int parse_count(const char *text, const char *flag, uint64_t *ret, struct wag_err *err)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end)
		return wag_err_set(err, -EINVAL, "--%s: \"%s\" is not a number", flag, text);
	if (errno)
		return wag_err_set(err, -EINVAL, "--%s: %s is too large", flag, text);
	return 0;
}

static int parse_timeout(const char *text, const char *flag, int *ret, struct wag_err *err)
{
	uint64_t ns;

	if (observe_duration_parse(text, &ns) < 0 || ns / 1000000 > 86400000)
		return wag_err_set(err, -EINVAL, "--%s: \"%s\" is not a duration like 5s", flag,
				   text);
	*ret = ns / 1000000;
	return 0;
}

static int parse_moment(const char *text, const char *flag, uint64_t *ret, struct wag_err *err)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (observe_time_parse(text, ts.tv_sec * 1000000000ULL + ts.tv_nsec, ret) < 0)
		return wag_err_set(err, -EINVAL,
				   "--%s: \"%s\" is neither a duration (5m) nor a time "
				   "(2006-01-02T15:04:05Z)",
				   flag, text);
	return 0;
}

static int parse_color(struct observe_args *args, const char *text, struct wag_err *err)
{
	if (!strcmp(text, "auto"))
		args->color = 0;
	else if (!strcmp(text, "always"))
		args->color = 1;
	else if (!strcmp(text, "never"))
		args->color = -1;
	else
		return wag_err_set(err, -EINVAL, "--color: \"%s\" is none of auto, always, never",
				   text);
	return 0;
}

static int add_raw(struct observe_args *args, unsigned deny, const char *text, struct wag_err *err)
{
	if (args->n_raw[deny] == sizeof(args->raw[0]) / sizeof(args->raw[0][0]))
		return wag_err_set(err, -EINVAL, "more raw filters than can be taken");
	args->raw[deny][args->n_raw[deny]++] = text;
	return 0;
}

static int parse_format(struct observe_args *args, int opt, const char *value, struct wag_err *err)
{
	switch (opt) {
	case 'o':
	case OPT_OUTPUT:
		if (print_output_parse(value, &args->output) < 0)
			return wag_err_set(err, -EINVAL,
					   "--output: \"%s\" is none of compact, table, "
					   "dict, json, jsonpb",
					   value);
		break;
	case OPT_TIME_FORMAT:
		if (print_time_parse(value, &args->time_format) < 0)
			return wag_err_set(
				err, -EINVAL,
				"--time-format: \"%s\" is none of StampMilli, "
				"RFC3339, RFC3339Milli, RFC3339Micro, RFC3339Nano, RFC1123Z",
				value);
		break;
	case OPT_COLOR:
		return parse_color(args, value, err);
	case OPT_NODE_NAME:
		args->node_name = on(value);
		break;
	case OPT_NUMERIC:
		args->numeric = on(value);
		break;
	case OPT_IP_TRANSLATION:
		args->numeric = !on(value);
		break;
	case OPT_POLICY_NAMES:
		args->policy_names = on(value);
		break;
	case OPT_FIELD_MASK:
		args->field_mask = value;
		break;
	case OPT_DEFAULT_MASK:
		args->use_default_mask = on(value);
		break;
	}
	return 0;
}

static int parse_selector(struct observe_args *args, int opt, const char *value,
			  struct wag_err *err)
{
	switch (opt) {
	case OPT_SERVER:
		args->server = value;
		break;
	case OPT_INPUT_FILE:
		args->input_file = value;
		break;
	case OPT_TIMEOUT:
		return parse_timeout(value, "timeout", &args->timeout_ms, err);
	case OPT_REQUEST_TIMEOUT:
		return parse_timeout(value, "request-timeout", &args->request_timeout_ms, err);
	case OPT_PRINT_RAW:
		args->print_raw_filters = on(value);
		break;
	case OPT_FIRST:
		args->has_first = true;
		return parse_count(value, "first", &args->first, err);
	case OPT_LAST:
		args->has_last = true;
		return parse_count(value, "last", &args->last, err);
	case OPT_ALL:
		args->all = on(value);
		break;
	case 'f':
	case OPT_FOLLOW:
		args->follow = on(value);
		break;
	case OPT_SINCE:
		return parse_moment(value, "since", &args->since_ns, err);
	case OPT_UNTIL:
		return parse_moment(value, "until", &args->until_ns, err);
	case OPT_ALLOWLIST:
	case OPT_DENYLIST:
		return add_raw(args, opt == OPT_DENYLIST, value, err);
	case 's':
	case OPT_SILENT:
		args->silent = on(value);
		break;
	case 'h':
	case OPT_HELP:
		args->help = true;
		break;
	case OPT_VERSION:
		args->version = true;
		break;
	case 'D':
	case OPT_DEBUG:
		break;
	default:
		return parse_format(args, opt, value, err);
	}
	return 0;
}

/* Short flags and those for all namespaces are filters under another name. */
static int as_filter(int opt, const char **value)
{
	switch (opt) {
	case 'n':
		return OPT_FILTER + OBSERVE_NAMESPACE;
	case 't':
		return OPT_FILTER + OBSERVE_TYPE;
	case 'l':
		return OPT_FILTER + OBSERVE_LABEL;
	case '4':
		*value = "v4";
		return OPT_FILTER + OBSERVE_IP_VERSION;
	case '6':
		*value = "v6";
		return OPT_FILTER + OBSERVE_IP_VERSION;
	case 'A':
	case OPT_ALL_NAMESPACES:
	case OPT_FROM_ALL_NAMESPACES:
	case OPT_TO_ALL_NAMESPACES:
		*value = "/";
		return OPT_FILTER + OBSERVE_POD +
		       32 * (opt == OPT_FROM_ALL_NAMESPACES ? OBSERVE_FROM
			     : opt == OPT_TO_ALL_NAMESPACES ? OBSERVE_TO
							    : OBSERVE_EITHER);
	}
	return opt;
}

static int parse_option(struct observe_args *args, int opt, const char *value, bool *negate,
			struct wag_err *err)
{
	int r;

	if (opt == OPT_NOT) {
		if (*negate)
			return wag_err_set(err, -EINVAL, "consecutive --not statements");
		*negate = on(value);
		return 0;
	}
	if (opt >= OPT_ALL_NAMESPACES && opt <= OPT_TO_ALL_NAMESPACES && !on(value))
		return 0;
	opt = as_filter(opt, &value);
	if (opt < OPT_FILTER || opt >= OPT_SERVER)
		return parse_selector(args, opt, value, err);
	opt -= OPT_FILTER;
	r = observe_filter_add(&args->filters[*negate], opt % 32, opt / 32, value ? value : "true",
			       err);
	*negate = false;
	return r;
}

static int check(const struct observe_args *args, bool negate, struct wag_err *err)
{
	if (negate)
		return wag_err_set(err, -EINVAL, "trailing --not found in the arguments");
	if (args->has_first + args->has_last + args->all > 1)
		return wag_err_set(err, -EINVAL, "--first, --last and --all cannot be combined");
	if (args->has_first && args->follow)
		return wag_err_set(err, -EINVAL, "--first cannot be combined with --follow");
	if (args->follow && args->output == PRINT_TABLE)
		return wag_err_set(err, -EINVAL,
				   "table output cannot be combined with --follow: use "
				   "-o compact");
	return 0;
}

/* words: what is left of the command line once the flags are taken out. */
static int parse_command(struct observe_args *args, char *const *words, int n, struct wag_err *err)
{
	if (n == 0 || (n == 1 && (!strcmp(words[0], "observe") || !strcmp(words[0], "flows"))) ||
	    (n == 2 && !strcmp(words[0], "observe") && !strcmp(words[1], "flows")))
		return 0;
	if (n == 1 && !strcmp(words[0], "help")) {
		args->help = true;
		return 0;
	}
	if (n == 1 && !strcmp(words[0], "version")) {
		args->version = true;
		return 0;
	}
	if (n == 1 && !strcmp(words[0], "status")) {
		args->command = OBSERVE_STATUS;
		return 0;
	}
	if (n == 2 && !strcmp(words[0], "list") && !strncmp(words[1], "node", 4)) {
		args->command = OBSERVE_LIST_NODES;
		return 0;
	}
	if (n == 2 && !strcmp(words[0], "list") && !strncmp(words[1], "namespace", 9)) {
		args->command = OBSERVE_LIST_NAMESPACES;
		return 0;
	}
	return wag_err_set(err, -EINVAL,
			   "unexpected argument \"%s\": the commands are observe, status, "
			   "list nodes, list namespaces, version; for flags see --help",
			   n > 1 && !strcmp(words[0], "observe") ? words[1] : words[0]);
}

/* What Hubble's other flags would need, by how they begin. */
static const struct {
	const char *flag, *why;
} hubble_only[] = {
	{ "http-", "flows carry no HTTP" },
	{ "fqdn", "flows carry no DNS names; use --service, --pod or --ip" },
	{ "from-fqdn", "flows carry no DNS names; use --from-service, --from-pod or --from-ip" },
	{ "to-fqdn", "flows carry no DNS names; use --to-service, --to-pod or --to-ip" },
	{ "trace-id", "flows carry no trace IDs" },
	{ "ip-trace-id", "flows carry no trace IDs" },
	{ "encrypted", "nothing is encrypted" },
	{ "unencrypted", "nothing is encrypted" },
	{ "cluster", "there is one cluster" },
	{ "from-cluster", "there is one cluster" },
	{ "to-cluster", "there is one cluster" },
	{ "node-label", "use --node-name" },
	{ "cel-expression", "use the other filters" },
	{ "tls", "the server speaks no TLS; use --server unix:///PATH" },
	{ "port-forward", "the server is a socket of the node; use --server unix:///PATH" },
	{ "basic-auth", "the server asks for no password" },
	{ "kube", "no API server is asked; use --server unix:///PATH" },
	{ "config", "there is no configuration file" },
};

static int unknown_long(const char *flag, struct wag_err *err)
{
	const char *names[sizeof(options) / sizeof(options[0])], *close;
	int len = strcspn(flag, "=");
	char name[64];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(hubble_only) / sizeof(hubble_only[0]); i++)
		if (!strncmp(flag, hubble_only[i].flag, strlen(hubble_only[i].flag)))
			return wag_err_set(err, -EINVAL, "flag --%.*s is Hubble's, not ours: %s",
					   len, flag, hubble_only[i].why);
	for (; options[n].name; n++)
		names[n] = options[n].name;
	snprintf(name, sizeof(name), "%.*s", len, flag);
	close = suggest(name, names, n);
	return wag_err_set(err, -EINVAL, "unknown flag --%s%s%s%s", name,
			   close ? ": did you mean --" : ": see --help", close ? close : "",
			   close ? "?" : "");
}

/* word: the argument that getopt() stopped at. */
static int bad_flag(int opt, const char *word, struct wag_err *err)
{
	if (opt == ':')
		return wag_err_set(err, -EINVAL, "flag %s needs a value", word);
	if (optopt > 0 && optopt < 256)
		return wag_err_set(err, -EINVAL, "unknown flag -%c: see --help", optopt);
	return unknown_long(word + strspn(word, "-"), err);
}

int observe_args_parse(struct observe_args *args, int argc, char **argv, struct wag_err *err)
{
	bool negate = false;
	int opt, index, r;

	memset(args, 0, sizeof(*args));
	observe_filter_init(&args->filters[0]);
	observe_filter_init(&args->filters[1]);
	args->server = DEFAULT_SERVER;
	args->timeout_ms = 5000;
	args->request_timeout_ms = 12000;
	args->use_default_mask = true;
	opterr = 0;
	optind = 0;
	for (;;) {
		const char *value;

		index = -1;
		opt = getopt_long(argc, argv, ":fo:n:t:l:46AshD", options, &index);
		if (opt == -1)
			break;
		value = optarg;
		if (opt == '?' || opt == ':')
			return bad_flag(opt, argv[optind - 1], err);
		r = 0;
		if (value && index >= 0 && options[index].has_arg == optional_argument)
			r = check_truth(&value, options[index].name, err);
		if (r == 0)
			r = parse_option(args, opt, value, &negate, err);
		if (r < 0)
			return r;
	}
	r = parse_command(args, argv + optind, argc - optind, err);
	return r < 0 ? r : check(args, negate, err);
}

void observe_args_done(struct observe_args *args)
{
	observe_filter_done(&args->filters[0]);
	observe_filter_done(&args->filters[1]);
}
