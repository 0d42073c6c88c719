/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver for Ceph is a module, as librbd and what it needs are many times as large as
 * Coppice: it is loaded when a pool is made, opened, or asked for something. An open pool has the
 * module's own table; this one has what can be asked before.
 */
#include "driver/ceph/keys.h"

#include <dlfcn.h>
#include <pthread.h>

#include "base/text.h"

#ifndef COPPICE_MODULEDIR
#define COPPICE_MODULEDIR "/usr/local/lib/coppice"
#endif

static const struct driver *loaded;
static char problem[256];

static void load(void)
{
	const char *directory = secure_getenv("COPPICE_MODULEDIR");
	_cleanup_(freep) char *path = text_format(
		"%s/coppice-ceph.so", directory && directory[0] ? directory : COPPICE_MODULEDIR);
	void *module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) : NULL;
	const char *version;

	if (!module) {
		(void)snprintf(problem, sizeof(problem), "the driver 'ceph' cannot be loaded: %s",
			       path ? dlerror() : "no memory");
		return;
	}
	version = dlsym(module, CEPH_MODULE_VERSION);
	if (!version || strcmp(version, COPPICE_VERSION) != 0) {
		(void)snprintf(problem, sizeof(problem),
			       "the driver 'ceph' in '%s' is of version %s, and this is %s", path,
			       version ? version : "unknown", COPPICE_VERSION);
		return;
	}
	loaded = dlsym(module, CEPH_MODULE_DRIVER);
}

/* COPPICE_UNSUPPORTED: it is not installed, or what it needs is not. */
static int module(const struct driver **ret, struct coppice_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, load);
	*ret = loaded;
	return loaded ? COPPICE_OK : fail(err, COPPICE_UNSUPPORTED, "%s", problem);
}

/* ---- what can be asked without a pool ---- */

static int probe(const struct pool_spec *spec, struct coppice_error *err)
{
	const struct driver *ceph;
	int r = module(&ceph, err);

	return r < 0 ? r : ceph->probe(spec, err);
}

static int pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		       struct coppice_error *err)
{
	const struct driver *ceph;
	int r = module(&ceph, err);

	return r < 0 ? r : ceph->pool_create(spec, record, ret, err);
}

static int pool_check(const struct pool_spec *spec, struct coppice_error *err)
{
	const struct driver *ceph;
	int r = module(&ceph, err);

	return r < 0 ? r : ceph->pool_check(spec, err);
}

static void pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	struct coppice_error ignored;
	const struct driver *ceph;

	if (module(&ceph, &ignored) == COPPICE_OK)
		ceph->pool_explain(spec, explain, user);
}

static int pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err)
{
	const struct driver *ceph;
	int r = module(&ceph, err);

	return r < 0 ? r : ceph->pool_open(spec, ret, err);
}

static void pool_close(struct pool *pool)
{
	if (pool)
		pool->driver->pool_close(pool);
}

/* It needs no mounting: what is mounted are its volumes. */
static bool pool_is_mounted(const struct pool_spec *spec)
{
	return true;
}

static int pool_umount(const struct pool_spec *spec, struct coppice_error *err)
{
	const struct driver *ceph;
	int r = module(&ceph, err);

	return r < 0 ? r : ceph->pool_umount(spec, err);
}

static int pool_destroy(const struct pool_spec *spec, struct coppice_error *err)
{
	const struct driver *ceph;
	int r = module(&ceph, err);

	return r < 0 ? r : ceph->pool_destroy(spec, err);
}

const struct driver driver_ceph_unloaded = {
	.name = "ceph",
	.pool_keys = ceph_pool_keys,
	.volume_keys = ceph_volume_keys,
	.traits = CEPH_TRAITS,

	.probe = probe,
	.choose = ceph_choose,
	.pool_create = pool_create,
	.pool_check = pool_check,
	.pool_explain = pool_explain,
	.pool_open = pool_open,
	.pool_close = pool_close,
	.pool_is_mounted = pool_is_mounted,
	.pool_umount = pool_umount,
	.pool_destroy = pool_destroy,
	.copy_way = ceph_copy_way,
};
