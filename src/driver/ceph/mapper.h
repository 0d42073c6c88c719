/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What can make images block devices: krbd.c, nbd.c, fuse.c; mapping.c chooses. */

#include "driver/ceph/ceph.h"

struct mapper {
	const char *name;

	/* Can this machine do that? May load a module for it. */
	bool (*is_usable)(void);

	/* Map an image that is not. In a process of its own: the cluster is not to be asked. */
	int (*map)(struct ceph_pool *ceph, const char *name, char ret_device[static PATH_MAX],
		   struct coppice_error *err);

	/* Is an image mapped, by @device; NULL: by any, which it then is? */
	bool (*find)(const struct ceph_pool *ceph, const char *name, const char *device,
		     char ret_device[static PATH_MAX]);

	/* Is the program that maps it still at that? Whoever started it may be dead. */
	bool (*is_mapping)(const struct ceph_pool *ceph, const char *name);

	/* Has what maps it died? NULL: the kernel does not. */
	bool (*is_dead)(const struct ceph_pool *ceph, const char *name);

	/* What waits for the cluster fails, for it would for ever. NULL: it does so by itself. */
	void (*forsake)(const struct ceph_pool *ceph, const char *name);

	/* COPPICE_BUSY: the device is in use, be it in another mount namespace. As map is called. */
	int (*unmap)(const struct ceph_pool *ceph, const char *name, const char *device,
		     struct coppice_error *err);

	/* Wait a while until the image is closed as well. NULL: it is. */
	void (*wait_until_closed)(const struct ceph_pool *ceph, const char *name);
};

extern const struct mapper mapper_krbd, mapper_nbd, mapper_fuse;

/* Does rbd-fuse show the image, with a device or without? */
bool fuse_shows(const struct ceph_pool *ceph, const char *name);

/* What was let go may be held for so long by others, who only look, or are about to end. */
#define PATIENCE_STEPS 500

/* 10 ms */
void wait_a_step(void);

/* Have the kernel load a module, if it has it. */
void module_load(const char *const argv[]);

/* Run what prints the device, as "/dev/rbd0". */
int run_map(const char *const argv[], char ret_device[static PATH_MAX], struct coppice_error *err);

/* ---- the processes of a command ---- */

/* Do a process's arguments begin with these? */
bool process_has_arguments(const char *pid, const char *const argv[]);

/* True: go no further. */
typedef bool process_fn(void *user, const char *pid);

/* Call @fn with each process whose arguments begin with these; NULL: is there one? */
bool processes_each(const char *const argv[], process_fn *fn, void *user);
