/*
 * launch [-o FILE] [-e NAME=VALUE]… COMMAND [ARGUMENT…]
 *
 * Runs one program, and prints its cost: microseconds of CPU, peak kilobytes, microseconds of wall clock, exit status.
 * Discards the output of the program. With -o, appends the cost to FILE instead, and keeps the program's output and exit
 * status. If there are -e options, they are the whole environment. Static and small, because a large parent would
 * increase the cost of its children.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long microseconds(struct timeval t)
{
	return t.tv_sec * 1000000L + t.tv_usec;
}

int main(int argc, char **argv)
{
	static char *environment[64];
	size_t variables = 0;
	FILE *out = stdout;
	int option;

	while ((option = getopt(argc, argv, "+e:o:")) != -1 && variables < 63) {
		if (option == 'e')
			environment[variables++] = optarg;
		else if (option != 'o' || (out = fopen(optarg, "ae")) == NULL)
			optind = argc;
	}
	if (optind == argc) {
		fprintf(stderr, "usage: launch [-o FILE] [-e NAME=VALUE]... COMMAND [ARGUMENT...]\n");
		return 2;
	}

	struct timespec began, ended;
	clock_gettime(CLOCK_MONOTONIC, &began);
	pid_t child = fork();
	if (child == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(null, 0);
		if (out == stdout) {
			dup2(null, 1);
			dup2(null, 2);
		}
		execve(argv[optind], argv + optind, variables ? environment : environ);
		_exit(127);
	}

	struct rusage usage;
	int status;
	if (child < 0 || wait4(child, &status, 0, &usage) < 0) {
		perror("launch");
		return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	int result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	fprintf(out, "%ld %ld %ld %d\n", microseconds(usage.ru_utime) + microseconds(usage.ru_stime), usage.ru_maxrss,
	       (ended.tv_sec - began.tv_sec) * 1000000L + (ended.tv_nsec - began.tv_nsec) / 1000,
	       result);
	return out == stdout ? 0 : result;
}
