/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking through /proc for the users of trees.
 *
 * Each link of each process is looked at with statx(2), which is quick and never
 * waits for a dead server; only one whose device is that of a tree is read. Then the kernel
 * itself is asked, which holds files and directories for no process.
 */
#include "driver/generic/inuse.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/clock.h"
#include "base/text.h"
#include "driver/generic/device_mount.h"
#include "driver/generic/loop.h"

/* A query, and what the file systems say of it. */
struct tree {
	const struct in_use_query *query;
	dev_t dev; /* as stat tells; of a subvolume its own */
	uint64_t inode;
	uint64_t mount_id;
	char *path;            /* without symbolic links; owned */
	char *inside;          /* where it is within its file system, as mounts tell it; owned */
	unsigned major, minor; /* of its file system, as mounts tell it */
};

struct search {
	size_t n;
	struct tree *trees; /* by dev */
	char self[32];      /* our own pid, as this /proc counts */
	size_t n_namespaces;
	uint64_t *namespaces; /* of mounts, that were looked at; owned */
	size_t n_overlays;
	dev_t *overlays; /* whose directories were all found, or told; owned */
	char *who;
	size_t who_size;
	in_use_fn *tell; /* NULL: the first found is the error */
	void *tell_user;
};

/* A file that is open for less than both together is not in use. */
#define MOMENT_STEPS   20
#define MOMENT_STEP_MS 10

#define TOLD 1 /* in use, and that was told: look no further at this process or mount */

static int compare_trees(const void *a, const void *b)
{
	const struct tree *x = a, *y = b;

	return x->dev < y->dev ? -1 : x->dev > y->dev;
}

static void search_done(struct search *search)
{
	for (size_t i = 0; i < search->n; i++) {
		free(search->trees[i].path);
		free(search->trees[i].inside);
	}
	free(search->trees);
	free(search->namespaces);
	free(search->overlays);
}

/* What is left of @path below @top, "/" for @top itself; NULL when it is not below. */
static const char *below(const char *path, const char *top)
{
	size_t length = strlen(top);

	if (length == 1) /* "/" */
		return path;
	if (strncmp(path, top, length) != 0)
		return NULL;
	if (path[length] == '/')
		return path + length;
	return path[length] == '\0' ? "/" : NULL;
}

/* @path as messages show it: where it is in the tree, if it has a name there for us. */
static const char *shown_in(const struct tree *tree, const char *path)
{
	return below(path, tree->query->top ? tree->query->top : tree->path);
}

static int busy(const struct search *search, const struct tree *tree, const char *user,
		const char *how, struct coppice_error *err)
{
	if (search->tell) {
		_cleanup_(freep) char *line =
			text_format("'%s' is in use by %s%s", tree->query->what, user, how);

		if (!line)
			return fail_memory(err);
		search->tell(search->tell_user, line);
		return TOLD;
	}
	if (search->who)
		(void)snprintf(search->who, search->who_size, "%s", user);
	return fail(err, COPPICE_BUSY, "'%s' is in use by %s%s", tree->query->what, user, how);
}

static void name_process(const char *pid, char *ret, size_t size)
{
	char path[64], name[64] = "?";
	_cleanup_(closep) int fd = -1;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, name, sizeof(name) - 1);
	if (n > 0)
		name[name[n - 1] == '\n' ? n - 1 : n] = '\0';
	coppice_text_make_printable(name);
	(void)snprintf(ret, size, "process %s (%s)", pid, name);
}

/* ---- processes ---- */

/* The trees with this device, from *ret_first on; how many. */
static size_t trees_of(const struct search *search, dev_t dev, size_t *ret_first)
{
	size_t low = 0, high = search->n, end;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (search->trees[middle].dev < dev)
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < search->n && search->trees[end].dev == dev;)
		end++;
	*ret_first = low;
	return end - low;
}

