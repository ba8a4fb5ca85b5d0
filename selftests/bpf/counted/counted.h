/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of helper calls that the counted programs count. */
#pragma once

enum counted { COUNTED_LOOKUP, COUNTED_CHANGE, COUNTED_OTHER, COUNTED_KINDS };
