// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>

#include "kube_selector.h"

#define PATH_MAX_LEN 160

static int sel_labels(const struct reader *rd, const json_t *tree, const char *path,
		      struct selector *s)
{
	const json_t *map, *value;
	const char *key;
	int r = field_typed(rd, tree, path, "matchLabels", JSON_OBJECT, &map);

	if (r < 0)
		return r;
	json_object_foreach((json_t *)map, key, value)
	{
		if (!json_is_string(value))
			return field_bad(rd, value, "%smatchLabels[%.80s]: must be a string", path,
					 key);
		if (selector_add(s, key, SEL_IN) < 0 ||
		    selector_add_value(s, json_string_value(value)) < 0)
			return field_no_memory(rd);
	}
	return 0;
}

static int sel_op(const struct reader *rd, const json_t *tree, const char *path, enum sel_op *ret)
{
	static const char *const names[] = { [SEL_IN] = "In",
					     [SEL_NOT_IN] = "NotIn",
					     [SEL_EXISTS] = "Exists",
					     [SEL_ABSENT] = "DoesNotExist" };
	int op = SEL_IN;
	int r = field_choice(rd, tree, path, "operator", names, sizeof(names) / sizeof(names[0]),
			     "In, NotIn, Exists or DoesNotExist", &op);

	*ret = op;
	return r;
}

static int sel_expression(const struct reader *rd, const json_t *tree, const char *path,
			  struct selector *s)
{
	static const char *const keys[] = { "key", "operator", "values", NULL };
	const json_t *values, *value;
	enum sel_op op = SEL_IN;
	const char *key;
	size_t i;
	int r;

	if ((r = field_known(rd, tree, path, keys)) < 0 ||
	    (r = field_str(rd, tree, path, "key", &key)) < 0 ||
	    (r = sel_op(rd, tree, path, &op)) < 0 ||
	    (r = field_typed(rd, tree, path, "values", JSON_ARRAY, &values)) < 0)
		return r;
	if (!key[0])
		return field_bad(rd, tree, "%skey: is missing", path);
	if ((op == SEL_IN || op == SEL_NOT_IN) != (json_array_size(values) > 0))
		return field_bad(rd, tree, "%svalues: must %s with this operator", path,
				 op == SEL_IN || op == SEL_NOT_IN ? "not be empty" : "be empty");
	if (selector_add(s, key, op) < 0)
		return field_no_memory(rd);
	json_array_foreach(values, i, value)
	{
		if (!json_is_string(value))
			return field_bad(rd, value, "%svalues[%zu]: must be a string", path, i);
		if (selector_add_value(s, json_string_value(value)) < 0)
			return field_no_memory(rd);
	}
	return 0;
}

int kube_read_selector(const struct reader *rd, const json_t *tree, const char *path,
		       struct selector *s)
{
	static const char *const keys[] = { "matchLabels", "matchExpressions", NULL };
	const json_t *list, *value;
	char where[PATH_MAX_LEN];
	size_t i;
	int r;

	if ((r = field_known(rd, tree, path, keys)) < 0 ||
	    (r = sel_labels(rd, tree, path, s)) < 0 ||
	    (r = field_typed(rd, tree, path, "matchExpressions", JSON_ARRAY, &list)) < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		snprintf(where, sizeof(where), "%.120smatchExpressions[%zu].", path, i);
		if (!json_is_object(value))
			return field_bad(rd, value, "%s: must be an object", where);
		r = sel_expression(rd, value, where, s);
		if (r < 0)
			return r;
	}
	return 0;
}

int kube_member_selector(const struct reader *rd, const json_t *tree, const char *path,
			 const char *key, struct selector *s, bool *ret_given)
{
	const json_t *sel;
	char where[PATH_MAX_LEN];
	int r = field_typed(rd, tree, path, key, JSON_OBJECT, &sel);

	if (r < 0)
		return r;
	if (ret_given)
		*ret_given = sel;
	snprintf(where, sizeof(where), "%.120s%s.", path, key);
	return sel ? kube_read_selector(rd, sel, where, s) : 0;
}
