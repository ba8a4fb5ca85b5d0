# SPDX-License-Identifier: Apache-2.0
# Two nodes on one link, inside a guest. A node N is a namespace nN with what is its own below /nN.

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

# start_agents OPTION...: ready, or false
start_agents() {
	local n
	for n in 1 2; do
		mount -t bpf bpf /n$n/bpf
		in_node n$n n$n /test/waggle-agent --node-name n$n --manifests /manifests \
			--cgroup /sys/fs/cgroup/n$n --devices eth0 --socket /n$n/hubble.sock \
			--pin-dir /n$n/bpf/waggle --state-dir /n$n/state --ct-max=16384 \
			--svc-max=1024 --slot-max=4096 "$@" >/n$n/agent.log 2>&1 &
		eval agent$n=$!
	done
	until_true 600 ready_or_dead 1 $agent1 && until_true 300 ready_or_dead 2 $agent2 &&
		kill -0 $agent1 && kill -0 $agent2
}

# cni COMMAND NODE POD [FIELDS]
cni() {
	CNI_COMMAND=$1 CNI_CONTAINERID=c-$3 CNI_NETNS=/run/netns/$3 CNI_IFNAME=eth0 \
		CNI_PATH=/test \
		CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=$3" \
		in_node n$2 n$2 /test/waggle-cni <<-END
	{"cniVersion":"1.0.0","name":"waggle","type":"waggle-cni",
	 "pinDir":"/n$2/bpf/waggle","stateDir":"/n$2/state"$4}
	END
}

# add_pod NODE POD [FIELDS]: its addresses become ${POD}_4 and ${POD}_6
add_pod() {
	local out
	$IP netns add $2
	$IP -n $2 link set lo up
	out=$(cni ADD $1 $2 "$3") || { fail "ADD of $2" "$out"; return; }
	eval ${2}_4=$(echo "$out" | grep -o '10\.244\.[0-9.]*/' | head -n 1 | tr -d /)
	eval ${2}_6=$(echo "$out" | grep -o 'fd00:10:244:[0-9a-f:]*/' | head -n 1 | tr -d /)
}

# stop_nodes NODE:POD...
stop_nodes() {
	local at n
	# $agent1 is the shell that waits for it
	kill -9 $(pidof waggle-agent wagtest) 2>/dev/null
	wait
	for at in "$@"; do
		cni DEL ${at%:*} ${at#*:} >/dev/null
		$IP netns del ${at#*:} 2>/dev/null
	done
	for n in 1 2; do
		rm -rf /n$n/bpf/waggle
		umount /n$n/bpf
		$IP -n n$n link del waggle_vxlan 2>/dev/null
		$IP -n n$n link del waggle_geneve 2>/dev/null
		rm -rf /n$n/state/*
	done
}

IP=/test/ip
