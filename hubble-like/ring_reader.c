// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/abi_maps.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include "ring_reader.h"

struct ring_reader {
	struct ring_buffer *ring;
	int runtime_fd, stats_fd;
	ring_reader_fn fn;
	void *ctx;
	unsigned budget; /* of the ring_reader_consume() under way */
	int cpus;
	uint64_t *per_cpu;
	uint64_t lost_before;
};

static int on_sample(void *ctx, void *data, size_t size)
{
	struct ring_reader *r = ctx;
	struct wag_event event;

	if (size < sizeof(event))
		return 0;
	memcpy(&event, data, sizeof(event));
	r->fn(r->ctx, &event);
	/* libbpf stops at an error, behind the sample it got it for. */
	return --r->budget ? 0 : -EAGAIN;
}

static uint64_t count_lost(struct ring_reader *r)
{
	uint64_t sum = 0;

	if (r->stats_fd < 0)
		return 0;
	for (uint32_t e = 0; e < WAG_MAP_ERRNOS; e++) {
		uint32_t key = WAG_MAP_ERROR_INDEX(WAG_MAP_EVENTS, e);

		if (bpf_map_lookup_elem(r->stats_fd, &key, r->per_cpu))
			return r->lost_before;
		for (int i = 0; i < r->cpus; i++)
			sum += r->per_cpu[i];
	}
	return sum;
}

int ring_reader_new(struct ring_reader **ret, int events_fd, int runtime_fd, int stats_fd,
		    ring_reader_fn fn, void *ctx, struct wag_err *err)
{
	_cleanup_(ring_reader_freep) struct ring_reader *r = calloc(1, sizeof(*r));

	if (!r)
		return wag_err_set(err, -ENOMEM, "out of memory");
	r->runtime_fd = runtime_fd;
	r->stats_fd = stats_fd;
	r->fn = fn;
	r->ctx = ctx;
	r->cpus = libbpf_num_possible_cpus();
	if (r->cpus < 0)
		return wag_err_set(err, r->cpus, "cannot count the CPUs: %s", strerror(-r->cpus));
	r->per_cpu = calloc(r->cpus, sizeof(*r->per_cpu));
	if (!r->per_cpu)
		return wag_err_set(err, -ENOMEM, "out of memory");
	r->ring = ring_buffer__new(events_fd, on_sample, r, NULL);
	if (!r->ring) {
		int code = -errno;

		return wag_err_set(err, code, "cannot map the ring buffer wag_events: %s",
				   strerror(-code));
	}
	r->lost_before = count_lost(r);
	*ret = TAKE_PTR(r);
	return 0;
}

void ring_reader_free(struct ring_reader *r)
{
	if (!r)
		return;
	ring_buffer__free(r->ring);
	free(r->per_cpu);
	free(r);
}

void ring_reader_freep(struct ring_reader **r)
{
	ring_reader_free(*r);
}

int ring_reader_consume(struct ring_reader *r)
{
	int n;

	r->budget = RING_READER_BATCH;
	n = ring_buffer__consume(r->ring);
	return n == -EAGAIN ? 1 : n < 0 ? n : 0;
}

int ring_reader_set_trace(struct ring_reader *r, bool on)
{
	if (r->runtime_fd < 0)
		return 0;
	return bpfsys_array_store(r->runtime_fd, offsetof(struct wag_runtime, trace), on);
}

uint64_t ring_reader_lost(struct ring_reader *r)
{
	uint64_t now = count_lost(r), lost = now > r->lost_before ? now - r->lost_before : 0;

	r->lost_before = now;
	return lost;
}
