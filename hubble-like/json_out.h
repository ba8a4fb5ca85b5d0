/* SPDX-License-Identifier: Apache-2.0 */
/* Any message as one line of proto3 JSON with its proto member names, as Hubble prints it. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>
#include <stdio.h>

void json_out_message(FILE *f, const ProtobufCMessage *msg); /* no newline */
void json_out_string(FILE *f, const char *text);
/* "1970-01-01T00:20:34.567800Z" */
void json_time_format(char *buf, size_t size, int64_t seconds, int32_t nanos);
