/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Incremental checksums (RFC 1624) and CRC32c.
 *
 * One's complement sums are kept as u64 and folded late. Where the L4 checksum is the sender's
 * pseudo-header seed (CHECKSUM_PARTIAL) or the device summed the packet (CHECKSUM_COMPLETE) only
 * the kernel knows what to do, so the L4 field goes through bpf_l4_csum_replace.
 */
#pragma once

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "packet.h"

static __always_inline __u64 csum_replace32(__u64 sum, __be32 from, __be32 to)
{
	return sum + (__u32)~from + to;
}

/* The v4-mapped prefix is the same on both sides and cancels out, so this serves both families. */
static __always_inline __u64 csum_replace_addr(__u64 sum, const struct wag_addr *from,
					       const struct wag_addr *to)
{
	for (int i = 0; i < 4; i++)
		sum = csum_replace32(sum, from->w[i], to->w[i]);
	return sum;
}

static __always_inline __u32 csum_fold64(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline __u16 csum_fold16(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u16 csum_apply(__u16 check, __u64 diff)
{
	return ~csum_fold16(csum_fold64((__u64)(__u16)~check + csum_fold64(diff)));
}

/*
 * CRC32c is linear: changing the first 4 bytes of an n byte packet changes its CRC by the CRC of
 * the difference, moved over the n - 4 bytes behind it. Moving over 2^k zero bytes is a 32 x 32 bit
 * matrix; its columns follow from squaring, so only the one for a single byte is spelt out here,
 * and userspace needs no table either.
 */
#define CRC32C_POLY 0x82f63b78U

/* Global, so that the verifier walks its loop once (see ct_visit). */
__noinline __u32 crc32c_mul(__u32 a, __u32 b)
{
	__u32 product = 0;

	/* Polynomials over GF(2), bit-reversed: bit 31 is x^0. */
	for (int i = 0; i < 32; i++) {
		if (a & 0x80000000U)
			product ^= b;
		a <<= 1;
		b = (b >> 1) ^ (b & 1 ? CRC32C_POLY : 0);
	}
	return product;
}

/* The CRC difference of changing the 4 bytes delta, `behind` bytes before the packet's end. */
__noinline __u32 crc32c_delta(__u32 delta, __u32 behind)
{
	__u32 power = 0x00800000U; /* x^8: one byte */

	/* The 4 bytes themselves: delta * x^32, as the CRC's own register does. */
	behind += 4;
	for (int i = 0; i < 16; i++) {
		if (behind & 1)
			delta = crc32c_mul(delta, power);
		power = crc32c_mul(power, power);
		behind >>= 1;
	}
	return delta;
}
