// SPDX-License-Identifier: Apache-2.0
/* waggle: look at what the agent and the datapath have, with or without a running agent. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include <waggle/suggest.h>
#include "bpf_maps.h"

#define MAX_WORDS 4

static int cmd_version(const struct cli *cli, int argc, char **argv, struct wag_err *err);

struct verb {
	const char *name; /* the words, one blank between */
	cmd_fn run;
	int max_args;
	const char *takes; /* options, by their long names; besides the common ones */
	const char *args;
	const char *help;
};

static const struct verb verbs[] = {
	{ "status", cmd_status, 0, "output", "",
	  "is the agent ready, what is not, how full are the maps" },
	{ "doctor", cmd_doctor, 0, "clean-kube-proxy dry-run force output yes",
	  "[--clean-kube-proxy]", "what is wrong here; kube-proxy's leftovers, and how to get rid "
	  "of them" },
	{ "service list", cmd_service_list, 0, "output", "", "Services with their backends" },
	{ "endpoint list", cmd_endpoint_list, 0, "output", "", "pods of this node" },
	{ "endpoint get", cmd_endpoint_get, 1, "output", "NS/POD|IP|ID",
	  "what policies say of one pod" },
	{ "policy get", cmd_policy_get, 1, "output", "[NAME]",
	  "rules in force, and what they have judged" },
	{ "policy trace", cmd_policy_trace, 0, "from output port protocol to", "--from A --to B",
	  "what would become of a new flow, and who decides" },
	{ "node list", cmd_node_list, 0, "output", "",
	  "other nodes and the way packets take to them" },
	{ "bpf lb list", cmd_bpf_lb_list, 0, "backends frontends output source-ranges", "",
	  "load-balancing tables of the datapath" },
	{ "bpf lb maglev list", cmd_bpf_lb_maglev_list, 0, "output", "",
	  "Maglev's lookup tables" },
	{ "bpf lb maglev get", cmd_bpf_lb_maglev_get, 1, "output", "ID|ADDRESS",
	  "one of them, whole" },
	{ "bpf ct list", cmd_bpf_ct_list, 0, "expired output", "[--expired]", "tracked flows" },
	{ "bpf map list", cmd_bpf_map_list, 0, "output", "", "pinned maps, their fill and memory" },
	{ "bpf map dump", cmd_bpf_map_dump, 1, "all output", "NAME [--all]",
	  "any map, read through its BTF" },
	{ "bpf prog list", cmd_bpf_prog_list, 0, "output", "",
	  "loaded programs that use these maps" },
	{ "ipam show", cmd_ipam_show, 0, "output verbose", "[-v]",
	  "the node's pod ranges and how full they are" },
	{ "ipam check", cmd_ipam_check, 0, "fix output", "[--fix]",
	  "leases, pods and datapath compared" },
	{ "ipam release", cmd_ipam_release, 1, "force", "IP [--force]", "take an address back" },
	{ "metrics", cmd_metrics, 0, "output", "",
	  "the agent's metrics, or the datapath's counters" },
	{ "init bpffs", cmd_init_bpffs, 0, "host-proc path", "[--path P]",
	  "mount the BPF file system" },
	{ "init cgroup2", cmd_init_cgroup2, 0, "host-proc path", "[--path P]",
	  "mount the cgroup2 hierarchy" },
	{ "init cni", cmd_init_cni, 0, "bin-dir source", "--bin-dir D",
	  "install the CNI plugin, in one step" },
	{ "init uninstall-cni", cmd_init_uninstall_cni, 0, "bin-dir conf-dir", "--conf-dir D",
	  "give the node back its former CNI network" },
	{ "version", cmd_version, 0, "output", "", "the version of this command" },
};
#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

enum { OPT_ALL = 256, OPT_EXPIRED, OPT_VERSION, OPT_PATH, OPT_HOST_PROC, OPT_BIN_DIR, OPT_SOURCE,
       OPT_CONF_DIR, OPT_FIX, OPT_FORCE, OPT_FRONTENDS, OPT_BACKENDS, OPT_SOURCE_RANGES,
       OPT_CLEAN_KUBE_PROXY, OPT_DRY_RUN, OPT_FROM, OPT_TO, OPT_PORT, OPT_PROTOCOL };

