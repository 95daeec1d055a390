/* The driver's management library (libnvidia-ml) of null GPUs: who they are, and which processes took memory on them. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define NOT_SUPPORTED 3
#define MIB (1ULL << 20)

struct process { unsigned pid; unsigned long long used; unsigned instance, compute_instance; };
struct memory { unsigned version; unsigned long long total, reserved, free, used; };

static long count(void) { const char *value = getenv("NULLGPU_COUNT"); return value ? atoi(value) : 1; }
static long number_of(void *handle) { return (long)handle - 1; }

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int error) { return "null NVML"; }
int nvmlDeviceGetCount_v2(unsigned *found) { *found = count(); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(long)(index + 1);
    return index < count() ? 0 : NOT_FOUND;
}
/* The UUID of runtime.c's cudaGetDeviceProperties, as text. */
int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    unsigned char bytes[17] = "null-gpu-uuid-00";
    bytes[15] += number_of(handle);
    int written = snprintf(text, length, "GPU-");
    for (int i = 0; i < 16; i++) {
        const char *dash = i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";
        written += snprintf(text + written, length - written, "%s%02x", dash, bytes[i]);
    }
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    char text[96];
    for (long number = 0; number < count(); number++) {
        *handle = (void *)(number + 1);
        nvmlDeviceGetUUID(*handle, text, sizeof text);
        if (!strcmp(text, uuid)) return 0;
    }
    return NOT_FOUND;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **handle) {
    unsigned bus = 1;
    sscanf(id, "%*x:%x", &bus);
    *handle = (void *)(long)bus;
    return 0;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) { return NOT_SUPPORTED; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *found, struct process *processes) {
    const char *path = getenv("NULLGPU_PROCESSES");
    DIR *folder = path ? opendir(path) : NULL;
    unsigned room = processes ? *found : 0;
    *found = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        int number, pid;
        if (sscanf(entry->d_name, "%d-%d", &number, &pid) != 2 || number != number_of(handle) || kill(pid, 0)) continue;
        if (*found < room) processes[*found] = (struct process){.pid = pid, .used = 1024 * MIB};
        ++*found;
    }
    if (folder) closedir(folder);
    return *found > room ? INSUFFICIENT_SIZE : 0;
}
int nvmlDeviceGetComputeRunningProcesses(void *handle, unsigned *found, struct process *processes) {
    return nvmlDeviceGetComputeRunningProcesses_v3(handle, found, processes);
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory *found) {
    found->total = 143771 * MIB;
    found->reserved = 500 * MIB;
    found->used = 1024 * MIB;
    found->free = found->total - found->used;
    return 0;
}
/* 100 W, and a millijoule for each launch of this process. */
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    struct timespec now;
    unsigned long counted[16] = {0};
    void (*read_counts)(unsigned long *) = dlsym(RTLD_DEFAULT, "nullgpu_counts");
    if (read_counts) read_counts(counted);
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = 100000ULL * now.tv_sec + now.tv_nsec / 10000 + counted[0];
    return 0;
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "0.0.null"); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13020; return 0; }
int nvmlDeviceGetGpuFabricInfoV(void *handle, void *info) { return NOT_SUPPORTED; }
int nvmlDeviceGetNvLinkRemoteDeviceType(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void) { return NOT_SUPPORTED; }
