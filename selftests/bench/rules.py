# SPDX-License-Identifier: Apache-2.0
"""What kube-proxy programs for N Services of four endpoints, in its two shapes, and the same
Services as Kubernetes objects. The last Service is the one that is used."""
import base64
import hashlib
import json

PORT, TARGET_PORT = 80, 8080
CLUSTER_CIDR = "10.244.0.0/16"
MASQ = "0x4000"
TABLE = "ip kube-proxy"

NFT_CHAINS = f"""\
add chain {TABLE} filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110 ; }}
add chain {TABLE} filter-output-pre-dnat {{ type filter hook output priority -110 ; }}
add chain {TABLE} filter-input {{ type filter hook input priority 0 ; }}
add chain {TABLE} filter-forward {{ type filter hook forward priority 0 ; }}
add chain {TABLE} filter-output {{ type filter hook output priority 0 ; }}
add chain {TABLE} nat-prerouting {{ type nat hook prerouting priority -100 ; }}
add chain {TABLE} nat-output {{ type nat hook output priority -100 ; }}
add chain {TABLE} nat-postrouting {{ type nat hook postrouting priority 100 ; }}
"""

NFT_OBJECTS = f"""\
add table {TABLE}
add chain {TABLE} services
add chain {TABLE} masquerading
add chain {TABLE} mark-for-masquerade
add chain {TABLE} reject-chain
add chain {TABLE} firewall-check
add chain {TABLE} service-endpoints-check
add chain {TABLE} nodeport-endpoints-check
add chain {TABLE} cluster-ips-check
add set {TABLE} cluster-ips {{ type ipv4_addr ; }}
add set {TABLE} nodeport-ips {{ type ipv4_addr ; }}
add map {TABLE} service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map {TABLE} service-nodeports {{ type inet_proto . inet_service : verdict ; }}
add map {TABLE} no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map {TABLE} no-endpoint-nodeports {{ type inet_proto . inet_service : verdict ; }}
add map {TABLE} firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add rule {TABLE} mark-for-masquerade mark set mark or {MASQ}
"""

NFT_RULES = "".join(f"add rule {TABLE} {rule}\n" for rule in (
    "reject-chain reject",
    "firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips",
    "filter-prerouting-pre-dnat ct state new jump firewall-check",
    "filter-output-pre-dnat ct state new jump firewall-check",
    "service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services",
    "nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap "
    "@no-endpoint-nodeports",
    "cluster-ips-check ip daddr @cluster-ips reject",
    "filter-input ct state new jump nodeport-endpoints-check",
    "filter-input ct state new jump service-endpoints-check",
    "filter-forward ct state new jump service-endpoints-check",
    "filter-forward ct state new jump cluster-ips-check",
    "filter-output ct state new jump service-endpoints-check",
    "filter-output ct state new jump cluster-ips-check",
    "nat-prerouting jump services",
    "nat-output jump services",
    "nat-postrouting jump masquerading",
    f"masquerading mark and {MASQ} == 0 return",
    f"masquerading mark set mark xor {MASQ}",
    "masquerading masquerade fully-random",
    "services ip daddr . meta l4proto . th dport vmap @service-ips",
    "services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
))


def ipt_rule(chain, rule, comment=None):
    """kube-proxy puts its comment before the target, but after a connection state."""
    if not comment:
        return f"-A {chain} {rule}\n"
    state, rest = ("", rule) if "--ctstate NEW" not in rule else rule.split(" -j ", 1)
    said = f'-m comment --comment "{comment}"'
    return (f"-A {chain} {state} {said} -j {rest}\n" if state else
            f"-A {chain} {said} {rest}\n")


