// SPDX-License-Identifier: Apache-2.0
/* GC: tears down every attachment of this network that the runtime does not list, then orphans. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <waggle/cleanup.h>

#include "job.h"
#include "sweep.h"

struct stale {
	const struct job *job;
	uint32_t *ids;
	size_t count;
};

/* Not told which live, GC takes none that has a record. */
static bool is_listed(const struct cni_conf *conf, const struct record *rec)
{
	if (!conf->attachments)
		return true;
	for (size_t i = 0; i < conf->attachment_count; i++)
		if (strcmp(conf->attachments[i].container_id, rec->container_id) == 0 &&
		    strcmp(conf->attachments[i].ifname, rec->ifname) == 0)
			return true;
	return false;
}

static int on_record(uint32_t ep_id, const struct record *rec, void *ctx)
{
	struct stale *s = ctx;
	uint32_t *p;

	/* Torn by a power cut: what it spoke of went with that boot. */
	if (!rec)
		return record_discard(s->job->conf.state_dir, ep_id);
	if (strcmp(rec->network, s->job->conf.name) != 0 || is_listed(&s->job->conf, rec))
		return 0;
	p = reallocarray(s->ids, s->count + 1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	s->ids = p;
	s->ids[s->count++] = ep_id;
	return 0;
}

static int attachment_drop(struct job *job, uint32_t ep_id, struct wag_err *err)
{
	uint32_t hash;
	int r;

	r = record_read(job->conf.state_dir, ep_id, &job->rec);
	if (r < 0)
		return 0; /* gone by itself */
	hash = record_hash(job->rec.container_id, job->rec.ifname);
	r = job->lock_fd = record_lock(job->conf.state_dir, hash, 0);
	if (r == -EWOULDBLOCK)
		return 0; /* an ADD or DEL is at it */
	if (r < 0)
		return state_fail(job, r, err);
	if (record_read(job->conf.state_dir, ep_id, &job->rec) == 0)
		r = tear_down(job, true, err);
	closep(&job->lock_fd);
	job->lock_fd = -1;
	return r > 0 ? r : 0;
}

static int records_drop(struct job *job, struct wag_err *err)
{
	struct stale stale = { .job = job };
	int r, first = 0;

	r = record_list(job->conf.state_dir, on_record, &stale);
	if (r < 0)
		first = state_fail(job, r, err);
	/* One that cannot go must not keep the others. */
	for (size_t i = 0; i < stale.count; i++) {
		struct wag_err other = { 0 };

		r = attachment_drop(job, stale.ids[i], &other);
		if (r && !first) {
			*err = other;
			first = r;
		}
	}
	free(stale.ids);
	return first;
}

static int delegate_gc(struct job *job, struct wag_err *err)
{
	_cleanup_free_ char *answer = NULL;
	size_t size;
	int r;

	if (!job->conf.ipam_type[0])
		return 0;
	memset(&job->rec, 0, sizeof(job->rec));
	r = job_delegate(job, job->conf.ipam_type, "GC", &answer, &size, err);
	/* One of before 1.1.0 does not know the verb; each of its addresses had its DEL above. */
	return r == CNI_E_VERSION || r == CNI_E_ENV ? 0 : r;
}

int cmd_gc(struct job *job, struct wag_err *err)
{
	struct wag_err later = { 0 };
	int r, first;

	r = job_open(job, err);
	if (r)
		return r;
	first = records_drop(job, err);
	r = sweep(job, first ? &later : err);
	first = first ? first : r;
	r = delegate_gc(job, first ? &later : err);
	return first ? first : r;
}
