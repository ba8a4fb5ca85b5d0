/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of a map, read through its BTF. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>

struct btf;

/*
 * The value of type type_id at data, as JSON: structs by member (padding left out), wag_addr and
 * wag_cidr_key as text (of wag_src_range_key its CIDR), __be16 as a port number, character arrays
 * as strings, byte arrays as hex.
 * Without BTF (btf NULL, type_id 0) a hex string. A new reference, NULL: out of memory.
 */
json_t *btf_to_json(const struct btf *btf, uint32_t type_id, const void *data, size_t size);
/* "10.0.0.0/24": of a size of WAG_ADDR_TEXT + 4 at least. */
void cidr_key_text(const struct wag_cidr_key *key, char *buf, size_t size);
