/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images as block devices. Three can do that, and the first that this machine has does: krbd,
 * rbd-nbd, rbd-fuse.
 *
 * Whichever it is, DEVICES/IMAGE is a link to the device as long as it is there. The link is made
 * before the device, and leads to PENDING until that is known: what somebody had mapped when he was
 * killed is then found by the image. What has no link somebody else has mapped.
 */
#include "driver/ceph/mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/run.h"
#include "base/text.h"

#define PENDING "none"

static const struct mapper *const mappers[] = { &mapper_krbd, &mapper_nbd, &mapper_fuse };

void wait_a_step(void)
{
	(void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
}

void module_load(const char *const argv[])
{
	struct coppice_error ignored;

	/* A kernel that knows of no modules is asked for none. */
	if (access("/proc/modules", F_OK) == 0)
		(void)run_checked(argv, &ignored);
}

static const struct mapper *choose(void)
{
	static _Atomic(const struct mapper *) chosen; /* modules are looked for once */

	for (size_t i = 0; i < ARRAY_SIZE(mappers) && !chosen; i++)
		if (mappers[i]->is_usable())
			chosen = mappers[i];
	return chosen;
}

const char *ceph_mapper(void)
{
	const struct mapper *mapper = choose();

	return mapper ? mapper->name : NULL;
}

/* What it says on several lines, on one. */
static void join_lines(char *text)
{
	for (size_t n = strlen(text); n > 0 && text[n - 1] == '\n'; n--)
		text[n - 1] = '\0';
	while ((text = strchr(text, '\n')) != NULL)
		*text = ' ';
}

int run_map(const char *const argv[], char ret_device[static PATH_MAX], struct coppice_error *err)
{
	_cleanup_(run_result_done) struct run_result result = { 0 };
	int r = runner.run(argv, &result, err);

	if (r < 0)
		return r;
	join_lines(result.err);
	if (result.exit_status != 0)
		return fail(err, COPPICE_FAILED, "%s failed with status %d: %s", argv[0],
			    result.exit_status, result.err);
	result.out[strcspn(result.out, "\n")] = '\0';
	(void)snprintf(ret_device, PATH_MAX, "%s", result.out);
	return COPPICE_OK;
}

/* ---- processes ---- */

bool process_has_arguments(const char *pid, const char *const argv[])
{
	_cleanup_(freep) char *path = text_format("/proc/%s/cmdline", pid), *word = NULL;
	_cleanup_(fclosep) FILE *file = path ? fopen(path, "re") : NULL;
	size_t size = 0;

	while (file && *argv && getdelim(&word, &size, '\0', file) > 0)
		if (strcmp(word, *argv++) != 0)
			return false;
	return file && !*argv;
}

bool processes_each(const char *const argv[], process_fn *fn, void *user)
{
	_cleanup_(closedirp) DIR *dir = opendir("/proc");
	bool is_enough = false;
	struct dirent *entry;

	while (!is_enough && dir && (entry = readdir(dir)) != NULL)
		is_enough = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
			    process_has_arguments(entry->d_name, argv) &&
			    (!fn || fn(user, entry->d_name));
	return is_enough;
}

/* ---- links ---- */

static char *link_of(const struct ceph_pool *ceph, const char *name)
{
	return text_format("%s/devices/%s", ceph->mount, name);
}

/* In one step: at no time is there none. */
static int make_link(const struct ceph_pool *ceph, const char *name, const char *device,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/devices", ceph->mount);
	_cleanup_(freep) char *new = text_format("%s/devices/.%s", ceph->mount, name);
	_cleanup_(freep) char *path = link_of(ceph, name);
	int r;

	if (!folder || !new || !path)
		return fail_memory(err);
	r = directory_ensure(AT_FDCWD, folder, 0700, err);
	if (r < 0)
		return r;
	if ((unlink(new) < 0 && errno != ENOENT) || symlink(device, new) < 0 ||
	    rename(new, path) < 0)
		return fail_errno(err, errno, "cannot make '%s'", path);
	return COPPICE_OK;
}

static bool read_link(const struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX])
{
	_cleanup_(freep) char *path = link_of(ceph, name);
	ssize_t n = path ? readlink(path, ret, PATH_MAX - 1) : -1;

	if (n >= 0)
		ret[n] = '\0';
	return n >= 0;
}

