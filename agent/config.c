// SPDX-License-Identifier: Apache-2.0
#include <argp.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include <waggle/suggest.h>
#include "config.h"
#include "model.h"

#define SOCKET_PATH "/run/waggle/hubble.sock"
#define HEALTH_ADDR "127.0.0.1:9879"
#define HEALTHZ_ADDR "0.0.0.0:10256" /* kube-proxy's */
#define VALUE_MAX 4096
#define POOL_V4 "10.0.0.0/8"
#define IPAM_NAMESPACE "kube-system"

/*
 * 10,000 Services of two ports and two families need 40,000 frontends at most; 100,000 slots in
 * use need as many again while ranges move (docs/maps.md "Sizes").
 */
#define CT_MAX 262144
#define SVC_MAX 65536
#define SLOT_MAX 262144
#define TABLE_LIMIT (1U << 26)

struct choice {
	const char *text;
	uint32_t value;
};

static const struct choice socket_lbs[] = { { "full", WAG_SOCKET_LB_FULL },
					    { "host", WAG_SOCKET_LB_HOST },
					    { "off", WAG_SOCKET_LB_OFF },
					    { NULL, 0 } };
static const struct choice attaches[] = { { "auto", CONFIG_ATTACH_AUTO },
					  { "tcx", WAG_ATTACH_TCX },
					  { "clsact", WAG_ATTACH_CLSACT },
					  { NULL, 0 } };
static const struct choice accelerations[] = { { "disabled", WAG_ACCELERATION_DISABLED },
					       { "best-effort", WAG_ACCELERATION_BEST_EFFORT },
					       { "native", WAG_ACCELERATION_NATIVE },
					       { "generic", WAG_ACCELERATION_GENERIC },
					       { NULL, 0 } };
static const struct choice lb_modes[] = { { "snat", LB_MODE_SNAT },
					  { "dsr", LB_MODE_DSR },
					  { "hybrid", LB_MODE_HYBRID },
					  { NULL, 0 } };
static const struct choice lb_algorithms[] = { { "random", LB_ALGORITHM_RANDOM },
					       { "maglev", LB_ALGORITHM_MAGLEV },
					       { NULL, 0 } };
static const struct choice routings[] = { { "native", WAG_ROUTING_NATIVE },
					  { "tunnel", WAG_ROUTING_TUNNEL },
					  { "auto", WAG_ROUTING_AUTO },
					  { NULL, 0 } };
static const struct choice tunnels[] = { { "vxlan", CONFIG_TUNNEL_VXLAN },
					 { "geneve", CONFIG_TUNNEL_GENEVE },
					 { NULL, 0 } };
static const struct choice underlays[] = { { "auto", CONFIG_UNDERLAY_AUTO },
					   { "ipv4", CONFIG_UNDERLAY_V4 },
					   { "ipv6", CONFIG_UNDERLAY_V6 },
					   { NULL, 0 } };
static const struct choice chainings[] = { { "none", 0 },  { "generic-veth", 1 }, { "aws-cni", 2 },
					   { "azure", 3 }, { "flannel", 4 },	  { NULL, 0 } };
static const struct choice ipams[] = { { "kubernetes", CONFIG_IPAM_KUBERNETES },
				       { "cluster-pool", CONFIG_IPAM_CLUSTER_POOL },
				       { NULL, 0 } };
static const struct choice localhosts[] = { { "always", 1 }, { "policy", 0 }, { NULL, 0 } };
static const struct choice host_routings[] = { { "bpf", 1 }, { "kernel", 0 }, { NULL, 0 } };

/* KEY_CIDRS: a string that is a comma-separated list of CIDRs, or empty. */
enum key_type { KEY_STRING, KEY_CIDRS, KEY_NUMBER, KEY_BOOL, KEY_CHOICE, KEY_LOG_LEVEL };

struct key {
	const char *name, *arg, *help;
	enum key_type type;
	size_t offset;
	const struct choice *choices;
	uint32_t min, max; /* max 0: TABLE_LIMIT */
	unsigned family;   /* KEY_CIDRS: 4 or 6; 0: any */
};

#define KEY_AT(field) .offset = offsetof(struct config, field)

