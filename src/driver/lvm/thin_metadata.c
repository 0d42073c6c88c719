/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/lvm/thin_metadata.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_SIZE  4096U
#define CHUNK_SIZE  65536U /* read at once: nodes that are made together lie together */
#define DEPTH_MAX   12U    /* of a tree; 2^64 blocks are not as deep */
#define OWNER_GROUP 0x80000000U
#define SHARED      UINT32_MAX

/* ---- what lies on disk ---- */

struct superblock {
	uint32_t checksum, flags;
	uint64_t at;
	uint8_t uuid[16];
	uint64_t magic;
	uint32_t version, time;
	uint64_t transaction_id, held_root;
	uint8_t data_space_map[128], metadata_space_map[128]; /* each begins with its size */
	uint64_t mapping_root, details_root;
	uint32_t data_block_sectors, metadata_block_sectors;
	uint64_t n_metadata_blocks;
} __attribute__((packed));

#define SUPERBLOCK_MAGIC 27022010U
#define SUPERBLOCK_SALT  160774U

struct node {
	uint32_t checksum, flags;
	uint64_t at;
	uint32_t n, n_max, value_size, padding;
	uint64_t key[];
} __attribute__((packed));

#define NODE_SALT     121107U
#define NODE_INTERNAL 1U
#define NODE_LEAF     2U

struct details {
	uint64_t mapped_blocks, transaction_id;
	uint32_t created, snapshotted;
} __attribute__((packed));

/* ---- reading ---- */

struct metadata {
	int fd;
	uint64_t n_blocks, n_data_blocks;
	uint64_t mapping_root, details_root;
	void **chunk;
	uint32_t crc_table[256];
	struct coppice_error *err;
};

static int damaged(const struct metadata *metadata, uint64_t at, const char *what)
{
	return fail(metadata->err, COPPICE_UNAVAILABLE,
		    "the thin pool's metadata is damaged: block %llu %s; thin_check says more",
		    (unsigned long long)at, what);
}

/* What each byte does to a CRC-32C. */
static void crc_table_fill(uint32_t table[static 256])
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		table[byte] = byte;
		for (int bit = 0; bit < 8; bit++)
			table[byte] = table[byte] >> 1 ^ (table[byte] & 1 ? 0x82f63b78U : 0);
	}
}

/* CRC-32C, as the kernel's crc32c(): nothing is done to it at the end. */
static uint32_t sum_of(const struct metadata *metadata, const void *block, uint32_t salt)
{
	const uint8_t *byte = block;
	uint32_t crc = UINT32_MAX;

	for (size_t i = sizeof(crc); i < BLOCK_SIZE; i++)
		crc = crc >> 8 ^ metadata->crc_table[(crc ^ byte[i]) & 0xff];
	return crc ^ salt;
}

static bool is_sum_good(const struct metadata *metadata, const void *block, uint32_t salt)
{
	uint32_t sum;

	memcpy(&sum, block, sizeof(sum));
	return sum_of(metadata, block, salt) == le32toh(sum);
}

static int read_chunk(const struct metadata *metadata, uint64_t number)
{
	void *chunk = NULL;
	size_t n = 0;

	if (posix_memalign(&chunk, BLOCK_SIZE, CHUNK_SIZE) != 0)
		return fail_memory(metadata->err);
	while (n < CHUNK_SIZE) {
		ssize_t got = pread(metadata->fd, (char *)chunk + n, CHUNK_SIZE - n,
				    (off_t)(number * CHUNK_SIZE + n));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			free(chunk);
			return fail_errno(metadata->err, errno,
					  "cannot read the thin pool's metadata");
		}
		if (got == 0)
			break;
		n += (size_t)got;
	}
	memset((char *)chunk + n, 0, CHUNK_SIZE - n);
	metadata->chunk[number] = chunk;
	return COPPICE_OK;
}

static const void *block_of(const struct metadata *metadata, uint64_t at)
{
	const uint64_t per_chunk = CHUNK_SIZE / BLOCK_SIZE;

	if (at >= metadata->n_blocks) {
		(void)damaged(metadata, at, "lies behind its end");
		return NULL;
	}
	if (!metadata->chunk[at / per_chunk] && read_chunk(metadata, at / per_chunk) < 0)
		return NULL;
	return (const char *)metadata->chunk[at / per_chunk] + at % per_chunk * BLOCK_SIZE;
}

