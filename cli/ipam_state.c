// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include "bpf_maps.h"
#include "ipam_state.h"

/* Makes room for one more element and returns it, zeroed. NULL: out of memory. */
static void *grow(void *array_ptr, size_t *n, size_t size)
{
	char **array = array_ptr, *grown = reallocarray(*array, *n + 1, size);

	if (!grown)
		return NULL;
	*array = grown;
	memset(grown + *n * size, 0, size);
	return grown + (*n)++ * size;
}

/* ---- loading ---- */

static int add_lease(const struct ipam_range *range, const struct wag_addr *addr,
		     const struct ipam_lease *lease, void *ctx)
{
	struct ipam_state *s = ctx;
	struct state_lease *at = grow(&s->leases, &s->n_leases, sizeof(*at));

	if (!at)
		return -ENOMEM;
	*at = (struct state_lease){ *range, *addr, *lease };
	return 0;
}

static int lease_cmp(const void *a, const void *b)
{
	const struct state_lease *x = a, *y = b;
	int r = memcmp(&x->addr, &y->addr, sizeof(x->addr));

	return r ? r : memcmp(&x->range.subnet, &y->range.subnet, sizeof(x->range.subnet));
}

static int add_record(uint32_t ep_id, const struct record *rec, void *ctx)
{
	struct ipam_state *s = ctx;
	struct record *at;

	if (!rec) {
		s->unreadable++;
		return 0;
	}
	at = grow(&s->records, &s->n_records, sizeof(*at));
	if (!at)
		return -ENOMEM;
	*at = *rec;
	return 0;
}

static int add_pod(const void *key, const void *value, void *ctx)
{
	struct ipam_state *s = ctx;
	struct state_pod *at = grow(&s->pods, &s->n_pods, sizeof(*at));
	struct wag_pod pod;

	if (!at)
		return -ENOMEM;
	memcpy(&at->addr, key, sizeof(at->addr));
	memcpy(&pod, value, sizeof(pod));
	at->ep_id = pod.ep_id;
	return 0;
}

/* Without pins (no agent since the boot, another machine's disk) the rest is looked at alone. */
static int load_pods(struct ipam_state *s, const struct cli *cli, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	char path[4096];
	int r;

	if (pins_map_path(path, sizeof(path), cli->pin_dir, "wag_pods") < 0 ||
	    access(path, F_OK) < 0)
		return 0;
	r = pinned_map_open_typed(cli, "wag_pods", sizeof(struct wag_addr), sizeof(struct wag_pod),
				  &map, err);
	if (r < 0)
		return r;
	r = pinned_map_each(&map, add_pod, s);
	if (r < 0)
		return wag_err_set(err, r, "wag_pods: %s", strerror(-r));
	s->pods_known = true;
	return 0;
}

int ipam_state_load(struct ipam_state *ret, const struct cli *cli, struct wag_err *err)
{
	_cleanup_ipam_state_ struct ipam_state s = { 0 };
	char path[4096];
	int r;

	snprintf(path, sizeof(path), "%s/ipam", cli->state_dir);
	if (access(path, F_OK) < 0)
		return wag_err_set(err, -errno,
				   "%s: %s: no pod got an address here yet, or they are kept "
				   "elsewhere: --state-dir",
				   path, strerror(errno));
	s.now_ms = ipam_now_ms();
	r = ipam_boot_id(s.boot_id);
	if (r < 0)
		return wag_err_set(err, r, "reading the boot id: %s", strerror(-r));
	r = node_ranges_read(cli->state_dir, &s.node, err);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT)
		memset(&s.node, 0, sizeof(s.node));
	r = ipam_visit(cli->state_dir, NULL, add_lease, &s);
	if (r == 0)
		r = record_list(cli->state_dir, add_record, &s);
	if (r < 0)
		return wag_err_set(err, r, "reading %s: %s", cli->state_dir, strerror(-r));
	r = load_pods(&s, cli, err);
	if (r < 0)
		return r;
	if (s.n_leases)
		qsort(s.leases, s.n_leases, sizeof(*s.leases), lease_cmp);
	*ret = s;
	s = (struct ipam_state){ 0 };
	return 0;
}

void ipam_state_done(struct ipam_state *s)
{
	free(s->leases);
	free(s->records);
	free(s->pods);
}

/* ---- asking ---- */

bool ipam_record_has(const struct record *rec, const struct wag_addr *addr)
{
	for (unsigned i = 0; i < rec->addr_count; i++)
		if (wag_addr_equal(&rec->addrs[i].addr, addr))
			return true;
	return false;
}

static bool is_of_boot(const struct ipam_state *s, const struct record *rec)
{
	return strcmp(rec->boot_id, s->boot_id) == 0;
}