static const struct key keys[] = {
	{ "node-name", "NAME", "Name of this node (default: $K8S_NODE_NAME or the host name)",
	  KEY_STRING, KEY_AT(node_name) },
	{ "kubeconfig", "FILE", "Take Services from the API server this file names", KEY_STRING,
	  KEY_AT(kubeconfig) },
	{ "manifests", "DIR", "Take Services from the YAML and JSON files of this folder",
	  KEY_STRING, KEY_AT(manifests) },
	{ "api-server", "URL[,URL]", "API server, over what kubeconfig or the cluster says",
	  KEY_STRING, KEY_AT(api_server) },
	{ "pin-dir", "DIR", "Where programs and maps are pinned (default: " WAG_PIN_DIR ")",
	  KEY_STRING, KEY_AT(pin_dir) },
	{ "state-dir", "DIR", "Where leases and endpoints are kept (default: " WAG_STATE_DIR ")",
	  KEY_STRING, KEY_AT(state_dir) },
	{ "cgroup", "PATH", "cgroup2 below which sockets are served (default: its mount point)",
	  KEY_STRING, KEY_AT(cgroup) },
	{ "devices", "NAME[,NAME]",
	  "Devices of the node to serve (default: those with a global address or default route)",
	  KEY_STRING, KEY_AT(devices) },
	{ "nodeport-addresses", "CIDR[,CIDR]|primary",
	  "Addresses of the node on which NodePorts are served (default: all of them)", KEY_STRING,
	  KEY_AT(nodeport_addresses) },
	{ "socket", "PATH", "Unix socket of the flow API (default: " SOCKET_PATH ")", KEY_STRING,
	  KEY_AT(socket) },
	{ "socket-lb", "full|host|off", "Whose sockets are translated at connect (default: full)",
	  KEY_CHOICE, KEY_AT(socket_lb), .choices = socket_lbs },
	{ "lb-mode", "snat|dsr|hybrid",
	  "How clients outside are answered by other nodes' endpoints: through this node, from "
	  "where they are, or so for TCP alone (default: snat)",
	  KEY_CHOICE, KEY_AT(lb_mode), .choices = lb_modes },
	{ "lb-algorithm", "random|maglev",
	  "How an endpoint is chosen: any, or by the client's address and port, the same on every "
	  "node (default: random)",
	  KEY_CHOICE, KEY_AT(lb_algorithm), .choices = lb_algorithms },
	{ "lb-acceleration", "disabled|best-effort|native|generic",
	  "Turn NodePort and load-balancer packets for other nodes round by XDP: where drivers "
	  "can, only if they can, or by the kernel (default: disabled)",
	  KEY_CHOICE, KEY_AT(acceleration), .choices = accelerations },
	{ "allow-localhost", "always|policy",
	  "Whether a pod's own node (probes) reaches it whatever its policies say (default: "
	  "always)",
	  KEY_CHOICE, KEY_AT(allow_localhost), .choices = localhosts },
	{ "policy-audit-mode", "true|false",
	  "What policies would drop is let by and told (default: false)", KEY_BOOL,
	  KEY_AT(policy_audit) },
	{ "attach", "auto|tcx|clsact",
	  "How programs are attached (default: auto: node devices by TCX if the kernel has it, "
	  "pods by clsact at first)",
	  KEY_CHOICE, KEY_AT(attach), .choices = attaches },
	{ "health-addr", "HOST:PORT",
	  "Where /healthz /readyz /metrics are served; empty: nowhere (default: " HEALTH_ADDR ")",
	  KEY_STRING, KEY_AT(health_addr) },
	{ "healthz-bind-address", "IP:PORT",
	  "Where load balancers ask for /healthz and /livez as of kube-proxy; all zeros: both "
	  "families; empty: nowhere (default: " HEALTHZ_ADDR ")",
	  KEY_STRING, KEY_AT(healthz_addr) },
	{ "ct-max", "N",
	  "Conntrack entries, two for a translated flow; rounded up to a power of 2 "
	  "(default: 262144)",
	  KEY_NUMBER, KEY_AT(ct_max), .min = 1024 },
	{ "svc-max", "N", "Service frontends (default: 65536)", KEY_NUMBER, KEY_AT(svc_max),
	  .min = 16 },
	{ "slot-max", "N", "Backend slots; twice the backends to hold (default: 262144)",
	  KEY_NUMBER, KEY_AT(slot_max), .min = 64 },
	{ "mtu", "N",
	  "MTU between nodes; what a tunnel takes off is subtracted from it (default: of the "
	  "devices, the smallest)",
	  KEY_NUMBER, KEY_AT(mtu), .min = 1280, .max = 65535 },
	{ "routing-mode", "native|tunnel|auto",
	  "How packets reach pods of other nodes: as they are, packed, or as they are in one "
	  "subnet and packed across (default: native)",
	  KEY_CHOICE, KEY_AT(routing_mode), .choices = routings },
	{ "tunnel-protocol", "vxlan|geneve", "How packets are packed (default: vxlan)", KEY_CHOICE,
	  KEY_AT(tunnel_protocol), .choices = tunnels },
	{ "tunnel-port", "N", "UDP port of the tunnel (default: 8472 for vxlan, 6081 for geneve)",
	  KEY_NUMBER, KEY_AT(tunnel_port), .min = 1, .max = 65535 },
	{ "underlay-protocol", "auto|ipv4|ipv6",
	  "Family of the nodes' addresses that tunnels run between (default: auto: IPv4 where both "
	  "nodes have it)",
	  KEY_CHOICE, KEY_AT(underlay), .choices = underlays },
	{ "auto-direct-node-routes", "BOOL",
	  "With native: make routes to the pods of nodes in our subnets (default: false)", KEY_BOOL,
	  KEY_AT(auto_direct_node_routes) },
	{ "direct-routing-skip-unreachable", "BOOL",
	  "With auto-direct-node-routes: say nothing of nodes in other subnets, something else "
	  "routes to them (default: false)",
	  KEY_BOOL, KEY_AT(skip_unreachable) },
	{ "ipv4-native-routing-cidr", "CIDR",
	  "Addresses that pods reach with their own: never masqueraded", KEY_CIDRS,
	  KEY_AT(native_cidr_v4), .family = 4 },
	{ "ipv6-native-routing-cidr", "CIDR", "The same for IPv6", KEY_CIDRS,
	  KEY_AT(native_cidr_v6), .family = 6 },
	{ "enable-ipv4-masquerade", "BOOL",
	  "What pods send out of the cluster gets the node's address (default: true)", KEY_BOOL,
	  KEY_AT(masquerade_v4) },
	{ "enable-ipv6-masquerade", "BOOL", "The same for IPv6 (default: true)", KEY_BOOL,
	  KEY_AT(masquerade_v6) },
	{ "non-masquerade-cidrs", "CIDR[,CIDR]", "What else pods reach with their own address",
	  KEY_CIDRS, KEY_AT(non_masquerade_cidrs) },
	{ "ip-masq-agent-config", "FILE",
	  "Take nonMasqueradeCIDRs from this file of ip-masq-agent's format, and follow it",
	  KEY_STRING, KEY_AT(ip_masq_agent_config) },
	{ "host-routing", "bpf|kernel",
	  "Who forwards pods' packets; kernel: the node's own firewall sees them (default: bpf)",
	  KEY_CHOICE, KEY_AT(host_routing), .choices = host_routings },
	{ "prometheus-serve-addr", "[HOST]:PORT",
	  "Serve /metrics there too; without HOST on all addresses (default: nowhere)", KEY_STRING,
	  KEY_AT(prometheus_addr) },
	{ "cni-conf-dir", "DIR",
	  "Once ready, make Waggle the network of the container runtime's folder DIR (default: do "
	  "not)",
	  KEY_STRING, KEY_AT(cni_conf_dir) },
	{ "cni-exclusive", "BOOL",
	  "Other networks in --cni-conf-dir stand aside, as NAME.waggle_bak (default: false)",
	  KEY_BOOL, KEY_AT(cni_exclusive) },
	{ "cni-uninstall", "BOOL",
	  "Give the other networks back when the agent is stopped (default: false)", KEY_BOOL,
	  KEY_AT(cni_uninstall) },
	{ "cni-chaining-mode", "none|generic-veth|aws-cni|azure|flannel",
	  "Another network wires the pods, and Waggle is added behind it (default: none)",
	  KEY_CHOICE, KEY_AT(cni_chaining), .choices = chainings },
	{ "cni-chaining-target", "NAME",
	  "The network to add to (default: the first in --cni-conf-dir)", KEY_STRING,
	  KEY_AT(cni_chaining_target) },
	{ "enable-ipv4", "BOOL", "Pods get IPv4 addresses, where there are ranges (default: true)",
	  KEY_BOOL, KEY_AT(enable_v4) },
	{ "enable-ipv6", "BOOL", "Pods get IPv6 addresses, where there are ranges (default: true)",
	  KEY_BOOL, KEY_AT(enable_v6) },
	{ "ipam", "kubernetes|cluster-pool",
	  "Whose addresses pods get: the Node's spec.podCIDRs, or blocks the agent claims "
	  "(default: kubernetes)",
	  KEY_CHOICE, KEY_AT(ipam), .choices = ipams },
	{ "cluster-pool-ipv4-cidr", "CIDR[,CIDR]",
	  "Where IPv4 blocks are claimed; empty: nowhere (default: " POOL_V4 ")", KEY_CIDRS,
	  KEY_AT(pool_v4), .family = 4 },
	{ "cluster-pool-ipv4-mask-size", "N", "Prefix length of an IPv4 block (default: 24)",
	  KEY_NUMBER, KEY_AT(pool_mask_v4), .min = 8, .max = 30 },
	{ "cluster-pool-ipv6-cidr", "CIDR[,CIDR]",
	  "Where IPv6 blocks are claimed, such as fd00::/104 (default: nowhere)", KEY_CIDRS,
	  KEY_AT(pool_v6), .family = 6 },
	{ "cluster-pool-ipv6-mask-size", "N", "Prefix length of an IPv6 block (default: 120)",
	  KEY_NUMBER, KEY_AT(pool_mask_v6), .min = 8, .max = 126 },
	{ "ipam-namespace", "NAMESPACE",
	  "Where the Leases of claimed blocks are (default: " IPAM_NAMESPACE ")", KEY_STRING,
	  KEY_AT(ipam_namespace) },
	{ "log-level", "error|warn|info|debug", "How much is logged (default: info)", KEY_LOG_LEVEL,
	  KEY_AT(log_level) },
};

