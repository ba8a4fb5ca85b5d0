#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# packages.sh build|test: installs what is missing, and only that (Debian 12, 13, Ubuntu 24.04).
# packages.sh bpftool: prints a bpftool that runs, wherever the distribution keeps it.
set -euo pipefail

BUILD="gcc libc6-dev clang llvm meson ninja-build pkg-config python3 libbpf-dev libelf-dev
zlib1g-dev libjansson-dev libcurl4-openssl-dev libyaml-dev libevent-dev libnghttp2-dev
libprotobuf-c-dev protobuf-c-compiler uthash-dev iproute2 util-linux procps"
TEST="libcmocka-dev openssl iptables nftables ipset ethtool iputils-ping qemu-system-x86
busybox-static cpio zstd curl ca-certificates shellcheck python3-yaml"

# A machine just started may be installing updates.
APT_WAIT=(-o DPkg::Lock::Timeout=120)

find_bpftool() {
	local t

	# Ubuntu's /usr/sbin/bpftool only finds the running kernel's: try it first, then all.
	for t in "$(command -v bpftool || true)" /usr/sbin/bpftool /usr/lib/linux-tools/*/bpftool \
		/usr/lib/linux-tools-*/bpftool; do
		if [ -n "$t" ] && [ -x "$t" ] && "$t" version >/dev/null 2>&1; then
			echo "$t"
			return 0
		fi
	done
	return 1
}

missing() {
	local p status

	for p in "$@"; do
		status=$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true)
		if [ "$status" != "install ok installed" ]; then
			echo "$p"
		fi
	done
}

# The sanitizer and fuzzer runtime has the compiler's number in its name.
clang_runtime() {
	local v dir

	v=$(clang -dumpversion | cut -d. -f1)
	dir=$(clang -print-resource-dir)/lib
	if ! ls "$dir"/*/libclang_rt.fuzzer*.a >/dev/null 2>&1; then
		echo "libclang-rt-$v-dev"
	fi
}

# For the packages named; says which ones are wanted if it cannot be done.
apt_update() {
	if [ -n "${apt_updated:-}" ]; then
		return
	fi
	if ! command -v apt-get >/dev/null; then
		echo "packages.sh: no apt-get here; install by hand: $*" >&2
		exit 1
	fi
	if [ "$(id -u)" != 0 ]; then
		echo "packages.sh: only root can install the missing packages: $*" >&2
		exit 1
	fi
	# Of no consequence if it was another source that failed, or the lists are still good.
	apt-get -qq "${APT_WAIT[@]}" update >&2 ||
		echo "packages.sh: apt-get update failed; going on with the lists there are" >&2
	apt_updated=1
}

apt_install() {
	local log

	echo "installing: $*" >&2
	apt_update "$@"
	log=$(mktemp)
	DEBIAN_FRONTEND=noninteractive apt-get -q -y "${APT_WAIT[@]}" -o Dpkg::Use-Pty=0 \
		--no-install-recommends install "$@" >"$log" 2>&1 </dev/null || {
		tail -n 20 "$log" >&2
		rm -f "$log"
		echo "packages.sh: apt-get could not install: $*" >&2
		exit 1
	}
	rm -f "$log"
}

# A package of its own on Debian; on Ubuntu a name without one, and each kernel's tools have it.
install_bpftool() {
	apt_update bpftool
	# Not "| grep -q": with pipefail that fails whenever grep leaves first.
	if [[ $(apt-cache show bpftool 2>/dev/null) == *Filename:* ]]; then
		apt_install bpftool
	elif [[ $(apt-cache show linux-tools-generic 2>/dev/null) == *Filename:* ]]; then
		apt_install linux-tools-common linux-tools-generic
	else
		echo "packages.sh: apt knows neither bpftool nor linux-tools-generic" >&2
		exit 1
	fi
	find_bpftool >/dev/null || {
		echo "packages.sh: no working bpftool after installing it" >&2
		exit 1
	}
}

install_group() {
	local need

	command -v dpkg-query >/dev/null || {
		echo "packages.sh: not Debian or Ubuntu; install the equivalents of: $*" >&2
		exit 1
	}
	need=$(missing "$@")
	if [ -n "$need" ]; then
		# shellcheck disable=SC2086
		apt_install $need
	fi
}

case "${1:-}" in
build)
	# shellcheck disable=SC2086
	install_group $BUILD
	find_bpftool >/dev/null || install_bpftool
	;;
test)
	"$0" build
	# shellcheck disable=SC2086
	install_group $TEST
	runtime=$(clang_runtime)
	if [ -n "$runtime" ]; then
		apt_install "$runtime"
	fi
	;;
bpftool)
	find_bpftool
	;;
*)
	echo "usage: packages.sh build|test|bpftool" >&2
	exit 2
	;;
esac
