# SPDX-License-Identifier: Apache-2.0
# Runs inside a guest, whose kernel has fq: pods with a limit send through a device with it.
TC=/test/tc
RATE=1000000 # bit/s: the guest's processor must not be what limits
STREAM=750   # datagrams a second: half as much again

bandwidth() {
	echo ",\"capabilities\":{\"bandwidth\":true}," \
		"\"runtimeConfig\":{\"bandwidth\":{\"egressRate\":$1,\"egressBurst\":80000}}"
}

reaches() {
	in_node n1 $1 /test/wagtest connect --dst $2 --timeout 500 | grep -q label=
}

says() {
	/test/waggle --pin-dir /n1/bpf/waggle status | grep -q "bandwidth by $1"
}

# field NAME: of a line NAME=VALUE ... on stdin
field() {
	sed -n "s/.*$1=\([0-9]*\).*/\1/p"
}

dropped() {
	/test/waggle --pin-dir /n1/bpf/waggle status -o json | tr -d '\n ' |
		sed -n 's/.*rate-limitingdrophorizon","packets":\([0-9]*\).*/\1/p'
}

# within NAME GOT WANTED LEAST MOST: percent of what is wanted
within() {
	if [ "${2:-0}" -ge $(($3 * $4 / 100)) ] && [ "$2" -le $(($3 * $5 / 100)) ]; then
		ok "$1"
	else
		fail "$1" "$2, not $3"
	fi
}

# streams TO: false where the machine stood still for most of the time, which proves nothing
streams() {
	in_node n1 slow /test/wagtest stream --rate $STREAM --ms 2000 --timeout 3000 \
		--dst $1:8080 >/tmp/stream.log
	[ $(field sent </tmp/stream.log) -gt $STREAM ]
}

# paced LABEL TO BYTES: nothing is dropped, and the limit is met. BYTES: of a datagram's frame
paced() {
	local out us arrived ms before=$(dropped)
	until_true 50 reaches slow $2:8080
	out=$(in_node n1 slow /test/wagtest bulk --size 524288 --timeout 20000 \
		--dst $2:8080)
	us=$(echo "$out" | field us)
	# One chunk after the other: a slow machine adds what it takes from one to the next.
	within "$1: TCP at its limit" $((524288 * 8 / (${us:-1} / 1000) * 1000)) $RATE 50 110
	until_true 5 streams $2
	out=$(tail -n 1 /tmp/stream.log)
	arrived=$(echo "$out" | field received)
	echo "$1: $out"
	within "$1: every datagram arrives" $arrived $(echo "$out" | field sent) 99 100
	ms=$(echo "$out" | field last_ms)
	within "$1: at their limit" $((${arrived:-0} * $3 * 8 * 1000 / ${ms:-1})) $RATE 85 \
		115
	if [ "$(dropped)" = "$before" ]; then
		ok "$1: nothing is dropped"
	else
		fail "$1: nothing is dropped" "$before before, $(dropped) after"
	fi
}

# policed LABEL TO: the bucket drops a third, and says so
policed() {
	local out before=$(dropped)
	until_true 50 reaches slow $2:8080
	until_true 5 streams $2
	out=$(tail -n 1 /tmp/stream.log)
	within "$1" $(echo "$out" | field received) $((RATE * 2 / 8 / 242)) 80 120
	if [ "$(dropped)" -gt "${before:-0}" ]; then
		ok "$1: the drops are counted"
	else
		fail "$1: the drops are counted" "${before:-0} before, $(dropped) after"
	fi
}

# round LABEL OPTION...
round() {
	local label=$1
	shift
	$TC -n n1 qdisc add dev eth0 root fq flow_limit 4000
	if ! start_agents "$@"; then
		fail "$label: agents ready" "$(tail -n 3 /n1/agent.log) $(tail -n 3 /n2/agent.log)"
	else
		add_pod 1 slow "$(bandwidth $RATE)"
		add_pod 1 near
		add_pod 2 far
		in_node n1 near /test/wagtest echo --label near --port 8080 >/tmp/near.log 2>&1 &
		in_node n2 far /test/wagtest echo --label far --port 8080 >/tmp/far.log 2>&1 &
		check "$label: fq is seen" "bandwidth by departure times" \
			/test/waggle --pin-dir /n1/bpf/waggle status
		paced "$label" $far_4 242
		paced "$label, IPv6" [$far_6] 262
		policed "$label: a pod of the node" $near_4
		$TC -n n1 qdisc del dev eth0 root
		if until_true 50 says "token bucket"; then
			policed "$label: without fq" $far_4
		else
			fail "$label: without fq" "$(tail -n 3 /n1/agent.log)"
		fi
		$TC -n n1 qdisc add dev eth0 root fq flow_limit 4000
		if until_true 50 says "departure times"; then
			paced "$label: fq again" $far_4 242
		else
			fail "$label: fq again" "$(tail -n 3 /n1/agent.log)"
		fi
	fi
	stop_nodes 1:slow 1:near 2:far
	$TC -n n1 qdisc del dev eth0 root
}

make_nodes
round direct --routing-mode=auto
round tunnel --routing-mode=tunnel
