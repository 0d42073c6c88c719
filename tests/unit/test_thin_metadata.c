/* SPDX-License-Identifier: Apache-2.0 */

/* Who holds which blocks of a thin pool, in metadata that thin_restore made; without a pool. */

#include "driver/lvm/thin_metadata.h"

#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "scratch.h"
#include "tap.h"

/*
 * An image; a container of it that wrote 20 blocks, ten of them after its snapshot; one that
 * wrote nothing; one of the first container, which wrote one block and has 9 of what that wrote.
 */
#define IMAGE 6000
static const char pool_xml[] =
	"<superblock uuid=\"\" time=\"4\" transaction=\"5\" version=\"2\" data_block_size=\"128\" "
	"nr_data_blocks=\"8000\">\n"
	"<device dev_id=\"1\" mapped_blocks=\"6000\" transaction=\"0\" creation_time=\"0\" "
	"snap_time=\"2\">\n"
	"<range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"6000\" time=\"0\"/>\n"
	"</device>\n"
	"<device dev_id=\"2\" mapped_blocks=\"6010\" transaction=\"1\" creation_time=\"1\" "
	"snap_time=\"4\">\n"
	"<range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"5990\" time=\"0\"/>\n"
	"<range_mapping origin_begin=\"5990\" data_begin=\"6010\" length=\"10\" time=\"3\"/>\n"
	"<range_mapping origin_begin=\"6000\" data_begin=\"6000\" length=\"10\" time=\"1\"/>\n"
	"</device>\n"
	"<device dev_id=\"3\" mapped_blocks=\"6010\" transaction=\"3\" creation_time=\"3\" "
	"snap_time=\"3\">\n"
	"<range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"6000\" time=\"0\"/>\n"
	"<range_mapping origin_begin=\"6000\" data_begin=\"6000\" length=\"10\" time=\"1\"/>\n"
	"</device>\n"
	"<device dev_id=\"4\" mapped_blocks=\"6000\" transaction=\"2\" creation_time=\"2\" "
	"snap_time=\"2\">\n"
	"<range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"6000\" time=\"0\"/>\n"
	"</device>\n"
	"<device dev_id=\"5\" mapped_blocks=\"6010\" transaction=\"4\" creation_time=\"4\" "
	"snap_time=\"4\">\n"
	"<range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"5990\" time=\"0\"/>\n"
	"<range_mapping origin_begin=\"5990\" data_begin=\"6010\" length=\"10\" time=\"3\"/>\n"
	"<range_mapping origin_begin=\"6000\" data_begin=\"6000\" length=\"9\" time=\"1\"/>\n"
	"<single_mapping origin_block=\"6009\" data_block=\"6020\" time=\"4\"/>\n"
	"</device>\n"
	"</superblock>\n";

static int metadata_up(void)
{
	_cleanup_(freep) char *text = NULL, *path = NULL;
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd;

	scratch_make("thin-metadata");
	path = text_format("%s/metadata", scratch);
	text = text_format("%s/xml", scratch);
	ok(path && text);
	ok_call(file_write(AT_FDCWD, text, pool_xml, false, &err), &err);
	ok_int(shell("truncate -s 4M metadata && thin_restore -q -i xml -o metadata"), ==, 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ok_int(fd, >=, 0);
	return fd;
}

static uint32_t born[4];
static struct thin_group group[4];

static void be_born(void *user)
{
	for (size_t i = 0; i < ARRAY_SIZE(born); i++)
		group[i].born = born[i];
}

static void count(int fd, struct thin_device *device, size_t n)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	memset(group, 0, sizeof(group));
	ok_call(thin_metadata_count(fd, true, device, n, group, ARRAY_SIZE(group), be_born, NULL,
				    &err),
		&err);
}

static void test_blocks_of_devices_and_groups(void)
{
	struct thin_device device[] = {
		{ .id = 1, .group = 0 }, { .id = 2, .group = 1 }, { .id = 3, .group = 1 },
		{ .id = 4, .group = 2 }, { .id = 5, .group = 3 },
	};
	int fd = metadata_up();

	born[0] = 0, born[1] = 1, born[2] = 2, born[3] = 4;
	count(fd, device, ARRAY_SIZE(device));
	ok_int(device[0].mapped_blocks, ==, IMAGE);
	ok_int(device[1].mapped_blocks, ==, IMAGE + 10);
	ok_int(device[0].exclusive_blocks, ==, 0);
	ok_int(device[1].exclusive_blocks, ==, 0);
	ok_int(device[2].exclusive_blocks, ==, 0);
	ok_int(device[4].exclusive_blocks, ==, 1);
	ok_int(device[4].created, ==, 4);
	ok_int(group[0].unique_blocks, ==, 0);
	ok_int(group[1].unique_blocks, ==, 1); /* that the copy overwrote; with its snapshot */
	ok_int(group[2].unique_blocks, ==, 0);
	ok_int(group[3].unique_blocks, ==, 1);
	ok_int(group[0].written_blocks, ==, IMAGE);
	ok_int(group[1].written_blocks, ==, 20);
	ok_int(group[2].written_blocks, ==, 0);
	ok_int(group[3].written_blocks, ==, 1);
	(void)close(fd);
}

/* What nobody named has its blocks all the same. */
static void test_strangers_count_as_others(void)
{
	struct thin_device device[] = { { .id = 2, .group = 1 }, { .id = 3, .group = 1 } };
	int fd = metadata_up();

	born[1] = UINT32_MAX;
	count(fd, device, ARRAY_SIZE(device));
	ok_int(group[1].unique_blocks, ==, 1);
	ok_int(group[1].written_blocks, ==, 0);
	(void)close(fd);
}

