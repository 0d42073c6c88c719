/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What each command does; commands.c has the table of them. */

#include "cli/cli.h"

typedef int prepare_fn(struct request *request, struct coppice_error *err);
typedef int run_fn(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err);

/* instance.c: instances come, change and go */
prepare_fn prepare_init, prepare_delete;
run_fn run_init, run_copy, run_move, run_rename, run_delete, run_snapshot, run_restore;
run_fn run_path, run_mount, run_umount;

/* list.c, info.c, config.c */
run_fn run_list, run_info;
prepare_fn prepare_config_set, prepare_config_unset;
run_fn run_config_set, run_config_get, run_config_show;

/* image.c, alias.c, export.c */
prepare_fn prepare_image_import;
run_fn run_image_import, run_image_list, run_image_info, run_image_show, run_image_delete;
run_fn run_image_export;
run_fn run_alias_create, run_alias_delete, run_alias_rename, run_alias_list;

/* storage.c */
prepare_fn prepare_storage_create, prepare_storage_recover, prepare_storage_set;
prepare_fn prepare_storage_unset, prepare_storage_mount;
run_fn run_storage_create, run_storage_recover, run_storage_delete, run_storage_list;
run_fn run_storage_show, run_storage_info, run_storage_set, run_storage_get;
run_fn run_storage_mount, run_storage_umount;

/* tree.c, df.c, check.c */
run_fn run_tree, run_df, run_check;

/* Where a command both changes and answers: may it answer on standard output? */
static inline bool request_may_answer(const struct request *request)
{
	return !request->is_quiet && !request->is_explain && !request->is_dry_run;
}

/* What the library need not refuse for its sake. */
static inline unsigned request_may_lose(const struct request *request)
{
	return (request->is_forced ? COPPICE_LOSE_IN_USE : 0U) |
	       (request->is_skipping_nested ? COPPICE_LOSE_NESTED : 0U);
}

static inline enum format request_format(const struct request *request, enum format otherwise)
{
	return request->format == FORMAT_DEFAULT ? otherwise : request->format;
}

static inline bool format_is_sheet(enum format format)
{
	return format == FORMAT_TABLE || format == FORMAT_CSV;
}
