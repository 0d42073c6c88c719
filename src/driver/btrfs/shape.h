/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The shape of a subvolume's tree, on which the cost of cloning it depends.
 *
 * A snapshot copies the root node and counts a reference to each of its children.
 * A tree of just under one node's worth of leaves (493 of 16 KiB: some 7,000 small
 * files) has them all below its root: 100 snapshots of one with 410 take 280 ms, of
 * the same tree with a node between root and leaves 35 to 45 ms. Btrfs puts that node in
 * when the root is full, and keeps it while it is of use. So the root is filled, for
 * a moment, with leaves that hold nothing of anybody's.
 */

/*
 * Make the tree of the subvolume @fd cheap to clone, if that can be done. Changes
 * nothing that anybody sees: no name, no time, no byte. Cannot fail, only not help.
 */
void shape_for_clones(int fd);