/* The tree that this file or directory is in. *ret_path: what of @path to show. */
static const struct tree *find_tree(const struct search *search, dev_t dev, uint64_t inode,
				    const char *path, const char **ret_path)
{
	size_t first, n = trees_of(search, dev, &first);

	for (size_t i = first; i < first + n; i++) {
		const struct tree *tree = &search->trees[i];

		*ret_path = shown_in(tree, path);
		if (below(path, tree->path))
			return tree;
		if (!*ret_path)
			*ret_path = path;
		if (tree->query->is_subvolume || inode == tree->inode)
			return tree;
	}
	return NULL;
}

/*
 * Does this link lead into a tree? What vanished meanwhile, or is none of a file, does not.
 * @link: below @fd.
 */
static const struct tree *follow(const struct search *search, int fd, const char *link,
				 char path[static PATH_MAX], const char **ret_path)
{
	struct statx st;
	ssize_t length;
	size_t first;
	dev_t dev;

	if (statx(fd, link, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) < 0)
		return NULL;
	dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	if (trees_of(search, dev, &first) == 0)
		return NULL;
	length = readlinkat(fd, link, path, PATH_MAX - 1);
	path[length > 0 ? length : 0] = '\0';
	return find_tree(search, dev, st.stx_ino, path, ret_path);
}

static int look_at_link(const struct search *search, int proc_fd, const char *pid, const char *link,
			const char *is_its, struct coppice_error *err)
{
	char path[PATH_MAX], user[128], how[PATH_MAX + 64];
	const char *shown;
	const struct tree *tree = follow(search, proc_fd, link, path, &shown);

	if (!tree)
		return COPPICE_OK;
	name_process(pid, user, sizeof(user));
	(void)snprintf(how, sizeof(how), ": %s is %s", shown, is_its);
	return busy(search, tree, user, how, err);
}

/* Who lists a directory, or looks at a volume as we do ourselves, has closed it in a moment. */
static bool is_kept_open(const struct search *search, int fd, const char *link)
{
	char path[PATH_MAX];
	const char *shown;

	for (unsigned n = 0; follow(search, fd, link, path, &shown); n++) {
		if (n == MOMENT_STEPS)
			return true;
		clock_pause(MOMENT_STEP_MS);
	}
	return false;
}

static int look_at_files(const struct search *search, int proc_fd, const char *pid,
			 struct coppice_error *err)
{
	int fd = openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(closedirp) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int r = COPPICE_OK;

	if (fd < 0)
		return COPPICE_OK; /* gone */
	if (!dir) {                /* ENOENT: gone since */
		bool is_gone = errno != ENOMEM;

		(void)close(fd);
		return is_gone ? COPPICE_OK : fail_memory(err);
	}
	while (r == COPPICE_OK && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && is_kept_open(search, fd, entry->d_name))
			r = look_at_link(search, fd, pid, entry->d_name, "open in it", err);
	return r;
}

static int look_at_process(const struct search *search, int proc_fd, const char *pid,
			   struct coppice_error *err)
{
	static const struct {
		const char *link, *is_its;
	} links[] = {
		{ "cwd", "its working directory" },
		{ "root", "its root directory" },
		{ "exe", "the program that it runs" },
	};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		r = look_at_link(search, proc_fd, pid, links[i].link, links[i].is_its, err);
		if (r != COPPICE_OK)
			return r;
	}
	return look_at_files(search, proc_fd, pid, err);
}

/* Those without are the kernel's own threads, most of what /proc lists, or dead. */
static bool has_program(int proc_fd)
{
	struct statx st;

	return statx(proc_fd, "exe", AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) == 0 ||
	       errno != ENOENT;
}

/* ---- mounts ---- */

/* One line of mountinfo; pointers into it. */
struct mount_line {
	uint64_t id;
	unsigned major, minor;
	char *root, *point;
	char *overlay; /* the options of an overlay; NULL: it is none */
};

/* Of "rw,noatime shared:1 - overlay none rw,lowerdir=/a:/b" what is last. */
static char *overlay_options(char *rest)
{
	char *type = strstr(rest, " - ");
	char *options;

	if (!type || strncmp(type + 3, "overlay ", 8) != 0)
		return NULL;
	options = strchr(type + 3 + 8, ' ');
	if (!options)
		return NULL;
	options[strcspn(options, "\n")] = '\0';
	return options + 1;
}

