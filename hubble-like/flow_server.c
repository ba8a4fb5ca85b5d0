// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include "enrich.h"
#include "flow_push.h"
#include "observer.h"
#include "ring_reader.h"

#define CAPACITY 4095
#define CLIENTS_MAX 64
#define POLL_MS 10 /* how long an event may wait in the ring buffer */
#define POLL_BACKLOG_MS 1
#define POLL_IDLE_MS 20 /* the same while nobody follows */
#define LOST_CHECK_NS 500000000ULL

struct client {
	int fd;
	struct grpc_conn *conn;
	const uint8_t *out; /* what the socket has not taken yet */
	size_t out_len;
};

struct flow_server {
	char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char node_name[256];
	pthread_mutex_t lock; /* over everything below but the fds */
	pthread_t thread;
	bool running;
	int listen_fd, stop_fd;
	dev_t socket_dev;
	ino_t socket_ino;
	struct flow_names *names;
	struct flow_ring *ring;
	struct ring_reader *reader; /* NULL: events are pushed */
	struct enricher enricher;
	struct observer observer;
	struct client clients[CLIENTS_MAX];
	size_t n_clients;
	bool trace;
	bool backlog; /* more events wait than one round takes */
	uint64_t lost_check_ns, lost_ring, lost_since_ns;
};

static uint64_t clock_now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* ---- events in ---- */

static void take_event(void *ctx, const struct wag_event *event)
{
	struct flow_record records[ENRICH_RECORDS];
	struct flow_server *s = ctx;
	int n = enrich_event(&s->enricher, event, records);

	for (int i = 0; i < n; i++) {
		flow_ring_push(s->ring, &records[i]);
		s->observer.seen++;
	}
}

static void take_lost(struct flow_server *s, uint64_t count)
{
	uint64_t now = clock_now(CLOCK_REALTIME);
	struct flow_record rec = {
		.kind = FLOW_RECORD_LOST,
		.time_ns = now,
		.lost = { count, s->lost_since_ns, now },
	};

	s->lost_since_ns = now;
	if (!count)
		return;
	s->lost_ring += count;
	flow_ring_push(s->ring, &rec);
}

void flow_server_push(struct flow_server *s, const struct wag_event *event)
{
	pthread_mutex_lock(&s->lock);
	take_event(s, event);
	pthread_mutex_unlock(&s->lock);
}

void flow_server_push_lost(struct flow_server *s, uint64_t count)
{
	pthread_mutex_lock(&s->lock);
	take_lost(s, count);
	pthread_mutex_unlock(&s->lock);
}

/* ---- clients ---- */

static void client_close(struct flow_server *s, size_t i)
{
	struct client *c = &s->clients[i];

	grpc_conn_free(c->conn);
	close(c->fd);
	*c = s->clients[--s->n_clients];
}

static void client_accept(struct flow_server *s)
{
	struct grpc_handler handler = observer_handler(&s->observer);
	_cleanup_close_ int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c = &s->clients[s->n_clients];

	if (fd < 0 || s->n_clients == CLIENTS_MAX)
		return;
	memset(c, 0, sizeof(*c));
	if (grpc_conn_new(&c->conn, &handler) < 0)
		return;
	c->fd = TAKE_FD(fd);
	s->n_clients++;
}

static int client_read(struct client *c)
{
	uint8_t buf[16384];
	ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	return grpc_conn_recv(c->conn, buf, n);
}

/* Writes until the socket or the connection has had enough. */
static int client_write(struct client *c)
{
	for (;;) {
		ssize_t n;

		if (!c->out_len) {
			n = grpc_conn_send(c->conn, &c->out);
			if (n <= 0)
				return n < 0 ? n : grpc_conn_done(c->conn) ? -ECONNRESET : 0;
			c->out_len = n;
		}
		n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		c->out += n;
		c->out_len -= n;
	}
}

/* nghttp2 hands out bytes that live until its next call: nothing is read while some wait. */
static void client_serve(struct flow_server *s, size_t i, short revents, uint64_t now)
{
	struct client *c = &s->clients[i];
	int r = 0;

	if (c->out_len)
		r = client_write(c);
	if (r == 0 && !c->out_len && revents & (POLLIN | POLLHUP | POLLERR))
		r = client_read(c);
	if (r == 0 && !c->out_len) {
		grpc_conn_poke(c->conn, now);
		r = client_write(c);
	}
	if (r == 0 && c->out_len && revents & (POLLHUP | POLLERR))
		r = -ECONNRESET;
	if (r < 0)
		client_close(s, i);
}

/* ---- the thread ---- */

static void drain(struct flow_server *s, uint64_t now)
{
	if (!s->reader)
		return;
	enrich_set_clock(&s->enricher);
	s->backlog = ring_reader_consume(s->reader) > 0;
	if (now - s->lost_check_ns >= LOST_CHECK_NS) {
		s->lost_check_ns = now;
		take_lost(s, ring_reader_lost(s->reader));
	}
	if (s->trace != !!s->observer.followers &&
	    ring_reader_set_trace(s->reader, s->observer.followers) == 0)
		s->trace = s->observer.followers;
}