static void remove_link(const struct ceph_pool *ceph, const char *name)
{
	_cleanup_(freep) char *path = link_of(ceph, name);

	if (path)
		(void)unlink(path);
}

/* ---- mapping ---- */

/* By what is it mapped? NULL: it is not. */
static const struct mapper *find(const struct ceph_pool *ceph, const char *name,
				 char ret_device[static PATH_MAX])
{
	char device[PATH_MAX];

	if (!read_link(ceph, name, device))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(mappers); i++)
		if (mappers[i]->find(ceph, name, strcmp(device, PENDING) == 0 ? NULL : device,
				     ret_device))
			return mappers[i];
	return NULL;
}

bool ceph_mapped(const struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX])
{
	return find(ceph, name, ret) != NULL;
}

bool ceph_is_mapped_dead(const struct ceph_pool *ceph, const char *name)
{
	char device[PATH_MAX];
	const struct mapper *mapper = find(ceph, name, device);

	return mapper && mapper->is_dead && mapper->is_dead(ceph, name);
}

bool ceph_linked(const struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX])
{
	return read_link(ceph, name, ret);
}

void ceph_forsake(const struct ceph_pool *ceph, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(mappers); i++)
		if (mappers[i]->forsake)
			mappers[i]->forsake(ceph, name);
}

bool ceph_has_device(const struct ceph_pool *ceph, const char *name)
{
	char device[PATH_MAX];

	return read_link(ceph, name, device) && strcmp(device, PENDING) != 0 &&
	       find(ceph, name, device) != NULL;
}

bool ceph_is_mapped_or_begun(const struct ceph_pool *ceph, const char *name)
{
	char device[PATH_MAX];

	return read_link(ceph, name, device) &&
	       (strcmp(device, PENDING) == 0 || find(ceph, name, device));
}

/* Who was killed while he had it mapped, with what did that for him, did not stop the program. */
static int wait_for_the_dead(const struct ceph_pool *ceph, const char *name,
			     struct coppice_error *err)
{
	char device[PATH_MAX];
	bool is_mapping = read_link(ceph, name, device) && strcmp(device, PENDING) == 0;

	for (int i = 0; i < PATIENCE_STEPS && is_mapping; i++) {
		is_mapping = false;
		for (size_t k = 0; k < ARRAY_SIZE(mappers); k++)
			is_mapping |= mappers[k]->is_mapping(ceph, name);
		if (is_mapping)
			wait_a_step();
	}
	return is_mapping ? fail(err, COPPICE_UNAVAILABLE,
				 "what was to map '%s/%s' for a command that was killed is at it "
				 "still; look at: ceph -s",
				 ceph->osd_pool, name)
			  : COPPICE_OK;
}

struct mapping {
	struct ceph_pool *ceph;
	const struct mapper *mapper;
	const char *name;
	char device[PATH_MAX]; /* to unmap; "": none is known */
};

static int map_it(void *user, struct coppice_error *err)
{
	struct mapping *mapping = user;
	int r = mapping->mapper->map(mapping->ceph, mapping->name, mapping->device, err);

	return r < 0 ? r : make_link(mapping->ceph, mapping->name, mapping->device, err);
}

