/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libzfs_core, looked for when it is needed: it does in this process, on as many threads
 * as one likes, what is done by a zfs process otherwise. It comes with OpenZFS, so
 * nothing is linked to it. What it does not do, or cannot, the command does, which also
 * says in words why it cannot.
 */
#include "driver/zfs/zfs.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>

/* ---- what a command asks for ---- */

static const struct {
	const char *verb;
	enum zfs_what what;
	enum {
		ONE,
		MANY,
		FROM_AND_ONE,
		TAG_AND_MANY,
	} names;
	bool has_options;
} verbs[] = {
	{ "create", ZFS_CREATE, ONE, true },       { "clone", ZFS_CLONE, FROM_AND_ONE, true },
	{ "snapshot", ZFS_SNAPSHOT, MANY, true },  { "rename", ZFS_RENAME, FROM_AND_ONE, false },
	{ "promote", ZFS_PROMOTE, ONE, false },    { "destroy", ZFS_DESTROY, MANY, false },
	{ "hold", ZFS_HOLD, TAG_AND_MANY, false }, { "release", ZFS_RELEASE, TAG_AND_MANY, false },
};

/* Its options, and where its names begin; false: there are others. */
static bool parse_options(const char *const argv[], struct zfs_request *request, size_t *ret_i)
{
	size_t i = 2;

	for (; argv[i] && argv[i + 1] && strcmp(argv[i], "-o") == 0; i += 2) {
		if (request->n_options == ARRAY_SIZE(request->option))
			return false;
		request->option[request->n_options++] = argv[i + 1];
	}
	*ret_i = i;
	return true;
}

/* "@a,b" and "@a%b" are of the command only. */
static bool is_plain_name(const char *name)
{
	return name && name[0] != '-' && !strpbrk(name, ",%");
}

static bool are_snapshots(const struct zfs_request *request)
{
	for (size_t i = 0; i < request->n_names; i++)
		if (!strchr(request->names[i], '@'))
			return false;
	return true;
}

bool zfs_request_parse(const char *const argv[], struct zfs_request *ret)
{
	struct zfs_request request = { 0 };
	size_t i, v = 0;

	if (!argv[0] || !argv[1] || strcmp(argv[0], "zfs") != 0 ||
	    !parse_options(argv, &request, &i))
		return false;
	while (v < ARRAY_SIZE(verbs) && strcmp(verbs[v].verb, argv[1]) != 0)
		v++;
	if (v == ARRAY_SIZE(verbs) || (request.n_options > 0 && !verbs[v].has_options) ||
	    !is_plain_name(argv[i]))
		return false;
	request.what = verbs[v].what;
	if (verbs[v].names >= FROM_AND_ONE)
		request.from = argv[i++];
	request.names = &argv[i];
	while (is_plain_name(argv[i]))
		i++;
	request.n_names = (size_t)(&argv[i] - request.names);
	if (argv[i] || request.n_names == 0 ||
	    (request.n_names > 1 && verbs[v].names != MANY && verbs[v].names != TAG_AND_MANY))
		return false;
	request.name = request.names[0];
	if (request.what == ZFS_DESTROY && are_snapshots(&request))
		request.what = ZFS_DESTROY_SNAPSHOT;
	*ret = request;
	return request.what != ZFS_DESTROY || request.n_names == 1;
}

/* ---- the library ---- */

typedef struct nvlist nvlist;

static struct {
	int (*init)(void);
	int (*create)(const char *name, int type, nvlist *properties, uint8_t *key, unsigned n);
	int (*clone)(const char *name, const char *origin, nvlist *properties);
	int (*snapshot)(nvlist *names, nvlist *properties, nvlist **ret_errors);
	int (*rename)(const char *from, const char *name);
	int (*promote)(const char *name, char *ret_conflict, int size);
	int (*destroy)(const char *name);
	int (*destroy_snapshots)(nvlist *names, int is_deferred, nvlist **ret_errors);
	int (*hold)(nvlist *tags, int cleanup_fd, nvlist **ret_errors);
	int (*release)(nvlist *tags, nvlist **ret_errors);
	int (*list_alloc)(nvlist **ret, unsigned flags, int how);
	void (*list_free)(nvlist *list);
	int (*list_add_string)(nvlist *list, const char *name, const char *value);
	int (*list_add_number)(nvlist *list, const char *name, uint64_t value);
	int (*list_add_flag)(nvlist *list, const char *name);
	int (*list_add_list)(nvlist *list, const char *name, nvlist *value);
	int (*list_is_empty)(nvlist *list);
	bool is_there;
} core;

static const struct {
	const char *name;
	void *function;
} symbols[] = {
	{ "libzfs_core_init", &core.init },
	{ "lzc_create", &core.create },
	{ "lzc_clone", &core.clone },
	{ "lzc_snapshot", &core.snapshot },
	{ "lzc_rename", &core.rename },
	{ "lzc_promote", &core.promote },
	{ "lzc_destroy", &core.destroy },
	{ "lzc_destroy_snaps", &core.destroy_snapshots },
	{ "lzc_hold", &core.hold },
	{ "lzc_release", &core.release },
	{ "nvlist_alloc", &core.list_alloc },
	{ "nvlist_free", &core.list_free },
	{ "nvlist_add_string", &core.list_add_string },
	{ "nvlist_add_uint64", &core.list_add_number },
	{ "nvlist_add_boolean", &core.list_add_flag },
	{ "nvlist_add_nvlist", &core.list_add_list },
	{ "nvlist_empty", &core.list_is_empty },
};

