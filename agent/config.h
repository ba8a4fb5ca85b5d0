/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent was told: flags, and a folder with one file per flag (a mounted ConfigMap). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include <waggle/err.h>
#include <waggle/log.h>

#define CONFIG_ATTACH_AUTO 0U

enum config_tunnel { CONFIG_TUNNEL_VXLAN, CONFIG_TUNNEL_GENEVE };
enum config_underlay { CONFIG_UNDERLAY_AUTO = 0, CONFIG_UNDERLAY_V4 = 4, CONFIG_UNDERLAY_V6 = 6 };
enum config_ipam { CONFIG_IPAM_KUBERNETES, CONFIG_IPAM_CLUSTER_POOL };

struct config {
	char *node_name;
	char *kubeconfig; /* NULL: not given */
	char *manifests;  /* NULL: not given */
	char *api_server; /* NULL: not given; comma-separated URLs */
	char *config_dir; /* NULL: not given */
	char *pin_dir;
	char *state_dir;
	char *cgroup;	   /* NULL: the cgroup2 mount */
	char *devices;	   /* NULL: automatic; comma-separated names */
	char *nodeport_addresses; /* NULL or empty: all; see node_port.h */
	char *socket;
	char *health_addr; /* HOST:PORT, [V6]:PORT or unix:/path; empty: off */
	uint32_t socket_lb; /* enum wag_socket_lb */
	uint32_t acceleration; /* enum wag_acceleration */
	uint32_t lb_mode;   /* enum lb_mode, never LB_MODE_DEFAULT */
	uint32_t lb_algorithm; /* enum lb_algorithm, random or Maglev */
	uint32_t attach;    /* enum wag_attach or CONFIG_ATTACH_AUTO */
	uint32_t ct_max, svc_max, slot_max;
	uint32_t mtu; /* between nodes; 0: of the node devices, the smallest */
	uint32_t routing_mode;	      /* enum wag_routing */
	uint32_t tunnel_protocol;     /* enum config_tunnel */
	uint32_t tunnel_port;	      /* never 0 once parsed */
	uint32_t underlay;	      /* enum config_underlay */
	bool auto_direct_node_routes; /* native: routes to nodes in our subnets */
	bool skip_unreachable;	      /* and nothing said about the others */
	char *native_cidr_v4, *native_cidr_v6; /* NULL or empty: not given */
	bool masquerade_v4, masquerade_v6;
	char *non_masquerade_cidrs; /* NULL: not given; comma-separated CIDRs */
	char *ip_masq_agent_config; /* NULL: not given; path */
	bool policy_audit;	    /* policies only tell what they would drop */
	uint32_t allow_localhost;   /* 1: a pod's own node always reaches it; 0: as policies say */
	uint32_t host_routing;	    /* 1: packets are forwarded by BPF; 0: by the node's stack */
	char *healthz_addr;	    /* IP:PORT of kube-proxy's /healthz; empty: off */
	char *prometheus_addr;	    /* NULL or empty: off; [HOST]:PORT */
	char *cni_conf_dir;	    /* NULL or empty: no file is written */
	bool cni_exclusive, cni_uninstall;
	uint32_t cni_chaining;	    /* 0: none, we wire the pods; config_chaining_name() */
	char *cni_chaining_target;  /* NULL or empty: the first network */
	bool enable_v4, enable_v6;  /* pods have addresses of the family */
	uint32_t ipam;		    /* enum config_ipam */
	char *pool_v4, *pool_v6;    /* comma-separated CIDRs; NULL or empty: none */
	uint32_t pool_mask_v4, pool_mask_v6;
	char *ipam_namespace; /* of the Leases */
	enum wag_log_level log_level;
	bool cleanup;
};

int config_init(struct config *c); /* the defaults; 0 or -ENOMEM */
void config_done(struct config *c);
/* One key, named like the flag without its dashes. Errors name key and value. */
int config_set(struct config *c, const char *key, const char *value, struct wag_err *err);
/* Flags, then the config dir for whatever no flag gave. --help and --version end the process. */
int config_parse(struct config *c, int argc, char **argv, struct wag_err *err);
/* Whether the settings fit together; names both of those that do not. Fills in what follows. */
int config_check(struct config *c, struct wag_err *err);
/* "none", "generic-veth", ...: as the flag and the plugin's chainingMode say it. */
const char *config_lb_mode_name(const struct config *c);
const char *config_chaining_name(const struct config *c);
/* The mount point of the cgroup2 hierarchy as mounts (a /proc/self/mounts) tells. */
int config_find_cgroup2(const char *mounts, char *buf, size_t size);
