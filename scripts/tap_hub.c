// SPDX-License-Identifier: MIT
// tap_hub PORTS MILLISECONDS: an Ethernet hub in user space whose frames arrive late, for kernels without netem.
//
// Makes TAP devices port1 to portN in the network namespace that it runs in, says "ready" on stdout, and carries frames
// between them until it is ended; the devices may then be moved to other namespaces. Port n has the hardware address
// 02:00:00:00:00:n, so a frame's way is read from its destination; all others go to every port.
//
// All frames wait equally long, so one queue in order of arrival is in order of departure too.
#define _GNU_SOURCE  // ppoll
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
  kMostPorts = 64,
  kMostBytes = 1514,    // of a frame, at the usual MTU of 1500
  kMostFrames = 65536,  // in the queue: 100 MB, touched only as far as they are needed
  kFramesPerTurn = 64,  // from one port, before the next has its turn
  kAddressBytes = 6
};

static const unsigned char kAddressPrefix[kAddressBytes - 1] = {0x02, 0, 0, 0, 0};

struct Frame {
  int64_t due;  // nanoseconds
  int from;
  int bytes;
  unsigned char data[kMostBytes];
};

// taken and put only grow; the frame's place is its number modulo kMostFrames.
struct Queue {
  struct Frame* frames;
  uint64_t taken, put;
};

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void fail(const char* what) {
  fprintf(stderr, "tap_hub: %s: %s\n", what, strerror(errno));
  exit(1);
}

// File descriptor of a new TAP device; port counts from 1.
static int open_port(int port) {
  const int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (tap < 0) fail("/dev/net/tun");
  struct ifreq request;
  memset(&request, 0, sizeof request);
  snprintf(request.ifr_name, sizeof request.ifr_name, "port%d", port);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (ioctl(tap, TUNSETIFF, &request) < 0) fail("making a TAP device");
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, kAddressPrefix, sizeof kAddressPrefix);
  request.ifr_hwaddr.sa_data[kAddressBytes - 1] = (char)port;
  if (ioctl(tap, SIOCSIFHWADDR, &request) < 0) fail("giving a TAP device its address");
  return tap;
}

// Takes what has arrived at a port into the queue. What finds no place waits in the device, which drops what is too much,
// as a switch would.
static void receive(int tap, int port, int64_t delay, struct Queue* queue) {
  for (int turn = 0; turn < kFramesPerTurn && queue->put - queue->taken < kMostFrames; ++turn) {
    struct Frame* frame = &queue->frames[queue->put % kMostFrames];
    const ssize_t bytes = read(tap, frame->data, sizeof frame->data);
    if (bytes < kAddressBytes) return;
    frame->due = now() + delay;
    frame->from = port;
    frame->bytes = (int)bytes;
    ++queue->put;
  }
}

// The index of the one port that a frame is for, or -1 if it is for all.
static int destination(const struct Frame* frame, int ports) {
  if (memcmp(frame->data, kAddressPrefix, sizeof kAddressPrefix) != 0) return -1;
  const int port = frame->data[kAddressBytes - 1] - 1;
  return port >= 0 && port < ports ? port : -1;
}

static void send_due(const struct pollfd* taps, int ports, struct Queue* queue) {
  const int64_t time = now();
  for (; queue->taken != queue->put; ++queue->taken) {
    const struct Frame* frame = &queue->frames[queue->taken % kMostFrames];
    if (frame->due > time) return;
    const int only = destination(frame, ports);
    for (int port = 0; port < ports; ++port) {
      if (port == frame->from || (only >= 0 && port != only)) continue;
      // Refused while the other end is not up: that frame is lost, as on a wire, and its sender repeats it.
      if (write(taps[port].fd, frame->data, (size_t)frame->bytes) < 0 && errno != EIO && errno != EAGAIN) {
        fail("sending a frame");
      }
    }
  }
}

// Until something arrives or the next frame is due.
static void wait_for_work(struct pollfd* taps, int ports, const struct Queue* queue) {
  struct timespec rest = {0, 0};
  const int has_frames = queue->taken != queue->put;
  if (has_frames) {
    const int64_t nanoseconds = queue->frames[queue->taken % kMostFrames].due - now();
    if (nanoseconds > 0) rest = (struct timespec){nanoseconds / 1000000000, nanoseconds % 1000000000};
  }
  // A full queue takes nothing: polling for input would return at once, again and again.
  const int has_room = queue->put - queue->taken < kMostFrames;
  for (int port = 0; port < ports; ++port) taps[port].events = has_room ? POLLIN : 0;
  if (ppoll(taps, (nfds_t)ports, has_frames ? &rest : NULL, NULL) < 0 && errno != EINTR) fail("waiting");
}

int main(int argc, char** argv) {
  const int ports = argc == 3 ? atoi(argv[1]) : 0;
  const double milliseconds = argc == 3 ? atof(argv[2]) : -1.0;
  if (ports < 1 || ports > kMostPorts || !(milliseconds >= 0.0)) {
    fprintf(stderr, "usage: tap_hub PORTS MILLISECONDS, with 1 to %d ports\n", kMostPorts);
    return 2;
  }
  prctl(PR_SET_TIMERSLACK, 1UL);  // the default, 50 microseconds, would be added to every delay
  struct pollfd taps[kMostPorts];
  for (int port = 0; port < ports; ++port) taps[port] = (struct pollfd){.fd = open_port(port + 1), .events = POLLIN};
  struct Queue queue = {malloc(sizeof(struct Frame) * kMostFrames), 0, 0};
  if (queue.frames == NULL) fail("memory");
  if (puts("ready") < 0 || fflush(stdout) != 0) fail("stdout");

  const int64_t delay = (int64_t)(milliseconds * 1e6);
  for (;;) {
    wait_for_work(taps, ports, &queue);
    for (int port = 0; port < ports; ++port) {
      if (taps[port].revents & POLLIN) receive(taps[port].fd, port, delay, &queue);
    }
    send_due(taps, ports, &queue);
  }
}