#define N_KEYS (sizeof(keys) / sizeof(keys[0]))
#define OPT_KEY 1000 /* option value of keys[0] */
#define OPT_CONFIG_DIR 2000
#define OPT_CLEANUP 2001

static char **string_of(struct config *c, const struct key *key)
{
	return (char **)((char *)c + key->offset);
}

static uint32_t *number_of(struct config *c, const struct key *key)
{
	return (uint32_t *)((char *)c + key->offset);
}

static int set_string(char **at, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

static int set_number(struct config *c, const struct key *key, const char *value,
		      struct wag_err *err)
{
	uint32_t max = key->max ? key->max : TABLE_LIMIT;
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (errno || end == value || *end || !isdigit((unsigned char)value[0]) || n < key->min ||
	    n > max)
		return wag_err_set(err, -EINVAL, "%s: '%s' is not a number from %u to %u",
				   key->name, value, key->min, max);
	*number_of(c, key) = (uint32_t)n;
	return 0;
}

static int set_choice(struct config *c, const struct key *key, const char *value,
		      struct wag_err *err)
{
	for (const struct choice *o = key->choices; o->text; o++) {
		if (strcmp(o->text, value) == 0) {
			*number_of(c, key) = o->value;
			return 0;
		}
	}
	return wag_err_set(err, -EINVAL, "%s: '%s' is none of %s", key->name, value, key->arg);
}

static int set_bool(struct config *c, const struct key *key, const char *value, struct wag_err *err)
{
	static const char *const words[] = { "false", "true", "0", "1", "no", "yes" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(value, words[i]) == 0) {
			*((bool *)((char *)c + key->offset)) = i % 2;
			return 0;
		}
	}
	return wag_err_set(err, -EINVAL, "%s: '%s' is neither true nor false", key->name, value);
}

