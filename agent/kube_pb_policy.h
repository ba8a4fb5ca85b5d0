/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kube_pb_field.h"

/* Fills obj->policy, a reference of the caller's. 0 or -errno with rd->to.err filled. */
int kube_pb_read_policy(const struct pb_reader *rd, const void *message, struct object *obj);
