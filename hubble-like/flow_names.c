// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <waggle/cleanup.h>
#include "flow_names.h"

/* The key is everything from id to the end of text: names that look the same are the same. */
struct flow_name {
	UT_hash_handle hh;
	struct flow_names *owner;
	uint32_t refs;
	uint16_t size; /* of text */
	uint32_t id, identity;
	char text[]; /* FLOW_NAME_PARTS strings, one after the other */
};

struct flow_names {
	struct flow_name *table;
};

#define KEY_OFFSET offsetof(struct flow_name, id)

int flow_names_new(struct flow_names **ret)
{
	struct flow_names *names = calloc(1, sizeof(*names));

	if (!names)
		return -ENOMEM;
	*ret = names;
	return 0;
}

void flow_names_free(struct flow_names *names)
{
	struct flow_name *name, *next;

	if (!names)
		return;
	HASH_ITER (hh, names->table, name, next) {
		HASH_DEL(names->table, name);
		free(name);
	}
	free(names);
}

void flow_names_freep(struct flow_names **names)
{
	flow_names_free(*names);
}

size_t flow_names_count(const struct flow_names *names)
{
	return HASH_COUNT(names->table);
}

static struct flow_name *intern(struct flow_names *names, uint32_t id, uint32_t identity,
				const char *const parts[FLOW_NAME_PARTS])
{
	struct flow_name *name, *found = NULL;
	size_t size = 0, key_size;
	char *at;

	for (unsigned i = 0; i < FLOW_NAME_PARTS; i++)
		size += strlen(parts[i]) + 1;
	name = calloc(1, sizeof(*name) + size);
	if (!name)
		return NULL;
	name->id = id;
	name->identity = identity;
	name->size = size;
	name->owner = names;
	name->refs = 1;
	at = name->text;
	for (unsigned i = 0; i < FLOW_NAME_PARTS; i++)
		at = stpcpy(at, parts[i]) + 1;

	key_size = offsetof(struct flow_name, text) - KEY_OFFSET + size;
	HASH_FIND(hh, names->table, &name->id, key_size, found);
	if (found) {
		free(name);
		found->refs++;
		return found;
	}
	HASH_ADD_KEYPTR(hh, names->table, &name->id, key_size, name);
	return name;
}

struct flow_name *flow_names_endpoint(struct flow_names *names, const struct flow_endpoint *ep)
{
	const char *parts[FLOW_NAME_PARTS] = { ep->ns, ep->pod, ep->workload, ep->workload_kind };

	for (unsigned i = 0; i < FLOW_NAME_LABELS; i++)
		parts[FLOW_NAME_LABEL + i] = ep->labels[i];
	return intern(names, ep->id, ep->identity, parts);
}

struct flow_name *flow_names_service(struct flow_names *names, const struct flow_service *svc)
{
	const char *const parts[FLOW_NAME_PARTS] = { svc->ns, svc->name, "", "", "", "", "", "" };

	return intern(names, 0, 0, parts);
}

struct flow_name *flow_names_text(struct flow_names *names, const char *text)
{
	const char *const parts[FLOW_NAME_PARTS] = { "", text, "", "", "", "", "", "" };

	return intern(names, 0, 0, parts);
}

void flow_name_put(struct flow_name *name)
{
	if (!name || --name->refs)
		return;
	HASH_DEL(name->owner->table, name);
	free(name);
}

const char *flow_name_part(const struct flow_name *name, unsigned part)
{
	const char *at;

	if (!name)
		return "";
	at = name->text;
	while (part--)
		at += strlen(at) + 1;
	return at;
}

uint32_t flow_name_id(const struct flow_name *name)
{
	return name ? name->id : 0;
}

uint32_t flow_name_identity(const struct flow_name *name)
{
	return name ? name->identity : 0;
}