static const struct option options[] = {
	{ "pin-dir", required_argument, NULL, 'p' },
	{ "state-dir", required_argument, NULL, 's' },
	{ "health-addr", required_argument, NULL, 'a' },
	{ "output", required_argument, NULL, 'o' },
	{ "all", no_argument, NULL, OPT_ALL },
	{ "expired", no_argument, NULL, OPT_EXPIRED },
	{ "frontends", no_argument, NULL, OPT_FRONTENDS },
	{ "backends", no_argument, NULL, OPT_BACKENDS },
	{ "source-ranges", no_argument, NULL, OPT_SOURCE_RANGES },
	{ "verbose", no_argument, NULL, 'v' },
	{ "fix", no_argument, NULL, OPT_FIX },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "clean-kube-proxy", no_argument, NULL, OPT_CLEAN_KUBE_PROXY },
	{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
	{ "yes", no_argument, NULL, 'y' },
	{ "from", required_argument, NULL, OPT_FROM },
	{ "to", required_argument, NULL, OPT_TO },
	{ "port", required_argument, NULL, OPT_PORT },
	{ "protocol", required_argument, NULL, OPT_PROTOCOL },
	{ "path", required_argument, NULL, OPT_PATH },
	{ "host-proc", required_argument, NULL, OPT_HOST_PROC },
	{ "bin-dir", required_argument, NULL, OPT_BIN_DIR },
	{ "source", required_argument, NULL, OPT_SOURCE },
	{ "conf-dir", required_argument, NULL, OPT_CONF_DIR },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};
#define N_OPTIONS (sizeof(options) / sizeof(options[0]) - 1)

/* Where things are: for every command, though not each one looks there. */
static const char common_options[] = "pin-dir state-dir health-addr";

static void usage(FILE *f)
{
	fprintf(f, "usage: waggle [options] COMMAND\n\n");
	for (size_t i = 0; i < N_VERBS; i++)
		fprintf(f, "  %-18s %-20s %s\n", verbs[i].name, verbs[i].args, verbs[i].help);
	fprintf(f,
		"\n"
		"  -o, --output table|json|yaml   (default: table); not for ipam release, init\n"
		"      --pin-dir DIR              where the agent pins (default: %s)\n"
		"      --state-dir DIR            (default: %s)\n"
		"      --health-addr HOST:PORT    of the agent (default: 127.0.0.1:9879)\n"
		"      --all                      map dump: also elements that are all zero\n"
		"      --frontends, --backends, --source-ranges\n"
		"                                 lb list: only these tables\n"
		"      --expired                  ct list: only flows past their time\n"
		"  -v, --verbose                  ipam show: each lease, too\n"
		"      --fix                      ipam check: repair what can be repaired\n"
		"      --force                    ipam release: although a pod has the address;\n"
		"                                 doctor: although kube-proxy runs\n"
		"      --clean-kube-proxy         doctor: remove what kube-proxy left\n"
		"      --dry-run                  with it: only show what that would be\n"
		"  -y, --yes                      with it: do not ask\n"
		"      --from, --to NS/POD|IP     policy trace: the ends; --to also a Service\n"
		"      --port N                   policy trace: the port that is asked for\n"
		"      --protocol TCP|UDP|SCTP    policy trace (default: TCP)\n"
		"      --path PATH                init bpffs, cgroup2: where to mount\n"
		"      --host-proc DIR            init bpffs, cgroup2: mount where its process 1\n"
		"                                 sees it\n"
		"      --bin-dir DIR              init cni, uninstall-cni: the runtime's plugins\n"
		"      --source FILE              init cni: what to install\n"
		"      --conf-dir DIR             init uninstall-cni: the runtime's networks\n"
		"\nOptions may stand before or after the command. Exit status: 0, or 1 on\n"
		"error and when 'status', 'doctor' or 'ipam check' finds something wrong, or 2\n"
		"for wrong usage.\n",
		WAG_PIN_DIR, WAG_STATE_DIR);
}

static int cmd_version(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	static const struct output_column columns[] = { { "VERSION", "version" },
							{ "MAP LAYOUT", "abi" } };
	_cleanup_json_ json_t *doc = json_pack("{s:s, s:i}", "version", WAGGLE_VERSION, "abi", 1);
	_cleanup_json_ json_t *rows = json_pack("[O]", doc);

	if (cli->format == OUTPUT_TABLE) {
		printf("waggle %s\n", WAGGLE_VERSION);
		return 0;
	}
	return output_print(cli->format, doc, rows, columns, 2, err);
}

