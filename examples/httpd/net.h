/* Sockets for fibers: calls that wait suspend the calling fiber, and nothing else. They return a count, or the negative
 * of an errno: errno itself is the thread's, and a fiber may be on another one after each wait. */
#ifndef HTTPD_NET_H
#define HTTPD_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A socket that listens at an IPv4 address. With port 0 the kernel chooses one; `*port` is then that. */
int net_listen(const char *address, uint16_t *port);
/* The next connection; waits for it. The negative errno may be a passing one. */
int net_accept(int listener);
/* What there is, at least one byte; 0 at the end of the stream. -ETIMEDOUT after the deadline (see bop_now). */
ssize_t net_read(int fd, void *buffer, size_t size, uint64_t deadline);
/* 0 when all was written. */
int net_write(int fd, const void *data, size_t size, uint64_t deadline);
/* Has the peer closed its side, or is the connection broken? Never waits. What it has sent before hides its end. */
bool net_gone(int fd);
/* Says that no more will come, and takes what the peer still sends, for a while: if the socket were closed with
 * something unread in it, the peer would be told so at once, and might never see the last reply. */
void net_finish(int fd, uint64_t deadline);

#endif
