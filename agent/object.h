/* SPDX-License-Identifier: Apache-2.0 */
/* Objects at rest: one allocation each, so that tens of thousands of them stay small. */
#pragma once

#include "model.h"

/*
 * Copies obj into one block with no slack; ns and name stand one after the other in it, so that
 * "ns\0name" is a ready hash key. The resource version is left behind. NULL: out of memory.
 */
struct object *object_pack(const struct object *obj);
/* Of an object that lies in somebody else's memory: what it holds besides. NULL is fine. */
void object_drop(const struct object *obj);
/* A policy that could not be read: there is one of this name, and that is all. */
bool object_is_unreadable(const struct object *obj);
/* Whether everything the dataplane reads is the same. */
bool object_equal(const struct object *a, const struct object *b);
/* slice.trigger_ms, once: from then on it is 0. */
int64_t object_take_trigger(const struct object *slice);
/* Grows an array by one zeroed element. Returns the element or NULL. */
void *array_grow(void *array_ptr, size_t *n, size_t elem_size);
