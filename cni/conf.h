/* SPDX-License-Identifier: Apache-2.0 */
/* The network configuration on stdin (docs/cni.md "Configuration"). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/ipam.h>
#include <waggle/record.h>

/*
 * Error codes of the CNI specification. In cni/, a function with a struct wag_err returns 0 or one
 * of these; err then holds the same code and the text for the user.
 */
enum cni_code {
	CNI_E_VERSION = 1,
	CNI_E_FIELD = 2,
	CNI_E_CONTAINER = 3,
	CNI_E_ENV = 4,
	CNI_E_IO = 5,
	CNI_E_DECODE = 6,
	CNI_E_CONFIG = 7,
	CNI_E_AGAIN = 11,
	CNI_E_UNAVAILABLE = 50, /* STATUS: no ADD can succeed */
	CNI_E_LIMITED = 51,	/* STATUS: and pods that exist may be cut off */
	CNI_E_EXISTS = 100,	/* ours: the container already has this interface */
	CNI_E_KERNEL = 101,	/* ours: the kernel refused */
	CNI_E_CHECK = 102,	/* ours: CHECK found a difference */
	CNI_E_PORT = 103,	/* ours: a port of the node belongs to another pod */
};

#define CONF_STDIN_MAX (1024 * 1024)
#define CONF_SETS 8
#define CONF_RANGES 64 /* of one set */
#define CONF_IPS 8
#define CONF_IFACES 16
#define CNI_VERSIONS "0.3.1", "0.4.0", "1.0.0", "1.1.0"
#define CNI_VERSION_NEWEST "1.1.0"

/* What a result of another plugin says: prevResult, or the answer of an ipam plugin. */
struct conf_result {
	unsigned addr_count;
	struct conf_addr {
		struct wag_addr addr;
		unsigned bits;
		int iface; /* index in ifaces; -1: not told */
	} addrs[RECORD_ADDRS]; /* of the container */
	unsigned route_count;
	struct conf_route {
		struct record_route to;
		struct wag_addr gw;	  /* zero: not told */
		uint32_t table, priority; /* 0: not told */
	} routes[RECORD_ROUTES];
	unsigned iface_count;
	struct conf_iface {
		char name[16];
		char mac[18];	   /* empty: not told */
		char sandbox[256]; /* empty: on the node */
		uint32_t mtu;	   /* 0: not told */
	} ifaces[CONF_IFACES];	   /* the first so many */
	char *dns;		   /* JSON text, or NULL */
};

/* runtimeConfig: what the runtime asks of capabilities. */
struct conf_runtime {
	unsigned port_count;
	struct conf_port {
		bool has_addr;
		struct wag_addr addr; /* hostIP */
		uint16_t host_port, port;
		uint8_t proto;
	} ports[RECORD_PORTS];
	uint64_t egress_rate, egress_burst, ingress_rate, ingress_burst; /* bit/s, bit */
	bool has_mac;
	uint8_t mac[6];
	unsigned ip_count;
	struct wag_addr ips[CONF_IPS];
};

struct conf_attachment {
	char container_id[128];
	char ifname[16];
};

struct cni_conf {
	char version[16];
	char name[128];
	char pin_dir[256];
	char state_dir[256];
	uint32_t mtu;	    /* 0: what the agent found */
	bool chained;	    /* chainingMode */
	char ipam_type[64]; /* plugin that gives the addresses; empty: we do */
	unsigned set_count; /* 0: the node's own ranges, conf_node_ranges() */
	struct conf_set {
		unsigned range_count;
		struct ipam_range ranges[CONF_RANGES];
	} sets[CONF_SETS]; /* one address from each */
	struct conf_runtime runtime;
	char *dns;	   /* JSON text passed on to the result, or NULL */
	char *prev_result; /* JSON text, or NULL */
	struct conf_result prev;
	size_t attachment_count;
	struct conf_attachment *attachments; /* GC: the only ones that live; NULL: not told */
};

enum conf_use {
	CONF_VERSION, /* cniVersion is enough, and may be one we do not speak */
	CONF_DEL,     /* a broken section must not keep a container from going away */
	CONF_CHECK,   /* as DEL, and prevResult */
	CONF_GC,      /* as DEL, and the attachments */
	CONF_STATUS,  /* as ADD, without what belongs to one container */
	CONF_ADD,
};

/* ret is filled as far as reading came, also on error, so that the error can name its version. */
int conf_parse(const char *text, size_t size, enum conf_use use, struct cni_conf *ret,
	       struct wag_err *err);
void conf_done(struct cni_conf *conf);

/* The pod ranges of this node, written by the agent; fills conf->sets. */
int conf_node_ranges(struct cni_conf *conf, struct wag_err *err);
/* MTU of the pod's interface: the agent's where the configuration has none. */
int conf_mtu(struct cni_conf *conf, uint32_t agent_mtu, struct wag_err *err);

/* A result of another plugin in any version we know; what names it in errors. */
int conf_parse_result(const char *text, size_t size, const char *what, struct conf_result *ret,
		      struct wag_err *err);
void conf_result_done(struct conf_result *result);
/* Its interface of this name in the container or on the node; NULL: there is none. */
const struct conf_iface *conf_result_iface(const struct conf_result *result, const char *name,
					   bool pod);

/* ---- parts of conf_parse(), one file each ---- */
int conf_ranges_parse(json_t *list, struct cni_conf *conf, struct wag_err *err);
int conf_runtime_parse(json_t *runtime, struct conf_runtime *ret, struct wag_err *err);
int conf_result_parse(json_t *root, const char *what, struct conf_result *ret, struct wag_err *err);
