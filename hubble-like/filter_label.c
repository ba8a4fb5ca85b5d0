// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "filter_label.h"

static const char *const reserved[] = {
	"unknown",     "host",		 "world",   "unmanaged",  "health",	"init",
	"remote-node", "kube-apiserver", "ingress", "world-ipv4", "world-ipv6", "encrypted-overlay"
};

const char *filter_reserved_name(uint32_t identity)
{
	return identity < sizeof(reserved) / sizeof(reserved[0]) ? reserved[identity] : NULL;
}

/* One requirement, taken apart; key and value point into the selector. */
struct term {
	const char *key, *value;
	size_t key_len, value_len;
	bool negate, has_value;
};

/* Returns the length of the term at text, or -EINVAL. */
static int parse_term(const char *text, struct term *ret)
{
	size_t len = strcspn(text, ","), key;

	memset(ret, 0, sizeof(*ret));
	if (*text == '!') {
		ret->negate = true;
		text++;
		len--;
	}
	key = strcspn(text, "=!,");
	ret->key = text;
	ret->key_len = key;
	if (!key || memchr(text, ' ', len) || memchr(text, '(', len))
		return -EINVAL;
	if (key == len)
		return len + ret->negate;
	if (ret->negate)
		return -EINVAL;
	if (text[key] == '!') {
		if (text[key + 1] != '=')
			return -EINVAL;
		ret->negate = true;
		key++;
	} else if (text[key + 1] == '=') {
		key++;
	}
	ret->has_value = true;
	ret->value = text + key + 1;
	ret->value_len = len - key - 1;
	return len;
}

int filter_label_check(const char *selector)
{
	struct term term;

	for (;;) {
		int n = parse_term(selector, &term);

		if (n < 0)
			return n;
		if (!selector[n])
			return 0;
		selector += n + 1;
	}
}

static bool label_is(const char *label, const struct term *term)
{
	const char *eq = strchr(label, '=');
	size_t key_len = eq ? (size_t)(eq - label) : strlen(label);

	if (key_len != term->key_len || memcmp(label, term->key, key_len))
		return false;
	if (!term->has_value)
		return true;
	return eq && strlen(eq + 1) == term->value_len &&
	       !memcmp(eq + 1, term->value, term->value_len);
}

static bool has_term(const struct term *term, const Flow__Endpoint *ep)
{
	const char *name = filter_reserved_name(ep->identity);
	char text[64];

	for (size_t i = 0; i < ep->n_labels; i++) {
		const char *colon = strchr(ep->labels[i], ':');

		/* "k8s:app=x" is asked for as "app=x" as well */
		if (label_is(ep->labels[i], term) || (colon && label_is(colon + 1, term)))
			return true;
	}
	if (!name)
		return false;
	snprintf(text, sizeof(text), "reserved:%s", name);
	return label_is(text, term);
}

bool filter_label_match(const char *selector, const Flow__Endpoint *ep)
{
	struct term term;

	for (;;) {
		int n = parse_term(selector, &term);

		if (n < 0 || has_term(&term, ep) == term.negate)
			return false;
		if (!selector[n])
			return true;
		selector += n + 1;
	}
}
