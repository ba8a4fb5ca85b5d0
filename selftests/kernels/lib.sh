# SPDX-License-Identifier: Apache-2.0
# What the guests' scripts share (busybox sh). They stand behind this one in one file.

in_net() {
	local net=$1
	shift
	/test/nsenter --net=/run/netns/$net "$@"
}

ok() {
	echo "ok $1"
}

fail() {
	echo "FAIL $1: $2"
}

# check NAME PATTERN COMMAND...: the command's output must contain the pattern.
check() {
	local name=$1 pattern=$2 out
	shift 2
	out=$("$@" 2>&1)
	case "$out" in
	*"$pattern"*) ok "$name" ;;
	*) fail "$name" "wanted $pattern, got $(echo $out)" ;;
	esac
}

# until_true TENTHS COMMAND...
until_true() {
	local left=$1
	shift
	while [ $left -gt 0 ]; do
		"$@" >/dev/null 2>&1 && return 0
		left=$((left - 1))
		sleep 0.1
	done
	return 1
}
