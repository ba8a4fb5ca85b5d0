// SPDX-License-Identifier: Apache-2.0
/* waggle bpf ct list [--expired] */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <waggle/abi_config.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "bpf_maps.h"

#define NSEC_PER_SEC 1000000000ULL

static const struct output_column columns[] = {
	{ "PROTO", "protocol" }, { "FLOW", "flow" },	 { "BECOMES", "becomes" },
	{ "FLAGS", "flags" },	 { "AGE", "ageSeconds" }, { "IDLE", "idleSeconds" },
	{ "EXPIRES", "expiresSeconds" },
};

struct walk {
	const struct cli *cli;
	const struct pinned_map *map;
	struct wag_config config;
	bool has_config;
	__u64 now_ns;
	json_t *list;
};

/* The timeouts in force stand in the .rodata of the pinned program: found by its BTF. */
static int read_rodata(int fd, struct wag_config *ret)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), zero = 0;
	_cleanup_free_ char *data = NULL;
	const struct btf_var_secinfo *var;
	const struct btf_type *section;
	struct btf *btf;
	int r = -ENOENT;

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0 || !info.btf_value_type_id ||
	    info.type != BPF_MAP_TYPE_ARRAY || info.max_entries != 1)
		return -ENOENT;
	btf = btf__load_from_kernel_by_id(info.btf_id);
	section = btf ? btf__type_by_id(btf, info.btf_value_type_id) : NULL;
	if (!section || !btf_is_datasec(section))
		goto out;
	data = malloc(info.value_size);
	if (!data || bpf_map_lookup_elem(fd, &zero, data) < 0)
		goto out;
	var = btf_var_secinfos(section);
	for (int i = 0; i < btf_vlen(section) && r < 0; i++) {
		const struct btf_type *t = btf__type_by_id(btf, var[i].type);

		if (strcmp(btf__name_by_offset(btf, t->name_off), "cfg") == 0 &&
		    var[i].size == sizeof(*ret) && var[i].offset + var[i].size <= info.value_size) {
			memcpy(ret, data + var[i].offset, sizeof(*ret));
			r = 0;
		}
	}
out:
	btf__free(btf);
	return r;
}

static int read_config(const struct cli *cli, struct wag_config *ret)
{
	struct bpf_prog_info info = {};
	__u32 ids[64], len = sizeof(info);
	_cleanup_close_ int fd = -1;
	char path[512];

	snprintf(path, sizeof(path), "%s/progs/wag_from_pod", cli->pin_dir);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return -errno;
	info.nr_map_ids = sizeof(ids) / sizeof(ids[0]);
	info.map_ids = (__u64)(uintptr_t)ids;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	for (__u32 i = 0; i < info.nr_map_ids && i < sizeof(ids) / sizeof(ids[0]); i++) {
		_cleanup_close_ int map = bpf_map_get_fd_by_id(ids[i]);

		if (map >= 0 && read_rodata(map, ret) == 0)
			return 0;
	}
	return -ENOENT;
}

/* The same rule as ct_timeout_ns() in bpf/conntrack.h; flags are those of both entries. */
static __u64 timeout_ns(const struct wag_config *config, __u32 flags, __u8 proto)
{
	const __u32 both_fin = WAG_CT_FIN_ORIG | WAG_CT_FIN_REPLY;

	if (proto == IPPROTO_TCP) {
		if (flags & WAG_CT_RST || (flags & both_fin) == both_fin)
			return config->tcp_closing_ns;
		if (flags & WAG_CT_DSR && flags & WAG_CT_FIN_ORIG)
			return config->tcp_syn_ns;
		return flags & WAG_CT_ASSURED ? config->tcp_established_ns : config->tcp_syn_ns;
	}
	if (proto == IPPROTO_UDP)
		return flags & (WAG_CT_SEEN_REPLY | WAG_CT_DSR) ? config->udp_stream_ns :
								  config->udp_ns;
	return config->other_ns;
}

/* The key of the other entry of a translated flow. */
static struct wag_ct_key pair_key(const struct wag_ct_key *key, const struct wag_ct *ct)
{
	struct wag_ct_key pair = { .proto = key->proto };
	bool src_hi;

	if (ct->xsaddr.d[1] != ct->xdaddr.d[1])
		src_hi = ct->xsaddr.d[1] > ct->xdaddr.d[1];
	else if (ct->xsaddr.d[0] != ct->xdaddr.d[0])
		src_hi = ct->xsaddr.d[0] > ct->xdaddr.d[0];
	else
		src_hi = ct->xsport > ct->xdport;
	pair.lo = src_hi ? ct->xdaddr : ct->xsaddr;
	pair.hi = src_hi ? ct->xsaddr : ct->xdaddr;
	pair.lo_port = src_hi ? ct->xdport : ct->xsport;
	pair.hi_port = src_hi ? ct->xsport : ct->xdport;
	pair.alias = ct->flags & WAG_CT_REWRITE_REPLY && ct->flags & WAG_CT_ALIASED;
	return pair;
}

