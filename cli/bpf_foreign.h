/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

/* How many loaded BPF programs have a name that begins so. */
size_t bpf_programs_named(const char *prefix);
