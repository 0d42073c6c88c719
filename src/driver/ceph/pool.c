/* SPDX-License-Identifier: Apache-2.0 */
/* A pool on Ceph: where it lies, making, opening and unmaking it, its record. */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/explain.h"
#include "driver/generic/filesystem.h"
#include "driver/generic/pool_owner.h"

#define SIZE_DEFAULT    (UINT64_C(10) << 30)
#define TIMEOUT_DEFAULT 30

int ceph_probe(const struct pool_spec *spec, struct coppice_error *err)
{
	return geteuid() != 0 ? fail(err, COPPICE_UNSUPPORTED, "mapping images of RBD needs root")
			      : COPPICE_OK;
}

/* ---- what is asked for ---- */

/* Of what goes into lines of bash, and into commands of the monitors. */
static int check_word(const char *key, const char *word, struct coppice_error *err)
{
	size_t n = word ? strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				       "0123456789_.-")
			: 0;

	if (!word || (word[n] == '\0' && n > 0 && n < 64 && word[0] != '-'))
		return COPPICE_OK;
	return fail(err, COPPICE_INVALID, "%s '%s' cannot be a name in a cluster", key, word);
}

static const char *or_else(const char *word, const char *other)
{
	return word ? word : other;
}

static int take(char **to, const char *key, const char *word, struct coppice_error *err)
{
	int r = check_word(key, word, err);

	if (r < 0 || !word)
		return r;
	*to = strdup(word);
	return *to ? COPPICE_OK : fail_memory(err);
}

static int read_names(const struct pool_spec *spec, struct ceph_pool *ceph,
		      struct coppice_error *err)
{
	const char *pool =
		or_else(spec->get(spec, "ceph.osd.pool_name"), or_else(spec->source, spec->name));
	const char *conf = spec->get(spec, "ceph.conf");
	int r = take(&ceph->cluster_name, "ceph.cluster_name",
		     or_else(spec->get(spec, "ceph.cluster_name"), "ceph"), err);

	if (r == COPPICE_OK)
		r = take(&ceph->user, "ceph.user.name",
			 or_else(spec->get(spec, "ceph.user.name"), "admin"), err);
	if (r == COPPICE_OK)
		r = take(&ceph->osd_pool, "the pool", pool, err);
	if (r == COPPICE_OK)
		r = take(&ceph->data_pool, "ceph.osd.data_pool_name",
			 spec->get(spec, "ceph.osd.data_pool_name"), err);
	if (r < 0 || !conf)
		return r;
	if (conf[0] != '/' || strpbrk(conf, " \t\n'\"\\$"))
		return fail(err, COPPICE_INVALID, "ceph.conf '%s' is no absolute path", conf);
	ceph->conf = strdup(conf);
	return ceph->conf ? COPPICE_OK : fail_memory(err);
}

static int read_features(const struct pool_spec *spec, struct ceph_pool *ceph,
			 struct coppice_error *err)
{
	const char *features = spec->get(spec, "ceph.rbd.features");
	uint64_t ignored;

	if (!features)
		return COPPICE_OK;
	if (rbd_features_from_string(features, &ignored) < 0)
		return fail(err, COPPICE_INVALID,
			    "ceph.rbd.features '%s' are no features of RBD, such as "
			    "layering,exclusive-lock",
			    features);
	ceph->features = strdup(features);
	return ceph->features ? COPPICE_OK : fail_memory(err);
}

static int read_settings(const struct pool_spec *spec, struct ceph_pool *ceph,
			 struct coppice_error *err)
{
	const char *type = or_else(spec->get(spec, "volume.block.filesystem"), "ext4");
	const char *options = or_else(spec->get(spec, "volume.block.mount_options"), "discard");
	const char *size = spec->get(spec, "volume.size");
	const char *seconds = spec->get(spec, "ceph.timeout");

