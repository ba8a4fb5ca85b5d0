// SPDX-License-Identifier: Apache-2.0
/* waggle doctor: what is wrong on this node; --clean-kube-proxy does something about one thing. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include "doctor.h"

static const struct output_column finding_columns[] = {
	{ "", "severity" }, { "WHERE", "area" }, { "WHAT, AND WHAT TO DO", "text" },
};
static const struct output_column left_columns[] = { { "WHAT STAYS, AND WHY", "text" } };
static const struct output_column plan_columns[] = { { "WHERE", "where" }, { "WHAT", "what" } };

void doctor_add(json_t *findings, enum doctor_severity severity, const char *area, json_t *what,
		const char *remedy)
{
	json_array_append_new(findings,
			      json_pack("{s:s, s:s, s:o, s:s}", "severity",
					severity == DOCTOR_PROBLEM ? "problem" : "note", "area",
					area, "what", what ? what : json_string("?"), "remedy",
					remedy));
}

static size_t count_problems(const json_t *findings)
{
	const json_t *one;
	size_t i, n = 0;

	json_array_foreach((json_t *)findings, i, one)
		n += strcmp(json_string_value(json_object_get(one, "severity")), "problem") == 0;
	return n;
}

static int print(const struct cli *cli, const json_t *doc, const json_t *rows,
		 const struct output_column *columns, size_t n, struct wag_err *err)
{
	if (cli->format == OUTPUT_TABLE && !json_array_size(rows))
		return 0;
	return output_print(cli->format, doc, rows, columns, n, err);
}

/* The same for a table: a finding in a line, what to do about it in the next. */
static json_t *rows_of(const json_t *findings)
{
	json_t *rows = json_array(), *one;
	size_t i;

	json_array_foreach((json_t *)findings, i, one) {
		json_t *row = json_copy(one);

		json_object_set_new(
			row, "text",
			json_pack("[O, o]", json_object_get(one, "what"),
				  json_sprintf("-> %s", json_string_value(
								json_object_get(one, "remedy")))));
		json_array_append_new(rows, row);
	}
	return rows;
}

static int examine(const struct cli *cli, struct wag_err *err)
{
	_cleanup_json_ json_t *findings = json_array(), *doc = NULL, *rows = NULL;
	_cleanup_(kube_proxy_done) struct kube_proxy kp = { 0 };
	size_t problems;
	int r = kube_proxy_look(&kp, err);

	if (r < 0)
		return r;
	doctor_node(cli, findings);
	doctor_kube_proxy(&kp, findings);
	problems = count_problems(findings);
	doc = json_pack("{s:b, s:I, s:O}", "ok", problems == 0, "problems", (json_int_t)problems,
			"findings", findings);
	rows = rows_of(findings);
	r = print(cli, doc, rows, finding_columns, 3, err);
	if (r < 0)
		return r;
	if (cli->format == OUTPUT_TABLE)
		printf("%zu problems\n", problems);
	return problems != 0;
}

/* ---- --clean-kube-proxy ---- */

/* 1: yes. */
static int allowed(const struct cli *cli, struct wag_err *err)
{
	char line[16];

	if (cli->yes)
		return 1;
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return wag_err_set(err, -EPERM,
				   "nothing was removed: there is nobody to ask. Give --yes to "
				   "remove the above, --dry-run to only see it");
	printf("Remove all of this? [y/N] ");
	fflush(stdout);
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

/* It may have come back while we were at it, or a rule could not be told apart. */
static int look_again(struct wag_err *err)
{
	_cleanup_(kube_proxy_done) struct kube_proxy kp = { 0 };
	int r = kube_proxy_look(&kp, err);

	if (r == 0 && kube_proxy_removable(&kp))
		return wag_err_set(err, -EBUSY,
				   "some of it is there again: does kube-proxy run, in another "
				   "process namespace perhaps?");
	return r;
}

static int print_plan(const struct cli *cli, const struct kube_proxy *kp, struct wag_err *err)
{
	_cleanup_json_ json_t *plan = doctor_clean_plan(kp), *left = json_array(), *doc = NULL;
	_cleanup_json_ json_t *rows = NULL;
	int r;

	doctor_clean_left(kp, left);
	doc = json_pack("{s:O, s:O}", "remove", plan, "leave", left);
	r = print(cli, doc, plan, plan_columns, 2, err);
	if (r < 0 || cli->format != OUTPUT_TABLE)
		return r;
	if (!json_array_size(plan))
		printf("nothing of kube-proxy's is here\n");
	rows = rows_of(left);
	return print(cli, left, rows, left_columns, 1, err);
}

static int clean(const struct cli *cli, struct wag_err *err)
{
	_cleanup_(kube_proxy_done) struct kube_proxy kp = { 0 };
	int r = kube_proxy_look(&kp, err);

	if (r == 0)
		r = print_plan(cli, &kp, err);
	if (r < 0 || !kube_proxy_removable(&kp))
		return r;
	if (cli->dry_run)
		return 1;
	if (kp.running[0] && !cli->force)
		return wag_err_set(err, -EBUSY,
				   "nothing was removed: kube-proxy runs (%s) and would make it "
				   "anew. Delete its DaemonSet first, or give --force",
				   kp.running);
	r = allowed(cli, err);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = kube_proxy_clean(&kp, err);
	if (r == 0)
		r = look_again(err);
	if (r == 0 && cli->format == OUTPUT_TABLE)
		printf("\nremoved\n");
	return r;
}

int cmd_doctor(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	if (cli->clean_kube_proxy)
		return clean(cli, err);
	if (cli->dry_run || cli->force || cli->yes)
		return wag_err_set(err, -EINVAL,
				   "--dry-run, --force and --yes go with --clean-kube-proxy");
	return examine(cli, err);
}