static int map(struct ceph_pool *ceph, const struct ceph_turn *turn, const char *name,
	       char ret_device[static PATH_MAX], struct coppice_error *err)
{
	struct mapping mapping = { .ceph = ceph, .mapper = choose(), .name = name };
	int r;

	if (!mapping.mapper)
		return fail(
			err, COPPICE_UNSUPPORTED,
			"this machine cannot map images of RBD: its kernel has no rbd; nor has it "
			"nbd and the package rbd-nbd, nor FUSE, loop devices and the package "
			"rbd-fuse");
	r = make_link(ceph, name, PENDING, err);
	if (r < 0)
		return r;
	r = ceph_parents_wait(ceph, err);
	if (r < 0) {
		remove_link(ceph, name);
		return r;
	}
	r = ceph_patiently(ceph, turn, NULL, map_it, &mapping, err, "no device yet");
	if (r == COPPICE_OK && !read_link(ceph, name, ret_device))
		r = fail(err, COPPICE_FAILED, "its device is gone");
	if (r < 0 && r != COPPICE_UNAVAILABLE && r != COPPICE_INTERRUPTED) /* it may be still */
		remove_link(ceph, name);
	return r < 0 ? wrap(err, "cannot map '%s/%s'", ceph->osd_pool, name) : COPPICE_OK;
}

int ceph_map(struct ceph_pool *ceph, const struct ceph_turn *turn, const char *name,
	     char ret_device[static PATH_MAX], struct coppice_error *err)
{
	int r = wait_for_the_dead(ceph, name, err);

	if (r < 0)
		return r;
	return ceph_mapped(ceph, name, ret_device) ? make_link(ceph, name, ret_device, err)
						   : map(ceph, turn, name, ret_device, err);
}

static int unmap_it(void *user, struct coppice_error *err)
{
	const struct mapping *mapping = user;

	return mapping->mapper->unmap(mapping->ceph, mapping->name, mapping->device, err);
}

/* What rbd-fuse shows may have no loop device yet, or no more. */
int ceph_unmap(struct ceph_pool *ceph, const struct ceph_turn *turn, const char *name,
	       struct coppice_error *err)
{
	struct mapping mapping = { .ceph = ceph, .name = name };
	int r = wait_for_the_dead(ceph, name, err);

	if (r < 0)
		return r;
	mapping.mapper = find(ceph, name, mapping.device);
	if (!mapping.mapper) {
		mapping.mapper = &mapper_fuse;
		if (!fuse_shows(ceph, name)) { /* then that waits for nobody */
			r = unmap_it(&mapping, err);
			remove_link(ceph, name);
			return r;
		}
	}
	r = ceph_patiently(ceph, turn, mapping.device[0] ? mapping.device : NULL, unmap_it,
			   &mapping, err, "cannot unmap '%s/%s'", ceph->osd_pool, name);
	if (r < 0)
		return r;
	if (mapping.mapper->wait_until_closed)
		mapping.mapper->wait_until_closed(ceph, name);
	remove_link(ceph, name);
	return COPPICE_OK;
}

/* What snapshots were read through goes as well, if the cluster answers. */
static int unmap_one(struct ceph_pool *ceph, const char *name, bool *is_tried,
		     struct coppice_error *err)
{
	struct coppice_error ignored;
	bool is_view = ceph_is_view(name);
	char device[PATH_MAX];
	int r;

	if (is_view && !ceph->io && !*is_tried)
		(void)ceph_open_pool(ceph, &ignored);
	*is_tried |= is_view;
	r = ceph_umount(ceph, name, err);
	return r < 0 && is_view && !ceph_linked(ceph, name, device) ? COPPICE_OK : r;
}

int ceph_unmap_all(struct ceph_pool *ceph, struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/devices", ceph->mount);
	_cleanup_(closedirp) DIR *dir = folder ? opendir(folder) : NULL;
	bool is_tried = false;
	struct dirent *entry;
	int r = folder ? COPPICE_OK : fail_memory(err);

	while (r == COPPICE_OK && dir && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && !strchr(entry->d_name, '@'))
			r = unmap_one(ceph, entry->d_name, &is_tried, err);
	/* Of disks' snapshots there are names beside, which would be of others' devices later. */
	if (r == COPPICE_OK && dir)
		rewinddir(dir);
	while (r == COPPICE_OK && dir && (entry = readdir(dir)) != NULL)
		if (strchr(entry->d_name, '@'))
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
	return r;
}