/* 36 35 98:0 /root/of/mount /mount/point rw,noatime shared:1 - ext4 /dev/x rw */
static bool mount_line_parse(char *line, struct mount_line *ret)
{
	char *rest = line, *word[5];

	for (size_t i = 0; i < ARRAY_SIZE(word); i++) {
		word[i] = strsep(&rest, " ");
		if (!word[i] || !rest)
			return false;
	}
	if (sscanf(word[2], "%u:%u", &ret->major, &ret->minor) != 2)
		return false;
	ret->id = strtoull(word[0], NULL, 10);
	ret->root = word[3];
	ret->point = word[4];
	mountinfo_unescape(ret->root);
	mountinfo_unescape(ret->point);
	ret->overlay = overlay_options(rest);
	return true;
}

typedef int mount_fn(struct search *search, const char *pid, const struct mount_line *mount,
		     struct coppice_error *err);

/* @path: of a mountinfo; one that cannot be opened belongs to a process that is gone. */
static int each_mount(struct search *search, const char *path, const char *pid, mount_fn *fn,
		      struct coppice_error *err)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	_cleanup_(freep) char *line = NULL;
	struct mount_line mount;
	size_t size = 0;
	int r = COPPICE_OK;

	while (r >= 0 && file && getline(&line, &size, file) > 0)
		if (mount_line_parse(line, &mount))
			r = fn(search, pid, &mount, err);
	return r;
}

/* ---- overlays ---- */

/* Is the directory of an overlay in a tree? @root_fd: "/" of who mounted it. */
static const struct tree *find_layer(const struct search *search, int root_fd, const char *layer,
				     char path[static PATH_MAX], const char **ret_path,
				     bool *ret_is_there)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	_cleanup_(closep) int fd = (int)syscall(SYS_openat2, root_fd, layer, &how, sizeof(how));
	char link[40];

	*ret_is_there = fd >= 0;
	if (fd < 0)
		return NULL;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return follow(search, AT_FDCWD, link, path, ret_path);
}

/* The next of "/a:/b\:c::/d", in which it ends; NULL: no more. */
static char *next_layer(char **rest)
{
	char *layer = *rest, *to = layer;

	if (!layer)
		return NULL;
	for (const char *from = layer;; to++) {
		if (from[0] == '\\' && from[1])
			from++;
		else if (*from == ':' || !*from) {
			*rest = *from ? *rest + (from - layer) + 1 : NULL;
			break;
		}
		*to = *from++;
	}
	*to = '\0';
	return layer;
}

/* One word of its options. *is_whole becomes false if it names what is not there. */
static int look_at_option(struct search *search, int root_fd, char *option,
			  const struct mount_line *mount, const char *seen, bool *is_whole,
			  struct coppice_error *err)
{
	static const struct {
		const char *key, *is_its;
		bool is_list;
	} keys[] = {
		{ "lowerdir", "lower", true },   { "lowerdir+", "lower", false },
		{ "datadir+", "lower", false },  { "upperdir", "upper", false },
		{ "workdir", "working", false },
	};
	char path[PATH_MAX], how[2 * PATH_MAX + 256];
	char *key = strsep(&option, "="), *layer;

	for (size_t i = 0; option && i < ARRAY_SIZE(keys); i++) {
		if (strcmp(key, keys[i].key) != 0)
			continue;
		mountinfo_unescape(option);
		while ((layer = keys[i].is_list ? next_layer(&option) : strsep(&option, ""))) {
			const char *shown;
			bool is_there = true;
			const struct tree *tree = layer[0] == '/'
							  ? find_layer(search, root_fd, layer, path,
								       &shown, &is_there)
							  : NULL;

			*is_whole &= is_there;
			if (!tree)
				continue;
			(void)snprintf(how, sizeof(how), ": %s has %s as its %s directory%s",
				       mount->point, shown, keys[i].is_its, seen);
			return busy(search, tree, "an overlay", how, err);
		}
		break;
	}
	return COPPICE_OK;
}

