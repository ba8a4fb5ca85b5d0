# SPDX-License-Identifier: Apache-2.0
# Runs inside a guest (busybox sh): a node, two pods and a client outside; the main job works.
# The paths are the guest's own: see guest.py. Prints "ok NAME" and "FAIL NAME: why".
CG=/sys/fs/cgroup/node
IP=/test/ip
NODE4=10.90.0.1 NODE6=fd90::1 OUT4=10.90.0.254 OUT6=fd90::fe
VIP4=10.96.0.10 VIP6=fd00:10:96::10 EMPTY4=10.96.0.11 EMPTY6=fd00:10:96::11

mkdir -p $CG /manifests /var/lib/waggle /run/netns

# Below the node's cgroup: what the socket path serves, and how 5.10 tells namespaces apart.
in_node() {
	local net=$1
	shift
	(echo 0 >$CG/cgroup.procs && in_net $net "$@")
}

make_nets() {
	for net in node out web client; do
		$IP netns add $net
		$IP -n $net link set lo up
	done
	$IP link add eth0 netns node type veth peer name eth0 netns out
	$IP -n node addr add $NODE4/24 dev eth0
	$IP -n node addr add $NODE6/64 dev eth0 nodad
	$IP -n out addr add $OUT4/24 dev eth0
	$IP -n out addr add $OUT6/64 dev eth0 nodad
	for net in node out; do $IP -n $net link set eth0 up; done
	$IP -n node route add default via $OUT4
	$IP -n node -6 route add default via $OUT6
	$IP -n out route add 10.244.0.0/24 via $NODE4
	$IP -n out -6 route add fd00:10:244::/64 via $NODE6
}

start_agent() {
	in_node node /test/waggle-agent --node-name node-1 --manifests /manifests --cgroup $CG \
		--devices eth0 --socket /run/hubble.sock --ct-max=16384 --svc-max=1024 \
		--slot-max=4096 >>/tmp/agent.log 2>&1 &
	agent=$!
	until_true 300 ready_or_dead && kill -0 $agent 2>/dev/null
}

ready_or_dead() {
	! kill -0 $agent 2>/dev/null ||
		in_net node wget -q -O /dev/null http://127.0.0.1:9879/readyz
}

agent_pid() {
	pidof waggle-agent
}

add_pod() {
	CNI_COMMAND=ADD CNI_CONTAINERID=c-$1 CNI_NETNS=/run/netns/$1 CNI_IFNAME=eth0 \
		CNI_PATH=/test \
		CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=$1" \
		in_node node /test/waggle-cni <<-END
	{"cniVersion":"1.0.0","name":"waggle","type":"waggle-cni",
	 "ipam":{"ranges":[[{"subnet":"10.244.0.0/24"}],[{"subnet":"fd00:10:244::/64"}]]}}
	END
}

slice() {
	cat <<-END
	---
	apiVersion: discovery.k8s.io/v1
	kind: EndpointSlice
	metadata: {name: web-$1, namespace: default, labels: {kubernetes.io/service-name: web}}
	addressType: $1
	endpoints: [{addresses: ["$2"], conditions: {ready: true}}]
	ports: [{name: t, port: 8080, protocol: TCP}, {name: u, port: 8080, protocol: UDP}]
	END
}

service() {
	cat <<-END
	---
	apiVersion: v1
	kind: Service
	metadata: {name: $1, namespace: default}
	spec:
	  type: NodePort
	  clusterIP: $2
	  clusterIPs: ["$2", "$3"]
	  ipFamilies: [IPv4, IPv6]
	  ports:
	  - {name: t, port: 80, targetPort: 8080, protocol: TCP, nodePort: $4}
	  - {name: u, port: 80, targetPort: 8080, protocol: UDP, nodePort: $4}
	END
}

answers() {
	in_node client /test/wagtest connect --dst $1 --timeout 500 | grep -q label=web
}

