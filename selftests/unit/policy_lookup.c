// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include "policy_lookup.h"

static void cut(struct wag_ipcache_key *key, unsigned bits)
{
	unsigned char *b = (unsigned char *)key->addr;

	key->bits = 32 + bits;
	for (unsigned i = 0; i < 16; i++)
		if (i * 8 + 8 > bits)
			b[i] &= i * 8 >= bits ? 0 : 0xff00 >> bits % 8;
}

static struct wag_ipcache ipcache(struct policy_compiler *c, const struct wag_addr *addr)
{
	const struct wag_ipcache *v;

	for (int bits = 128; bits >= 0; bits--) {
		struct wag_ipcache_key key = { 0 };

		memcpy(key.addr, addr->w, sizeof(key.addr));
		cut(&key, bits);
		v = deltamap_desired(policy_compiler_table(c, POLICY_IPCACHE), &key);
		if (v)
			return *v;
	}
	return (struct wag_ipcache){ 0 };
}

static uint32_t ports(struct policy_compiler *c, uint32_t profile, uint8_t proto, uint16_t port)
{
	for (int bits = 96; bits >= 64; bits--) {
		struct wag_port_key key = { .bits = bits, .profile = profile };
		const uint32_t *v;

		if (bits >= 80) {
			key.proto = htons(proto);
			key.port = htons(port & (0xffff0000U >> (bits - 80)));
		} else if (bits > 64) {
			continue; /* nothing is cut inside a protocol's number */
		}
		v = deltamap_desired(policy_compiler_table(c, bits == 96 ? POLICY_PORT_EXACT :
									   POLICY_PORT),
				     &key);
		if (v)
			return *v;
	}
	return 0;
}

uint32_t policy_lookup(struct policy_compiler *c, uint32_t ep_id, enum policy_dir dir,
		       const struct wag_addr *peer, uint8_t proto, uint16_t port, int *ret_unknown)
{
	const struct wag_policy_key key = { .ep_id = ep_id };
	const struct wag_policy *p = deltamap_desired(policy_compiler_table(c, POLICY_POD), &key);
	struct wag_ipcache who = ipcache(c, peer);
	struct wag_rule_key rule = { .identity = who.identity };
	const uint32_t *found = NULL;
	uint32_t verdict;

	if (ret_unknown)
		*ret_unknown = !!(who.flags & WAG_IPCACHE_UNKNOWN);
	if (!p || !p->ruleset[dir])
		return WAG_VERDICT(WAG_VERDICT_ALLOW, 0);
	rule.ruleset = p->ruleset[dir];
	if (who.identity)
		found = deltamap_desired(policy_compiler_table(c, POLICY_RULE), &rule);
	verdict = found ? *found : p->verdict[dir];
	if (WAG_VERDICT_ACTION(verdict) == WAG_VERDICT_PORTS)
		verdict = ports(c, WAG_VERDICT_RULE(verdict), proto, port);
	return verdict;
}