static void tell_whose(const struct search *search, const char *pid, char *ret, size_t size)
{
	char process[128];

	ret[0] = '\0';
	if (strcmp(pid, search->self) == 0)
		return;
	name_process(pid, process, sizeof(process));
	(void)snprintf(ret, size, ", as %s sees it", process);
}

static int add_overlay(struct search *search, dev_t dev, struct coppice_error *err)
{
	dev_t *more = reallocarray(search->overlays, search->n_overlays + 1, sizeof(*more));

	if (!more)
		return fail_memory(err);
	search->overlays = more;
	search->overlays[search->n_overlays++] = dev;
	return COPPICE_OK;
}

/*
 * Where its directories are is told as it was said in mounting it: paths that are not found,
 * as who mounted it sees others, are looked for in the next namespace that has it; relative
 * ones lead nowhere.
 */
static int look_at_overlay(struct search *search, const char *pid, const struct mount_line *mount,
			   struct coppice_error *err)
{
	dev_t dev = makedev(mount->major, mount->minor);
	char root[64], seen[160], *rest = mount->overlay, *option;
	_cleanup_(closep) int root_fd = -1;
	bool is_whole = true;
	int r = COPPICE_OK;

	for (size_t i = 0; i < search->n_overlays; i++)
		if (search->overlays[i] == dev)
			return COPPICE_OK;
	(void)snprintf(root, sizeof(root), "/proc/%.20s/root", pid);
	root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return COPPICE_OK; /* gone */
	tell_whose(search, pid, seen, sizeof(seen));
	while (r == COPPICE_OK && (option = strsep(&rest, ",")))
		r = look_at_option(search, root_fd, option, mount, seen, &is_whole, err);
	if (r == TOLD || (r == COPPICE_OK && is_whole))
		return add_overlay(search, dev, err);
	return r;
}

/* ---- mounts in namespaces ---- */

/* Is it a mount of something in a tree, or one upon something in it? */
static int look_at_mount(struct search *search, const char *pid, const struct mount_line *mount,
			 struct coppice_error *err)
{
	char seen[160], how[PATH_MAX + 256];

	for (size_t i = 0; i < search->n; i++) {
		const struct tree *tree = &search->trees[i];
		bool is_of_it = tree->inside && mount->major == tree->major &&
				mount->minor == tree->minor && below(mount->root, tree->inside);

		/* How we see the tree ourselves, when it is a mount as such. */
		if (is_of_it && mount->id == tree->mount_id)
			continue;
		if (!is_of_it && !below(mount->point, tree->path))
			continue;
		tell_whose(search, pid, seen, sizeof(seen));
		(void)snprintf(how, sizeof(how), ": %s%s", mount->point, seen);
		return busy(search, tree, "a mount", how, err);
	}
	return mount->overlay ? look_at_overlay(search, pid, mount, err) : COPPICE_OK;
}

/* Each namespace once, through the first process found in it. */
static int look_at_namespace(struct search *search, int proc_fd, const char *pid,
			     struct coppice_error *err)
{
	uint64_t *more;
	struct statx st;
	char path[64];

	if (statx(proc_fd, "ns/mnt", AT_STATX_DONT_SYNC, STATX_INO, &st) < 0)
		return COPPICE_OK;
	for (size_t i = 0; i < search->n_namespaces; i++)
		if (search->namespaces[i] == st.stx_ino)
			return COPPICE_OK;
	more = reallocarray(search->namespaces, search->n_namespaces + 1, sizeof(*more));
	if (!more)
		return fail_memory(err);
	search->namespaces = more;
	search->namespaces[search->n_namespaces++] = st.stx_ino;
	(void)snprintf(path, sizeof(path), "/proc/%.20s/mountinfo", pid);
	return each_mount(search, path, pid, look_at_mount, err);
}

/* ---- the kernel ---- */

/*
 * Is it what rbd-fuse shows of an image? That lies in no volume; and who asks the device waits as
 * long as the cluster does not answer. So our table of mounts is asked instead.
 */