/* @is_checked: it was, when it was read first. */
static const struct node *node_of(const struct metadata *metadata, uint64_t at, bool is_checked)
{
	const struct node *node = block_of(metadata, at);
	uint32_t flags;

	if (!node || is_checked)
		return node;
	flags = le32toh(node->flags);
	if (!is_sum_good(metadata, node, NODE_SALT) || le64toh(node->at) != at) {
		(void)damaged(metadata, at, "has not the checksum of a node");
		return NULL;
	}
	if ((flags != NODE_INTERNAL && flags != NODE_LEAF) ||
	    le32toh(node->n) > le32toh(node->n_max) ||
	    le32toh(node->n_max) > (BLOCK_SIZE - sizeof(*node)) / sizeof(uint64_t) ||
	    le32toh(node->value_size) > 1024 ||
	    sizeof(*node) + (uint64_t)le32toh(node->n_max) *
				    (sizeof(uint64_t) + le32toh(node->value_size)) >
		    BLOCK_SIZE) {
		(void)damaged(metadata, at, "is no node of a tree");
		return NULL;
	}
	return node;
}

static bool is_leaf(const struct node *node)
{
	return le32toh(node->flags) == NODE_LEAF;
}

static const void *value_of(const struct node *node, uint32_t i)
{
	return (const char *)(node->key + le32toh(node->n_max)) +
	       (size_t)i * le32toh(node->value_size);
}

static uint64_t number_of(const struct node *node, uint32_t i)
{
	uint64_t number;

	memcpy(&number, value_of(node, i), sizeof(number));
	return le64toh(number);
}

static const struct superblock *superblock_at(const struct metadata *metadata, uint64_t at)
{
	const struct superblock *super = block_of(metadata, at);

	if (!super)
		return NULL;
	if (!is_sum_good(metadata, super, SUPERBLOCK_SALT) ||
	    le64toh(super->magic) != SUPERBLOCK_MAGIC || le32toh(super->version) < 1 ||
	    le32toh(super->version) > 2 ||
	    le32toh(super->metadata_block_sectors) != BLOCK_SIZE / 512) {
		(void)damaged(metadata, at, "is no superblock of a thin pool");
		return NULL;
	}
	return super;
}

static void metadata_close(struct metadata *metadata)
{
	for (uint64_t i = 0; metadata->chunk && i * CHUNK_SIZE / BLOCK_SIZE < metadata->n_blocks;
	     i++)
		free(metadata->chunk[i]);
	free(metadata->chunk);
}

static int metadata_open(int fd, bool is_whole, struct metadata *ret, struct coppice_error *err)
{
	off_t size = lseek(fd, 0, SEEK_END);
	struct metadata metadata = { .fd = fd,
				     .n_blocks = size > 0 ? (uint64_t)size / BLOCK_SIZE : 0,
				     .err = err };
	const struct superblock *super;
	uint64_t held = 0;
	int r = COPPICE_OK;

	if (size < 0)
		return fail_errno(err, errno, "cannot look at the thin pool's metadata");
	crc_table_fill(metadata.crc_table);
	metadata.chunk =
		calloc(metadata.n_blocks / (CHUNK_SIZE / BLOCK_SIZE) + 1, sizeof(*metadata.chunk));
	if (!metadata.chunk)
		return fail_memory(err);
	super = superblock_at(&metadata, 0);
	held = super && !is_whole ? le64toh(super->held_root) : 0;
	if (super && !is_whole && held == 0)
		r = fail(err, COPPICE_UNAVAILABLE,
			 "no snapshot of the thin pool's metadata is held");
	/* The snapshot's own has none: how large the pool is. It never shrinks. */
	if (super)
		memcpy(&metadata.n_data_blocks, super->data_space_map, sizeof(uint64_t));
	metadata.n_data_blocks = le64toh(metadata.n_data_blocks);
	if (super && held)
		super = superblock_at(&metadata, held);
	if (!super)
		r = err->code;
	if (r < 0) {
		metadata_close(&metadata);
		return r;
	}
	metadata.mapping_root = le64toh(super->mapping_root);
	metadata.details_root = le64toh(super->details_root);
	*ret = metadata;
	return COPPICE_OK;
}

