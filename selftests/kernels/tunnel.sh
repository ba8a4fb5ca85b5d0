# SPDX-License-Identifier: Apache-2.0
# Runs inside a guest: two nodes on one link, a pod on each, and both tunnel protocols in turn.
# A node N is a namespace nN with what is its own below /nN.

in_node() {
	local node=$1 net=$2
	shift 2
	(echo 0 >/sys/fs/cgroup/$node/cgroup.procs && in_net $net "$@")
}

node_object() {
	cat <<-END
	---
	apiVersion: v1
	kind: Node
	metadata: {name: n$1}
	spec: {podCIDR: 10.244.$1.0/24, podCIDRs: ["10.244.$1.0/24", "fd00:10:244:$1::/64"]}
	status: {addresses: [{type: InternalIP, address: 10.90.0.$1},
	                     {type: InternalIP, address: "fd90::$1"}]}
	END
}

make_nodes() {
	local n
	mkdir -p /manifests /run/netns
	for n in 1 2; do
		mkdir -p /sys/fs/cgroup/n$n /n$n/state /n$n/bpf
		$IP netns add n$n
		$IP -n n$n link set lo up
		node_object $n
	done >/manifests/nodes.yaml
	$IP link add eth0 netns n1 type veth peer name eth0 netns n2
	for n in 1 2; do
		$IP -n n$n addr add 10.90.0.$n/24 dev eth0
		$IP -n n$n addr add fd90::$n/64 dev eth0 nodad
		$IP -n n$n link set eth0 up
	done
}

ready_or_dead() {
	! kill -0 $2 2>/dev/null || in_net n$1 wget -q -O /dev/null http://127.0.0.1:9879/readyz
}

# start_agents PROTOCOL UNDERLAY
start_agents() {
	local n
	for n in 1 2; do
		mount -t bpf bpf /n$n/bpf
		in_node n$n n$n /test/waggle-agent --node-name n$n --manifests /manifests \
			--cgroup /sys/fs/cgroup/n$n --devices eth0 --socket /n$n/hubble.sock \
			--pin-dir /n$n/bpf/waggle --state-dir /n$n/state --routing-mode=tunnel \
			--tunnel-protocol=$1 --underlay-protocol=$2 --ct-max=16384 --svc-max=1024 \
			--slot-max=4096 >/n$n/agent.log 2>&1 &
		eval agent$n=$!
	done
	until_true 600 ready_or_dead 1 $agent1 && until_true 300 ready_or_dead 2 $agent2 &&
		kill -0 $agent1 && kill -0 $agent2
}

cni() {
	CNI_COMMAND=$1 CNI_CONTAINERID=c-p$2 CNI_NETNS=/run/netns/p$2 CNI_IFNAME=eth0 \
		CNI_PATH=/test \
		CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p$2" \
		in_node n$2 n$2 /test/waggle-cni <<-END
	{"cniVersion":"1.0.0","name":"waggle","type":"waggle-cni",
	 "pinDir":"/n$2/bpf/waggle","stateDir":"/n$2/state"}
	END
}

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
	local n out label="$1 over $2"
	if ! start_agents $1 $2; then
		fail "$label: agents ready" "$(tail -n 3 /n1/agent.log) $(tail -n 3 /n2/agent.log)"
	else
		ok "$label: agents ready"
		for n in 1 2; do
			$IP netns add p$n
			$IP -n p$n link set lo up
			out=$(cni ADD $n) || fail "$label: ADD" "$out"
			eval p${n}_4=$(echo "$out" | grep -o '10\.244\.[0-9.]*/' |
				head -n 1 | tr -d /)
			eval p${n}_6=$(echo "$out" | grep -o 'fd00:10:244:[0-9a-f:]*/' | head -n 1 |
				tr -d /)
		done
		in_node n2 p2 /test/wagtest echo --label p2 --port 8080 >/tmp/echo.log 2>&1 &
		try "$label" $3
	fi
	# $agent1 is the shell that waits for it
	kill -9 $(pidof waggle-agent wagtest) 2>/dev/null
	wait
	for n in 1 2; do
		cni DEL $n >/dev/null
		$IP netns del p$n 2>/dev/null
		rm -rf /n$n/bpf/waggle
		umount /n$n/bpf
		$IP -n n$n link del waggle_vxlan 2>/dev/null
		$IP -n n$n link del waggle_geneve 2>/dev/null
		rm -rf /n$n/state/*
	done
}

IP=/test/ip
make_nodes
round vxlan ipv4 1450
round geneve ipv4 1450
round geneve ipv6 1430
