// SPDX-License-Identifier: Apache-2.0
/*
 * What the pinned Service maps say, and when they began to say so.
 *   svc_watch PIN_DIR until   each line "ADDR PORT PROTO COUNT TIMEOUT_MS" on standard input is
 *                             answered with "NS COUNT" once the frontend has that many backends
 *                             (-1: it is not there), or with "late COUNT"
 *   svc_watch PIN_DIR guard   the frontends of all lines "ADDR PORT PROTO COUNT" are watched until
 *                             SIGTERM: "NS changed ..." for each difference, and at the end
 *                             "changes N of M looks"
 * NS is CLOCK_MONOTONIC.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <waggle/abi_maps.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>

#define LOOK_US 200
#define GUARDED_MAX 64

struct frontend {
	struct wag_svc_key key;
	int want;
};

static volatile sig_atomic_t stopped;

static void on_term(int sig)
{
	(void)sig;
	stopped = 1;
}

static unsigned long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (unsigned long long)ts.tv_sec * 1000000000ULL + (unsigned long long)ts.tv_nsec;
}

/* The agent may make a map anew, so every question opens the pin again. */
static int open_map(const char *pin_dir, const char *name)
{
	char path[512];

	if (pins_map_path(path, sizeof(path), pin_dir, name) < 0)
		return -ENAMETOOLONG;
	return bpfsys_obj_get(path);
}

static int count_backends(int svc_fd, int state_fd, const struct wag_svc_key *key)
{
	struct wag_svc_state state;
	struct wag_svc svc;

	if (bpfsys_map_lookup(svc_fd, key, &svc) < 0 ||
	    bpfsys_map_lookup(state_fd, &svc.index, &state) < 0)
		return -1;
	return WAG_SLOTS_COUNT(state.slots);
}

static int parse(const char *line, struct frontend *ret, unsigned *ret_timeout_ms)
{
	char addr[64], proto[8];
	unsigned port, timeout_ms = 0;
	int want;

	*ret = (struct frontend){ 0 };
	if (sscanf(line, "%63s %u %7s %d %u", addr, &port, proto, &want, &timeout_ms) < 4 ||
	    wag_addr_parse(addr, &ret->key.addr) < 0 || wag_proto_parse(proto, &ret->key.proto) < 0)
		return -EINVAL;
	ret->key.port = htons((__u16)port);
	ret->want = want;
	*ret_timeout_ms = timeout_ms;
	return 0;
}

static void until(const char *pin_dir, const struct frontend *f, unsigned timeout_ms)
{
	unsigned long long end = now_ns() + timeout_ms * 1000000ULL;
	_cleanup_close_ int svc_fd = open_map(pin_dir, "wag_svc");
	_cleanup_close_ int state_fd = open_map(pin_dir, "wag_svc_state");
	int count;

	for (;;) {
		unsigned long long at = now_ns();

		count = count_backends(svc_fd, state_fd, &f->key);
		if (count == f->want) {
			printf("%llu %d\n", at, count);
			return;
		}
		if (at >= end)
			break;
		usleep(LOOK_US);
	}
	printf("late %d\n", count);
}

static unsigned look(const char *line, int svc_fd, int state_fd, struct frontend *f)
{
	int count = count_backends(svc_fd, state_fd, &f->key);

	if (count == f->want)
		return 0;
	printf("%llu changed %.*s: %d backends\n", now_ns(), (int)strcspn(line, "\n"), line, count);
	f->want = count;
	return 1;
}

static int guard(const char *pin_dir)
{
	_cleanup_close_ int svc_fd = open_map(pin_dir, "wag_svc");
	_cleanup_close_ int state_fd = open_map(pin_dir, "wag_svc_state");
	struct frontend guarded[GUARDED_MAX];
	char lines[GUARDED_MAX][128];
	unsigned n = 0, timeout_ms, changes = 0;
	unsigned long looks = 0;

	while (n < GUARDED_MAX && fgets(lines[n], sizeof(lines[n]), stdin))
		if (parse(lines[n], &guarded[n], &timeout_ms) == 0)
			n++;
	printf("ready\n");
	while (!stopped) {
		for (unsigned i = 0; i < n; i++)
			changes += look(lines[i], svc_fd, state_fd, &guarded[i]);
		looks++;
		usleep(1000);
	}
	printf("changes %u of %lu looks\n", changes, looks);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned timeout_ms;
	struct frontend f;
	char line[128];

	if (argc != 3 || (strcmp(argv[2], "until") != 0 && strcmp(argv[2], "guard") != 0)) {
		fprintf(stderr, "usage: svc_watch PIN_DIR until|guard\n");
		return 2;
	}
	signal(SIGTERM, on_term);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (strcmp(argv[2], "guard") == 0)
		return guard(argv[1]);
	while (fgets(line, sizeof(line), stdin)) {
		if (parse(line, &f, &timeout_ms) < 0) {
			fprintf(stderr, "svc_watch: not understood: %s", line);
			return 2;
		}
		until(argv[1], &f, timeout_ms);
	}
	return 0;
}
