/* SPDX-License-Identifier: Apache-2.0 */
/* Ownership in the open: _cleanup_(x_freep) frees at scope end, TAKE_PTR hands a pointer on. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

#define TAKE_PTR(p)                           \
	({                                    \
		__typeof__(p) _taken_ = (p);  \
		(p) = NULL;                   \
		_taken_;                      \
	})

#define TAKE_FD(fd)                \
	({                         \
		int _taken_ = (fd); \
		(fd) = -1;         \
		_taken_;           \
	})

static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define _cleanup_free_ _cleanup_(freep)
#define _cleanup_close_ _cleanup_(closep)
#define _cleanup_fclose_ _cleanup_(fclosep)
