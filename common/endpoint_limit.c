// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <limits.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <waggle/abi_maps.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_limit.h>
#include <waggle/pins.h>

#define BURST_MIN (64ULL << 10)		 /* bytes: one segment as the stack hands it over */
#define BURST_MAX (8ULL << 30)		 /* bytes: times a second in ns fits 64 bits */
#define BURST_PER_RATE 10		 /* without a burst given: a tenth of a second's bytes */

const struct limit_side limit_sides[LIMIT_SIDES] = {
	{ "wag_limit_egress", WAG_LIMIT_EGRESS, false },
	{ "wag_limit_ingress", WAG_LIMIT_INGRESS, true },
};

int limit_link_path(char *buf, size_t size, const char *pin_dir, const char *ifname,
		    uint32_t ifindex, bool egress)
{
	char path[PATH_MAX];
	int r = pins_tcx_path(path, sizeof(path), pin_dir, ifname, ifindex, egress);

	if (r < 0)
		return r;
	return snprintf(buf, size, "%s_limit", path) < (int)size ? 0 : -ENAMETOOLONG;
}

static struct wag_limit make_limit(uint64_t rate_bits, uint64_t burst_bits)
{
	struct wag_limit l = { .bytes_per_s = rate_bits / 8 ? rate_bits / 8 : 1 };

	l.burst_bytes = burst_bits ? burst_bits / 8 : l.bytes_per_s / BURST_PER_RATE;
	if (!burst_bits && l.burst_bytes < BURST_MIN)
		l.burst_bytes = BURST_MIN;
	if (l.burst_bytes > BURST_MAX)
		l.burst_bytes = BURST_MAX;
	return l;
}

bool limit_wanted(const struct record *rec, const struct limit_side *side, struct wag_limit *ret)
{
	bool sends = side->direction == WAG_LIMIT_EGRESS;
	uint64_t rate = sends ? rec->egress_rate : rec->ingress_rate;

	if (!rate)
		return false;
	*ret = make_limit(rate, sends ? rec->egress_burst : rec->ingress_burst);
	return true;
}

static int attach_tcx(const char *pin_dir, const struct record *rec, bool egress, int prog)
{
	_cleanup_close_ int link = -1;
	char path[PATH_MAX];
	int r;

	r = limit_link_path(path, sizeof(path), pin_dir, rec->host_ifname, rec->ifindex, egress);
	if (r < 0)
		return r;
	link = bpfsys_tcx_attach(prog, rec->ifindex, egress, 1);
	if (link == -EEXIST && access(path, F_OK) == 0)
		return 0;
	if (link < 0)
		return link;
	unlink(path);
	return bpfsys_obj_pin(link, path);
}

static int add_side(const char *pin_dir, struct nl *nl, const struct record *rec, uint32_t how,
		    const struct limit_side *side, int map)
{
	struct wag_limit_key key = { rec->ifindex, side->direction };
	struct wag_limit value;
	_cleanup_close_ int prog = -1;
	char path[PATH_MAX];
	int r;

	if (!limit_wanted(rec, side, &value))
		return 0;
	r = bpfsys_map_update(map, &key, &value, BPF_ANY);
	if (r == 0)
		r = pins_prog_path(path, sizeof(path), pin_dir, side->prog);
	if (r < 0)
		return r;
	prog = bpfsys_obj_get(path);
	if (prog < 0)
		return prog;
	if (how == WAG_ATTACH_TCX)
		return attach_tcx(pin_dir, rec, side->egress, prog);
	return nl_tc_attach_first(nl, rec->ifindex, side->egress, prog, side->prog);
}

int limit_add(const char *pin_dir, struct nl *nl, const struct record *rec, uint32_t how,
	      struct wag_err *err)
{
	_cleanup_close_ int map = -1;
	int r = 0;

	if (!rec->egress_rate && !rec->ingress_rate)
		return 0;
	r = map = pins_map_open(pin_dir, "wag_limit", sizeof(struct wag_limit_key),
				sizeof(struct wag_limit));
	for (size_t i = 0; r >= 0 && i < LIMIT_SIDES; i++)
		r = add_side(pin_dir, nl, rec, how, &limit_sides[i], map);
	if (r < 0)
		return wag_err_set(err, r == -ENOENT ? -EAGAIN : r,
				   "bandwidth of %s: %s; pin dir %s", rec->host_ifname,
				   r == -ENOENT ? "the agent has pinned no wag_limit"
						: strerror(-r),
				   pin_dir);
	return 0;
}

void limit_remove(const char *pin_dir, const char *ifname, uint32_t ifindex)
{
	_cleanup_close_ int map = -1;
	char path[PATH_MAX];

	if (!ifindex)
		return;
	map = pins_map_open(pin_dir, "wag_limit", sizeof(struct wag_limit_key),
			    sizeof(struct wag_limit));
	for (size_t i = 0; i < LIMIT_SIDES; i++) {
		struct wag_limit_key key = { ifindex, limit_sides[i].direction };

		if (limit_link_path(path, sizeof(path), pin_dir, ifname, ifindex,
				    limit_sides[i].egress) == 0)
			unlink(path);
		if (map >= 0)
			bpfsys_map_delete(map, &key);
	}
}
