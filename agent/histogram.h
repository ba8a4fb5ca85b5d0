/* SPDX-License-Identifier: Apache-2.0 */
/* Counts by upper bound, as Prometheus has them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_MAX 16

struct histogram {
	const double *bounds; /* ascending; static */
	size_t n;	      /* of bounds, at most HISTOGRAM_MAX */
	uint64_t counts[HISTOGRAM_MAX + 1]; /* not summed up; the last has no bound */
	double sum;
};

static inline void histogram_add(struct histogram *h, double value)
{
	size_t i = 0;

	while (i < h->n && value > h->bounds[i])
		i++;
	h->counts[i]++;
	h->sum += value;
}
