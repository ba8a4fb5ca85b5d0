// SPDX-License-Identifier: Apache-2.0
/* Whatever iptables-save might say: what is removed names only kube-proxy's chains. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/kube_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *removal, *save;
	struct kube_rules rules;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (kube_rules_parse(text, &rules) == 0) {
		removal = kube_rules_removal(&rules);
		for (char *line = strtok_r(removal, "\n", &save); line;
		     line = strtok_r(NULL, "\n", &save))
			if ((line[0] == ':' && strncmp(line, ":KUBE-", 6) != 0) ||
			    (strncmp(line, "-X", 2) == 0 && strncmp(line, "-X KUBE-", 8) != 0))
				__builtin_trap();
		free(removal);
		kube_rules_done(&rules);
	}
	free(text);
	return 0;
}