	ceph->timeout_seconds = seconds ? (unsigned)strtoul(seconds, NULL, 10) : TIMEOUT_DEFAULT;
	if (ceph->timeout_seconds == 0 || ceph->timeout_seconds > 3600)
		return fail(err, COPPICE_INVALID,
			    "ceph.timeout '%s' is no number of seconds from 1 to 3600", seconds);
	if (!file_system_maker(type))
		return fail(err, COPPICE_INVALID,
			    "volume.block.filesystem '%s' is none of " FILE_SYSTEMS, type);
	ceph->size_bytes = SIZE_DEFAULT;
	if (size && (!size_parse(size, &ceph->size_bytes) || ceph->size_bytes == 0))
		return fail(err, COPPICE_INVALID, "volume.size '%s' is no size, such as 20GiB",
			    size);
	ceph->file_system = strdup(type);
	ceph->mount_options = strdup(options);
	return ceph->file_system && ceph->mount_options ? read_features(spec, ceph, err)
							: fail_memory(err);
}

static int pool_new(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err)
{
	struct ceph_pool *ceph = calloc(1, sizeof(*ceph));
	_cleanup_(ceph_pool_closep) struct pool *pool = NULL;
	int r;

	if (!ceph)
		return fail_memory(err);
	pool = &ceph->pool;
	pool->driver = &driver_ceph;
	ceph->files.owed_fd = -1;
	ceph->worker.fd = -1;
	ceph->owner = spec->owner;
	ceph->state_path = strdup(spec->state_path);
	ceph->files.path = text_format("%s/ceph/%s", spec->state_path, spec->name);
	ceph->mount = text_format("%s/mnt/%s", spec->state_path, spec->name);
	if (!ceph->files.path || !ceph->mount || !ceph->state_path)
		return fail_memory(err);
	r = read_names(spec, ceph, err);
	if (r == COPPICE_OK)
		r = read_settings(spec, ceph, err);
	if (r == COPPICE_OK)
		r = ceph_depth_read(spec, ceph, err);
	if (r == COPPICE_OK)
		*ret = take_ptr(&pool);
	return r;
}

void ceph_reading_end(struct pool *pool)
{
	rbd_listing_free(take_ptr(&ceph_pool_of(pool)->reading));
}

void ceph_pool_close(struct pool *pool)
{
	struct ceph_pool *ceph;

	if (!pool)
		return;
	ceph = ceph_pool_of(pool);
	ceph_reading_end(pool);
	if (ceph->io && ceph->has_changed)
		ceph_shorten(pool);
	if (ceph->io)
		worker_end(ceph);
	ceph_disconnect(ceph);
	state_done(&ceph->files);
	free(ceph->state_path);
	free(ceph->cluster_name);
	free(ceph->user);
	free(ceph->conf);
	free(ceph->osd_pool);
	free(ceph->data_pool);
	free(ceph->features);
	free(ceph->mount);
	free(ceph->file_system);
	free(ceph->mount_options);
	free(ceph);
}

/* ---- whose it is ---- */

/* Any state directory may use it: it is only asked which pool it is. */
static int check_uuid(const struct ceph_pool *ceph, const struct pool_spec *spec, const char *text,
		      struct coppice_error *err)
{
	return pool_owner_check(&(struct pool_spec){ .name = spec->name, .uuid = spec->uuid }, text,
				"in", ceph->osd_pool, err);
}

/* COPPICE_NOT_FOUND: it is no pool of Coppice. */
static int read_record(struct ceph_pool *ceph, char **ret, struct coppice_error *err)
{
	int r = root_get(ceph, "pool", ret, err);

	if (r == COPPICE_OK && !*ret)
		r = fail(err, COPPICE_INVALID, "the pool '%s' is no pool of Coppice",
			 ceph->osd_pool);
	return r;
}

static int state_ensure(const struct pool_spec *spec, const struct ceph_pool *ceph,
			struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/ceph", spec->state_path);
	_cleanup_(freep) char *mnt = text_format("%s/mnt", spec->state_path);
	int r;

	if (!folder || !mnt)
		return fail_memory(err);
	r = directory_ensure(AT_FDCWD, folder, 0700, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, ceph->files.path, 0700, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, mnt, 0711, err);
	return r < 0 ? r : directory_ensure(AT_FDCWD, ceph->mount, 0711, err);
}

