/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of a map, read through its BTF. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct btf;

/*
 * The value of type type_id at data, as JSON: structs by member (padding left out), wag_addr as
 * text, __be16 as a port number, character arrays as strings, byte arrays as hex. Without BTF
 * (btf NULL, type_id 0) a hex string. A new reference, NULL: out of memory.
 */
json_t *btf_to_json(const struct btf *btf, uint32_t type_id, const void *data, size_t size);