static bool is_mapped_image(const char *path)
{
	_cleanup_(fclosep) FILE *file = fopen("/proc/self/mountinfo", "re");
	const char *slash = strrchr(path, '/');
	_cleanup_(freep) char *line = NULL;
	char where[PATH_MAX];
	bool is_so = false;
	size_t size = 0;

	while (slash && !is_so && file && getline(&line, &size, file) > 0) {
		if (!strstr(line, " - fuse.rbd-fuse ") ||
		    sscanf(line, "%*d %*d %*s %*s %4095s", where) != 1)
			continue;
		mountinfo_unescape(where);
		is_so = strlen(where) == (size_t)(slash - path) &&
			strncmp(path, where, strlen(where)) == 0;
	}
	return is_so;
}

static int look_at_loop(void *user, int sys_fd, const char *name, struct coppice_error *err)
{
	struct search *search = user;
	char how[PATH_MAX + 64];
	const struct tree *tree;
	struct loop_file file;
	const char *shown;
	int r;

	loop_name_of(sys_fd, name, file.path);
	if (is_mapped_image(file.path) || !loop_file_of(sys_fd, name, &file))
		return COPPICE_OK;
	tree = find_tree(search, file.dev, file.inode, file.path, &shown);
	if (!tree)
		return COPPICE_OK;
	(void)snprintf(how, sizeof(how), ": /dev/%s is made of %s", name, shown);
	r = busy(search, tree, "a loop device", how, err);
	return r == TOLD ? COPPICE_OK : r; /* the next may be as well */
}

/* /var/swap                               file		1048572		0		-2 */
static int look_at_swaps(const struct search *search, struct coppice_error *err)
{
	_cleanup_(fclosep) FILE *file = fopen("/proc/swaps", "re");
	_cleanup_(freep) char *line = NULL;
	char how[PATH_MAX + 64];
	size_t size = 0;
	int r = COPPICE_OK;

	while (r >= 0 && file && getline(&line, &size, file) > 0) {
		const struct tree *tree;
		const char *shown;
		struct statx st;

		line[strcspn(line, " \t\n")] = '\0';
		mountinfo_unescape(line);
		if (line[0] != '/' ||
		    statx(AT_FDCWD, line, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) < 0)
			continue;
		tree = find_tree(search, makedev(st.stx_dev_major, st.stx_dev_minor), st.stx_ino,
				 line, &shown);
		if (!tree)
			continue;
		(void)snprintf(how, sizeof(how), ": it swaps to %s", shown);
		r = busy(search, tree, "the kernel", how, err);
	}
	return r;
}

static int look_at_kernel(struct search *search, struct coppice_error *err)
{
	int r = look_at_swaps(search, err);

	return r < 0 ? r : loop_each(look_at_loop, search, err);
}

/* ---- the whole ---- */

/* Tell the trees that are within this mount of ours where they are in its file system. */
static int place_trees(struct search *search, const char *pid, const struct mount_line *mount,
		       struct coppice_error *err)
{
	for (size_t i = 0; i < search->n; i++) {
		struct tree *tree = &search->trees[i];
		const char *rest = below(tree->path, mount->point);
		const char *root = mount->root;

		if (tree->mount_id != mount->id || !rest || tree->inside)
			continue;
		if (!strcmp(rest, "/"))
			rest = "";
		if (!strcmp(root, "/") && *rest)
			root = "";
		tree->inside = text_format("%s%s", root, rest);
		if (!tree->inside)
			return fail_memory(err);
		tree->major = mount->major;
		tree->minor = mount->minor;
	}
	return COPPICE_OK;
}

/* *ret: is it there? */
static int tree_init(struct tree *tree, const struct in_use_query *query, bool *ret,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *path =
		query->is_resolved ? strdup(query->path) : realpath(query->path, NULL);
	struct statx st;

	*ret = path &&
	       statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_MNT_ID, &st) == 0;
	if (!*ret) /* ENOTDIR: no such place either */
		return errno == ENOENT || errno == ENOTDIR
			       ? COPPICE_OK
			       : fail_errno(err, errno, "cannot look at '%s'", query->path);
	*tree = (struct tree){
		.query = query,
		.dev = makedev(st.stx_dev_major, st.stx_dev_minor),
		.inode = st.stx_ino,
		.mount_id = st.stx_mnt_id,
		.path = take_ptr(&path),
	};
	return COPPICE_OK;
}