/* ---- opening ---- */

int ceph_pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err)
{
	_cleanup_(ceph_pool_closep) struct pool *pool = NULL;
	_cleanup_(freep) char *record = NULL;
	struct ceph_pool *ceph;
	int r = pool_new(spec, &pool, err);

	if (r < 0)
		return r;
	ceph = ceph_pool_of(pool);
	r = ceph_open_pool(ceph, err);
	if (r == COPPICE_OK)
		r = read_record(ceph, &record, err);
	if (r == COPPICE_OK)
		r = check_uuid(ceph, spec, record, err);
	/* Whose pool it is to be is not known yet: then it is looked at, and nothing made. */
	if (r == COPPICE_OK && spec->owner.text[0])
		r = state_ensure(spec, ceph, err);
	if (r == COPPICE_OK)
		*ret = take_ptr(&pool);
	return r;
}

/* It needs no mounting: what is mounted are its volumes. */
bool ceph_pool_is_mounted(const struct pool_spec *spec)
{
	return true;
}

static int unmount_all(struct ceph_pool *ceph, struct coppice_error *err)
{
	struct coppice_error ignored;
	int staged = ceph_staged_umount_dead(ceph, err);
	int r = ceph_unmap_all(ceph, staged < 0 ? &ignored : err);

	return staged < 0 ? staged : r;
}

int ceph_pool_umount(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(ceph_pool_closep) struct pool *pool = NULL;
	int r = pool_new(spec, &pool, err);

	return r < 0 ? r : unmount_all(ceph_pool_of(pool), err);
}

int ceph_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err)
{
	return read_record(ceph_pool_of(pool), ret, err);
}

int ceph_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err)
{
	return pool->is_dry_run ? COPPICE_OK : root_set(ceph_pool_of(pool), "pool", record, err);
}

const char *ceph_pool_mount_path(struct pool *pool)
{
	return ceph_pool_of(pool)->mount;
}

/* ---- making ---- */

static unsigned placement_groups(const struct pool_spec *spec)
{
	const char *text = spec->get(spec, "ceph.osd.pg_num");

	return text ? (unsigned)strtoul(text, NULL, 10) : 32;
}

static int check_groups(const struct pool_spec *spec, struct coppice_error *err)
{
	unsigned n = placement_groups(spec);

	return n == 0 || n > 65536 ? fail(err, COPPICE_INVALID,
					  "ceph.osd.pg_num '%s' is no number from 1 to 65536",
					  spec->get(spec, "ceph.osd.pg_num"))
				   : COPPICE_OK;
}

/* What a pool of the cluster is called until it is whole: killed before, it is known as ours. */
static char *unfinished_name(const struct pool_spec *spec, const struct ceph_pool *ceph)
{
	return text_format("%s.coppice-%s", ceph->osd_pool, spec->uuid.text);
}

static int make_osd_pool(const struct pool_spec *spec, struct ceph_pool *ceph, const char *name,
			 struct coppice_error *err)
{
	_cleanup_(freep) char *create = text_format(
		"{\"prefix\":\"osd pool create\",\"pool\":\"%s\",\"pg_num\":%u,\"pgp_num\":%u}",
		name, placement_groups(spec), placement_groups(spec));
	int r;

	if (!create)
		return fail_memory(err);
	r = ceph_command(ceph, create, NULL, err);
	if (r < 0)
		return wrap(err, "cannot make the pool '%s'", ceph->osd_pool);
	r = rados_wait_for_latest_osdmap(ceph->cluster);
	if (r == 0)
		r = ceph_use_osd_pool(ceph, name);
	if (r == 0)
		r = rbd_pool_init(ceph->io, false);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot make the pool '%s' one for RBD", name)
		     : COPPICE_OK;
}

