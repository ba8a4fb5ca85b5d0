// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <waggle/bpfsys.h>

/* Younger than the kernel headers we must build with. */
#define TCX_INGRESS 46
#define TCX_EGRESS 47
#define TCX_BEFORE (1U << 3) /* BPF_F_BEFORE without another: the first of all */

/* The kernel demands zero in every byte of the union behind what the command knows. */
static void attr_clear(union bpf_attr *attr)
{
	memset(attr, 0, sizeof(*attr));
}

static uint64_t ptr_u64(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static int bpfsys(int cmd, union bpf_attr *attr)
{
	long r = syscall(__NR_bpf, cmd, attr, sizeof(*attr));

	return r < 0 ? -errno : (int)r;
}

int bpfsys_obj_get(const char *path)
{
	union bpf_attr attr;

	attr_clear(&attr);
	attr.pathname = ptr_u64(path);
	return bpfsys(BPF_OBJ_GET, &attr);
}

int bpfsys_obj_pin(int fd, const char *path)
{
	union bpf_attr attr;

	attr_clear(&attr);
	attr.pathname = ptr_u64(path);
	attr.bpf_fd = fd;
	return bpfsys(BPF_OBJ_PIN, &attr);
}

int bpfsys_map_lookup(int fd, const void *key, void *value)
{
	union bpf_attr attr;

	attr_clear(&attr);
	attr.map_fd = fd;
	attr.key = ptr_u64(key);
	attr.value = ptr_u64(value);
	return bpfsys(BPF_MAP_LOOKUP_ELEM, &attr);
}

int bpfsys_map_update(int fd, const void *key, const void *value, uint64_t flags)
{
	union bpf_attr attr;

	attr_clear(&attr);
	attr.map_fd = fd;
	attr.key = ptr_u64(key);
	attr.value = ptr_u64(value);
	attr.flags = flags;
	return bpfsys(BPF_MAP_UPDATE_ELEM, &attr);
}

int bpfsys_map_delete(int fd, const void *key)
{
	union bpf_attr attr;

	attr_clear(&attr);
	attr.map_fd = fd;
	attr.key = ptr_u64(key);
	return bpfsys(BPF_MAP_DELETE_ELEM, &attr);
}

int bpfsys_map_next_key(int fd, const void *key, void *next)
{
	union bpf_attr attr;

	attr_clear(&attr);
	attr.map_fd = fd;
	attr.key = ptr_u64(key);
	attr.next_key = ptr_u64(next);
	return bpfsys(BPF_MAP_GET_NEXT_KEY, &attr);
}

int bpfsys_map_lookup_batch(int fd, const void *at, void *next, void *keys, void *values,
			    uint32_t *n)
{
	union bpf_attr attr;
	int r;

	attr_clear(&attr);
	attr.batch.map_fd = (uint32_t)fd;
	attr.batch.in_batch = ptr_u64(at);
	attr.batch.out_batch = ptr_u64(next);
	attr.batch.keys = ptr_u64(keys);
	attr.batch.values = ptr_u64(values);
	attr.batch.count = *n;
	r = bpfsys(BPF_MAP_LOOKUP_BATCH, &attr);
	*n = r < 0 && r != -ENOENT ? 0 : attr.batch.count;
	return r;
}

int bpfsys_array_store(int fd, size_t offset, uint32_t value)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *base;

	if (offset % sizeof(value) || offset + sizeof(value) > page)
		return -EINVAL;
	base = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	__atomic_store_n((uint32_t *)(void *)(base + offset), value, __ATOMIC_RELEASE);
	munmap(base, page);
	return 0;
}

int bpfsys_map_sizes(int fd, uint32_t *ret_key, uint32_t *ret_value)
{
	struct bpf_map_info info;
	union bpf_attr attr;
	int r;

	memset(&info, 0, sizeof(info));
	attr_clear(&attr);
	attr.info.bpf_fd = fd;
	attr.info.info_len = sizeof(info);
	attr.info.info = ptr_u64(&info);
	r = bpfsys(BPF_OBJ_GET_INFO_BY_FD, &attr);
	if (r < 0)
		return r;
	*ret_key = info.key_size;
	*ret_value = info.value_size;
	return 0;
}

int bpfsys_prog_id(int fd, uint32_t *ret_id)
{
	struct bpf_prog_info info;
	union bpf_attr attr;
	int r;

	memset(&info, 0, sizeof(info));
	attr_clear(&attr);
	attr.info.bpf_fd = fd;
	attr.info.info_len = sizeof(info);
	attr.info.info = ptr_u64(&info);
	r = bpfsys(BPF_OBJ_GET_INFO_BY_FD, &attr);
	if (r == 0)
		*ret_id = info.id;
	return r;
}

int bpfsys_tcx_info(int fd, uint32_t *ret_ifindex, uint32_t *ret_prog_id)
{
	struct bpf_link_info info;
	union bpf_attr attr;
	int r;

	memset(&info, 0, sizeof(info));
	attr_clear(&attr);
	attr.info.bpf_fd = fd;
	attr.info.info_len = sizeof(info);
	attr.info.info = ptr_u64(&info);
	r = bpfsys(BPF_OBJ_GET_INFO_BY_FD, &attr);
	if (r < 0)
		return r;
	*ret_ifindex = info.xdp.ifindex; /* where a TCX link has it too; old headers do not say */
	*ret_prog_id = info.prog_id;
	return 0;
}

int bpfsys_tcx_attach(int prog_fd, uint32_t ifindex, int egress, int first)
{
	union bpf_attr attr;

	attr_clear(&attr);
	attr.link_create.prog_fd = prog_fd;
	attr.link_create.target_ifindex = ifindex;
	attr.link_create.attach_type = egress ? TCX_EGRESS : TCX_INGRESS;
	attr.link_create.flags = first ? TCX_BEFORE : 0;
	return bpfsys(BPF_LINK_CREATE, &attr);
}
