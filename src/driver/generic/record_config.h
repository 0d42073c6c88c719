/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a volume's record says of its configuration, for engines that ask. */

/* The value of a key; free() it. NULL: it has none, or there is no record. */
char *record_config(const char *record, const char *key);
