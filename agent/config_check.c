// SPDX-License-Identifier: Apache-2.0
/* What settings have to do with each other. */
#include <errno.h>

#include <waggle/pins.h>

#include "config.h"
#include "ipam_pool.h"
#include "model.h"
#include "node_port.h"

#define VXLAN_PORT 8472 /* as Cilium and Flannel: Linux's own before RFC 7348 gave 4789 */
#define GENEVE_PORT 6081 /* RFC 8926 */

static int check_dirs(const struct config *c, struct wag_err *err)
{
	static const char plain[] = "an absolute path without \".\" and \"..\" is needed";

	if (c->pin_dir[0] != '/')
		return wag_err_set(err, -EINVAL, "--pin-dir '%s': an absolute path is needed",
				   c->pin_dir);
	if (!c->cni_conf_dir || !c->cni_conf_dir[0])
		return 0;
	/* The CNI plugin gets both, and refuses others. */
	if (!pins_dir_is_plain(c->pin_dir))
		return wag_err_set(err, -EINVAL, "--pin-dir '%s': %s", c->pin_dir, plain);
	if (!pins_dir_is_plain(c->state_dir))
		return wag_err_set(err, -EINVAL, "--state-dir '%s': %s", c->state_dir, plain);
	return 0;
}

static int check_sources(const struct config *c, struct wag_err *err)
{
	int r = check_dirs(c, err);

	if (r < 0)
		return r;
	if (c->manifests && c->kubeconfig)
		return wag_err_set(err, -EINVAL,
				   "--manifests and --kubeconfig exclude each other");
	return 0;
}

static int check_routing(const struct config *c, struct wag_err *err)
{
	if (c->auto_direct_node_routes && c->routing_mode == WAG_ROUTING_TUNNEL)
		return wag_err_set(err, -EINVAL,
				   "--auto-direct-node-routes makes routes past the tunnel of "
				   "--routing-mode=tunnel: give --routing-mode=native, or auto for "
				   "direct routes where there is one and the tunnel elsewhere");
	if (c->skip_unreachable && !c->auto_direct_node_routes)
		return wag_err_set(err, -EINVAL,
				   "--direct-routing-skip-unreachable says which nodes "
				   "--auto-direct-node-routes leaves out: give both or neither");
	if (c->lb_mode != LB_MODE_SNAT && c->cni_chaining)
		return wag_err_set(err, -EINVAL,
				   "--lb-mode=%s sends packets to other nodes by a tunnel, and "
				   "behind another network (--cni-chaining-mode) there is none: "
				   "give --lb-mode=snat", config_lb_mode_name(c));
	if (c->lb_mode != LB_MODE_SNAT && c->routing_mode == WAG_ROUTING_NATIVE)
		return wag_err_set(err, -EINVAL,
				   "--lb-mode=%s sends packets to other nodes by a tunnel, and "
				   "--routing-mode=native has none: give --routing-mode=auto or "
				   "tunnel, or --lb-mode=snat", config_lb_mode_name(c));
	return 0;
}

static int check_cni(struct config *c, struct wag_err *err)
{
	bool dir = c->cni_conf_dir && c->cni_conf_dir[0];
	bool target = c->cni_chaining_target && c->cni_chaining_target[0];

	if (dir && c->cni_conf_dir[0] != '/')
		return wag_err_set(err, -EINVAL, "--cni-conf-dir '%s': an absolute path is needed",
				   c->cni_conf_dir);
	if (target && !c->cni_chaining)
		return wag_err_set(err, -EINVAL,
				   "--cni-chaining-target %s: give --cni-chaining-mode too, such "
				   "as generic-veth",
				   c->cni_chaining_target);
	if (!c->cni_chaining)
		return 0;
	/* What another network does for its pods already. */
	c->host_routing = 0;
	c->masquerade_v4 = c->masquerade_v6 = false;
	c->routing_mode = WAG_ROUTING_NATIVE;
	c->auto_direct_node_routes = c->skip_unreachable = false;
	return 0;
}

static int check_ipam(const struct config *c, struct wag_err *err)
{
	struct ipam_pool pool[2];
	int r;

	if (!c->enable_v4 && !c->enable_v6)
		return wag_err_set(err, -EINVAL,
				   "--enable-ipv4 and --enable-ipv6 are both false: pods need "
				   "addresses of one family");
	if (c->ipam != CONFIG_IPAM_CLUSTER_POOL)
		return 0;
	if (c->manifests)
		return wag_err_set(err, -EINVAL,
				   "--ipam=cluster-pool claims blocks from an API server, and "
				   "--manifests has none: give --kubeconfig instead, or "
				   "--ipam=kubernetes and a Node manifest with spec.podCIDRs");
	r = ipam_pool_parse(&pool[0], false, c->enable_v4 ? c->pool_v4 : NULL, c->pool_mask_v4,
			    "cluster-pool-ipv4-cidr", err);
	if (r == 0)
		r = ipam_pool_parse(&pool[1], true, c->enable_v6 ? c->pool_v6 : NULL,
				    c->pool_mask_v6, "cluster-pool-ipv6-cidr", err);
	if (r == 0 && !pool[0].total && !pool[1].total)
		r = wag_err_set(err, -EINVAL,
				"--ipam=cluster-pool without a pool: give --cluster-pool-ipv4-cidr "
				"or --cluster-pool-ipv6-cidr");
	return r;
}

int config_check(struct config *c, struct wag_err *err)
{
	int r = check_sources(c, err);

	if (r == 0)
		r = check_cni(c, err);
	if (r == 0)
		r = check_routing(c, err);
	if (r == 0)
		r = node_port_check(c->nodeport_addresses, err);
	if (r == 0)
		r = check_ipam(c, err);
	if (r < 0)
		return r;
	if (!c->tunnel_port)
		c->tunnel_port = c->tunnel_protocol == CONFIG_TUNNEL_GENEVE ? GENEVE_PORT
									    : VXLAN_PORT;
	return 0;
}
