/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is at work on the pool, and who only was. A process that is about to change something has a
 * worker: a key by.ID of the root object that says how the cluster knows it and where it runs, an
 * object coppice.ID that it watches, and, for those of its own host, a file STATE/ceph/NAME/by-ID
 * that it holds by flock.
 *
 * On the same host the file tells at once that a process is dead. Of others the cluster tells: as
 * long as the OSD hears from who watches, or has not missed him for long (osd_client_watch_timeout,
 * 30 s), he may be alive. Who is not watching any more may still think that he lives, behind a
 * network that comes back: so the cluster is told to take nothing from him any more before anything
 * of his is touched.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

#define PING_MS 1000 /* how long to wait for the answer of who watches */

/* ---- beginning ---- */

static void object_of(const char *id, char ret[static 64])
{
	(void)snprintf(ret, 64, ROOT_OBJECT ".%s", id);
}

static void file_of(const char *id, char ret[static 64])
{
	(void)snprintf(ret, 64, WORKER_FILE "%s", id);
}

/* Whoever asks whether we live is answered by a thread of librados. */
static void answer(void *user, uint64_t notify, uint64_t handle, uint64_t who, void *data, size_t n)
{
	struct ceph_pool *ceph = user;
	char object[64];

	object_of(ceph->worker.id.text, object);
	(void)rados_notify_ack(ceph->io, object, notify, handle, NULL, 0);
}

/* It is renewed by librados, as far as it can be. */
static void lost(void *user, uint64_t handle, int why)
{
}

static int create(struct ceph_pool *ceph, const char *object, int flags)
{
	rados_write_op_t op = rados_create_write_op();
	int r;

	rados_write_op_create(op, LIBRADOS_CREATE_EXCLUSIVE, NULL);
	r = rados_write_op_operate2(op, ceph->io, object, NULL, flags);
	rados_release_write_op(op);
	return r;
}

static int watch(struct ceph_pool *ceph, const char *id, struct coppice_error *err)
{
	char object[64];
	int r;

	object_of(id, object);
	r = create(ceph, object, 0);
	/* Who deletes from a full pool needs it, too; and it is empty. */
	if (r == -EDQUOT || r == -ENOSPC) {
		ceph->full = r;
		r = create(ceph, object, LIBRADOS_OPERATION_FULL_FORCE);
	}
	if (r == 0)
		r = rados_watch3(ceph->io, object, &ceph->worker.watch, answer, lost, 0, ceph);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot watch '%s/%s'", ceph->osd_pool, object)
		     : COPPICE_OK;
}

void worker_host(char ret[static HOST_NAME_MAX + 1])
{
	ret[0] = ret[HOST_NAME_MAX] = '\0';
	(void)gethostname(ret, HOST_NAME_MAX);
	ret[strcspn(ret, "\t\n")] = '\0';
}

/* "ADDRESS\tHOST\tPROCESS\tOWNER\tBOOT" */
static char *describe(const struct ceph_pool *ceph, const char *address)
{
	_cleanup_(freep) char *boot = boot_id();
	char host[HOST_NAME_MAX + 1];

	worker_host(host);
	return boot ? text_format("%s\t%s\t%ld\t%s\t%s", address, host, (long)getpid(),
				  ceph->owner.text, boot)
		    : NULL;
}

int worker_begin(struct ceph_pool *ceph, struct coppice_error *err)
{
	struct worker *worker = &ceph->worker;
	_cleanup_(freep) char *text = NULL;
	char *address = NULL, key[64];
	int r;

	if (worker->fd >= 0)
		return COPPICE_OK;
	r = rados_getaddrs(ceph->cluster, &address);
	if (r < 0)
		return fail_ceph(ceph, r, err, "cannot tell our own address");
	text = describe(ceph, address);
	rados_buffer_free(address);
	r = text ? state_lock_new(&ceph->files, WORKER_FILE, &worker->id, &worker->fd, err)
		 : fail_memory(err);
	/* Who finds the key without a watch takes us for dead. */
	if (r == COPPICE_OK)
		r = watch(ceph, worker->id.text, err);
	(void)snprintf(key, sizeof(key), ROOT_WORKER "%s", worker->id.text);
	if (r == COPPICE_OK)
		r = root_set(ceph, key, text, err);
	if (r < 0)
		worker_end(ceph);
	return r;
}

int ceph_refuse_full(struct ceph_pool *ceph, struct coppice_error *err)
{
	int r = worker_begin(ceph, err);

	return r == COPPICE_OK && ceph->full
		       ? fail_ceph(ceph, ceph->full, err, "nothing new can be made")
		       : r;
}

static int forget_object(struct ceph_pool *ceph, const char *id, struct coppice_error *err)
{
	char object[64];
	int r;

	object_of(id, object);
	r = rados_remove(ceph->io, object);
	return r < 0 && r != -ENOENT
		       ? fail_ceph(ceph, r, err, "cannot remove '%s/%s'", ceph->osd_pool, object)
		       : COPPICE_OK;
}

static int forget_key(struct ceph_pool *ceph, const char *id, struct coppice_error *err)
{
	char key[64];

	(void)snprintf(key, sizeof(key), ROOT_WORKER "%s", id);
	return root_unset(ceph, key, err);
}

static void forget_file(struct ceph_pool *ceph, const char *id)
{
	char file[64];

	file_of(id, file);
	state_lock_remove(&ceph->files, file);
}