static int set_cidrs(struct config *c, const struct key *key, const char *value,
		     struct wag_err *err)
{
	_cleanup_free_ char *list = strdup(value);
	struct wag_addr addr;
	unsigned bits;
	char *save;

	if (!list)
		return -ENOMEM;
	for (char *p = strtok_r(list, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		if (wag_cidr_parse(p, &addr, &bits) < 0)
			return wag_err_set(err, -EINVAL, "%s: '%s' is no CIDR like 10.0.0.0/8",
					   key->name, p);
		if (key->family && (key->family == 4) != wag_addr_is_v4(&addr))
			return wag_err_set(err, -EINVAL, "%s: '%s' is not of IPv%u", key->name, p,
					   key->family);
	}
	return set_string(string_of(c, key), value);
}

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < N_KEYS; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static int unknown_key(const char *name, struct wag_err *err)
{
	const char *names[N_KEYS], *close;

	for (size_t i = 0; i < N_KEYS; i++)
		names[i] = keys[i].name;
	close = suggest(name, names, N_KEYS);
	if (close)
		return wag_err_set(err, -EINVAL, "unknown setting '%s': did you mean '%s'?", name,
				   close);
	return wag_err_set(err, -EINVAL, "unknown setting '%s': waggle-agent --help lists them",
			   name);
}

int config_set(struct config *c, const char *name, const char *value, struct wag_err *err)
{
	const struct key *key = find_key(name);

	if (!key)
		return unknown_key(name, err);
	switch (key->type) {
	case KEY_NUMBER:
		return set_number(c, key, value, err);
	case KEY_CHOICE:
		return set_choice(c, key, value, err);
	case KEY_BOOL:
		return set_bool(c, key, value, err);
	case KEY_CIDRS:
		return set_cidrs(c, key, value, err);
	case KEY_LOG_LEVEL:
		if (wag_log_level_parse(value, &c->log_level) < 0)
			return wag_err_set(err, -EINVAL, "%s: '%s' is none of %s", name, value,
					   key->arg);
		return 0;
	case KEY_STRING:
		break;
	}
	return set_string(string_of(c, key), value);
}

int config_init(struct config *c)
{
	*c = (struct config){
		.socket_lb = WAG_SOCKET_LB_FULL,
		.lb_mode = LB_MODE_SNAT,
		.lb_algorithm = LB_ALGORITHM_RANDOM,
		.attach = CONFIG_ATTACH_AUTO,
		.ct_max = CT_MAX,
		.svc_max = SVC_MAX,
		.slot_max = SLOT_MAX,
		.log_level = WAG_LOG_INFO,
		.enable_v4 = true,
		.enable_v6 = true,
		.masquerade_v4 = true,
		.masquerade_v6 = true,
		.host_routing = 1,
		.allow_localhost = 1,
		.pool_mask_v4 = 24,
		.pool_mask_v6 = 120,
	};
	if (set_string(&c->pin_dir, WAG_PIN_DIR) < 0 ||
	    set_string(&c->state_dir, WAG_STATE_DIR) < 0 ||
	    set_string(&c->socket, SOCKET_PATH) < 0 || set_string(&c->pool_v4, POOL_V4) < 0 ||
	    set_string(&c->ipam_namespace, IPAM_NAMESPACE) < 0 ||
	    set_string(&c->health_addr, HEALTH_ADDR) < 0 ||
	    set_string(&c->healthz_addr, HEALTHZ_ADDR) < 0) {
		config_done(c);
		return -ENOMEM;
	}
	return 0;
}

void config_done(struct config *c)
{
	for (size_t i = 0; i < N_KEYS; i++) {
		if (keys[i].type == KEY_STRING || keys[i].type == KEY_CIDRS) {
			free(*string_of(c, &keys[i]));
			*string_of(c, &keys[i]) = NULL;
		}
	}
	free(c->config_dir);
	c->config_dir = NULL;
}

struct parse {
	struct config *c;
	struct wag_err *err;
	bool given[N_KEYS]; /* by a flag: the config dir does not change it */
};

static int read_value(int dir_fd, const char *dir, const char *name, char buf[VALUE_MAX],
		      struct wag_err *err)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return wag_err_set(err, -errno, "%s/%s: %s", dir, name, strerror(errno));
	n = read(fd, buf, VALUE_MAX - 1);
	if (n < 0)
		return wag_err_set(err, -errno, "%s/%s: %s", dir, name, strerror(errno));
	while (n > 0 && isspace((unsigned char)buf[n - 1]))
		n--;
	buf[n] = 0;
	return 0;
}

