/* SPDX-License-Identifier: Apache-2.0 */
/* The connection to a cluster: within bounded time, and what its errors mean. */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

#include "base/text.h"
#include "driver/generic/explain.h"

/* What librados says of a client that others have shut out: it may not write any more. */
#define EBLOCKLISTED ESHUTDOWN

static int code_of(int r)
{
	switch (-r) {
	case ENOENT:
		return COPPICE_NOT_FOUND;
	case EEXIST:
		return COPPICE_EXISTS;
	case EBUSY:
		return COPPICE_BUSY;
	case ENOSPC:
	case EDQUOT:
		return COPPICE_NO_SPACE;
	case ENOMEM:
	case EINVAL:
		return COPPICE_FAILED;
	case EOPNOTSUPP:
		return COPPICE_UNSUPPORTED;
	case ETIMEDOUT:
	case EBLOCKLISTED:
	case ENOTCONN:
		return COPPICE_UNAVAILABLE;
	default:
		return COPPICE_FAILED;
	}
}

int fail_ceph(const struct ceph_pool *ceph, int r, struct coppice_error *err, const char *fmt, ...)
{
	_cleanup_(freep) char *what = NULL;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&what, fmt, args) < 0)
		what = NULL;
	va_end(args);
	if (!what)
		return fail_memory(err);
	if (r == -ETIMEDOUT)
		return fail(err, COPPICE_UNAVAILABLE,
			    "%s: the cluster '%s' did not answer within %u s; look at: ceph -s",
			    what, ceph->cluster_name, ceph->timeout_seconds);
	if (r == -EBLOCKLISTED)
		return fail(err, COPPICE_UNAVAILABLE,
			    "%s: the cluster '%s' has shut this command out (ceph osd blocklist "
			    "ls)",
			    what, ceph->cluster_name);
	if (r == -EDQUOT)
		return fail(
			err, COPPICE_NO_SPACE,
			"%s: the quota of the pool '%s' is used up; see: ceph osd pool get-quota "
			"%s",
			what, ceph->osd_pool, ceph->osd_pool);
	if (r == -ENOSPC)
		return fail(err, COPPICE_NO_SPACE,
			    "%s: the pool '%s' is full, or the cluster; see: ceph df", what,
			    ceph->osd_pool);
	if (r == -EACCES || r == -EPERM)
		return fail(err, COPPICE_FAILED,
			    "%s: the cluster does not let the user '%s' do that; see: ceph auth "
			    "get client.%s",
			    what, ceph->user, ceph->user);
	(void)fail_errno(err, -r, "%s", what);
	err->code = (enum coppice_code)code_of(r);
	return err->code;
}

/* ---- connecting ---- */

static int configure(struct ceph_pool *ceph, struct coppice_error *err)
{
	char seconds[16];
	const char *const options[][2] = {
		{ "rados_mon_op_timeout", seconds },
		{ "rados_osd_op_timeout", seconds },
		{ "client_mount_timeout", seconds },
		/* A clone is one, and is not to be the old kind. */
		{ "rbd_default_clone_format", "2" },
		/*
		 * One thread calls librbd. With two, which is the default, librbd 16 locks what it
		 * has freed: when a clone is opened, whoever waits for its parent is woken, and may
		 * have closed both before the thread that woke him takes the parent's lock again
		 * (ImageState::complete_action_unlock()). librbd raises the number to that of
		 * rbd_op_threads.
		 */
		{ "librados_thread_count", "1" },
		{ "rbd_op_threads", "1" },
		/* Its own log and socket in the background of a command are of no use. */
		{ "log_to_stderr", "false" },
		{ "err_to_stderr", "false" },
		{ "log_file", "" },
		{ "admin_socket", "" },
	};
	int r = rados_conf_read_file(ceph->cluster, ceph->conf);

	if (r == -ENOENT)
		return fail(err, COPPICE_NOT_FOUND,
			    "there is no configuration of the cluster '%s'%s%s; name it with "
			    "ceph.conf=",
			    ceph->cluster_name, ceph->conf ? " at " : "",
			    ceph->conf ? ceph->conf : "");
	if (r < 0)
		return fail_ceph(ceph, r, err, "cannot read '%s'",
				 ceph->conf ? ceph->conf : "the configuration");
	(void)snprintf(seconds, sizeof(seconds), "%u", ceph->timeout_seconds);
	for (size_t i = 0; i < ARRAY_SIZE(options) && r == 0; i++)
		r = rados_conf_set(ceph->cluster, options[i][0], options[i][1]);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot configure the connection") : COPPICE_OK;
}