static void test_device_that_is_not_there(void)
{
	struct thin_device device[] = { { .id = 77, .group = 0 } };
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd = metadata_up();
	uint32_t created = 0;

	count(fd, device, 1);
	ok(!device[0].is_there);
	ok_code(thin_metadata_created(fd, true, 77, &created, &err), COPPICE_NOT_FOUND, &err);
	ok_call(thin_metadata_created(fd, true, 3, &created, &err), &err);
	ok_int(created, ==, 3);
	(void)close(fd);
}

static void test_no_snapshot_is_held(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd = metadata_up();
	uint32_t created;

	ok_code(thin_metadata_created(fd, false, 1, &created, &err), COPPICE_UNAVAILABLE, &err);
	ok_has(err.message, "is held");
	(void)close(fd);
}

/* What a cut of the power left is tried: one that is held, or none. */
static void test_which_snapshot_is_held(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd = metadata_up();
	uint64_t at = 1;

	ok_call(thin_metadata_held(fd, &at, &err), &err);
	ok_int(at, ==, 0);
	ok_call(thin_metadata_hold(fd, 1000, &err), &err);
	ok_call(thin_metadata_held(fd, &at, &err), &err);
	ok_int(at, ==, 1000);
	ok_int(shell("thin_check -q metadata; test $? -eq 1"), ==, 0);
	ok_call(thin_metadata_hold(fd, 0, &err), &err);
	ok_int(shell("thin_check -q metadata"), ==, 0);
	(void)close(fd);
}

/* As the kernel does: the superblock, saying that it lies there. */
static void put_snapshot(int fd, uint64_t at)
{
	uint32_t block[1024], crc = UINT32_MAX;
	const uint8_t *byte = (const uint8_t *)block;

	ok_int(pread(fd, block, sizeof(block), 0), ==, sizeof(block));
	block[2] = (uint32_t)at;
	for (size_t i = 4; i < sizeof(block); i++) {
		crc ^= byte[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
	}
	block[0] = crc ^ 160774;
	ok_int(pwrite(fd, block, sizeof(block), (off_t)at * 4096), ==, sizeof(block));
}

static uint64_t root_at(int fd, off_t at)
{
	uint64_t root = 0;

	ok_int(pread(fd, &root, sizeof(root), at), ==, sizeof(root));
	return root;
}

/* Where it says that it lies, and not where it was copied to; in a block that is in use. */
static void test_snapshots_are_found(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd = metadata_up();
	uint64_t maps = root_at(fd, 320), details = root_at(fd, 328), at;

	ok_int(shell("dd if=metadata of=metadata bs=4096 count=1 seek=700 conv=notrunc "
		     "2>/dev/null"),
	       ==, 0);
	for (uint64_t i = 0; i < 20; i++) /* of long ago */
		put_snapshot(fd, 800 + i);
	ok_call(thin_metadata_find_snapshot(fd, 0, &at, &err), &err);
	ok_int(at, ==, 0);
	put_snapshot(fd, maps);
	ok_call(thin_metadata_find_snapshot(fd, 0, &at, &err), &err);
	ok_int(at, ==, maps);
	put_snapshot(fd, details);
	ok_call(thin_metadata_find_snapshot(fd, 0, &at, &err), &err);
	ok_int(at, ==, maps < details ? maps : details);
	ok_call(thin_metadata_find_snapshot(fd, at, &at, &err), &err);
	ok_int(at, ==, maps < details ? details : maps);
	ok_call(thin_metadata_find_snapshot(fd, at, &at, &err), &err);
	ok_int(at, ==, 0);
	(void)close(fd);
}

/* Any byte of any block may be another: it is told, or what was found is the same. */
static void test_damage_is_told(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd = metadata_up();
	size_t n_told = 0;

	for (off_t at = 7; at < 64 * 4096; at += 509) {
		struct thin_device device[] = { { .id = 2, .group = 1 } };
		unsigned char was, is;

		ok_int(pread(fd, &was, 1, at), ==, 1);
		is = was ^ 0x40;
		ok_int(pwrite(fd, &is, 1, at), ==, 1);
		memset(group, 0, sizeof(group));
		born[1] = 1;
		if (thin_metadata_count(fd, true, device, 1, group, ARRAY_SIZE(group), be_born,
					NULL, &err) < 0) {
			ok_int(err.code, ==, COPPICE_UNAVAILABLE);
			ok_has(err.message, "is damaged");
			n_told++;
		} else {
			ok_int(group[1].written_blocks, ==, 20);
			ok_int(device[0].mapped_blocks, ==, IMAGE + 10);
		}
		ok_int(pwrite(fd, &was, 1, at), ==, 1);
	}
	ok_int(n_told, >, 8);
	(void)close(fd);
}

static void test_empty_file(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd = metadata_up();
	uint32_t created;

	ok_int(ftruncate(fd, 0), ==, 0);
	ok_code(thin_metadata_created(fd, true, 1, &created, &err), COPPICE_UNAVAILABLE, &err);
	(void)close(fd);
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_blocks_of_devices_and_groups),
		TAP(test_strangers_count_as_others),
		TAP(test_which_snapshot_is_held),
		TAP(test_snapshots_are_found),
		TAP(test_device_that_is_not_there),
		TAP(test_no_snapshot_is_held),
		TAP(test_damage_is_told),
		TAP(test_empty_file),
		TAP_END,
	});
}
