/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of wag_slot. Best fit, neighbours coalesce. A released range is quarantined: it is given
 * out again only after slot_alloc_reclaim(), which the owner calls when every reader has left.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct slot_range {
	uint32_t base, len;
};

struct slot_alloc {
	struct slot_range *free; /* sorted by base, no two touch */
	size_t n_free, cap_free;
	struct slot_range *quarantine;
	size_t n_quarantine, cap_quarantine;
	size_t n_given; /* ranges in use */
	uint32_t capacity, used, quarantined;
};

/* taken: ranges in use, any order, must not overlap; sorted in place. 0 or -ENOMEM. */
int slot_alloc_init(struct slot_alloc *a, uint32_t capacity, struct slot_range *taken, size_t n);
void slot_alloc_done(struct slot_alloc *a);
/* 0, -ENOSPC, -ENOMEM */
int slot_alloc_get(struct slot_alloc *a, uint32_t len, uint32_t *ret_base);
/* Neither of these can fail: slot_alloc_get() has taken the memory they need. */
void slot_alloc_release(struct slot_alloc *a, uint32_t base, uint32_t len);
void slot_alloc_reclaim(struct slot_alloc *a);