static int fail_connect(struct ceph_pool *ceph, int r, struct coppice_error *err)
{
	if (r == -ENOENT)
		return fail(err, COPPICE_UNAVAILABLE,
			    "there is no key for the user '%s' of the cluster '%s': Ceph looks for "
			    "'/etc/ceph/%s.client.%s.keyring', unless its configuration says other",
			    ceph->user, ceph->cluster_name, ceph->cluster_name, ceph->user);
	if (r == -EACCES || r == -EPERM || r == -EINVAL)
		return fail(err, COPPICE_UNAVAILABLE,
			    "the cluster '%s' does not accept the key of the user '%s'; see: ceph "
			    "auth get client.%s",
			    ceph->cluster_name, ceph->user, ceph->user);
	(void)fail_ceph(ceph, r, err, "cannot connect to the cluster '%s'", ceph->cluster_name);
	err->code = COPPICE_UNAVAILABLE;
	return err->code;
}

static void *connect_thread(void *cluster)
{
	return (void *)(intptr_t)rados_connect(cluster);
}

/*
 * On a thread of its own: the random number that tells a client from others comes from a generator
 * that each thread has, and that a forked process has as its parent left it. Two clients of one
 * number reset each other's connections.
 */
static int connect_apart(rados_t cluster)
{
	void *result = NULL;
	pthread_t thread;

	if (pthread_create(&thread, NULL, connect_thread, cluster) != 0)
		return rados_connect(cluster);
	(void)pthread_join(thread, &result);
	return (int)(intptr_t)result;
}

int ceph_connect(struct ceph_pool *ceph, struct coppice_error *err)
{
	_cleanup_(freep) char *name = NULL;
	int r;

	if (ceph->cluster)
		return COPPICE_OK;
	name = text_format("client.%s", ceph->user);
	if (!name)
		return fail_memory(err);
	r = rados_create2(&ceph->cluster, ceph->cluster_name, name, 0);
	if (r < 0)
		return fail_ceph(ceph, r, err, "cannot make a connection");
	r = configure(ceph, err);
	if (r == COPPICE_OK) {
		r = connect_apart(ceph->cluster);
		r = r < 0 ? fail_connect(ceph, r, err) : COPPICE_OK;
	}
	if (r < 0) {
		rados_shutdown(ceph->cluster);
		ceph->cluster = NULL;
	}
	return r;
}

int ceph_use_osd_pool(struct ceph_pool *ceph, const char *name)
{
	int r = rados_ioctx_create(ceph->cluster, name, &ceph->io);

	if (r == 0)
		r = rados_ioctx_create(ceph->cluster, name, &ceph->making_io);
	if (r == 0)
		rados_set_pool_full_try(ceph->io);
	return r;
}

int ceph_open_pool(struct ceph_pool *ceph, struct coppice_error *err)
{
	int r = ceph_connect(ceph, err);

	if (r < 0 || ceph->io)
		return r;
	r = ceph_use_osd_pool(ceph, ceph->osd_pool);
	if (r == -ENOENT)
		return fail(err, COPPICE_NOT_FOUND, "the cluster '%s' has no pool '%s'",
			    ceph->cluster_name, ceph->osd_pool);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot open the pool '%s'", ceph->osd_pool)
		     : COPPICE_OK;
}

