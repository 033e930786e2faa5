#include "net.h"

#include <arpa/inet.h>
#include <bop.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

/* The compiler takes the address of errno for a constant. A function that suspends must not hold it, so each look at it
 * is in a function of its own. */
#define APART __attribute__((noinline))

APART static ssize_t receive(int fd, void *buffer, size_t size, int flags) {
  ssize_t count = recv(fd, buffer, size, flags);
  return count < 0 ? -errno : count;
}

APART static ssize_t transmit(int fd, const void *data, size_t size) {
  ssize_t count = send(fd, data, size, MSG_NOSIGNAL);
  return count < 0 ? -errno : count;
}

APART static int take(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

APART static int closed_with(int fd, int error) {
  close(fd);
  return -error;
}

int net_listen(const char *address, uint16_t *port) {
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(*port)};
  socklen_t size = sizeof place;
  if (inet_pton(AF_INET, address, &place.sin_addr) != 1)
    return -EINVAL;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  const int yes = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      bind(fd, (struct sockaddr *)&place, size) != 0 || listen(fd, SOMAXCONN) != 0 ||
      getsockname(fd, (struct sockaddr *)&place, &size) != 0)
    return closed_with(fd, errno);
  *port = ntohs(place.sin_port);
  return fd;
}

static int failure(bop_status_t status) {
  switch (status) {
  case BOP_OK:
    return 0;
  case BOP_TIMEOUT:
    return -ETIMEDOUT;
  case BOP_CANCELLED:
    return -ECANCELED;
  case BOP_LIMIT:
    return -ENOMEM;
  default:
    return -EBADF;
  }
}

int net_accept(int listener) {
  for (;;) {
    int fd = take(listener);
    if (fd >= 0) {
      const int yes = 1; /* replies are sent in one piece; they need not wait for others */
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }
    if (fd != -EAGAIN)
      return fd;
    int error = failure(bop_wait_fd(listener, BOP_READABLE, NULL));
    if (error != 0)
      return error;
  }
}

ssize_t net_read(int fd, void *buffer, size_t size, uint64_t deadline) {
  for (;;) {
    ssize_t count = receive(fd, buffer, size, 0);
    if (count != -EAGAIN && count != -EINTR)
      return count;
    int error = failure(bop_wait_fd_until(fd, BOP_READABLE, NULL, deadline));
    if (error != 0)
      return error;
  }
}

int net_write(int fd, const void *data, size_t size, uint64_t deadline) {
  const char *at = data;
  while (size > 0) {
    ssize_t count = transmit(fd, at, size);
    if (count >= 0) {
      at += count;
      size -= (size_t)count;
      continue;
    }
    if (count == -EINTR)
      continue;
    if (count != -EAGAIN)
      return (int)count;
    int error = failure(bop_wait_fd_until(fd, BOP_WRITABLE, NULL, deadline));
    if (error != 0)
      return error;
  }
  return 0;
}

bool net_gone(int fd) {
  char byte;
  ssize_t count = receive(fd, &byte, 1, MSG_PEEK);
  return count == 0 || (count < 0 && count != -EAGAIN && count != -EINTR);
}

void net_finish(int fd, uint64_t deadline) {
  char unread[4096];
  shutdown(fd, SHUT_WR);
  while (bop_now() < deadline && net_read(fd, unread, sizeof unread, deadline) > 0) {
  }
}
