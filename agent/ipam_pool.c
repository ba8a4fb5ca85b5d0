// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "ipam_pool.h"

#define BLOCK_BITS_MAX 32 /* so many blocks of one CIDR at most, as a power of two */

static unsigned width(const struct ipam_pool *pool)
{
	return pool->v6 ? 128 : 32;
}

bool ipam_ranges_overlap(const struct ipam_range *a, const struct ipam_range *b)
{
	unsigned bits = a->bits < b->bits ? a->bits : b->bits;

	return wag_addr_in_cidr(&a->subnet, &b->subnet, bits);
}

static int add_net(struct ipam_pool *pool, const char *cidr, const char *flag, struct wag_err *err)
{
	struct ipam_pool_net *net = &pool->nets[pool->n_nets];
	struct ipam_range range;

	if (pool->n_nets == IPAM_POOL_NETS)
		return wag_err_set(err, -EINVAL, "--%s: more than %d ranges", flag, IPAM_POOL_NETS);
	if (ipam_range_parse(cidr, &range) < 0 || !strchr(cidr, '/') ||
	    wag_addr_is_v4(&range.subnet) == pool->v6)
		return wag_err_set(err, -EINVAL,
				   "--%s: \"%.64s\" is no %s range: write it like %s, without "
				   "host bits",
				   flag, cidr, pool->v6 ? "IPv6" : "IPv4",
				   pool->v6 ? "fd00::/104" : "10.0.0.0/8");
	if (range.bits > pool->mask)
		return wag_err_set(err, -EINVAL,
				   "--%s: %.64s is smaller than one block of /%u: give a larger "
				   "range or a larger mask size",
				   flag, cidr, pool->mask);
	if (pool->mask - range.bits > BLOCK_BITS_MAX)
		return wag_err_set(err, -EINVAL,
				   "--%s: %.64s has more than 2^%d blocks of /%u: give a smaller "
				   "range or a smaller mask size",
				   flag, cidr, BLOCK_BITS_MAX, pool->mask);
	for (size_t i = 0; i < pool->n_nets; i++) {
		const struct ipam_range other = { .subnet = pool->nets[i].addr,
						  .bits = pool->nets[i].bits };

		if (ipam_ranges_overlap(&range, &other))
			return wag_err_set(err, -EINVAL,
					   "--%s: %.64s overlaps another range of the list", flag,
					   cidr);
	}
	*net = (struct ipam_pool_net){ range.subnet, range.bits,
				       1ULL << (pool->mask - range.bits) };
	pool->total += net->blocks;
	pool->n_nets++;
	return 0;
}

int ipam_pool_parse(struct ipam_pool *ret, bool v6, const char *list, unsigned mask,
		    const char *flag, struct wag_err *err)
{
	struct ipam_pool pool = { .v6 = v6, .mask = mask };
	_cleanup_free_ char *copy = strdup(list ? list : "");
	char *save, *cidr;
	int r;

	if (!copy)
		return wag_err_set(err, -ENOMEM, "out of memory");
	cidr = strtok_r(copy, ", \n", &save);
	if (cidr && (mask < 8 || mask > width(&pool) - 2))
		return wag_err_set(err, -EINVAL,
				   "--cluster-pool-ipv%c-mask-size: %u is not in 8..%u",
				   v6 ? '6' : '4', mask, width(&pool) - 2);
	for (; cidr; cidr = strtok_r(NULL, ", \n", &save)) {
		r = add_net(&pool, cidr, flag, err);
		if (r < 0)
			return r;
	}
	*ret = pool;
	return 0;
}

/* Adds n << shift to the 128-bit number an address is. */
static void addr_add(struct wag_addr *addr, uint64_t n, unsigned shift)
{
	unsigned __int128 v = (unsigned __int128)be64toh(addr->d[0]) << 64 | be64toh(addr->d[1]);

	v += (unsigned __int128)n << shift;
	addr->d[0] = htobe64((uint64_t)(v >> 64));
	addr->d[1] = htobe64((uint64_t)v);
}

void ipam_pool_block(const struct ipam_pool *pool, uint64_t index, struct ipam_range *ret)
{
	const struct ipam_pool_net *net = pool->nets;
	char text[WAG_ADDR_TEXT], cidr[IPAM_RANGE_KEY];
	struct wag_addr addr;

	while (index >= net->blocks)
		index -= net++->blocks;
	addr = net->addr;
	addr_add(&addr, index, width(pool) - pool->mask);
	snprintf(cidr, sizeof(cidr), "%s/%u", wag_addr_format(&addr, text), pool->mask);
	/* Cannot fail: the pool was checked when it was parsed. */
	ipam_range_parse(cidr, ret);
}

bool ipam_pool_has(const struct ipam_pool *pool, const struct ipam_range *block)
{
	if (block->bits != pool->mask)
		return false;
	for (size_t i = 0; i < pool->n_nets; i++)
		if (wag_addr_in_cidr(&block->subnet, &pool->nets[i].addr, pool->nets[i].bits))
			return true;
	return false;
}

uint64_t ipam_pool_candidate(const struct ipam_pool *pool, const char *node, unsigned attempt)
{
	uint64_t h = 0xcbf29ce484222325ULL ^ (uint64_t)attempt * 0x9e3779b97f4a7c15ULL;

	for (const char *c = node; *c; c++)
		h = (h ^ (uint8_t)*c) * 0x100000001b3ULL;
	/* FNV leaves the high bits of short inputs alike. */
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL;
	return (h ^ h >> 32) % pool->total;
}
