// SPDX-License-Identifier: Apache-2.0
/* tc filters for kernels without TCX, queueing, and the watch over it, links and addresses. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <unistd.h>

#include <waggle/cleanup.h>

#include "netlink_wire.h"

static struct tcmsg filter_tcm(uint32_t ifindex, bool egress)
{
	struct tcmsg tcm = { .tcm_family = AF_UNSPEC, .tcm_ifindex = ifindex };

	tcm.tcm_parent = TC_H_MAKE(TC_H_CLSACT, egress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS);
	tcm.tcm_handle = NL_TC_HANDLE;
	tcm.tcm_info = TC_H_MAKE((uint32_t)NL_TC_PRIO << 16, htons(ETH_P_ALL));
	return tcm;
}

static struct tcmsg clsact_tcm(uint32_t ifindex)
{
	return (struct tcmsg){ .tcm_family = AF_UNSPEC,
			       .tcm_ifindex = ifindex,
			       .tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0),
			       .tcm_parent = TC_H_CLSACT };
}

static int clsact_ensure(struct nl *nl, uint32_t ifindex)
{
	struct tcmsg tcm = clsact_tcm(ifindex);
	struct nl_msg m;
	int r;

	nl_msg_init(&m, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &tcm, sizeof(tcm));
	nl_put_str(&m, TCA_KIND, "clsact");
	r = nl_call(nl, &m, NULL, NULL);
	return r == -EEXIST ? 0 : r;
}

static int attach_at(struct nl *nl, uint32_t ifindex, bool egress, uint32_t prio, int prog_fd,
		     const char *name)
{
	struct tcmsg tcm = filter_tcm(ifindex, egress);
	struct rtattr *options;
	struct nl_msg m;
	int r;

	tcm.tcm_info = TC_H_MAKE(prio << 16, htons(ETH_P_ALL));
	r = clsact_ensure(nl, ifindex);
	if (r < 0)
		return r;
	nl_msg_init(&m, RTM_NEWTFILTER, NLM_F_CREATE, &tcm, sizeof(tcm));
	nl_put_str(&m, TCA_KIND, "bpf");
	options = nl_nest(&m, TCA_OPTIONS);
	nl_put_u32(&m, TCA_BPF_FD, prog_fd);
	nl_put_str(&m, TCA_BPF_NAME, name);
	nl_put_u32(&m, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
	nl_nest_end(&m, options);
	return nl_call(nl, &m, NULL, NULL);
}

int nl_tc_attach(struct nl *nl, uint32_t ifindex, bool egress, int prog_fd, const char *name)
{
	return attach_at(nl, ifindex, egress, NL_TC_PRIO, prog_fd, name);
}

int nl_tc_attach_first(struct nl *nl, uint32_t ifindex, bool egress, int prog_fd,
		       const char *name)
{
	return attach_at(nl, ifindex, egress, NL_TC_PRIO - 1, prog_fd, name);
}

static int detach_at(struct nl *nl, uint32_t ifindex, bool egress, uint32_t prio)
{
	struct tcmsg tcm = filter_tcm(ifindex, egress);
	struct nl_msg m;

	tcm.tcm_info = TC_H_MAKE(prio << 16, htons(ETH_P_ALL));
	nl_msg_init(&m, RTM_DELTFILTER, 0, &tcm, sizeof(tcm));
	nl_put_str(&m, TCA_KIND, "bpf");
	return nl_call(nl, &m, NULL, NULL);
}

int nl_tc_detach(struct nl *nl, uint32_t ifindex, bool egress)
{
	return detach_at(nl, ifindex, egress, NL_TC_PRIO);
}

struct filter {
	uint32_t prio, prog_id;
};

static int on_filter(const struct nlmsghdr *h, void *ctx)
{
	const struct rtattr *a[TCA_OPTIONS + 1];
	const struct tcmsg *tcm = NLMSG_DATA(h);
	struct filter *f = ctx;

	if (h->nlmsg_type == RTM_NEWTFILTER &&
	    nl_attrs_index(h, sizeof(*tcm), a, TCA_OPTIONS) == 0 &&
	    tcm->tcm_handle == NL_TC_HANDLE && tcm->tcm_info >> 16 == f->prio)
		f->prog_id = nl_nested_u32(a[TCA_OPTIONS], TCA_BPF_ID);
	return 0;
}

int nl_tc_prog_id(struct nl *nl, uint32_t ifindex, bool egress, bool first, uint32_t *ret_id)
{
	struct filter f = { .prio = first ? NL_TC_PRIO - 1 : NL_TC_PRIO };
	struct tcmsg tcm = filter_tcm(ifindex, egress);
	struct nl_msg m;
	int r;

	tcm.tcm_handle = tcm.tcm_info = 0;
	nl_msg_init(&m, RTM_GETTFILTER, NLM_F_DUMP, &tcm, sizeof(tcm));
	r = nl_call(nl, &m, on_filter, &f);
	/* -EINVAL: no clsact there. */
	if (r < 0 && r != -EINVAL)
		return r;
	if (!f.prog_id)
		return -ENOENT;
	*ret_id = f.prog_id;
	return 0;
}