IPT_FILTER = """\
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
""" + "".join((
    ipt_rule("INPUT", "-m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
             "kubernetes load balancer firewall"),
    ipt_rule("INPUT", "-j KUBE-NODEPORTS",
             "kubernetes health check service ports"),
    ipt_rule("INPUT", "-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES",
             "kubernetes externally-visible service portals"),
    ipt_rule("FORWARD", "-m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
             "kubernetes load balancer firewall"),
    ipt_rule("FORWARD", "-j KUBE-FORWARD",
             "kubernetes forwarding rules"),
    ipt_rule("FORWARD", "-m conntrack --ctstate NEW -j KUBE-SERVICES",
             "kubernetes service portals"),
    ipt_rule("FORWARD", "-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES",
             "kubernetes externally-visible service portals"),
    ipt_rule("OUTPUT", "-m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
             "kubernetes load balancer firewall"),
    ipt_rule("OUTPUT", "-m conntrack --ctstate NEW -j KUBE-SERVICES",
             "kubernetes service portals"),
    ipt_rule("KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP"),
    ipt_rule("KUBE-FORWARD", f"-m mark --mark {MASQ}/{MASQ} -j ACCEPT",
             "kubernetes forwarding rules"),
    ipt_rule("KUBE-FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
             "kubernetes forwarding conntrack rule"),
)) + "COMMIT\n"

IPT_NAT = "".join((
    ipt_rule("PREROUTING", "-j KUBE-SERVICES",
             "kubernetes service portals"),
    ipt_rule("OUTPUT", "-j KUBE-SERVICES",
             "kubernetes service portals"),
    ipt_rule("POSTROUTING", "-j KUBE-POSTROUTING",
             "kubernetes postrouting rules"),
    ipt_rule("KUBE-POSTROUTING", f"-m mark ! --mark {MASQ}/{MASQ} -j RETURN"),
    ipt_rule("KUBE-POSTROUTING", f"-j MARK --xor-mark {MASQ}"),
    ipt_rule("KUBE-POSTROUTING", "-j MASQUERADE --random-fully",
             "kubernetes service traffic requiring SNAT"),
    ipt_rule("KUBE-MARK-MASQ", f"-j MARK --or-mark {MASQ}"),
))


def vip(index):
    return f"10.96.{index + 1 >> 8}.{index + 1 & 255}"


