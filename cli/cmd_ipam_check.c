// SPDX-License-Identifier: Apache-2.0
/* waggle ipam check, waggle ipam release */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "ipam_state.h"

#define LOCK_MS 5000

static const struct output_column columns[] = {
	{ "ADDRESS", "address" },     { "PROBLEM", "problem" }, { "POD", "title" },
	{ "CONTAINER", "short" }, { "WHAT TO DO", "remedy" },
};

static const struct {
	const char *name, *problem, *remedy, *fixed;
} words[IPAM_PROBLEMS] = {
	[IPAM_OLD_BOOT] = { "old-boot", "leased by an earlier boot",
			    "the next pod may get it; --fix marks it free", "marked free" },
	[IPAM_LEASE_NO_RECORD] = { "lease-without-endpoint", "leased, but no pod has it",
				   "--fix releases it", "released" },
	[IPAM_RECORD_NO_LEASE] = { "endpoint-without-lease", "a pod has it, but no lease",
				   "--fix leases it to the pod", "leased to the pod" },
	[IPAM_MAP_NO_LEASE] = { "served-without-lease", "served by the datapath, but no lease",
				"restart the agent: it removes what belongs to no pod", "" },
	[IPAM_DUPLICATE] = { "duplicate", "two pods have it", "delete one of the pods", "" },
};

/* An ADD or DEL of it runs right now: what is seen of it is no result. */
static bool is_busy(const struct cli *cli, const char *container_id, const char *ifname,
		    int *ret_lock)
{
	*ret_lock = record_lock(cli->state_dir, record_hash(container_id, ifname), 0);
	return *ret_lock == -EWOULDBLOCK;
}

static int take_again(struct ipam *ipam, const struct ipam_finding *f)
{
	struct ipam_range range;

	for (unsigned i = 0; i < f->record->addr_count; i++) {
		const struct ipam_owner owner = { f->record->container_id, f->record->ifname };

		if (!wag_addr_equal(&f->record->addrs[i].addr, &f->addr))
			continue;
		if (ipam_range_from_key(f->record->addrs[i].range, &range) < 0)
			return -EINVAL;
		/* It was given once, so it is one that may be given. */
		range.first = 0;
		range.last = UINT64_MAX - 1;
		range.gateway = UINT64_MAX;
		return ipam_take(ipam, &range, &f->addr, &owner);
	}
	return -ENOENT;
}

static int release(struct ipam *ipam, const struct state_lease *l)
{
	const struct ipam_owner owner = { l->lease.container_id, l->lease.ifname };
	char key[IPAM_RANGE_KEY];

	ipam_range_key(&l->range, key);
	return ipam_release(ipam, key, &l->addr, &owner);
}

/* 1: repaired; 0: nothing to be done here; -errno. */
static int fix(struct ipam *ipam, const struct ipam_finding *f)
{
	int r = 0;

	if (f->problem == IPAM_OLD_BOOT || f->problem == IPAM_LEASE_NO_RECORD)
		r = release(ipam, f->lease);
	else if (f->problem == IPAM_RECORD_NO_LEASE)
		r = take_again(ipam, f);
	else
		return 0;
	return r < 0 ? r : 1;
}

static json_t *remedy(const struct ipam_finding *f, int fixed)
{
	if (fixed < 0)
		return json_sprintf("failed: %s", strerror(-fixed));
	return json_string(fixed ? words[f->problem].fixed : words[f->problem].remedy);
}

static json_t *describe(const struct ipam_finding *f, int fixed)
{
	const struct record *rec = f->record;
	const char *container = "";
	char text[WAG_ADDR_TEXT];
	json_t *one;

	if (rec)
		container = rec->container_id;
	else if (f->lease)
		container = f->lease->lease.container_id;
	one = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:o}", "address",
			wag_addr_format(&f->addr, text), "kind", words[f->problem].name,
			"namespace", rec ? rec->ns : "", "pod", rec ? rec->pod : "", "container",
			container, "fixed", fixed > 0, "problem", words[f->problem].problem,
			"remedy", remedy(f, fixed));
	json_object_set_new(one, "title", rec && rec->pod[0] ?
						  json_sprintf("%s/%s", rec->ns, rec->pod) :
						  json_string("-"));
	json_object_set_new(one, "short", json_sprintf("%.12s", container));
	return one;
}

/* Returns how many are left, or -errno. */
static int judge(const struct cli *cli, struct ipam *ipam, const struct ipam_state *s,
		 json_t *problems)
{
	_cleanup_free_ struct ipam_finding *list = NULL;
	size_t n = 0;
	int left = 0, r;

	r = ipam_state_check(s, &list, &n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		const struct ipam_finding *f = &list[i];
		const struct record *rec = f->record;
		int lock = -1, fixed = 0;

		/* The store's lock is held, so nobody can wait for us: asking does not block. */
		if ((rec && is_busy(cli, rec->container_id, rec->ifname, &lock)) ||
		    (!rec && f->lease &&
		     is_busy(cli, f->lease->lease.container_id, f->lease->lease.ifname, &lock)))
			continue;
		if (cli->fix)
			fixed = fix(ipam, f);
		closep(&lock);
		left += fixed <= 0;
		json_array_append_new(problems, describe(f, fixed));
	}
	return left;
}