static int count_filter(const struct nlmsghdr *h, void *ctx)
{
	size_t *n = ctx;

	*n += h->nlmsg_type == RTM_NEWTFILTER;
	return 0;
}

static bool has_filters(struct nl *nl, uint32_t ifindex, bool egress)
{
	struct tcmsg tcm = filter_tcm(ifindex, egress);
	struct nl_msg m;
	size_t n = 0;

	tcm.tcm_handle = tcm.tcm_info = 0;
	nl_msg_init(&m, RTM_GETTFILTER, NLM_F_DUMP, &tcm, sizeof(tcm));
	return nl_call(nl, &m, count_filter, &n) < 0 || n > 0;
}

void nl_tc_remove(struct nl *nl, uint32_t ifindex)
{
	struct tcmsg tcm = clsact_tcm(ifindex);
	struct nl_msg m;
	bool ours = false;

	for (int egress = 0; egress < 2; egress++) {
		ours |= detach_at(nl, ifindex, egress, NL_TC_PRIO) == 0;
		ours |= detach_at(nl, ifindex, egress, NL_TC_PRIO - 1) == 0;
	}
	if (!ours || has_filters(nl, ifindex, false) || has_filters(nl, ifindex, true))
		return;
	nl_msg_init(&m, RTM_DELQDISC, 0, &tcm, sizeof(tcm));
	nl_call(nl, &m, NULL, NULL);
}

int nl_parse_qdisc(const struct nlmsghdr *h, struct nl_qdisc *ret)
{
	const struct rtattr *a[TCA_KIND + 1];
	const struct tcmsg *tcm = NLMSG_DATA(h);
	size_t n;
	int r;

	r = nl_attrs_index(h, sizeof(*tcm), a, TCA_KIND);
	if (r < 0)
		return r;
	if (!a[TCA_KIND])
		return -EBADMSG;
	*ret = (struct nl_qdisc){ .ifindex = tcm->tcm_ifindex,
				  .handle = tcm->tcm_handle,
				  .parent = tcm->tcm_parent };
	n = RTA_PAYLOAD(a[TCA_KIND]);
	memcpy(ret->kind, RTA_DATA(a[TCA_KIND]), n < sizeof(ret->kind) ? n : sizeof(ret->kind) - 1);
	return 0;
}

static int on_qdisc_item(const struct nlmsghdr *h, void *ctx)
{
	struct nl_qdisc qdisc;
	int r;

	if (h->nlmsg_type != RTM_NEWQDISC)
		return 0;
	r = nl_parse_qdisc(h, &qdisc);
	return r < 0 ? r : nl_list_add(ctx, &qdisc);
}

int nl_qdisc_list(struct nl *nl, nl_qdisc_fn fn, void *ctx)
{
	_cleanup_(nl_list_done) struct nl_list l = { .size = sizeof(struct nl_qdisc) };
	struct tcmsg tcm = { .tcm_family = AF_UNSPEC };
	struct nl_msg m;
	int r;

	nl_msg_init(&m, RTM_GETQDISC, NLM_F_DUMP, &tcm, sizeof(tcm));
	r = nl_list_dump(nl, &m, on_qdisc_item, &l);
	for (size_t i = 0; r == 0 && i < l.count; i++)
		r = fn((const struct nl_qdisc *)l.items + i, ctx);
	return r < 0 ? r : 0;
}

int nl_monitor_open(void)
{
	struct sockaddr_nl groups = { .nl_family = AF_NETLINK,
				      .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR |
						   RTMGRP_IPV6_IFADDR | RTMGRP_TC };
	_cleanup_close_ int fd = -1;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	if (bind(fd, (void *)&groups, sizeof(groups)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int nl_monitor_read(int fd)
{
	char byte;
	int changed = 0;

	/* What changed is not read from here: the caller lists anew, so one byte of each will do.
	 */
	for (;;) {
		ssize_t n = recv(fd, &byte, sizeof(byte), MSG_TRUNC);

		if (n >= 0)
			changed = 1;
		else if (errno == EAGAIN)
			return changed;
		else if (errno != EINTR)
			return -errno;
	}
}