def endpoints(index, count, real):
    """Addresses of Service `index` of `count`: the last one's are the pods'."""
    if index == count - 1:
        return list(real)
    first = index * 4
    return [f"10.{245 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + 4)]


def digest(text):
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def nft_node_port(index, service, port):
    """From outside: always masqueraded, the client could be answered past the node."""
    external = service.replace("service-", "external-", 1)
    return [f"add chain {TABLE} {external}",
            f"add rule {TABLE} {external} jump mark-for-masquerade",
            f"add rule {TABLE} {external} goto {service}",
            f"add element {TABLE} service-nodeports {{ tcp . {port} : goto {external} }}"]


def nft_service(index, count, real, node_port=None):
    name, where = f"svc{index}", f"ns{index // 100}/svc{index}/tcp/http"
    service = f"service-{digest(name)[:8]}-{where}"
    lines, verdicts = [f"add chain {TABLE} {service}"], []
    for j, address in enumerate(endpoints(index, count, real)):
        chain = f"endpoint-{digest(f'{name}{j}')[:8]}-{where}__{address}/{TARGET_PORT}"
        lines += [f"add chain {TABLE} {chain}",
                  f"add rule {TABLE} {chain} ip saddr {address} jump mark-for-masquerade",
                  f"add rule {TABLE} {chain} meta l4proto tcp dnat to {address}:{TARGET_PORT}"]
        verdicts.append(f"{j} : goto {chain}")
    lines += [f"add rule {TABLE} {service} ip daddr {vip(index)} tcp dport {PORT} "
              f"ip saddr != {CLUSTER_CIDR} jump mark-for-masquerade",
              f"add rule {TABLE} {service} numgen random mod 4 vmap {{ {' , '.join(verdicts)} }}",
              f"add element {TABLE} cluster-ips {{ {vip(index)} }}",
              f"add element {TABLE} service-ips {{ {vip(index)} . tcp . {PORT} : goto {service} }}"]
    if node_port and index == count - 1:
        lines += nft_node_port(index, service, node_port)
    return "\n".join(lines) + "\n"


def nft(count, real, per_transaction=None, node_port=None):
    """One transaction as kube-proxy's first sync, or the same rules in several: the kernel's time
    grows with the square of a transaction, what packets then meet is the same."""
    step = per_transaction or count
    parts = ["".join(nft_service(i, count, real, node_port)
                     for i in range(at, min(at + step, count)))
             for at in range(0, count, step)]
    if per_transaction:
        return [NFT_OBJECTS, *parts, NFT_CHAINS + NFT_RULES]
    return [NFT_OBJECTS + NFT_CHAINS + NFT_RULES + "".join(parts)]


def iptables(count, real, node_port=None):
    chains = [":KUBE-SERVICES - [0:0]", ":KUBE-NODEPORTS - [0:0]", ":KUBE-POSTROUTING - [0:0]",
              ":KUBE-MARK-MASQ - [0:0]"]
    rules = []
    for i in range(count):
        name, address = f"ns{i // 100}/svc{i}:http", vip(i)
        service = "KUBE-SVC-" + digest(name)
        match = (f'-m comment --comment "{name} cluster IP" -m tcp -p tcp -d {address} '
                 f"--dport {PORT}")
        chains.append(f":{service} - [0:0]")
        rules += [f"-A KUBE-SERVICES {match} -j {service}",
                  f"-A {service} {match} ! -s {CLUSTER_CIDR} -j KUBE-MARK-MASQ"]
        for j, pod in enumerate(endpoints(i, count, real)):
            chain = "KUBE-SEP-" + digest(f"{name}{j}")
            pick = (f"-m statistic --mode random --probability {1 / (4 - j):.10f} "
                    if j < 3 else "")
            chains.append(f":{chain} - [0:0]")
            rules += [f'-A {service} -m comment --comment "{name} -> {pod}:{TARGET_PORT}" '
                      f"{pick}-j {chain}",
                      f'-A {chain} -m comment --comment "{name}" -s {pod}/32 -j KUBE-MARK-MASQ',
                      f'-A {chain} -m comment --comment "{name}" -m tcp -p tcp -j DNAT '
                      f"--to-destination {pod}:{TARGET_PORT}"]
        if node_port and i == count - 1:
            external = "KUBE-EXT-" + digest(name)
            chains.append(f":{external} - [0:0]")
            rules += [f'-A KUBE-NODEPORTS -m comment --comment "{name}" -m tcp -p tcp --dport '
                      f"{node_port} -j {external}",
                      f'-A {external} -m comment --comment "masquerade traffic for {name} external '
                      'destinations" -j KUBE-MARK-MASQ', f"-A {external} -j {service}"]
    rules.append('-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this '
                 'must be the last rule in this chain" -m addrtype --dst-type LOCAL '
                 "-j KUBE-NODEPORTS")
    return (IPT_FILTER + "*nat\n" + "\n".join(chains) + "\n" + IPT_NAT + "\n".join(rules)
            + "\nCOMMIT\n")


def manifest(count, real, node_port=None):
    """A List of Services and EndpointSlices, one object a line. With a node_port the last one has
    it."""
    items = []
    for i in range(count):
        ns, name = f"ns{i // 100}", f"svc{i}"
        outside = {"nodePort": node_port} if node_port and i == count - 1 else {}
        items.append({"apiVersion": "v1", "kind": "Service",
                      "metadata": {"name": name, "namespace": ns},
                      "spec": {"type": "NodePort" if outside else "ClusterIP",
                               "clusterIP": vip(i), "clusterIPs": [vip(i)],
                               "ipFamilies": ["IPv4"],
                               "ports": [{"name": "http", "protocol": "TCP", "port": PORT,
                                          "targetPort": TARGET_PORT, **outside}]}})
        items.append({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                      "metadata": {"name": f"{name}-1", "namespace": ns,
                                   "labels": {"kubernetes.io/service-name": name}},
                      "addressType": "IPv4",
                      "ports": [{"name": "http", "protocol": "TCP", "port": TARGET_PORT}],
                      "endpoints": [{"addresses": [a], "conditions": {"ready": True}}
                                    for a in endpoints(i, count, real)]})
    lines = ",\n".join(json.dumps(item) for item in items)
    return f'{{"apiVersion": "v1", "kind": "List", "items": [\n{lines}\n]}}\n'
