// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "source.h"

void source_status(const struct source *s, struct source_status *ret)
{
	memset(ret, 0, sizeof(*ret));
	s->ops->status(s, ret);
}

struct kube_cluster *source_cluster(const struct source *s)
{
	return s->cluster;
}

void source_free(struct source *s)
{
	if (s)
		s->ops->free(s);
}

void source_freep(struct source **s)
{
	source_free(*s);
}

void source_want_all_pods(struct source *s)
{
	if (s->ops->want_all_pods)
		s->ops->want_all_pods(s);
}

bool source_has_all_pods(const struct source *s)
{
	return !s->ops->has_all_pods || s->ops->has_all_pods(s);
}