/* ---- the details of devices ---- */

typedef void details_fn(void *user, uint32_t id, const struct details *details);

static int details_each(const struct metadata *metadata, uint64_t at, unsigned depth,
			details_fn *fn, void *user)
{
	const struct node *node = node_of(metadata, at, false);
	int r = COPPICE_OK;

	if (!node)
		return metadata->err->code;
	if (depth == 0 || le32toh(node->value_size) !=
				  (is_leaf(node) ? sizeof(struct details) : sizeof(uint64_t)))
		return damaged(metadata, at, "is no node of the tree of devices");
	for (uint32_t i = 0; i < le32toh(node->n) && r == COPPICE_OK; i++) {
		struct details details;

		if (!is_leaf(node)) {
			r = details_each(metadata, number_of(node, i), depth - 1, fn, user);
			continue;
		}
		memcpy(&details, value_of(node, i), sizeof(details));
		fn(user, (uint32_t)le64toh(node->key[i]), &details);
	}
	return r;
}

/* ---- counting ---- */

/*
 * Of each block, of data or of the maps, who has it: nobody, one device (its number from 1 on),
 * a group, or more than that. Zero pages of an anonymous map take no memory until they are
 * written.
 */
struct counting {
	struct metadata metadata;
	struct thin_device *device;
	size_t n_devices;
	struct thin_group *group;
	uint32_t *data_owner, *node_owner;
	uint32_t *data_seen, *node_seen; /* by the group that is counted last; from 1 on */
	uint32_t *node_newest;           /* the latest time in what is below it */
	uint32_t n_others;               /* devices that nobody named: numbers of their own */
};