static int search_init(struct search *search, const struct in_use_query *queries, size_t n,
		       struct coppice_error *err)
{
	ssize_t length = readlink("/proc/self", search->self, sizeof(search->self) - 1);

	if (length < 0)
		return fail_aside(err, errno, "cannot tell who uses what: /proc/self");
	search->self[length] = '\0';
	search->trees = calloc(n, sizeof(*search->trees));
	if (!search->trees)
		return fail_memory(err);
	for (size_t i = 0; i < n; i++) {
		bool is_there;
		int r = tree_init(&search->trees[search->n], &queries[i], &is_there, err);

		if (r < 0)
			return r;
		search->n += is_there;
	}
	qsort(search->trees, search->n, sizeof(*search->trees), compare_trees);
	return each_mount(search, "/proc/self/mountinfo", search->self, place_trees, err);
}

static int search_run(struct search *search, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *proc = opendir("/proc");
	_cleanup_(closep) int self_fd = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	int r;

	if (!proc)
		return fail_aside(err, errno, "cannot tell who uses what: /proc");
	/* First as we see it: who lives in a chroot is shown only the mounts in that. */
	r = look_at_namespace(search, self_fd, search->self, err);
	while (r >= 0 && (entry = readdir(proc))) {
		_cleanup_(closep) int fd = -1;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		fd = openat(dirfd(proc), entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || !has_program(fd))
			continue;
		if (strcmp(entry->d_name, search->self) != 0)
			r = look_at_process(search, fd, entry->d_name, err);
		if (r >= 0)
			r = look_at_namespace(search, fd, entry->d_name, err);
	}
	return r < 0 ? r : look_at_kernel(search, err);
}

static int search_for(struct search *search, const struct in_use_query *queries, size_t n,
		      struct coppice_error *err)
{
	int r;

	if (n == 0)
		return COPPICE_OK;
	r = search_init(search, queries, n, err);
	if (r == COPPICE_OK && search->n > 0)
		r = search_run(search, err);
	return r < 0 ? r : COPPICE_OK;
}

int in_use_find(const struct in_use_query *queries, size_t n, char *who, size_t who_size,
		struct coppice_error *err)
{
	_cleanup_(search_done) struct search search = { .who = who, .who_size = who_size };

	return search_for(&search, queries, n, err);
}

int in_use_each(const struct in_use_query *queries, size_t n, in_use_fn *tell, void *user,
		struct coppice_error *err)
{
	_cleanup_(search_done) struct search search = { .tell = tell, .tell_user = user };

	return search_for(&search, queries, n, err);
}

static void queries_free(struct in_use_query *queries, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((void *)(uintptr_t)queries[i].what);
		free((void *)(uintptr_t)queries[i].path);
	}
	free(queries);
}

int in_use_where(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_where_fn *where,
		 in_use_fn *tell, void *user, struct coppice_error *err)
{
	struct in_use_query *queries = calloc(n + 1, sizeof(*queries));
	char path[PATH_MAX], text[VOLUME_REF_TEXT_MAX];
	int r = COPPICE_OK;
	size_t used = 0;

	if (!queries)
		return fail_memory(err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		if (!where(pool, &refs[i], path))
			continue;
		queries[used++] = (struct in_use_query){
			.what = strdup(volume_ref_format(&refs[i], text)),
			.path = strdup(path),
			.top = volume_is_block(&refs[i]) ? "/" : NULL,
		};
		if (!queries[used - 1].what || !queries[used - 1].path)
			r = fail_memory(err);
	}
	if (r == COPPICE_OK && used > 0)
		r = tell ? in_use_each(queries, used, tell, user, err)
			 : in_use_find(queries, used, NULL, 0, err);
	queries_free(queries, used);
	return r;
}