static json_t *flags_json(__u32 flags)
{
	static const struct {
		__u32 flag;
		const char *name;
	} names[] = {
		{ WAG_CT_REWRITE_ORIG, "frontend" }, { WAG_CT_REWRITE_REPLY, "translated" },
		{ WAG_CT_SEEN_REPLY, "replied" },    { WAG_CT_ASSURED, "assured" },
		{ WAG_CT_FIN_ORIG, "fin" },	     { WAG_CT_FIN_REPLY, "fin-reply" },
		{ WAG_CT_RST, "rst" },		     { WAG_CT_SNAT, "snat" },
		{ WAG_CT_NODE_PORT, "nodeport" },   { WAG_CT_DSR, "dsr" },
	};
	char text[128] = "";
	size_t len = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (flags & names[i].flag)
			len += snprintf(text + len, sizeof(text) - len, "%s%s", len ? "," : "",
					names[i].name);
	return json_string(text);
}

static json_t *flow_text(const struct wag_addr *src, __be16 sport, const struct wag_addr *dst,
			 __be16 dport)
{
	char from[64], to[64];

	wag_addr_port_format(src, sport, from, sizeof(from));
	wag_addr_port_format(dst, dport, to, sizeof(to));
	return json_sprintf("%s -> %s", from, to);
}

static double seconds(__u64 later, __u64 earlier)
{
	return (double)(int64_t)(later - earlier) / NSEC_PER_SEC;
}

static int add_flow(const void *k, const void *v, void *ctx)
{
	struct wag_ct_key key, pair;
	struct wag_ct ct, other = {};
	struct walk *w = ctx;
	json_t *one, *becomes = NULL;
	double expires = 0;
	__u64 seen;
	bool hi;

	memcpy(&key, k, sizeof(key));
	memcpy(&ct, v, sizeof(ct));
	seen = ct.seen_ns;
	if (ct.flags & (WAG_CT_REWRITE_ORIG | WAG_CT_REWRITE_REPLY)) {
		pair = pair_key(&key, &ct);
		if (pinned_map_lookup(w->map, &pair, &other) == 0 && other.seen_ns > seen)
			seen = other.seen_ns;
		becomes = flow_text(&ct.xsaddr, ct.xsport, &ct.xdaddr, ct.xdport);
	}
	if (w->has_config)
		expires = seconds(seen + timeout_ns(&w->config, ct.flags | other.flags, key.proto),
				  w->now_ns);
	if (w->cli->expired && (!w->has_config || expires > 0)) {
		json_decref(becomes);
		return 0;
	}
	hi = ct.flags & WAG_CT_ORIG_HI;
	one = json_pack("{s:s, s:o, s:o, s:o, s:f, s:f}",
			"protocol", wag_proto_name(key.proto), "flow",
			flow_text(hi ? &key.hi : &key.lo, hi ? key.hi_port : key.lo_port,
				  hi ? &key.lo : &key.hi, hi ? key.lo_port : key.hi_port),
			"becomes", becomes ? becomes : json_string(""), "flags",
			flags_json(ct.flags), "ageSeconds", seconds(w->now_ns, ct.created_ns),
			"idleSeconds", seconds(w->now_ns, seen));
	json_object_set_new(one, "expiresSeconds", w->has_config ? json_real(expires) :
								      json_null());
	json_object_set_new(one, "serviceId", json_integer(ct.svc_id));
	return json_array_append_new(w->list, one) == 0 ? 0 : -ENOMEM;
}

int cmd_bpf_ct_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	_cleanup_json_ json_t *list = json_array();
	struct walk w = { .cli = cli, .map = &map, .list = list };
	struct timespec now;
	int r;

	r = pinned_map_open_typed(cli, "wag_ct", sizeof(struct wag_ct_key), sizeof(struct wag_ct),
				  &map, err);
	if (r < 0)
		return r;
	clock_gettime(CLOCK_MONOTONIC, &now);
	w.now_ns = now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
	w.has_config = read_config(cli, &w.config) == 0;
	if (cli->expired && !w.has_config)
		return wag_err_set(err, -ENOENT, "--expired: the timeouts in force cannot be read "
				   "from %s/progs/wag_from_pod", cli->pin_dir);
	r = pinned_map_each(&map, add_flow, &w);
	if (r < 0)
		return wag_err_set(err, r, "wag_ct: %s", strerror(-r));
	return output_print(cli->format, list, list, columns,
			    sizeof(columns) / sizeof(columns[0]), err);
}