/* Once for the process, which keeps it: it holds /dev/zfs open. */
static void core_load(void)
{
	void *library = zfs_is_in_kernel() ? dlopen("libzfs_core.so.3", RTLD_NOW) : NULL;

	if (!library)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *found = dlsym(library, symbols[i].name);

		if (!found)
			return;
		memcpy(symbols[i].function, &found, sizeof(found));
	}
	core.is_there = core.init() == 0;
}

static bool core_is_there(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	return pthread_once(&once, core_load) == 0 && core.is_there;
}

/* As many processes as wait side by side without harm; threads cost next to nothing. */
#define N_COMMANDS 8
#define N_THREADS  128

size_t zfs_threads(void)
{
	return core_is_there() ? N_THREADS : N_COMMANDS;
}

size_t zfs_commands(void)
{
	return core_is_there() ? 1 : N_COMMANDS;
}

static void list_freep(nvlist **list)
{
	if (*list)
		core.list_free(*list);
}

#define UNIQUE_NAMES 1

static bool list_new(nvlist **ret)
{
	return core.list_alloc(ret, UNIQUE_NAMES, 0) == 0;
}

/* "none", or bytes as we write them: no unit. */
static bool size_of(const char *value, uint64_t *ret)
{
	unsigned long long bytes = 0;
	char rest;

	if (strcmp(value, "none") != 0 && sscanf(value, "%llu%c", &bytes, &rest) != 1)
		return false;
	*ret = bytes;
	return true;
}

/* The kernel's numbers for what the command takes as words. */
static const struct {
	const char *option;
	uint64_t number;
} words[] = {
	{ "canmount=off", 0 }, { "atime=off", 0 },        { "readonly=on", 1 },
	{ "xattr=sa", 2 },     { "acltype=posixacl", 1 },
};

static bool add_option(nvlist *list, const char *option)
{
	const char *value = strchr(option, '=');
	char name[64];
	uint64_t bytes;

	if (!value || (size_t)(value - option) >= sizeof(name))
		return false;
	(void)snprintf(name, sizeof(name), "%.*s", (int)(value - option), option);
	value++;
	if (strchr(name, ':') || strcmp(name, "mountpoint") == 0)
		return core.list_add_string(list, name, value) == 0;
	if (strcmp(name, "refquota") == 0 || strcmp(name, "quota") == 0)
		return size_of(value, &bytes) && core.list_add_number(list, name, bytes) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(option, words[i].option) == 0)
			return core.list_add_number(list, name, words[i].number) == 0;
	return false;
}

static bool options_of(const struct zfs_request *request, nvlist *list)
{
	for (size_t i = 0; i < request->n_options; i++)
		if (!add_option(list, request->option[i]))
			return false;
	return true;
}

static bool names_of(const struct zfs_request *request, nvlist **ret)
{
	if (!list_new(ret))
		return false;
	for (size_t i = 0; i < request->n_names; i++)
		if (core.list_add_flag(*ret, request->names[i]) != 0)
			return false;
	return true;
}

/* All, or none of them. */
static bool do_snapshot(const struct zfs_request *request, nvlist *options)
{
	_cleanup_(list_freep) nvlist *names = NULL, *errors = NULL;

	return names_of(request, &names) && core.snapshot(names, options, &errors) == 0;
}

/* All that are there, or none of them. */
static bool do_destroy_snapshot(const struct zfs_request *request)
{
	_cleanup_(list_freep) nvlist *names = NULL, *errors = NULL;

	return names_of(request, &names) && core.destroy_snapshots(names, 0, &errors) == 0;
}

#define TYPE_FILESYSTEM 2

/* All in one call. What of them it leaves out, as it is not there, is in its errors only. */
static bool do_hold(const struct zfs_request *request)
{
	_cleanup_(list_freep) nvlist *tags = NULL, *errors = NULL;

	if (!list_new(&tags))
		return false;
	for (size_t i = 0; i < request->n_names; i++)
		if (core.list_add_string(tags, request->names[i], request->from) != 0)
			return false;
	return core.hold(tags, -1, &errors) == 0 && (!errors || core.list_is_empty(errors));
}

static bool do_release(const struct zfs_request *request)
{
	_cleanup_(list_freep) nvlist *tags = NULL, *tag = NULL, *errors = NULL;

	if (!list_new(&tags) || !list_new(&tag) || core.list_add_flag(tag, request->from) != 0)
		return false;
	for (size_t i = 0; i < request->n_names; i++)
		if (core.list_add_list(tags, request->names[i], tag) != 0)
			return false;
	return core.release(tags, &errors) == 0 && (!errors || core.list_is_empty(errors));
}

static bool request_do(const struct zfs_request *request)
{
	_cleanup_(list_freep) nvlist *options = NULL;
	char conflict[DATASET_MAX];

	if (!list_new(&options) || !options_of(request, options))
		return false;
	switch (request->what) {
	case ZFS_CREATE:
		return core.create(request->name, TYPE_FILESYSTEM, options, NULL, 0) == 0;
	case ZFS_CLONE:
		return core.clone(request->name, request->from, options) == 0;
	case ZFS_RENAME:
		return core.rename(request->from, request->name) == 0;
	case ZFS_PROMOTE:
		return core.promote(request->name, conflict, sizeof(conflict)) == 0;
	case ZFS_SNAPSHOT:
		return do_snapshot(request, options);
	case ZFS_DESTROY:
		return core.destroy(request->name) == 0;
	case ZFS_DESTROY_SNAPSHOT:
		return do_destroy_snapshot(request);
	case ZFS_HOLD:
		return do_hold(request);
	case ZFS_RELEASE:
		return do_release(request);
	}
	return false;
}

bool zfs_library_run(const char *const argv[])
{
	struct zfs_request request;

	return zfs_request_parse(argv, &request) && core_is_there() && request_do(&request);
}