static int name_osd_pool(struct ceph_pool *ceph, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *rename = text_format(
		"{\"prefix\":\"osd pool rename\",\"srcpool\":\"%s\",\"destpool\":\"%s\"}", name,
		ceph->osd_pool);

	return rename ? ceph_command(ceph, rename, NULL, err) : fail_memory(err);
}

/* No error where there is none. */
static int remove_osd_pool(struct ceph_pool *ceph, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *delete =
		text_format("{\"prefix\":\"osd pool delete\",\"pool\":\"%s\",\"pool2\":\"%s\","
			    "\"yes_i_really_really_mean_it\":true}",
			    name, name);

	if (rados_pool_lookup(ceph->cluster, name) < 0)
		return COPPICE_OK;
	ceph_close_pool(ceph);
	return delete ? ceph_command(ceph, delete, NULL, err) : fail_memory(err);
}

/* Is it for RBD? What is not would be refused by each command of RBD. */
static int check_application(struct ceph_pool *ceph, struct coppice_error *err)
{
	char value[8];
	size_t length = sizeof(value);
	int r = rados_application_metadata_list(ceph->io, "rbd", value, &length, value, &length);

	if (r == -ENOENT)
		return fail(err, COPPICE_INVALID,
			    "the pool '%s' is not for RBD; to make it so: rbd pool init %s",
			    ceph->osd_pool, ceph->osd_pool);
	return r < 0 && r != -ERANGE
		       ? fail_ceph(ceph, r, err, "cannot look at the pool '%s'", ceph->osd_pool)
		       : COPPICE_OK;
}

/* One that is there, or not yet: *ret_is_there. COPPICE_EXISTS: it is one of Coppice. */
static int check_place(const struct pool_spec *spec, struct ceph_pool *ceph, bool *ret_is_there,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	struct coppice_error why = COPPICE_ERROR_INIT;
	int r = check_groups(spec, err);

	*ret_is_there = false;
	if (r == COPPICE_OK)
		r = ceph_connect(ceph, err);
	if (r == COPPICE_OK)
		r = ceph_check_data_pool(ceph, err);
	if (r < 0)
		return r;
	r = ceph_open_pool(ceph, &why);
	if (r == COPPICE_NOT_FOUND)
		return COPPICE_OK;
	if (r < 0) {
		*err = why;
		return r;
	}
	*ret_is_there = true;
	r = check_application(ceph, err);
	if (r < 0)
		return r;
	r = read_record(ceph, &record, &why);
	if (r == COPPICE_INVALID)
		return COPPICE_OK;
	if (r < 0) {
		*err = why;
		return r;
	}
	return fail(err, COPPICE_EXISTS,
		    "there is a pool in '%s' already; to use it from here, too: coppice storage "
		    "recover %s ceph source=%s",
		    ceph->osd_pool, spec->name, ceph->osd_pool);
}

int ceph_pool_check(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(ceph_pool_closep) struct pool *pool = NULL;
	bool ignored;
	int r = pool_new(spec, &pool, err);

	return r < 0 ? r : check_place(spec, ceph_pool_of(pool), &ignored, err);
}

static int make_root(const struct pool_spec *spec, struct ceph_pool *ceph, const char *record,
		     bool did_make, struct coppice_error *err)
{
	int r = state_ensure(spec, ceph, err);

	/* In a pool that is full RBD cannot make it, and so nothing could be deleted. */
	if (r == COPPICE_OK)
		r = ceph_trash_make(ceph, err);
	return r < 0 ? r
		     : root_make(ceph,
				 (const char *const[][2]){ { "pool", record },
							   { "made", did_make ? "true" : "false" },
							   { "sum", "1" } },
				 3, err);
}

