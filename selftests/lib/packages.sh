#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# packages.sh build|test: installs what is missing, and only that (Debian 12, 13, Ubuntu 24.04).
# packages.sh bpftool: prints a bpftool that runs, wherever the distribution keeps it.
set -euo pipefail

BUILD="gcc libc6-dev clang llvm meson ninja-build pkg-config python3 libbpf-dev libelf-dev
zlib1g-dev libjansson-dev libcurl4-openssl-dev libyaml-dev libevent-dev libnghttp2-dev
libprotobuf-c-dev protobuf-c-compiler uthash-dev iproute2 util-linux procps"
TEST="libcmocka-dev openssl iptables nftables ethtool iputils-ping qemu-system-x86 busybox-static
cpio zstd curl ca-certificates"

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
	local p

	for p in "$@"; do
		dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null |
			grep -q '^install ok installed$' || echo "$p"
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

apt_install() {
	echo "installing: $*" >&2
	if [ "$(id -u)" != 0 ]; then
		echo "packages.sh: only root can install the missing packages: $*" >&2
		exit 1
	fi
	if [ -z "${apt_updated:-}" ]; then
		apt-get -qq update >&2 || {
			echo "packages.sh: apt-get update failed; install by hand: $*" >&2
			exit 1
		}
		apt_updated=1
	fi
	log=$(mktemp)
	DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 --no-install-recommends \
		install "$@" >"$log" 2>&1 </dev/null || {
		tail -n 20 "$log" >&2
		rm -f "$log"
		echo "packages.sh: apt-get could not install: $*" >&2
		exit 1
	}
	rm -f "$log"
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
	find_bpftool >/dev/null || {
		if apt-cache show bpftool 2>/dev/null | grep -q '^Filename:'; then
			apt_install bpftool
		else
			apt_install linux-tools-common linux-tools-generic
		fi
		find_bpftool >/dev/null || {
			echo "packages.sh: no working bpftool after installing it" >&2
			exit 1
		}
	}
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
