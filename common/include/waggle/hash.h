/* SPDX-License-Identifier: Apache-2.0 */
/* For tables in memory. Addresses differ in their last bytes only: those must reach every bit. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t wag_hash(const void *key, size_t size)
{
	const unsigned char *p = key;
	uint64_t h = size;

	while (size) {
		size_t n = size < 8 ? size : 8;
		uint64_t word = 0;

		memcpy(&word, p, n);
		h = (h ^ word) * 0x9e3779b97f4a7c15ULL;
		h ^= h >> 32;
		h *= 0xff51afd7ed558ccdULL;
		h ^= h >> 29;
		p += n;
		size -= n;
	}
	return (uint32_t)(h ^ h >> 32);
}