static void *serve(void *arg)
{
	struct pollfd fds[2 + CLIENTS_MAX];
	struct flow_server *s = arg;

	for (;;) {
		size_t n = s->n_clients; /* only this thread changes it */
		uint64_t now;

		fds[0] = (struct pollfd){ s->stop_fd, POLLIN, 0 };
		fds[1] = (struct pollfd){ s->listen_fd, n < CLIENTS_MAX ? POLLIN : 0, 0 };
		for (size_t i = 0; i < n; i++) {
			const struct client *c = &s->clients[i];

			fds[2 + i] = (struct pollfd){ c->fd, c->out_len ? POLLOUT : POLLIN, 0 };
		}
		poll(fds, 2 + n,
		     s->backlog		     ? POLL_BACKLOG_MS
		     : s->observer.followers ? POLL_MS
					     : POLL_IDLE_MS);
		if (fds[0].revents)
			return NULL;
		now = clock_now(CLOCK_MONOTONIC);
		pthread_mutex_lock(&s->lock);
		drain(s, now);
		observer_tick(&s->observer, now);
		for (size_t i = n; i-- > 0;)
			client_serve(s, i, fds[2 + i].revents, now);
		if (fds[1].revents & POLLIN)
			client_accept(s);
		pthread_mutex_unlock(&s->lock);
	}
}

/* ---- life ---- */

static int make_directory(const char *path, struct wag_err *err)
{
	char dir[PATH_MAX];
	char *slash;
	int r;

	strcpy(dir, path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return 0;
	*slash = '\0';
	r = pins_mkdir_p(dir, 0755);
	return r < 0 ? wag_err_set(err, r, "cannot make %s: %s", dir, strerror(-r)) : 0;
}

/* A socket nobody listens on is left over from a crash. */
static int remove_stale(const struct sockaddr_un *addr, struct wag_err *err)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return wag_err_set(err, -EEXIST,
				   "%s exists and is no socket: remove it or use --socket",
				   addr->sun_path);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return wag_err_set(err, -EADDRINUSE,
				   "another process serves %s: stop it or use --socket",
				   addr->sun_path);
	unlink(addr->sun_path);
	return 0;
}

static int listen_on(struct flow_server *s, struct wag_err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat st;
	mode_t old;
	int r;

	strcpy(addr.sun_path, s->socket_path);
	r = make_directory(s->socket_path, err);
	if (r < 0)
		return r;
	r = remove_stale(&addr, err);
	if (r < 0)
		return r;
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0)
		return wag_err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	old = umask(0117); /* 0660 from the first moment */
	r = bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(old);
	if (r == 0 && listen(s->listen_fd, CLIENTS_MAX) < 0)
		r = -errno;
	if (r < 0)
		return wag_err_set(err, r, "cannot listen on %s: %s", s->socket_path, strerror(-r));
	if (stat(s->socket_path, &st) == 0) {
		s->socket_dev = st.st_dev;
		s->socket_ino = st.st_ino;
	}
	return 0;
}

int flow_server_new(struct flow_server **ret, const struct flow_config *config, struct wag_err *err)
{
	_cleanup_(flow_server_freep) struct flow_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return wag_err_set(err, -ENOMEM, "out of memory");
	s->listen_fd = s->stop_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	if (strlen(config->socket_path) >= sizeof(s->socket_path))
		return wag_err_set(err, -ENAMETOOLONG,
				   "socket path %s is longer than %zu characters",
				   config->socket_path, sizeof(s->socket_path) - 1);
	strcpy(s->socket_path, config->socket_path);
	strncpy(s->node_name, config->node_name ? config->node_name : "", sizeof(s->node_name) - 1);
	r = flow_names_new(&s->names);
	if (r == 0)
		r = flow_ring_new(&s->ring, config->capacity ? config->capacity : CAPACITY);
	if (r < 0)
		return wag_err_set(err, r, "cannot make the flow ring: %s", strerror(-r));
	enrich_init(&s->enricher, s->names, &config->resolver);
	observer_init(&s->observer, s->ring, s->node_name);
	s->lost_since_ns = clock_now(CLOCK_REALTIME);
	if (config->events_fd >= 0) {
		r = ring_reader_new(&s->reader, config->events_fd, config->runtime_fd,
				    config->stats_fd, take_event, s, err);
		if (r < 0)
			return r;
		ring_reader_set_trace(s->reader, false); /* left on by one that crashed */
	}
	s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->stop_fd < 0)
		return wag_err_set(err, -errno, "eventfd: %s", strerror(errno));
	r = listen_on(s, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

int flow_server_start(struct flow_server *s, struct wag_err *err)
{
	int r = pthread_create(&s->thread, NULL, serve, s);

	if (r)
		return wag_err_set(err, -r, "cannot start the flow thread: %s", strerror(r));
	s->running = true;
	return 0;
}

void flow_server_stats(const struct flow_server *s, struct flow_stats *ret)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)&s->lock;

	pthread_mutex_lock(lock);
	ret->seen = s->observer.seen;
	ret->lost_ring = s->lost_ring;
	ret->lost_queue = s->observer.lost_queue;
	ret->clients = s->observer.streams;
	pthread_mutex_unlock(lock);
}

void flow_server_free(struct flow_server *s)
{
	uint64_t one = 1;
	struct stat st;

	if (!s)
		return;
	if (s->running && write(s->stop_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(s->thread, NULL);
	while (s->n_clients)
		client_close(s, s->n_clients - 1);
	if (s->reader && s->trace)
		ring_reader_set_trace(s->reader, false);
	ring_reader_free(s->reader);
	/* Only our own: a successor may have put its socket there. */
	if (s->listen_fd >= 0 && stat(s->socket_path, &st) == 0 && st.st_dev == s->socket_dev &&
	    st.st_ino == s->socket_ino)
		unlink(s->socket_path);
	closep(&s->listen_fd);
	closep(&s->stop_fd);
	flow_ring_free(s->ring);
	flow_names_free(s->names);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void flow_server_freep(struct flow_server **s)
{
	flow_server_free(*s);
}