int ceph_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		     struct coppice_error *err)
{
	_cleanup_(ceph_pool_closep) struct pool *pool = NULL;
	_cleanup_(freep) char *unfinished = NULL;
	struct coppice_error ignored;
	struct ceph_pool *ceph;
	bool is_there = false;
	int r = pool_new(spec, &pool, err);

	if (r < 0)
		return r;
	ceph = ceph_pool_of(pool);
	unfinished = unfinished_name(spec, ceph);
	if (!unfinished)
		return fail_memory(err);
	r = check_place(spec, ceph, &is_there, err);
	if (r == COPPICE_OK && !is_there)
		r = make_osd_pool(spec, ceph, unfinished, err);
	if (r == COPPICE_OK)
		r = make_root(spec, ceph, record, !is_there, err);
	if (r == COPPICE_OK)
		r = ceph_pool_join(pool, err);
	if (r == COPPICE_OK && !is_there)
		r = name_osd_pool(ceph, unfinished, err);
	if (r < 0) {
		if (ceph->cluster && !is_there)
			(void)remove_osd_pool(ceph, unfinished, &ignored);
		return r;
	}
	*ret = take_ptr(&pool);
	return COPPICE_OK;
}

void ceph_pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	_cleanup_(ceph_pool_closep) struct pool *pool = NULL;
	struct coppice_error ignored;
	struct ceph_pool *ceph;

	if (pool_new(spec, &pool, &ignored) < 0)
		return;
	ceph = ceph_pool_of(pool);
	explain_line(
		explain, user,
		"ceph osd pool stats %s >/dev/null || { ceph osd pool create %s %u && rbd pool "
		"init %s; }",
		ceph->osd_pool, ceph->osd_pool, placement_groups(spec), ceph->osd_pool);
	explain_line(explain, user, "rados -p %s create " RBD_TRASH, ceph->osd_pool);
	explain_line(explain, user, "rados -p %s create " ROOT_OBJECT, ceph->osd_pool);
}

/* ---- who uses it ---- */

/* "host.OWNER" = "HOST\tSTATE DIRECTORY" */
static void own_key(const struct ceph_pool *ceph, char ret[static 64])
{
	(void)snprintf(ret, 64, ROOT_HOST "%s", ceph->owner.text);
}

int ceph_pool_join(struct pool *pool, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	char host[HOST_NAME_MAX + 1], key[64];
	_cleanup_(freep) char *text = NULL;

	if (pool->is_dry_run)
		return COPPICE_OK;
	own_key(ceph, key);
	worker_host(host);
	text = text_format("%s\t%s", host, ceph->state_path);
	return text ? root_set(ceph, key, text, err) : fail_memory(err);
}

int ceph_pool_leave(struct pool *pool, char **ret_others, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(root_list_done) struct root_list hosts = { 0 };
	_cleanup_(text_done) struct text others = TEXT_INIT;
	char key[64];
	size_t n = 0;
	int r = root_list_read(ceph, ROOT_HOST, &hosts, err);

	*ret_others = NULL;
	for (size_t i = 0; i < hosts.n && r == COPPICE_OK; i++) {
		const char *text = hosts.entry[i].text;
		int length = (int)strcspn(text, "\t");

		if (strcmp(hosts.entry[i].id.text, ceph->owner.text) == 0)
			continue;
		text_add(&others, "%s'%s' on host '%.*s'", n++ ? ", " : "",
			 text + length + (text[length] == '\t'), length, text);
	}
	if (r < 0 || n == 0)
		return r;
	own_key(ceph, key);
	if (!pool->is_dry_run) {
		worker_end(ceph);
		r = root_unset(ceph, key, err);
	}
	if (r == COPPICE_OK)
		*ret_others = text_take(&others);
	return r < 0 || *ret_others ? r : fail_memory(err);
}

/* ---- unmaking ---- */

/* Users' volumes are gone by now: what is left nobody sees. */
static int remove_rest(struct ceph_pool *ceph, struct coppice_error *err)
{
	bool ignored;
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	int r = rbd_listing_read_rest(ceph, &listing, err);

	for (size_t i = 0; i < listing.n && r == COPPICE_OK; i++)
		if (listing.rbd[i].uuid.text[0] || listing.rbd[i].group.text[0] ||
		    rbd_is_hidden(&listing.rbd[i]))
			r = ceph_remove_image(ceph, &listing.rbd[i], err);
	return r < 0 ? r : ceph_reap_trash(ceph, &ignored, err);
}