/* What fails here is found by who comes next. */
void worker_end(struct ceph_pool *ceph)
{
	struct worker *worker = &ceph->worker;
	struct coppice_error ignored;
	int r;

	if (worker->fd < 0)
		return;
	if (worker->n_locked > 0)
		(void)ceph_locks_break(ceph, worker->id.text, &ignored);
	/* Who has a key and no watch would be taken for dead. */
	r = forget_key(ceph, worker->id.text, &ignored);
	if (worker->watch)
		(void)rados_unwatch2(ceph->io, worker->watch);
	worker->watch = 0;
	if (r == COPPICE_OK && forget_object(ceph, worker->id.text, &ignored) == COPPICE_OK)
		forget_file(ceph, worker->id.text);
	(void)close(take_fd(&worker->fd));
}

/* ---- whose something is ---- */

#define MAKER "by\t"

int worker_line(struct ceph_pool *ceph, struct text *to, struct coppice_error *err)
{
	int r = worker_begin(ceph, err);

	if (r == COPPICE_OK)
		text_add(to, MAKER "%s\n", ceph->worker.id.text);
	return r;
}

bool worker_of(const char *lines, struct uuid *ret)
{
	const char *at = lines ? strstr(lines, MAKER) : NULL;
	char id[UUID_TEXT_SIZE];

	if (!at || (at != lines && at[-1] != '\n'))
		return false;
	at += strlen(MAKER);
	(void)snprintf(id, sizeof(id), "%.*s", (int)strcspn(at, "\n"), at);
	return uuid_parse(id, ret);
}

/* ---- others ---- */

/* The n-th word of what it says of itself. */
static void word_of(const char *text, size_t n, char *ret, size_t size)
{
	for (; n > 0 && *text; n--) {
		text += strcspn(text, "\t");
		text += *text == '\t';
	}
	(void)snprintf(ret, size, "%.*s", (int)strcspn(text, "\t\n"), text);
}

void worker_name(const char *text, char ret[static WORKER_NAME_MAX])
{
	char host[HOST_NAME_MAX + 1], process[24];

	word_of(text, 1, host, sizeof(host));
	word_of(text, 2, process, sizeof(process));
	(void)snprintf(ret, WORKER_NAME_MAX, "process %s on host '%s'", process, host);
}

/* Does it run on this very machine, with this very state directory? */
static bool is_here(const struct ceph_pool *ceph, const char *text)
{
	_cleanup_(freep) char *now = boot_id();
	char owner[UUID_TEXT_SIZE], boot[64];

	word_of(text, 3, owner, sizeof(owner));
	word_of(text, 4, boot, sizeof(boot));
	return now && strcmp(owner, ceph->owner.text) == 0 &&
	       strncmp(boot, now, strcspn(now, "\n")) == 0;
}

/* Does nobody watch its object any more, nor may he? */
static bool is_unwatched(struct ceph_pool *ceph, const char *id)
{
	struct notify_timeout_t *timeouts = NULL;
	struct notify_ack_t *acks = NULL;
	size_t n_acks = 0, n_timeouts = 0, length = 0;
	char object[64], *reply = NULL;
	bool is_so = false;
	int r;

	object_of(id, object);
	r = rados_notify2(ceph->io, object, "", 0, PING_MS, &reply, &length);
	if (r == -ENOENT)
		return true;
	if (r == 0 && rados_decode_notify_response(reply, length, &acks, &n_acks, &timeouts,
						   &n_timeouts) == 0) {
		is_so = n_acks == 0 && n_timeouts == 0;
		rados_free_notify_response(acks, n_acks, timeouts);
	}
	rados_buffer_free(reply);
	return is_so;
}

int worker_read(struct ceph_pool *ceph, const char *id, char **ret, struct coppice_error *err)
{
	char key[64];

	(void)snprintf(key, sizeof(key), ROOT_WORKER "%s", id);
	return root_get(ceph, key, ret, err);
}

/* It may have come to its end, properly, while we asked. */
static bool is_known(struct ceph_pool *ceph, const char *id)
{
	_cleanup_(freep) char *text = NULL;
	struct coppice_error ignored;

	return worker_read(ceph, id, &text, &ignored) == COPPICE_OK && text;
}

bool worker_is_over(struct ceph_pool *ceph, const char *id, const char *text)
{
	_cleanup_(closep) int fd = -1;
	char file[64];

	if (strcmp(id, ceph->worker.id.text) == 0)
		return false;
	file_of(id, file);
	return is_here(ceph, text) ? state_lock_is_over(&ceph->files, file, &fd)
				   : is_unwatched(ceph, id) && is_known(ceph, id);
}

bool worker_is_foreign(const struct ceph_pool *ceph, const char *text)
{
	return !is_here(ceph, text);
}

int worker_fence(struct ceph_pool *ceph, const char *text, struct coppice_error *err)
{
	char address[256];
	int r;

	word_of(text, 0, address, sizeof(address));
	if (!address[0])
		return COPPICE_OK;
	r = rados_blocklist_add(ceph->cluster, address, 0);
	if (r == 0)
		r = rados_wait_for_latest_osdmap(ceph->cluster);
	/* On our own host the kernel says that it is dead; what it had sent arrives soon. */
	if ((r == -EACCES || r == -EPERM) && is_here(ceph, text))
		r = 0;
	return r < 0 ? fail_ceph(ceph, r, err, "cannot shut out '%s', which is dead", address)
		     : COPPICE_OK;
}

int worker_forget(struct ceph_pool *ceph, const char *id, struct coppice_error *err)
{
	int r = forget_object(ceph, id, err);

	/* The key last, by which it is found. */
	if (r == COPPICE_OK)
		r = forget_key(ceph, id, err);
	if (r == COPPICE_OK)
		forget_file(ceph, id);
	return r;
}
