# SPDX-License-Identifier: Apache-2.0
# Runs inside a guest: two nodes on one link, a pod on each, and both tunnel protocols in turn.

reaches() {
	in_node n1 p1 /test/wagtest connect --dst $1 --timeout 500 | grep -q label=p2
}

# try LABEL MTU: p1 to p2 in both families
try() {
	local addr result
	for addr in $p2_4 [$p2_6]; do
		until_true 50 reaches $addr:8080
		check "$1: TCP to $addr" "label=p2" \
			in_node n1 p1 /test/wagtest connect --dst $addr:8080
		check "$1: UDP to $addr" "label=p2" in_node n1 p1 /test/wagtest udp --dst $addr:8080
		check "$1: fragments to $addr" "len=8000 intact=1" \
			in_node n1 p1 /test/wagtest udp --size 8000 --dst $addr:8080
		check "$1: large segments to $addr" "ok errno=0 bytes=262144" \
			in_node n1 p1 /test/wagtest bulk --size 262144 --dst $addr:8080
		addr=${addr#[}
		addr=${addr%]}
		check "$1: two hops to $addr" "hops=62" in_node n1 p1 /test/wagtest ping --dst $addr
		check "$1: the MTU to $addr" "mtu=$2" \
			in_node n1 p1 /test/wagtest ping --size 1480 --df --dst $addr
		check "$1: the node to $addr" "ok from" in_node n1 n1 /test/wagtest ping --dst $addr
	done
}

# round PROTOCOL UNDERLAY MTU
round() {
	local n label="$1 over $2"
	if ! start_agents --routing-mode=tunnel --tunnel-protocol=$1 --underlay-protocol=$2; then
		fail "$label: agents ready" "$(tail -n 3 /n1/agent.log) $(tail -n 3 /n2/agent.log)"
	else
		ok "$label: agents ready"
		for n in 1 2; do add_pod $n p$n; done
		in_node n2 p2 /test/wagtest echo --label p2 --port 8080 >/tmp/echo.log 2>&1 &
		try "$label" $3
	fi
	stop_nodes 1:p1 2:p2
}

make_nodes
round vxlan ipv4 1450
round geneve ipv4 1450
round geneve ipv6 1430