static int print(const struct cli *cli, const struct ipam_state *s, json_t *problems,
		 struct wag_err *err)
{
	_cleanup_json_ json_t *doc = NULL;
	json_t *copy, *one;
	size_t i;

	if (cli->format == OUTPUT_TABLE && json_array_size(problems) == 0) {
		printf("no problem: %zu leases, %zu pods%s\n", s->n_leases, s->n_records,
		       s->pods_known ? "" : " (the datapath's map is not pinned here)");
		return 0;
	}
	copy = json_deep_copy(problems);
	json_array_foreach(copy, i, one) {
		json_object_del(one, "title");
		json_object_del(one, "short");
	}
	doc = json_pack("{s:I, s:I, s:b, s:o}", "leases", (json_int_t)s->n_leases, "pods",
			(json_int_t)s->n_records, "datapath", s->pods_known, "problems", copy);
	return output_print(cli->format, doc, problems, columns,
			    sizeof(columns) / sizeof(columns[0]), err);
}

/* Everything is read and judged under the store's lock: no address is given meanwhile. */
int cmd_ipam_check(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_ipam_state_ struct ipam_state before = { 0 }, s = { 0 };
	_cleanup_json_ json_t *problems = json_array();
	_cleanup_(ipam_done) struct ipam ipam = { .lock_fd = -1 };
	int left, r;

	r = ipam_state_load(&before, cli, err);
	if (r < 0)
		return r;
	r = ipam_init(&ipam, cli->state_dir, before.boot_id, before.now_ms);
	if (r < 0)
		return wag_err_set(err, r, "%s/ipam/lock: %s", cli->state_dir, strerror(-r));
	r = ipam_state_load(&s, cli, err);
	if (r < 0)
		return r;
	left = judge(cli, &ipam, &s, problems);
	if (left < 0)
		return wag_err_set(err, left, "out of memory");
	r = print(cli, &s, problems, err);
	if (r < 0)
		return r;
	if (s.unreadable)
		fprintf(stderr, "waggle: %zu unreadable files in %s/endpoints: what a power cut "
				"left; the next DEL or GC removes them\n",
			s.unreadable, cli->state_dir);
	return left > 0;
}

/* ---- release ---- */

static int refuse(const struct ipam_state *s, const char *text, const struct state_lease *l,
		  bool force, struct wag_err *err)
{
	const struct record *rec;

	if (!l)
		return wag_err_set(err, -ENOENT,
				   "%s has no lease: 'waggle ipam show -v' lists those there are",
				   text);
	if (!l->lease.leased)
		return wag_err_set(err, -EALREADY, "%s is released already (of container %.64s)",
				   text, l->lease.container_id);
	rec = ipam_state_record(s, l->lease.container_id, l->lease.ifname);
	if (!rec || !ipam_record_has(rec, &l->addr) || force)
		return 0;
	return wag_err_set(err, -EBUSY,
			   "%s belongs to a pod: %s/%s (container %.12s, interface %s). Delete "
			   "the pod, and its address is released; or, when you know that the pod "
			   "is gone, give --force",
			   text, rec->ns[0] ? rec->ns : "-", rec->pod[0] ? rec->pod : "-",
			   rec->container_id, rec->host_ifname);
}

int cmd_ipam_release(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_ipam_state_ struct ipam_state before = { 0 }, s = { 0 };
	_cleanup_(ipam_done) struct ipam ipam = { .lock_fd = -1 };
	_cleanup_close_ int lock = -1;
	const struct state_lease *l;
	struct wag_addr addr;
	int r;

	if (argc != 1 || wag_addr_parse(argv[0], &addr) < 0)
		return wag_err_set(err, -EINVAL, "ipam release: '%s' is no address like 10.0.3.7",
				   argc ? argv[0] : "");
	r = ipam_state_load(&before, cli, err);
	if (r < 0)
		return r;
	l = ipam_state_lease(&before, &addr);
	r = refuse(&before, argv[0], l, cli->force, err);
	if (r < 0)
		return r;
	/* In the plugin's order: the pod's lock, then the store's. */
	lock = record_lock(cli->state_dir,
			   record_hash(l->lease.container_id, l->lease.ifname), LOCK_MS);
	if (lock < 0)
		return wag_err_set(err, lock, "%s: an ADD or DEL of container %.64s still runs",
				   argv[0], l->lease.container_id);
	r = ipam_init(&ipam, cli->state_dir, before.boot_id, before.now_ms);
	if (r < 0)
		return wag_err_set(err, r, "%s/ipam/lock: %s", cli->state_dir, strerror(-r));
	r = ipam_state_load(&s, cli, err);
	if (r < 0)
		return r;
	l = ipam_state_lease(&s, &addr);
	r = refuse(&s, argv[0], l, cli->force, err);
	if (r < 0)
		return r;
	r = release(&ipam, l);
	if (r < 0)
		return wag_err_set(err, r, "%s: %s", argv[0], strerror(-r));
	printf("%s is released; no pod gets it for the next %d s\n", argv[0],
	       IPAM_QUARANTINE_MS / 1000);
	return 0;
}
