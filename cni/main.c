// SPDX-License-Identifier: Apache-2.0
/* waggle-cni: wires a pod from what is pinned and on disk; no agent needs to run. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>
#include <waggle/ipam.h>

#include "conf.h"
#include "env.h"
#include "netns.h"
#include "result.h"
#include "wire.h"

#define LOCK_MS 20000

/* What every command works with. */
struct job {
	struct cni_env env;
	struct cni_conf conf;
	struct record rec;
	struct netns ns;
	struct nl *nl;
	int lock_fd; /* of this attachment */
	char boot_id[40];
};

static void job_done(struct job *job)
{
	conf_done(&job->conf);
	netns_done(&job->ns);
	nl_free(job->nl);
	closep(&job->lock_fd);
}

static int stdin_read(char **ret, size_t *ret_size, struct wag_err *err)
{
	size_t room = 16384, size = 0;
	_cleanup_free_ char *buf = malloc(room);

	while (buf) {
		ssize_t n = read(STDIN_FILENO, buf + size, room - size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wag_err_set(err, CNI_E_IO, "stdin: %s", strerror(errno));
		if (n == 0 || size + n > CONF_STDIN_MAX) {
			*ret_size = size + n;
			*ret = TAKE_PTR(buf);
			return 0;
		}
		size += n;
		if (size == room) {
			char *p = realloc(buf, room *= 2);

			if (!p)
				break;
			buf = p;
		}
	}
	return wag_err_set(err, CNI_E_IO, "out of memory");
}

/* What common/ says by -errno, in the specification's codes. */
static int pins_fail(int r, struct wag_err *err)
{
	if (!r)
		return 0;
	err->code = r == -EAGAIN ? CNI_E_AGAIN : r == -ESTALE ? CNI_E_CHECK : CNI_E_KERNEL;
	return err->code;
}

static int boot_id_read(char *buf, size_t size, struct wag_err *err)
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (n <= 0)
		return wag_err_set(err, CNI_E_IO, "/proc/sys/kernel/random/boot_id: %s",
				   strerror(errno));
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

static int state_fail(const struct job *job, int r, struct wag_err *err)
{
	return wag_err_set(err, r == -EWOULDBLOCK ? CNI_E_AGAIN : CNI_E_IO, "state dir %s: %s",
			   job->conf.state_dir,
			   r == -EWOULDBLOCK ? "another ADD or DEL of this container still runs"
					     : strerror(-r));
}

static int job_open(struct job *job, struct wag_err *err)
{
	int r;

	r = boot_id_read(job->boot_id, sizeof(job->boot_id), err);
	if (r)
		return r;
	r = job->lock_fd = record_lock(
		job->conf.state_dir, record_hash(job->env.container_id, job->env.ifname), LOCK_MS);
	if (r < 0)
		return state_fail(job, r, err);
	r = nl_new(&job->nl);
	return r < 0 ? wag_err_set(err, CNI_E_KERNEL, "rtnetlink: %s", strerror(-r)) : 0;
}

static int store_open(const struct job *job, struct ipam *ipam, struct wag_err *err)
{
	struct timespec ts;
	int r;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	r = ipam_init(ipam, job->conf.state_dir, job->boot_id,
		      (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
	return r < 0 ? state_fail(job, r, err) : 0;
}

static int record_save(const struct job *job, struct wag_err *err)
{
	int r = record_write(job->conf.state_dir, &job->rec);

	return r < 0 ? state_fail(job, r, err) : 0;
}

static int leases_drop(const struct job *job, struct wag_err *err)
{
	const struct ipam_owner owner = { job->rec.container_id, job->rec.ifname };
	_cleanup_(ipam_done) struct ipam ipam = { .lock_fd = -1 };
	int r;

	r = store_open(job, &ipam, err);
	if (r)
		return r;
	for (unsigned i = 0; r == 0 && i < job->rec.addr_count; i++)
		r = ipam_release(&ipam, job->rec.addrs[i].range, &job->rec.addrs[i].addr, &owner);
	/* Killed before the addresses came into the record: only the leases know. */
	if (r == 0 && !job->rec.addr_count)
		r = ipam_release_all(&ipam, &owner);
	return r < 0 ? state_fail(job, r, err) : 0;
}

/* Everything an attachment has, complete or not; the record goes last. */
static int tear_down(struct job *job, bool recorded, struct wag_err *err)
{
	int r;

	r = wire_remove(job->nl, &job->rec, err);
	if (!r)
		r = pins_fail(endpoint_detach(job->conf.pin_dir, &job->rec, err), err);
	if (!r && recorded)
		r = leases_drop(job, err);
	if (r)
		return r;
	r = record_remove(job->conf.state_dir, &job->rec);
	return r < 0 ? state_fail(job, r, err) : 0;
}

/* ---- ADD ---- */

static bool is_alive(const struct job *job)
{
	struct nl_link link;

	return job->rec.ready && strcmp(job->rec.boot_id, job->boot_id) == 0 &&
	       nl_link_get(job->nl, job->rec.host_ifname, &link) == 0 &&
	       link.ifindex == job->rec.ifindex;
}

/* Clears what a killed ADD left, then writes the intent. */
static int add_begin(struct job *job, struct wag_err *err)
{
	const struct cni_env *env = &job->env;
	unsigned probe = 0;
	int r;

	r = record_find(job->conf.state_dir, env->container_id, env->ifname, &job->rec, &probe);
	if (r == 0 && is_alive(job))
		return wag_err_set(err, CNI_E_EXISTS, "container %s already has %s: DEL it first",
				   env->container_id, env->ifname);
	if (r < 0 && r != -ENOENT)
		return state_fail(job, r, err);
	if (r == -ENOENT)
		record_init(&job->rec, env->container_id, env->ifname, probe);
	r = tear_down(job, r == 0, err);
	if (r)
		return r;
	record_init(&job->rec, env->container_id, env->ifname, probe);
	memcpy(job->rec.network, job->conf.name, sizeof(job->rec.network));
	memcpy(job->rec.netns, env->netns, sizeof(job->rec.netns));
	memcpy(job->rec.ns, env->ns, sizeof(job->rec.ns));
	memcpy(job->rec.pod, env->pod, sizeof(job->rec.pod));
	memcpy(job->rec.uid, env->uid, sizeof(job->rec.uid));
	memcpy(job->rec.boot_id, job->boot_id, sizeof(job->rec.boot_id));
	return record_save(job, err);
}

static int add_addresses(struct job *job, struct wag_err *err)
{
	const struct ipam_owner owner = { job->rec.container_id, job->rec.ifname };
	_cleanup_(ipam_done) struct ipam ipam = { .lock_fd = -1 };
	int r;

	r = store_open(job, &ipam, err);
	if (r)
		return r;
	for (unsigned i = 0; i < job->conf.set_count; i++) {
		struct record_addr *a = &job->rec.addrs[i];
		const struct conf_set *set = &job->conf.sets[i];
		unsigned range = 0;

		r = ipam_allocate(&ipam, set->ranges, set->range_count, &owner, &a->addr, &range,
				  err);
		if (r < 0) {
			err->code = r == -EADDRNOTAVAIL ? CNI_E_AGAIN : CNI_E_IO;
			return err->code;
		}
		ipam_range_key(&set->ranges[range], a->range);
		job->rec.addr_count++;
	}
	return 0;
}

static int add_steps(struct job *job, struct wag_err *err)
{
	int r;

	r = add_addresses(job, err);
	job->rec.mtu = job->conf.mtu;
	job->rec.netns_cookie = netns_cookie_of(job->conf.pin_dir, &job->ns);
	if (!r)
		r = wire_create(job->nl, &job->ns, &job->rec, job->conf.mtu, err);
	/* Addresses and ifindex on disk before a pin carries the ifindex in its name. */
	if (!r)
		r = record_save(job, err);
	if (r)
		return r;
	r = pins_fail(endpoint_attach(job->conf.pin_dir, job->nl, &job->rec, 0, err), err);
	if (!r)
		r = wire_host(job->nl, &job->rec, err);
	if (!r)
		r = wire_pod(&job->ns, &job->rec, err);
	if (r)
		return r;
	job->rec.ready = true;
	return record_save(job, err);
}

static int ipv6_check(const struct job *job, struct wag_err *err)
{
	for (unsigned i = 0; i < job->conf.set_count; i++)
		if (!wag_addr_is_v4(&job->conf.sets[i].ranges[0].subnet) && !sysctl_has_ipv6())
			return wag_err_set(
				err, CNI_E_CONFIG,
				"ipam.ranges: has an IPv6 subnet, but this kernel has no "
				"IPv6: boot it without ipv6.disable=1 or remove the "
				"subnet");
	return 0;
}

static int cmd_add(struct job *job, struct wag_err *err)
{
	struct wag_err ignored = { 0 };
	int r;

	r = ipv6_check(job, err);
	if (!r)
		r = netns_open(job->env.netns, &job->ns, err);
	if (!r)
		r = pins_fail(endpoint_ready(job->conf.pin_dir, err), err);
	if (!r)
		r = job_open(job, err);
	if (!r)
		r = add_begin(job, err);
	if (r)
		return r;
	r = add_steps(job, err);
	if (r) {
		/* The first error is the one to tell; what stays here, DEL will take. */
		tear_down(job, true, &ignored);
		return r;
	}
	r = result_print(&job->conf, &job->rec);
	return r < 0 ? wag_err_set(err, CNI_E_IO, "stdout: %s", strerror(-r)) : 0;
}

/* ---- the others ---- */

static int cmd_del(struct job *job, struct wag_err *err)
{
	unsigned probe = 0;
	int r;

	r = job_open(job, err);
	if (r)
		return r;
	r = record_find(job->conf.state_dir, job->env.container_id, job->env.ifname, &job->rec,
			&probe);
	if (r < 0 && r != -ENOENT)
		return state_fail(job, r, err);
	/* Without a record, there may still be what a lost state dir knew. */
	if (r == -ENOENT)
		record_init(&job->rec, job->env.container_id, job->env.ifname, probe);
	return tear_down(job, r == 0, err);
}

static int cmd_check(struct job *job, struct wag_err *err)
{
	unsigned probe = 0;
	int r;

	r = netns_open(job->env.netns, &job->ns, err);
	if (!r)
		r = job_open(job, err);
	if (r)
		return r;
	r = record_find(job->conf.state_dir, job->env.container_id, job->env.ifname, &job->rec,
			&probe);
	if (r == -ENOENT || (r == 0 && !job->rec.ready))
		return wag_err_set(err, CNI_E_CONTAINER, "container %s has no %s: ADD it first",
				   job->env.container_id, job->env.ifname);
	if (r < 0)
		return state_fail(job, r, err);
	r = wire_check(job->nl, &job->ns, &job->rec, err);
	return r ? r : pins_fail(endpoint_check(job->conf.pin_dir, &job->rec, err), err);
}

static int cmd_version(struct job *job, struct wag_err *err)
{
	int r = result_print_versions(job->conf.version);

	return r < 0 ? wag_err_set(err, CNI_E_IO, "stdout: %s", strerror(-r)) : 0;
}

static int run(struct job *job, struct wag_err *err)
{
	static const struct {
		enum conf_use use;
		int (*fn)(struct job *job, struct wag_err *err);
	} commands[] = {
		[CNI_VERSION] = { CONF_VERSION, cmd_version },
		[CNI_ADD] = { CONF_ADD, cmd_add },
		[CNI_DEL] = { CONF_DEL, cmd_del },
		[CNI_CHECK] = { CONF_DEL, cmd_check },
	};
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	int r;

	r = env_read(&job->env, err);
	if (!r)
		r = stdin_read(&text, &size, err);
	if (!r)
		r = conf_parse(text, size, commands[job->env.command].use, &job->conf, err);
	if (!r)
		r = commands[job->env.command].fn(job, err);
	return r;
}

int main(void)
{
	_cleanup_(job_done) struct job job = { .ns = { -1, -1 }, .lock_fd = -1 };
	struct wag_err err = { 0 };

	if (run(&job, &err) == 0)
		return 0;
	if (!err.code)
		err.code = CNI_E_IO;
	result_print_error(job.conf.version, &err);
	return 1;
}
