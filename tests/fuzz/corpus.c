/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target without a fuzzer: runs each file of its corpus, and each again with its
 * end cut off and with bytes changed, always the same ones.
 *
 *	fuzz-NAME CORPUS-DIRECTORY | FILE…
 */
#include <dirent.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz.h"

enum {
	CHANGES = 20,
	INPUT_MAX = 1 << 20
};

static uint8_t *read_all(const char *path, size_t *ret_size)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = malloc(INPUT_MAX);

	must(file && data);
	*ret_size = fread(data, 1, INPUT_MAX, file);
	fclose(file);
	return data;
}

/* A copy of just its size, so that a sanitizer or valgrind sees what is read behind it. */
static void run_exact(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	must(copy);
	memcpy(copy, data, size);
	(void)LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void run_changed(uint8_t *data, size_t size)
{
	uint32_t chance = (uint32_t)size + 1;

	for (unsigned i = 0; i < CHANGES && size > 0; i++) {
		size_t at;
		uint8_t was;

		chance = chance * 1664525 + 1013904223;
		at = chance % size;
		was = data[at];
		data[at] ^= (uint8_t)(1u << (chance >> 29));
		run_exact(data, size);
		data[at] = was;
		run_exact(data, at);
	}
}

static void run_file(const char *path)
{
	size_t size;
	uint8_t *data = read_all(path, &size);

	run_exact(data, size);
	run_changed(data, size);
	free(data);
}

/* In a child, so that one that crashes does not hide the others. */
static bool run_in_child(const char *path)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		run_file(path);
		exit(0);
	}
	(void)waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("# ended by signal %d (%s)\n", WTERMSIG(status),
		       strsignal(WTERMSIG(status)));
	return status == 0;
}

static int is_file(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* TAP; returns how many failed. */
static int run_directory(const char *directory)
{
	struct dirent **entry;
	int failed = 0, n = scandir(directory, &entry, is_file, alphasort);

	printf("1..%d\n", n > 0 ? n : 1);
	if (n <= 0)
		printf("not ok 1 - no corpus in %s\n", directory);
	for (int i = 0; i < n; i++) {
		char path[4096];
		bool is_good;

		(void)snprintf(path, sizeof(path), "%s/%s", directory, entry[i]->d_name);
		is_good = run_in_child(path);
		failed += !is_good;
		printf("%s %d - %s\n", is_good ? "ok" : "not ok", i + 1, entry[i]->d_name);
		free(entry[i]);
	}
	if (n > 0)
		free(entry);
	return n > 0 ? failed : 1;
}

int main(int argc, char **argv)
{
	struct stat st;
	int failed = 0;

	for (int i = 1; i < argc; i++) {
		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
			failed += run_directory(argv[i]);
		else
			run_file(argv[i]);
	}
	return failed > 0;
}