int ceph_check_data_pool(struct ceph_pool *ceph, struct coppice_error *err)
{
	int64_t id = ceph->data_pool ? rados_pool_lookup(ceph->cluster, ceph->data_pool) : 0;

	if (id == -ENOENT)
		return fail(err, COPPICE_NOT_FOUND,
			    "the cluster '%s' has no pool '%s' (ceph.osd.data_pool_name)",
			    ceph->cluster_name, ceph->data_pool);
	return id < 0 ? fail_ceph(ceph, (int)id, err, "cannot look for the pool '%s'",
				  ceph->data_pool)
		      : COPPICE_OK;
}

void ceph_close_pool(struct ceph_pool *ceph)
{
	if (ceph->io)
		rados_ioctx_destroy(ceph->io);
	if (ceph->making_io)
		rados_ioctx_destroy(ceph->making_io);
	ceph->io = ceph->making_io = NULL;
}

void ceph_disconnect(struct ceph_pool *ceph)
{
	ceph_close_pool(ceph);
	if (ceph->cluster)
		rados_shutdown(ceph->cluster);
	ceph->cluster = NULL;
}

/* ---- commands of the monitors ---- */

static int take_answer(char *out, size_t length, char **ret, struct coppice_error *err)
{
	*ret = strndup(out ? out : "", out ? length : 0);
	return *ret ? COPPICE_OK : fail_memory(err);
}

int ceph_command(struct ceph_pool *ceph, const char *json, char **ret_out,
		 struct coppice_error *err)
{
	char *out = NULL, *status = NULL;
	size_t out_length = 0, status_length = 0;
	int r = rados_mon_command(ceph->cluster, &json, 1, "", 0, &out, &out_length, &status,
				  &status_length);

	if (r < 0)
		(void)fail_ceph(ceph, r, err, "the monitor refused: %.*s", (int)status_length,
				status ? status : "");
	r = r < 0 ? err->code : COPPICE_OK;
	if (r == COPPICE_OK && ret_out)
		r = take_answer(out, out_length, ret_out, err);
	rados_buffer_free(out);
	rados_buffer_free(status);
	return r;
}

/* ---- explaining ---- */

void ceph_explain(struct pool *pool, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	explain_vline(pool->explain, pool->explain_user, fmt, args);
	va_end(args);
}

/* The pool of -p is that of what is cloned, alone. */
void ceph_explain_clone(struct pool *pool, const char *image, const char *snapshot,
			const char *clone)
{
	const struct ceph_pool *ceph = ceph_pool_of(pool);
	bool is_default = strcmp(ceph->osd_pool, "rbd") == 0;
	char rbd[PATH_MAX];

	ceph_explain_command(ceph, rbd);
	ceph_explain(pool, "%s clone --rbd-default-clone-format 2 %s%s%s%s@%s %s", rbd,
		     is_default ? "" : "--dest-pool ", is_default ? "" : ceph->osd_pool,
		     is_default ? "" : " ", image, snapshot, clone);
}

void ceph_explain_command(const struct ceph_pool *ceph, char ret[static PATH_MAX])
{
	int n = snprintf(ret, PATH_MAX, "rbd");

	if (strcmp(ceph->cluster_name, "ceph") != 0)
		n += snprintf(ret + n, PATH_MAX - (size_t)n, " --cluster %s", ceph->cluster_name);
	if (ceph->conf)
		n += snprintf(ret + n, PATH_MAX - (size_t)n, " -c %s", ceph->conf);
	if (strcmp(ceph->user, "admin") != 0)
		n += snprintf(ret + n, PATH_MAX - (size_t)n, " --id %s", ceph->user);
	if (strcmp(ceph->osd_pool, "rbd") != 0)
		(void)snprintf(ret + n, PATH_MAX - (size_t)n, " -p %s", ceph->osd_pool);
}