services() {
	local net addr
	for addr in $VIP4:80 [$VIP6]:80; do
		for net in client node; do
			check "ClusterIP TCP $addr from $net" "label=web" \
				in_node $net /test/wagtest connect --dst $addr
			check "ClusterIP UDP $addr from $net" "label=web from=$addr" \
				in_node $net /test/wagtest udp --dst $addr
		done
	done
	for addr in $NODE4:30080 [$NODE6]:30080; do
		check "NodePort TCP $addr from outside" "label=web" \
			in_net out /test/wagtest connect --dst $addr
		check "NodePort UDP $addr from outside" "label=web from=$addr" \
			in_net out /test/wagtest udp --dst $addr
		check "NodePort TCP $addr from a pod" "label=web" \
			in_node client /test/wagtest connect --dst $addr
	done
}

refusals() {
	local net addr
	for addr in $EMPTY4:80 [$EMPTY6]:80; do
		for net in client node; do
			check "refused TCP $addr from $net" "errno=ECONNREFUSED" \
				in_node $net /test/wagtest connect --dst $addr
			check "refused UDP $addr from $net" "errno=ECONNREFUSED" \
				in_node $net /test/wagtest udp --connected --dst $addr
		done
	done
	for addr in $NODE4:30081 [$NODE6]:30081; do
		check "refused TCP $addr from outside" "errno=ECONNREFUSED" \
			in_net out /test/wagtest connect --dst $addr
	done
}

restart() {
	local hold
	in_node client /test/wagtest hold --dst $VIP4:80,[$VIP6]:80 --conns 4 --ms 100000 \
		>/tmp/hold.log 2>&1 &
	until_true 50 grep -q ready /tmp/hold.log
	kill -9 $(agent_pid)
	check "ClusterIP while the agent is dead" "label=web" \
		in_node client /test/wagtest connect --dst $VIP4:80
	start_agent || fail "ready after kill -9" "$(tail -n 3 /tmp/agent.log)"
	check "ClusterIP after the restart" "label=web" \
		in_node client /test/wagtest connect --dst [$VIP6]:80
	hold=$(pidof wagtest)
	for pid in $hold; do
		grep -q hold /proc/$pid/cmdline && kill -TERM $pid
	done
	until_true 50 grep -q tried /tmp/hold.log
	check "live connections survive kill -9" "ok=4 refused=0 reset=0 timeout=0" \
		cat /tmp/hold.log
	check "nothing closed them" "closed=0" cat /tmp/hold.log
}

main() {
	make_nets
	if ! start_agent; then
		fail "agent ready" "$(in_net node wget -q -O - http://127.0.0.1:9879/readyz 2>&1)"
		tail -n 30 /tmp/agent.log
		return
	fi
	ok "agent ready"
	web=$(add_pod web) || { fail "CNI ADD" "$web"; return; }
	ok "CNI ADD"
	add_pod client >/dev/null
	web4=$(echo "$web" | grep -o '10\.244\.0\.[0-9]*/' | head -n 1)
	web6=$(echo "$web" | grep -o 'fd00:10:244:[0-9a-f:]*/' | head -n 1)
	in_node web /test/wagtest echo --label web --port 8080 >/tmp/echo.log 2>&1 &
	{
		service web $VIP4 $VIP6 30080
		slice IPv4 ${web4%/}
		slice IPv6 ${web6%/}
		service empty $EMPTY4 $EMPTY6 30081
	} >/tmp/all.yaml
	mv /tmp/all.yaml /manifests/all.yaml
	if until_true 100 answers $VIP4:80 && until_true 100 answers [$VIP6]:80; then
		ok "manifests are live"
	else
		fail "manifests are live" "$(tail -n 5 /tmp/agent.log)"
		/test/waggle bpf lb list
	fi
	services
	refusals
	check "a refused connection in flow-observe" "default/empty:80" in_net node \
		/test/flow-observe --server unix:///run/hubble.sock --verdict DROPPED --last 20 \
		-o compact
	restart
	kill -TERM $(agent_pid)
}

main
