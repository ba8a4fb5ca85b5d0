/* SPDX-License-Identifier: Apache-2.0 */
/* Between kube_pb.c (envelopes) and kube_pb_object.c (what they hold). */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "kube_pb.h"

/* *ret lies in the arena. 0, -EBADMSG, -EMSGSIZE, -ENOMEM. */
int kube_pb_unpack(const ProtobufCMessageDescriptor *what, const char *bytes, size_t n,
		   struct kube_arena *arena, void *ret);
