/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <jansson.h>

/* {release, tcx, setRetval, bpfTimers, forEachMapElem, netnsCookie, membarrier, sockDestroy}: what
 * this kernel can do, each tried and not guessed from its number. */
json_t *kernel_features(void);
