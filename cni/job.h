/* SPDX-License-Identifier: Apache-2.0 */
/* What every command works with, and what several of them do. */
#pragma once

#include <stdbool.h>
#include <waggle/abi_maps.h>
#include <waggle/err.h>
#include <waggle/netlink.h>
#include <waggle/record.h>

#include "conf.h"
#include "env.h"
#include "netns.h"

struct job {
	struct cni_env env;
	struct cni_conf conf;
	char *text; /* the configuration as it came */
	size_t size;
	struct wag_meta meta; /* ADD */
	struct record rec;
	struct netns ns;
	struct nl *nl;
	int lock_fd; /* of this attachment */
	char boot_id[40];
	char *dns;     /* JSON text of a delegated ipam plugin, or NULL */
	char *details; /* for the error's JSON, or NULL */
};

#define JOB_LOCK_MS 20000

/* The boot's id and an rtnetlink socket. */
int job_open(struct job *job, struct wag_err *err);
/* The attachment's lock, and its record if there is one: *ret_recorded. */
int job_find(struct job *job, bool *ret_recorded, unsigned *ret_probe, struct wag_err *err);
void job_done(struct job *job);

/* err from -errno, in the specification's codes: of the state dir; of what common/ did. */
int state_fail(const struct job *job, int r, struct wag_err *err);
int pins_fail(int r, struct wag_err *err);

int record_save(const struct job *job, struct wag_err *err);
/* Runs ipam plugin type for the attachment in job->rec; ret as delegate_run(). */
int job_delegate(const struct job *job, const char *type, const char *command, char **ret,
		 size_t *ret_size, struct wag_err *err);
/* Everything the attachment in job->rec has, complete or not; the record goes last. */
int tear_down(struct job *job, bool recorded, struct wag_err *err);

/* ---- commands ---- */
int cmd_add(struct job *job, struct wag_err *err);
int cmd_del(struct job *job, struct wag_err *err);
int cmd_check(struct job *job, struct wag_err *err);
int cmd_gc(struct job *job, struct wag_err *err);
int cmd_status(struct job *job, struct wag_err *err);
int cmd_version(struct job *job, struct wag_err *err);
