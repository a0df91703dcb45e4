/*
 * Handles the kernel's events like OpenWrt's procd with its /etc/hotplug.json:
 * it creates and removes the nodes at once, and calls /sbin/hotplug-call for each event of some subsystems,
 * with the event's variables in the environment, one after another, and without output.
 *
 * /run/vm/seqnum has the number of the last event that was handled.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

struct event {
	struct event *next;
	ssize_t length;
	char text[]; /* VARIABLE=VALUE, each with its NUL */
};

static struct event *first, **last = &first;
static pid_t running;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static const char *value(const struct event *event, const char *name)
{
	size_t length = strlen(name);
	const char *at = event->text;
	for (; at < event->text + event->length; at += strlen(at) + 1)
		if (!strncmp(at, name, length) && at[length] == '=')
			return at + length + 1;
	return NULL;
}

static int is(const struct event *event, const char *name, const char *wanted)
{
	const char *is = value(event, name);
	return is && !strcmp(is, wanted);
}

static void node(const struct event *event)
{
	const char *name = value(event, "DEVNAME"), *major = value(event, "MAJOR"), *minor = value(event, "MINOR");
	static const char *open_to_all[] = { "null", "full", "ptmx", "zero", NULL };
	char path[4096];
	mode_t mode = is(event, "SUBSYSTEM", "block") ? S_IFBLK | 0644 : S_IFCHR | 0644;
	if (!name || !major || !minor)
		return;
	snprintf(path, sizeof path, "/dev/%s", name);
	if (is(event, "ACTION", "remove"))
		unlink(path);
	if (!is(event, "ACTION", "add"))
		return;
	for (const char **other = open_to_all; *other; other++)
		if (!strcmp(name, *other))
			mode |= 0666;
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
	if (mknod(path, mode, makedev(atoi(major), atoi(minor))) && errno != EEXIST)
		die(path);
}

/* The kind of scripts in /etc/hotplug.d for an event. */
static const char *scripts(const struct event *event)
{
	static const char *kinds[] = { "platform", "net", "input", "usb", "usbmisc", "ieee1394", "block", "atm", "zaptel", "tty", "button", NULL };
	const char *path = value(event, "DEVPATH"), *name = path ? strrchr(path, '/') : NULL;
	for (const char **kind = kinds; *kind; kind++)
		if (is(event, "SUBSYSTEM", *kind))
			return *kind;
	/* The device of a serial converter's port, which has a separate tty. */
	if (is(event, "SUBSYSTEM", "usb-serial") && name && (!strncmp(name, "/ttyUSB", 7) || !strncmp(name, "/ttyACM", 7)))
		return "tty";
	return NULL;
}

static void call(struct event *event, const char *kind)
{
	running = fork();
	if (running == -1)
		die("fork");
	if (running)
		return;
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (char *at = event->text; at < event->text + event->length; at += strlen(at) + 1)
		if (strchr(at, '='))
			putenv(at);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	execl("/sbin/hotplug-call", "hotplug-call", kind, NULL);
	_exit(1);
}

static void done(struct event *event)
{
	int file = open("/run/vm/seqnum.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (file == -1 || dprintf(file, "%s\n", value(event, "SEQNUM")) < 0 || close(file))
		die("/run/vm/seqnum.new");
	rename("/run/vm/seqnum.new", "/run/vm/seqnum");
	first = event->next;
	if (!first)
		last = &first;
	free(event);
}

int main(void)
{
	static char message[65536];
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int size = 16 << 20, socket_fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	if (bind(socket_fd, (struct sockaddr *)&address, sizeof address))
		die("netlink");
	setsockopt(socket_fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	struct pollfd polled[] = {
		{ .fd = socket_fd, .events = POLLIN },
		{ .fd = signalfd(-1, &child, SFD_CLOEXEC), .events = POLLIN },
	};
	for (;;) {
		if (poll(polled, 2, -1) == -1)
			die("poll");
		if (polled[0].revents) {
			ssize_t length = recv(socket_fd, message, sizeof message - 1, 0);
			struct event *event = length > 0 ? malloc(sizeof *event + length + 1) : NULL;
			if (!event)
				die("recv");
			event->next = NULL;
			event->length = length;
			memcpy(event->text, message, length);
			event->text[length] = 0;
			node(event);
			*last = event;
			last = &event->next;
		}
		if (polled[1].revents) {
			struct signalfd_siginfo info;
			if (read(polled[1].fd, &info, sizeof info) != sizeof info)
				die("signalfd");
			if (waitpid(running, NULL, WNOHANG) == running) {
				running = 0;
				done(first);
			}
		}
		while (first && !running) {
			const char *kind = scripts(first);
			if (kind)
				call(first, kind);
			else
				done(first);
		}
	}
}