static int unmake(const struct pool_spec *spec, struct ceph_pool *ceph, struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL, *made = NULL;
	struct coppice_error why = COPPICE_ERROR_INIT;
	int r = read_record(ceph, &record, &why);

	if (r < 0 || check_uuid(ceph, spec, record, &why) < 0) {
		if (why.code == COPPICE_INVALID || why.code == COPPICE_BUSY)
			return COPPICE_OK; /* never made by this specification */
		*err = why;
		return why.code;
	}
	r = root_get(ceph, "made", &made, err);
	if (r == COPPICE_OK)
		r = remove_rest(ceph, err);
	if (r < 0)
		return r;
	if (made && strcmp(made, "true") == 0)
		return remove_osd_pool(ceph, ceph->osd_pool, err);
	r = rados_remove(ceph->io, ROOT_OBJECT);
	return r < 0 && r != -ENOENT ? fail_ceph(ceph, r, err, "cannot remove '%s/" ROOT_OBJECT "'",
						 ceph->osd_pool)
				     : COPPICE_OK;
}

/*
 * What the dead had asked a monitor for may be done only after we have looked: to make it, and to
 * give it its name. So it is asked for once more, which is answered when all of that is done, and
 * then removed, by the name that it has.
 */
static int remove_unfinished(const struct pool_spec *spec, struct ceph_pool *ceph, const char *name,
			     struct coppice_error *err)
{
	struct coppice_error ignored;
	int r;

	if (!ceph->cluster) /* its configuration is not there, so no more is it */
		return COPPICE_OK;
	(void)make_osd_pool(spec, ceph, name, &ignored);
	r = remove_osd_pool(ceph, name, err);
	if (r < 0)
		return r;
	ceph_close_pool(ceph);
	r = ceph_open_pool(ceph, err);
	return r < 0 ? r : unmake(spec, ceph, err);
}

static void remove_folder(const struct ceph_pool *ceph, const char *above, const char *folder)
{
	_cleanup_(freep) char *path =
		text_format("%s/%s%s%s", ceph->mount, above, folder, folder[0] ? "s" : "");

	if (path)
		(void)rmdir(path);
}

static void remove_state(struct ceph_pool *ceph)
{
	state_lock_remove(&ceph->files, DEPTH_NOTE);
	state_lock_remove(&ceph->files, CEPH_TURNS);
	state_remove(&ceph->files);
	for (int kind = 0; kind < VOLUME_KINDS; kind++) {
		remove_folder(ceph, "", ceph_kind_word((enum volume_kind)kind));
		remove_folder(ceph, "snapshots/", ceph_kind_word((enum volume_kind)kind));
	}
	remove_folder(ceph, "snapshots", "");
	remove_folder(ceph, "drafts", "");
	remove_folder(ceph, "devices", "");
	(void)rmdir(ceph->mount);
}

int ceph_pool_destroy(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(ceph_pool_closep) struct pool *pool = NULL;
	struct coppice_error why = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *unfinished = NULL;
	struct ceph_pool *ceph;
	int r = pool_new(spec, &pool, err);

	if (r < 0)
		return r;
	ceph = ceph_pool_of(pool);
	unfinished = unfinished_name(spec, ceph);
	if (!unfinished)
		return fail_memory(err);
	r = unmount_all(ceph, err);
	if (r < 0)
		return r;
	r = ceph_open_pool(ceph, &why);
	if (r == COPPICE_OK)
		r = unmake(spec, ceph, &why);
	else if (r == COPPICE_NOT_FOUND)
		r = remove_unfinished(spec, ceph, unfinished, &why);
	if (r < 0 && r != COPPICE_NOT_FOUND) {
		*err = why;
		return r;
	}
	remove_state(ceph);
	return COPPICE_OK;
}