/* How many leading words of argv spell the verb; 0: it is another one. */
static int match(const char *name, int argc, char **argv)
{
	int words = 0;

	while (*name) {
		size_t len = strcspn(name, " ");

		if (words == argc || strlen(argv[words]) != len ||
		    strncmp(argv[words], name, len) != 0)
			return 0;
		words++;
		name += len + (name[len] == ' ');
	}
	return words;
}

/* "bpf lb" alone: the commands that begin with it. */
static bool list_group(const char *typed)
{
	size_t len = strlen(typed), n = 0;

	for (size_t i = 0; len && i < N_VERBS; i++) {
		if (strncmp(verbs[i].name, typed, len) != 0 || verbs[i].name[len] != ' ')
			continue;
		fprintf(stderr, n++ ? ", '%s'" : "waggle: which one? '%s'", verbs[i].name);
	}
	if (n)
		fputc('\n', stderr);
	return n > 0;
}

/* "map list": the command that ends with it. */
static const char *command_ending(const char *typed)
{
	size_t len = strlen(typed), whole;

	for (size_t i = 0; len && i < N_VERBS; i++) {
		whole = strlen(verbs[i].name);
		if (whole > len && verbs[i].name[whole - len - 1] == ' ' &&
		    strcmp(verbs[i].name + whole - len, typed) == 0)
			return verbs[i].name;
	}
	return NULL;
}

static int unknown_command(int argc, char **argv)
{
	const char *names[N_VERBS], *close;
	char typed[128] = "";
	size_t len = 0;

	for (size_t i = 0; i < N_VERBS; i++)
		names[i] = verbs[i].name;
	for (int i = 0; i < argc && i < MAX_WORDS && len < sizeof(typed); i++)
		len += snprintf(typed + len, sizeof(typed) - len, "%s%s", i ? " " : "", argv[i]);
	if (list_group(typed))
		return 2;
	close = command_ending(typed);
	if (!close)
		close = suggest(typed, names, N_VERBS);
	fprintf(stderr, "waggle: no command '%s'", typed);
	if (close)
		fprintf(stderr, "; did you mean '%s'?\n", close);
	else
		fprintf(stderr, "; 'waggle --help' lists them\n");
	return 2;
}

/* Is the name among those of the list? */
static bool lists(const char *list, const char *name)
{
	size_t len = strlen(name), n;

	for (; *list; list += n + (list[n] == ' ')) {
		n = strcspn(list, " ");
		if (n == len && strncmp(list, name, n) == 0)
			return true;
	}
	return false;
}

/* An option of other commands: which they are, unless most have it. */
static int wrong_option(const struct verb *verb, const char *option)
{
	char takers[128] = "";
	size_t n = 0, len = 0;

	for (size_t i = 0; i < N_VERBS; i++)
		if (lists(verbs[i].takes, option) && n++ < 2)
			len += snprintf(takers + len, sizeof(takers) - len, "%s'%s'",
					len ? " and " : "", verbs[i].name);
	fprintf(stderr, "waggle: %s takes no --%s; ", verb->name, option);
	if (n <= 2)
		fprintf(stderr, "%s do%s\n", takers, n == 1 ? "es" : "");
	else
		fprintf(stderr, "'waggle --help' lists what it takes\n");
	return 2;
}

/* 0, or the exit status. */
static int check_options(const struct verb *verb, const bool *given)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (given[i] && !lists(common_options, options[i].name) &&
		    !lists(verb->takes, options[i].name))
			return wrong_option(verb, options[i].name);
	return 0;
}

static int run(const struct cli *cli, const bool *given, int argc, char **argv)
{
	struct wag_err err = {};
	int words, r;

	for (size_t i = 0; i < N_VERBS; i++) {
		words = match(verbs[i].name, argc, argv);
		if (!words)
			continue;
		r = check_options(&verbs[i], given);
		if (r)
			return r;
		if (argc - words > verbs[i].max_args) {
			fprintf(stderr, "waggle: %s takes no '%s'\n", verbs[i].name,
				argv[words + verbs[i].max_args]);
			return 2;
		}
		r = verbs[i].run(cli, argc - words, argv + words, &err);
		if (r >= 0 && output_done(&err) < 0)
			r = err.code;
		/* Whoever reads us may stop early ("| head"): no news. */
		if (r < 0 && r != -EPIPE)
			fprintf(stderr, "waggle: %s\n", err.msg[0] ? err.msg : strerror(-r));
		return r == 0 ? 0 : r == -EINVAL ? 2 : 1;
	}
	if (argc == 1 && strcmp(argv[0], "help") == 0) {
		usage(stdout);
		return 0;
	}
	return unknown_command(argc, argv);
}

