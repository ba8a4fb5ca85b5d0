// SPDX-License-Identifier: Apache-2.0
/* mkpins DIR tcx|clsact: a pin dir as the agent leaves it, with programs that let all pass. */
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <waggle/abi_maps.h>
#include <waggle/pins.h>

static int map_make(const char *dir, const char *name, enum bpf_map_type type, __u32 key,
		    __u32 value, __u32 entries)
{
	char path[512];
	int fd = bpf_map_create(type, name, key, value, entries, NULL);

	if (fd < 0 || pins_map_path(path, sizeof(path), dir, name) < 0 ||
	    bpf_obj_pin(fd, path) < 0) {
		fprintf(stderr, "mkpins: map %s: %s\n", name, strerror(errno));
		return -1;
	}
	return fd;
}

static int prog_make(const char *dir, const char *name, unsigned attach_type)
{
	/* r0 = TC_ACT_OK; exit */
	const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	char path[512];
	int fd;

	opts.expected_attach_type = attach_type;
	fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, name, "GPL", insns, 2, &opts);
	if (fd < 0 || pins_prog_path(path, sizeof(path), dir, name) < 0 ||
	    bpf_obj_pin(fd, path) < 0) {
		fprintf(stderr, "mkpins: program %s: %s\n", name, strerror(errno));
		return -1;
	}
	return 0;
}

static int dirs_make(const char *dir)
{
	static const char *const names[] = { "maps", "progs", "links" };
	char path[512];

	for (unsigned i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		if (pins_mkdir_p(path, 0755) < 0) {
			fprintf(stderr, "mkpins: cannot make %s\n", path);
			return -1;
		}
	}
	return 0;
}

static const struct {
	const char *name;
	__u32 key, value;
} hashes[] = {
	{ "wag_pods", sizeof(struct wag_addr), sizeof(struct wag_pod) },
	{ "wag_endpoint", 4, sizeof(struct wag_endpoint) },
	{ "wag_netns", 8, sizeof(struct wag_netns) },
	{ "wag_netns_learn", 4, 8 },
	{ "wag_policy_ns", sizeof(struct wag_policy_ns_key), sizeof(struct wag_policy_ns) },
	{ "wag_hostport", sizeof(struct wag_svc_key), sizeof(struct wag_hostport) },
	{ "wag_limit", sizeof(struct wag_limit_key), sizeof(struct wag_limit) },
};

int main(int argc, char **argv)
{
	struct wag_meta meta = {
		.magic = WAG_META_MAGIC, .abi = WAG_ABI, .mtu = 1500, .synced_ns = 1
	};
	int tcx = argc == 3 && strcmp(argv[2], "tcx") == 0;
	__u32 zero = 0;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: mkpins DIR tcx|clsact\n");
		return 2;
	}
	if (dirs_make(argv[1]) < 0)
		return 1;
	meta.attach = tcx ? WAG_ATTACH_TCX : WAG_ATTACH_CLSACT;
	fd = map_make(argv[1], "wag_meta", BPF_MAP_TYPE_ARRAY, 4, sizeof(meta), 1);
	if (fd < 0 || bpf_map_update_elem(fd, &zero, &meta, 0) < 0)
		return 1;
	for (unsigned i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++)
		if (map_make(argv[1], hashes[i].name, BPF_MAP_TYPE_HASH, hashes[i].key,
			     hashes[i].value, 1024) < 0)
			return 1;
	if (map_make(argv[1], "wag_runtime", BPF_MAP_TYPE_ARRAY, 4, sizeof(struct wag_runtime), 1) <
	    0)
		return 1;
	return prog_make(argv[1], "wag_from_pod", tcx ? 46 : 0) < 0 ||
	       prog_make(argv[1], "wag_to_pod", tcx ? 47 : 0) < 0 ||
	       prog_make(argv[1], "wag_limit_egress", tcx ? 46 : 0) < 0 ||
	       prog_make(argv[1], "wag_limit_ingress", tcx ? 47 : 0) < 0;
}