const struct record *ipam_state_record(const struct ipam_state *s, const char *container_id,
				       const char *ifname)
{
	for (size_t i = 0; i < s->n_records; i++) {
		const struct record *rec = &s->records[i];

		if (is_of_boot(s, rec) && strcmp(rec->container_id, container_id) == 0 &&
		    strcmp(rec->ifname, ifname) == 0)
			return rec;
	}
	return NULL;
}

/* Of several ranges that have the address, the lease that holds it. */
const struct state_lease *ipam_state_lease(const struct ipam_state *s, const struct wag_addr *addr)
{
	const struct state_lease *found = NULL;

	for (size_t i = 0; i < s->n_leases; i++) {
		const struct state_lease *l = &s->leases[i];

		if (wag_addr_equal(&l->addr, addr) &&
		    (!found || ipam_lease_holds(&l->lease, s->boot_id)))
			found = l;
	}
	return found;
}

/* ---- checking ---- */

struct findings {
	struct ipam_finding *at;
	size_t n;
	bool no_memory;
};

static void found(struct findings *f, enum ipam_problem problem, const struct wag_addr *addr,
		  const struct state_lease *lease, const struct record *record)
{
	struct ipam_finding *at = grow(&f->at, &f->n, sizeof(*at));

	if (!at) {
		f->no_memory = true;
		return;
	}
	*at = (struct ipam_finding){ problem, *addr, lease, record };
}

static bool owns(const struct record *rec, const struct ipam_lease *lease)
{
	return strcmp(rec->container_id, lease->container_id) == 0 &&
	       strcmp(rec->ifname, lease->ifname) == 0;
}

static void check_leases(const struct ipam_state *s, struct findings *f)
{
	for (size_t i = 0; i < s->n_leases; i++) {
		const struct state_lease *l = &s->leases[i];
		const struct record *rec;

		if (l->lease.leased && strcmp(l->lease.boot_id, s->boot_id) != 0)
			found(f, IPAM_OLD_BOOT, &l->addr, l, NULL);
		if (!ipam_lease_holds(&l->lease, s->boot_id))
			continue;
		rec = ipam_state_record(s, l->lease.container_id, l->lease.ifname);
		if (!rec || !ipam_record_has(rec, &l->addr))
			found(f, IPAM_LEASE_NO_RECORD, &l->addr, l, rec);
		/* Ranges that overlap each give their own. */
		if (i && wag_addr_equal(&l->addr, &l[-1].addr) &&
		    ipam_lease_holds(&l[-1].lease, s->boot_id))
			found(f, IPAM_DUPLICATE, &l->addr, l, rec);
	}
}

static bool earlier_has(const struct ipam_state *s, size_t n, const struct wag_addr *addr)
{
	for (size_t i = 0; i < n; i++)
		if (is_of_boot(s, &s->records[i]) && ipam_record_has(&s->records[i], addr))
			return true;
	return false;
}

static void check_record(const struct ipam_state *s, size_t index, struct findings *f)
{
	const struct record *rec = &s->records[index];

	for (unsigned i = 0; i < rec->addr_count; i++) {
		const struct wag_addr *addr = &rec->addrs[i].addr;
		const struct state_lease *l = ipam_state_lease(s, addr);
		bool held = l && ipam_lease_holds(&l->lease, s->boot_id);

		if (earlier_has(s, index, addr) || (held && !owns(rec, &l->lease)))
			found(f, IPAM_DUPLICATE, addr, l, rec);
		else if (!held && rec->addrs[i].range[0]) /* else another plugin gave it */
			found(f, IPAM_RECORD_NO_LEASE, addr, l, rec);
	}
}

static void check_pods(const struct ipam_state *s, struct findings *f)
{
	for (size_t i = 0; i < s->n_pods; i++) {
		const struct wag_addr *addr = &s->pods[i].addr;
		const struct state_lease *l = ipam_state_lease(s, addr);

		/* What a record says of it is said already. */
		if ((l && ipam_lease_holds(&l->lease, s->boot_id)) ||
		    earlier_has(s, s->n_records, addr))
			continue;
		found(f, IPAM_MAP_NO_LEASE, addr, l, NULL);
	}
}

int ipam_state_check(const struct ipam_state *s, struct ipam_finding **ret, size_t *ret_n)
{
	struct findings f = { 0 };

	check_leases(s, &f);
	for (size_t i = 0; i < s->n_records; i++)
		if (is_of_boot(s, &s->records[i]))
			check_record(s, i, &f);
	check_pods(s, &f);
	if (f.no_memory) {
		free(f.at);
		return -ENOMEM;
	}
	*ret = f.at;
	*ret_n = f.n;
	return 0;
}