static void note_option(bool *given, int c)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		given[i] |= options[i].val == c;
}

/* -1: taken; else the exit status. */
static int take_option(struct cli *cli, int c)
{
	switch (c) {
	case 'p':
		cli->pin_dir = optarg;
		break;
	case 's':
		cli->state_dir = optarg;
		break;
	case 'a':
		cli->health_addr = optarg;
		break;
	case 'o':
		if (output_format_parse(optarg, &cli->format) < 0) {
			fprintf(stderr, "waggle: -o %s: one of table, json, yaml\n",
				optarg);
			return 2;
		}
		break;
	case OPT_ALL:
		cli->all = true;
		break;
	case OPT_EXPIRED:
		cli->expired = true;
		break;
	case OPT_FRONTENDS:
		cli->frontends = true;
		break;
	case OPT_BACKENDS:
		cli->backends = true;
		break;
	case OPT_SOURCE_RANGES:
		cli->source_ranges = true;
		break;
	case 'v':
		cli->verbose = true;
		break;
	case OPT_FIX:
		cli->fix = true;
		break;
	case OPT_FORCE:
		cli->force = true;
		break;
	case OPT_CLEAN_KUBE_PROXY:
		cli->clean_kube_proxy = true;
		break;
	case OPT_DRY_RUN:
		cli->dry_run = true;
		break;
	case 'y':
		cli->yes = true;
		break;
	case OPT_FROM:
		cli->from = optarg;
		break;
	case OPT_TO:
		cli->to = optarg;
		break;
	case OPT_PORT:
		cli->port = optarg;
		break;
	case OPT_PROTOCOL:
		cli->protocol = optarg;
		break;
	case OPT_PATH:
		cli->path = optarg;
		break;
	case OPT_HOST_PROC:
		cli->host_proc = optarg;
		break;
	case OPT_BIN_DIR:
		cli->bin_dir = optarg;
		break;
	case OPT_SOURCE:
		cli->source = optarg;
		break;
	case OPT_CONF_DIR:
		cli->conf_dir = optarg;
		break;
	case OPT_VERSION:
		return cmd_version(cli, 0, NULL, NULL);
	case 'h':
		usage(stdout);
		return 0;
	}
	return -1;
}

/* word: the argument that getopt() stopped at. */
static int bad_option(int c, const char *word)
{
	const char *names[N_OPTIONS], *close = NULL;
	const char *name = word + strspn(word, "-");
	char typed[64];

	for (size_t i = 0; i < N_OPTIONS; i++)
		names[i] = options[i].name;
	snprintf(typed, sizeof(typed), "%.*s", (int)strcspn(name, "="), name);
	if (c == ':')
		fprintf(stderr, "waggle: %s needs a value", word);
	else if (optopt > 0 && optopt < OPT_ALL && word[1] != '-')
		fprintf(stderr, "waggle: no option '-%c'", optopt);
	else if (optopt)
		fprintf(stderr, "waggle: --%s takes no value", typed);
	else {
		fprintf(stderr, "waggle: no option '--%s'", typed);
		close = suggest(typed, names, N_OPTIONS);
	}
	if (close)
		fprintf(stderr, "; did you mean '--%s'?\n", close);
	else
		fprintf(stderr, "; 'waggle --help' lists them\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct cli cli = {
		.pin_dir = WAG_PIN_DIR,
		.state_dir = WAG_STATE_DIR,
		.health_addr = "127.0.0.1:9879",
	};
	bool given[N_OPTIONS] = {};
	int c, r;

	signal(SIGPIPE, SIG_IGN);
	bpf_maps_init();
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":o:vyh", options, NULL)) != -1) {
		r = c == '?' || c == ':' ? bad_option(c, argv[optind - 1]) : take_option(&cli, c);
		if (r >= 0)
			return r;
		note_option(given, c);
	}
	if (optind == argc) {
		usage(stderr);
		return 2;
	}
	return run(&cli, given, argc - optind, argv + optind);
}
