// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/node_ranges.h>
#include <waggle/pins.h>

#define FILE_MAX 65536

const char *node_range_text(const struct ipam_range *range, char buf[IPAM_RANGE_KEY])
{
	char text[WAG_ADDR_TEXT];

	snprintf(buf, IPAM_RANGE_KEY, "%s/%u", wag_addr_format(&range->subnet, text), range->bits);
	return buf;
}

bool node_range_has(const struct node_range_list *list, const struct ipam_range *range)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->at[i].bits == range->bits &&
		    wag_addr_equal(&list->at[i].subnet, &range->subnet))
			return true;
	return false;
}

int node_range_add(struct node_range_list *list, const struct ipam_range *range)
{
	if (node_range_has(list, range))
		return 0;
	if (list->n == NODE_RANGES_MAX)
		return -E2BIG;
	list->at[list->n++] = *range;
	return 0;
}

void node_range_remove(struct node_range_list *list, size_t i)
{
	list->n--;
	memmove(&list->at[i], &list->at[i + 1], (list->n - i) * sizeof(list->at[0]));
}

int node_ranges_add(struct node_ranges *ranges, const char *cidr)
{
	struct ipam_range range;
	int r;

	r = ipam_range_parse(cidr, &range);
	if (r < 0)
		return r;
	return node_range_add(&ranges->family[!wag_addr_is_v4(&range.subnet)], &range);
}

static bool lists_equal(const struct node_range_list *a, const struct node_range_list *b)
{
	for (size_t i = 0; i < a->n && i < b->n; i++)
		if (a->at[i].bits != b->at[i].bits ||
		    !wag_addr_equal(&a->at[i].subnet, &b->at[i].subnet))
			return false;
	return a->n == b->n;
}

bool node_ranges_equal(const struct node_ranges *a, const struct node_ranges *b)
{
	return strcmp(a->mode, b->mode) == 0 && lists_equal(&a->family[0], &b->family[0]) &&
	       lists_equal(&a->family[1], &b->family[1]) && lists_equal(&a->draining, &b->draining);
}

/* ---- reading ---- */

static int parse_list(const json_t *list, struct node_range_list *one, struct node_ranges *all,
		      struct wag_err *err)
{
	const json_t *value;
	size_t i;

	if (!json_is_array(list))
		return wag_err_set(err, -EBADMSG, "a list of ranges is none");
	json_array_foreach(list, i, value) {
		const char *text = json_string_value(value);
		struct ipam_range range;
		int r = text ? ipam_range_parse(text, &range) : -EINVAL;

		if (r == 0)
			r = one ? node_range_add(one, &range) : node_ranges_add(all, text);
		if (r < 0)
			return wag_err_set(err, -EBADMSG, "\"%.64s\" is no range for pods",
					   text ? text : "");
	}
	return 0;
}

static int parse_tree(const json_t *tree, struct node_ranges *ret, struct wag_err *err)
{
	const char *mode = json_string_value(json_object_get(tree, "mode"));
	const json_t *lists = json_object_get(tree, "ranges"), *value;
	const json_t *draining = json_object_get(tree, "draining");
	size_t i;
	int r;

	if (!json_is_array(lists))
		return wag_err_set(err, -EBADMSG, "ranges is missing");
	snprintf(ret->mode, sizeof(ret->mode), "%s", mode ? mode : "");
	json_array_foreach(lists, i, value) {
		r = parse_list(value, NULL, ret, err);
		if (r < 0)
			return r;
	}
	return draining ? parse_list(draining, &ret->draining, NULL, err) : 0;
}

int node_ranges_parse(const char *text, size_t size, struct node_ranges *ret, struct wag_err *err)
{
	json_error_t at;
	json_t *tree = json_loadb(text, size, 0, &at);
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!tree)
		return wag_err_set(err, -EBADMSG, "line %d: %s", at.line, at.text);
	r = parse_tree(tree, ret, err);
	json_decref(tree);
	return r;
}

int node_ranges_read(const char *state_dir, struct node_ranges *ret, struct wag_err *err)
{
	_cleanup_free_ char *text = malloc(FILE_MAX);
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];
	ssize_t n;
	int r;

	if (!text)
		return wag_err_set(err, -ENOMEM, "out of memory");
	snprintf(path, sizeof(path), "%s/ipam/node.json", state_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, FILE_MAX);
	if (n < 0)
		return wag_err_set(err, -errno, "%s: %s", path, strerror(errno));
	r = node_ranges_parse(text, (size_t)n, ret, err);
	if (r < 0)
		wag_err_prefix(err, "%s: ", path);
	return r;
}

/* ---- writing ---- */

static void print_list(FILE *f, const struct node_range_list *list)
{
	char text[IPAM_RANGE_KEY];

	fputc('[', f);
	for (size_t i = 0; i < list->n; i++)
		fprintf(f, "%s\"%s\"", i ? "," : "", node_range_text(&list->at[i], text));
	fputc(']', f);
}

static void print_ranges(FILE *f, const struct node_ranges *ranges)
{
	const char *sep = "";

	fprintf(f, "{\"mode\":\"%s\",\"ranges\":[", ranges->mode);
	for (int i = 0; i < 2; i++) {
		if (!ranges->family[i].n)
			continue;
		fputs(sep, f);
		print_list(f, &ranges->family[i]);
		sep = ",";
	}
	fputc(']', f);
	if (ranges->draining.n) {
		fputs(",\"draining\":", f);
		print_list(f, &ranges->draining);
	}
	fputs("}\n", f);
}

int node_ranges_write(const char *state_dir, const struct node_ranges *ranges)
{
	char path[PATH_MAX], temp[PATH_MAX];
	_cleanup_close_ int dir_fd = -1;
	FILE *f;
	int r;

	snprintf(path, sizeof(path), "%s/ipam", state_dir);
	r = pins_mkdir_p(path, 0755);
	if (r < 0)
		return r;
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return -errno;
	snprintf(temp, sizeof(temp), "%s/ipam/.node.json.tmp", state_dir);
	snprintf(path, sizeof(path), "%s/ipam/node.json", state_dir);
	f = fopen(temp, "we");
	if (!f)
		return -errno;
	print_ranges(f, ranges);
	/* Unlike a lease this outlives the boot: pods start before an API server answers. */
	r = fflush(f) == 0 && fsync(fileno(f)) == 0 ? 0 : -errno;
	if (fclose(f) != 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(temp, path) < 0)
		r = -errno;
	if (r == 0 && fsync(dir_fd) < 0)
		r = -errno;
	return r;
}