static uint32_t *table_new(uint64_t n)
{
	void *table = mmap(NULL, (n + 1) * sizeof(uint32_t), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return table == MAP_FAILED ? NULL : table;
}

static void table_free(uint32_t *table, uint64_t n)
{
	if (table)
		(void)munmap(table, (n + 1) * sizeof(uint32_t));
}

static void counting_done(struct counting *counting)
{
	table_free(counting->data_owner, counting->metadata.n_data_blocks);
	table_free(counting->data_seen, counting->metadata.n_data_blocks);
	table_free(counting->node_owner, counting->metadata.n_blocks);
	table_free(counting->node_seen, counting->metadata.n_blocks);
	table_free(counting->node_newest, counting->metadata.n_blocks);
	metadata_close(&counting->metadata);
}

static int counting_begin(struct counting *counting, struct coppice_error *err)
{
	counting->data_owner = table_new(counting->metadata.n_data_blocks);
	counting->data_seen = table_new(counting->metadata.n_data_blocks);
	counting->node_owner = table_new(counting->metadata.n_blocks);
	counting->node_seen = table_new(counting->metadata.n_blocks);
	counting->node_newest = table_new(counting->metadata.n_blocks);
	return counting->data_owner && counting->data_seen && counting->node_owner &&
			       counting->node_seen && counting->node_newest
		       ? COPPICE_OK
		       : fail_memory(err);
}

static uint32_t group_of(const struct counting *counting, uint32_t number)
{
	return number <= counting->n_devices ? counting->device[number - 1].group : UINT32_MAX;
}

/* Who has it, now that device @number has it, too? */
static uint32_t merge(const struct counting *counting, uint32_t owner, uint32_t number)
{
	uint32_t group = group_of(counting, number);

	if (owner == 0 || owner == number)
		return number;
	if (owner == SHARED || group == UINT32_MAX)
		return SHARED;
	if (owner & OWNER_GROUP)
		return owner == (OWNER_GROUP | group) ? owner : SHARED;
	return group_of(counting, owner) == group ? OWNER_GROUP | group : SHARED;
}

/* A leaf's value is the block of data, and the time that it was allocated at. */
static uint64_t data_block(uint64_t value)
{
	return value >> 24;
}

static uint32_t time_of(uint64_t value)
{
	return (uint32_t)(value & 0xffffff);
}

static const struct node *map_node(const struct counting *counting, uint64_t at, unsigned depth)
{
	bool is_checked = at < counting->metadata.n_blocks && counting->node_owner[at] != 0;
	const struct node *node = node_of(&counting->metadata, at, is_checked);

	if (node && (depth == 0 || le32toh(node->value_size) != sizeof(uint64_t))) {
		(void)damaged(&counting->metadata, at, "is no node of a map");
		return NULL;
	}
	return node;
}

static int own(struct counting *counting, uint64_t at, uint32_t number, unsigned depth)
{
	const struct node *node = map_node(counting, at, depth);
	uint32_t owner, newest = 0;

	if (!node)
		return counting->metadata.err->code;
	owner = merge(counting, counting->node_owner[at], number);
	if (owner == counting->node_owner[at])
		return COPPICE_OK;
	counting->node_owner[at] = owner;
	for (uint32_t i = 0; i < le32toh(node->n); i++) {
		uint64_t value = number_of(node, i);
		uint32_t time;

		if (!is_leaf(node)) {
			int r = own(counting, value, number, depth - 1);

			if (r < 0)
				return r;
			time = counting->node_newest[value];
		} else {
			uint64_t block = data_block(value);

			if (block >= counting->metadata.n_data_blocks)
				return damaged(&counting->metadata, at,
					       "maps what lies behind the end of the pool");
			counting->data_owner[block] =
				merge(counting, counting->data_owner[block], number);
			time = time_of(value);
		}
		newest = time > newest ? time : newest;
	}
	counting->node_newest[at] = newest;
	return COPPICE_OK;
}

/* How many blocks below @at were allocated since @born, and were not seen by this group yet? */
static int count_since(struct counting *counting, uint64_t at, uint32_t born, uint32_t mark,
		       unsigned depth, uint64_t *sum)
{
	const struct node *node = map_node(counting, at, depth);

	if (!node)
		return counting->metadata.err->code;
	if (counting->node_newest[at] < born || counting->node_seen[at] == mark)
		return COPPICE_OK;
	counting->node_seen[at] = mark;
	for (uint32_t i = 0; i < le32toh(node->n); i++) {
		uint64_t value = number_of(node, i);

		if (!is_leaf(node)) {
			int r = count_since(counting, value, born, mark, depth - 1, sum);

			if (r < 0)
				return r;
		} else if (time_of(value) >= born &&
			   counting->data_seen[data_block(value)] != mark) {
			counting->data_seen[data_block(value)] = mark;
			++*sum;
		}
	}
	return COPPICE_OK;
}

/* ---- devices ---- */

int thin_device_compare(const void *a, const void *b)
{
	const struct thin_device *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

struct thin_device *thin_device_find(struct thin_device *devices, size_t n, uint32_t id)
{
	struct thin_device key = { .id = id };

	return n ? bsearch(&key, devices, n, sizeof(key), thin_device_compare) : NULL;
}

static struct thin_device *find_device(const struct counting *counting, uint32_t id)
{
	return thin_device_find(counting->device, counting->n_devices, id);
}

static void take_details(void *user, uint32_t id, const struct details *details)
{
	struct thin_device *device = find_device(user, id);

	if (!device)
		return;
	device->is_there = true;
	device->mapped_blocks = le64toh(details->mapped_blocks);
	device->created = le32toh(details->created);
}

typedef int map_fn(struct counting *counting, uint32_t id, uint64_t root);

static int maps_each(struct counting *counting, uint64_t at, unsigned depth, map_fn *fn)
{
	const struct node *node = node_of(&counting->metadata, at, false);
	int r = COPPICE_OK;

	if (!node)
		return counting->metadata.err->code;
	if (depth == 0 || le32toh(node->value_size) != sizeof(uint64_t))
		return damaged(&counting->metadata, at, "is no node of the tree of maps");
	for (uint32_t i = 0; i < le32toh(node->n) && r == COPPICE_OK; i++) {
		if (is_leaf(node))
			r = fn(counting, (uint32_t)le64toh(node->key[i]), number_of(node, i));
		else
			r = maps_each(counting, number_of(node, i), depth - 1, fn);
	}
	return r;
}

static int own_map(struct counting *counting, uint32_t id, uint64_t root)
{
	const struct thin_device *device = find_device(counting, id);
	uint64_t number = device ? (uint64_t)(device - counting->device) + 1
				 : counting->n_devices + ++counting->n_others;

	return number < OWNER_GROUP
		       ? own(counting, root, (uint32_t)number, DEPTH_MAX)
		       : damaged(&counting->metadata, root, "is of more devices than there can be");
}

static int count_map(struct counting *counting, uint32_t id, uint64_t root)
{
	const struct thin_device *device = find_device(counting, id);
	struct thin_group *group = device ? &counting->group[device->group] : NULL;

	if (!group || group->born == UINT32_MAX)
		return COPPICE_OK;
	return count_since(counting, root, group->born, device->group + 1, DEPTH_MAX,
			   &group->written_blocks);
}

static void count_owners(struct counting *counting)
{
	for (uint64_t i = 0; i < counting->metadata.n_data_blocks; i++) {
		uint32_t owner = counting->data_owner[i];

		if (owner == 0 || owner == SHARED)
			continue;
		if (owner & OWNER_GROUP) {
			counting->group[owner & ~OWNER_GROUP].unique_blocks++;
		} else if (owner <= counting->n_devices) {
			counting->device[owner - 1].exclusive_blocks++;
			counting->group[counting->device[owner - 1].group].unique_blocks++;
		}
	}
}

int thin_metadata_count(int fd, bool is_whole, struct thin_device *devices, size_t n,
			struct thin_group *groups, size_t n_groups, void (*born)(void *user),
			void *user, struct coppice_error *err)
{
	struct counting counting = { .device = devices, .n_devices = n, .group = groups };
	int r = metadata_open(fd, is_whole, &counting.metadata, err);

	if (r < 0)
		return r;
	r = counting_begin(&counting, err);
	if (r == COPPICE_OK)
		r = details_each(&counting.metadata, counting.metadata.details_root, DEPTH_MAX,
				 take_details, &counting);
	if (r == COPPICE_OK && born)
		born(user);
	if (r == COPPICE_OK)
		r = maps_each(&counting, counting.metadata.mapping_root, DEPTH_MAX, own_map);
	if (r == COPPICE_OK)
		count_owners(&counting);
	if (r == COPPICE_OK && n_groups > 0)
		r = maps_each(&counting, counting.metadata.mapping_root, DEPTH_MAX, count_map);
	counting_done(&counting);
	return r;
}

/* ---- one device ---- */

static void take_created(void *user, uint32_t id, const struct details *details)
{
	struct thin_device *device = user;

	if (device->id != id)
		return;
	device->is_there = true;
	device->created = le32toh(details->created);
}

int thin_metadata_created(int fd, bool is_whole, uint32_t id, uint32_t *ret,
			  struct coppice_error *err)
{
	struct thin_device device = { .id = id };
	struct metadata metadata;
	int r = metadata_open(fd, is_whole, &metadata, err);

	if (r < 0)
		return r;
	r = details_each(&metadata, metadata.details_root, DEPTH_MAX, take_created, &device);
	metadata_close(&metadata);
	if (r == COPPICE_OK && !device.is_there)
		r = fail(err, COPPICE_NOT_FOUND, "the thin pool has no device %u", id);
	if (r == COPPICE_OK)
		*ret = device.created;
	return r;
}

/* ---- which snapshot is held ---- */

int thin_metadata_held(int fd, uint64_t *ret, struct coppice_error *err)
{
	struct metadata metadata;
	const struct superblock *super;
	int r = metadata_open(fd, true, &metadata, err);

	if (r < 0)
		return r;
	super = block_of(&metadata, 0); /* it has just been read */
	*ret = le64toh(super->held_root);
	metadata_close(&metadata);
	return COPPICE_OK;
}

/* One sector of it is another, so the disk has the one or the other. */
int thin_metadata_hold(int fd, uint64_t at, struct coppice_error *err)
{
	_cleanup_(freep) void *block = NULL;
	struct superblock *super;
	struct metadata metadata;
	ssize_t n;
	int r = metadata_open(fd, true, &metadata, err);

	if (r < 0)
		return r;
	if (posix_memalign(&block, BLOCK_SIZE, BLOCK_SIZE) != 0) {
		block = NULL;
		metadata_close(&metadata);
		return fail_memory(err);
	}
	super = memcpy(block, block_of(&metadata, 0), BLOCK_SIZE);
	super->held_root = htole64(at);
	super->checksum = htole32(sum_of(&metadata, super, SUPERBLOCK_SALT));
	metadata_close(&metadata);
	n = pwrite(fd, block, BLOCK_SIZE, 0);
	return n == BLOCK_SIZE && fsync(fd) == 0
		       ? COPPICE_OK
		       : fail_errno(err, n >= 0 && n < BLOCK_SIZE ? EIO : errno,
				    "cannot write the thin pool's metadata");
}

/*
 * How the metadata's own space map lies on disk: an index of bitmaps, and these with two bits for
 * each block, which say how often it is in use, three being more.
 */
struct bitmap_index {
	uint32_t checksum, padding;
	uint64_t at;
	struct {
		uint64_t at;
		uint32_t n_free, none_free_before;
	} __attribute__((packed)) bitmap[255];
} __attribute__((packed));

struct bitmap {
	uint32_t checksum, padding;
	uint64_t at;
	uint8_t bits[BLOCK_SIZE - 16];
} __attribute__((packed));

#define INDEX_SALT        160478U
#define BITMAP_SALT       240779U
#define BLOCKS_PER_BITMAP ((BLOCK_SIZE - 16) * 4)

/* Is this block in use, as the space map has it? False as well where that cannot be read. */
static bool is_counted(const struct metadata *metadata, uint64_t index_at, uint64_t at)
{
	const struct bitmap_index *index = block_of(metadata, index_at);
	uint64_t bitmap_at, i = at % BLOCKS_PER_BITMAP;
	const struct bitmap *bitmap;

	if (!index || !is_sum_good(metadata, index, INDEX_SALT) ||
	    at / BLOCKS_PER_BITMAP >= ARRAY_SIZE(index->bitmap))
		return false;
	bitmap_at = le64toh(index->bitmap[at / BLOCKS_PER_BITMAP].at);
	bitmap = block_of(metadata, bitmap_at);
	return bitmap && is_sum_good(metadata, bitmap, BITMAP_SALT) &&
	       (bitmap->bits[i / 4] >> i % 4 * 2 & 3) != 0;
}

/* All blocks are looked at; so each chunk is let go of at once. */
static int find_snapshot(struct metadata *metadata, uint64_t after, uint64_t *ret)
{
	const uint64_t per_chunk = CHUNK_SIZE / BLOCK_SIZE;
	const struct superblock *own = block_of(metadata, 0);
	uint64_t index_at;
	uint8_t uuid[16];

	memcpy(uuid, own->uuid, sizeof(uuid));
	memcpy(&index_at, own->metadata_space_map + 2 * sizeof(uint64_t), sizeof(index_at));
	for (uint64_t at = after + 1; at < metadata->n_blocks; at++) {
		const struct superblock *super = block_of(metadata, at);

		if (!super)
			return metadata->err->code;
		if (le64toh(super->magic) == SUPERBLOCK_MAGIC && le64toh(super->at) == at &&
		    memcmp(super->uuid, uuid, sizeof(uuid)) == 0 &&
		    is_sum_good(metadata, super, SUPERBLOCK_SALT) &&
		    is_counted(metadata, le64toh(index_at), at)) {
			*ret = at;
			return COPPICE_OK;
		}
		if (at % per_chunk == per_chunk - 1)
			free(take_ptr(&metadata->chunk[at / per_chunk]));
	}
	*ret = 0;
	return COPPICE_OK;
}

int thin_metadata_find_snapshot(int fd, uint64_t after, uint64_t *ret, struct coppice_error *err)
{
	struct metadata metadata;
	int r = metadata_open(fd, true, &metadata, err);

	if (r < 0)
		return r;
	r = find_snapshot(&metadata, after, ret);
	metadata_close(&metadata);
	return r;
}