static int apply_file(struct parse *p, int dir_fd, const char *name)
{
	const struct key *key = find_key(name);
	char value[VALUE_MAX];
	struct stat st;
	int r;

	/* A ConfigMap's own links and folders start with a dot. */
	if (name[0] == '.' || (fstatat(dir_fd, name, &st, 0) == 0 && S_ISDIR(st.st_mode)))
		return 0;
	if (key && p->given[key - keys])
		return 0;
	r = key ? read_value(dir_fd, p->c->config_dir, name, value, p->err) : 0;
	if (r < 0)
		return r;
	r = config_set(p->c, name, key ? value : "", p->err);
	if (r < 0)
		wag_err_prefix(p->err, "%s: ", p->c->config_dir);
	return r;
}

static int apply_dir(struct parse *p)
{
	DIR *dir = opendir(p->c->config_dir);
	struct dirent *e;
	int r = 0;

	if (!dir)
		return wag_err_set(p->err, -errno, "--config-dir %s: %s", p->c->config_dir,
				   strerror(errno));
	while (r == 0 && (e = readdir(dir)))
		r = apply_file(p, dirfd(dir), e->d_name);
	closedir(dir);
	return r;
}

static error_t on_option(int opt, char *arg, struct argp_state *state)
{
	struct parse *p = state->input;
	int r = 0;

	if (opt >= OPT_KEY && opt < OPT_KEY + (int)N_KEYS) {
		p->given[opt - OPT_KEY] = true;
		r = config_set(p->c, keys[opt - OPT_KEY].name, arg, p->err);
		if (r < 0)
			wag_err_prefix(p->err, "--");
		return -r;
	}
	switch (opt) {
	case OPT_CONFIG_DIR:
		return -set_string(&p->c->config_dir, arg);
	case OPT_CLEANUP:
		p->c->cleanup = true;
		return 0;
	case ARGP_KEY_ARG:
		return -wag_err_set(p->err, -EINVAL, "'%s': flags only, no arguments", arg);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int default_node_name(struct config *c, struct wag_err *err)
{
	const char *env = getenv("K8S_NODE_NAME");
	char host[256] = "";

	if (c->node_name && c->node_name[0])
		return 0;
	if (!env || !env[0]) {
		if (gethostname(host, sizeof(host) - 1) < 0 || !host[0])
			return wag_err_set(err, -EINVAL, "this host has no name: give --node-name");
		env = host;
	}
	return set_string(&c->node_name, env);
}

/* No cgroup2 at all is said here, where the flag that helps can be named. */
static int default_cgroup(struct config *c, struct wag_err *err)
{
	char path[4096];
	int r;

	if ((c->cgroup && c->cgroup[0]) || c->socket_lb == WAG_SOCKET_LB_OFF)
		return 0;
	r = config_find_cgroup2("/proc/self/mounts", path, sizeof(path));
	if (r < 0)
		return wag_err_set(err, r,
				   "no cgroup2 is mounted: mount one and name it with --cgroup, or "
				   "give --socket-lb=off");
	return set_string(&c->cgroup, path);
}

int config_parse(struct config *c, int argc, char **argv, struct wag_err *err)
{
	struct parse p = { .c = c, .err = err };
	struct argp_option options[N_KEYS + 3] = { 0 };
	const struct argp argp = {
		.options = options,
		.parser = on_option,
		.doc = "Programs this node's Services and watches its flows.",
	};
	int r;

	for (size_t i = 0; i < N_KEYS; i++)
		options[i] = (struct argp_option){ keys[i].name, OPT_KEY + (int)i,
						   keys[i].arg,	 0,
						   keys[i].help, 0 };
	options[N_KEYS] = (struct argp_option){
		"config-dir",
		OPT_CONFIG_DIR,
		"DIR",
		0,
		"A folder with a file per setting, named like the flag; a flag wins",
		0
	};
	options[N_KEYS + 1] =
		(struct argp_option){ "cleanup",
				      OPT_CLEANUP,
				      NULL,
				      0,
				      "Detach and unpin everything of this pin dir, and end",
				      0 };
	r = -argp_parse(&argp, argc, argv, 0, NULL, &p);
	if (r == -ENOMEM)
		return wag_err_set(err, r, "out of memory");
	if (r == 0 && c->config_dir && c->config_dir[0])
		r = apply_dir(&p);
	if (r == 0)
		r = default_node_name(c, err);
	if (r == 0 && !c->cleanup)
		r = default_cgroup(c, err);
	return r == 0 ? config_check(c, err) : r;
}

const char *config_lb_mode_name(const struct config *c)
{
	const struct choice *o = lb_modes;

	while (o->value != c->lb_mode)
		o++;
	return o->text;
}

const char *config_chaining_name(const struct config *c)
{
	return chainings[c->cni_chaining].text;
}

int config_find_cgroup2(const char *mounts, char *buf, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen(mounts, "re");
	_cleanup_free_ char *line = NULL;
	size_t room = 0;

	if (!f)
		return -errno;
	while (getline(&line, &room, f) > 0) {
		char *save, *where, *type;

		if (!strtok_r(line, " ", &save))
			continue;
		where = strtok_r(NULL, " ", &save);
		type = where ? strtok_r(NULL, " ", &save) : NULL;
		if (!type || strcmp(type, "cgroup2") != 0)
			continue;
		if (strlen(where) >= size)
			return -ENAMETOOLONG;
		strcpy(buf, where);
		return 0;
	}
	return -ENOENT;
}
