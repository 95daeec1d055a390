/* The CUDA runtime of a GPU that does nothing.
 *
 * Preloaded (LD_PRELOAD), it stands in front of libcudart: torch's own dispatcher, caching allocator and launch code run
 * on a machine without GPU and driver.  Device memory is address space that nobody can touch.  Kernels and copies are
 * counted and not run.  What comes back to the host is zero.
 *
 * Environment: NULLGPU_COUNT (GPUs, 1), NULLGPU_MEMORY_MIB (of each, an H200's), NULLGPU_PROCESSES (a folder where each
 * process leaves a file "<gpu>-<pid>" when it first takes memory; the stand-in for NVML reads it).
 */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define OK cudaSuccess
#define MIB ((size_t)1 << 20)
#define PAGE (2 * MIB)           /* device memory is handed out in these */
#define SPACE ((size_t)1 << 45)  /* address space of all devices together */
#define PINNED ((size_t)1 << 38) /* and of pinned host memory */
#define MOST_GPUS 16

/* ---- counts, read by nullgpu_counts ------------------------------------------------------------------------------- */

enum { LAUNCHES, TO_DEVICE, TO_HOST, ON_DEVICE, WAITS, REPLAYS, COUNTS };
static unsigned long counted[COUNTS];

void nullgpu_count(int what) { __sync_fetch_and_add(&counted[what], 1); }
void nullgpu_counts(unsigned long *into) { memcpy(into, counted, sizeof counted); }
void nullgpu_reset(void) { memset(counted, 0, sizeof counted); }

/* ---- devices: those of CUDA_VISIBLE_DEVICES, by number or UUID ("GPU-...", whose last digit is the number) --------- */

static int visible[MOST_GPUS], num_visible = -1;
static __thread int current;

static int number_in(const char *name, int fallback) {
    const char *value = getenv(name);
    return value ? atoi(value) : fallback;
}

static size_t total_bytes(void) { return number_in("NULLGPU_MEMORY_MIB", 143771) * MIB; }

static void find_devices(void) {
    if (num_visible >= 0) return;
    int installed = number_in("NULLGPU_COUNT", 1), found = 0;
    const char *named = getenv("CUDA_VISIBLE_DEVICES");
    if (!named) {
        for (; found < installed; found++) visible[found] = found;
    } else {
        char words[1024], *rest = words;
        snprintf(words, sizeof words, "%s", named);
        for (char *word; (word = strsep(&rest, ",")) && *word;) {
            int gpu = strncmp(word, "GPU-", 4) ? atoi(word) : word[strlen(word) - 1] - '0';
            if (gpu < 0 || gpu >= installed) break;
            visible[found++] = gpu;
        }
    }
    num_visible = found;
}

cudaError_t cudaGetDeviceCount(int *count) {
    find_devices();
    *count = num_visible;
    return num_visible ? OK : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int *device) { *device = current; return OK; }
cudaError_t cudaSetDevice(int device) { current = device; return OK; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return OK; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return OK; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    find_devices();
    *found = (struct cudaDeviceProp){
        .totalGlobalMem = total_bytes(), .sharedMemPerBlock = 49152, .regsPerBlock = 65536, .warpSize = 32,
        .maxThreadsPerBlock = 1024, .maxThreadsDim = {1024, 1024, 64}, .maxGridSize = {2147483647, 65535, 65535},
        .totalConstMem = 65536, .major = 9, .minor = 0, .textureAlignment = 512, .multiProcessorCount = 132,
        .canMapHostMemory = 1, .concurrentKernels = 1, .pciBusID = 1 + visible[device], .l2CacheSize = 60 * MIB,
        .maxThreadsPerMultiProcessor = 2048, .sharedMemPerMultiprocessor = 233472, .regsPerMultiprocessor = 65536,
        .sharedMemPerBlockOptin = 232448, .cooperativeLaunch = 1, .maxBlocksPerMultiProcessor = 32};
    strcpy(found->name, "null GPU");
    memcpy(found->uuid.bytes, "null-gpu-uuid-00", 16);
    found->uuid.bytes[15] += visible[device];
    return OK;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp properties;
    cudaGetDeviceProperties(&properties, device);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = properties.maxThreadsPerBlock; break;
    case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = properties.sharedMemPerBlock; break;
    case cudaDevAttrTotalConstantMemory: *value = properties.totalConstMem; break;
    case cudaDevAttrWarpSize: *value = properties.warpSize; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = properties.regsPerBlock; break;
    case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; break;
    case cudaDevAttrL2CacheSize: *value = properties.l2CacheSize; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = properties.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = properties.sharedMemPerMultiprocessor; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = properties.regsPerMultiprocessor; break;
    case cudaDevAttrCooperativeLaunch: *value = 1; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = properties.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = properties.maxBlocksPerMultiProcessor; break;
    default: *value = 0;
    }
    return OK;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    find_devices();
    snprintf(text, length, "0000:%02x:00.0", 1 + visible[device]);
    return OK;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return OK; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return OK; }
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device) { *pool = (cudaMemPool_t)8; return OK; }

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *device_space, *pinned_space;
static size_t device_end, pinned_end;        /* handed out up to here; addresses are never used twice */
static size_t size_at_page[SPACE / PAGE];    /* of the allocation that begins there */
static size_t taken[MOST_GPUS];              /* of each visible device */
static int device_at_page[SPACE / PAGE];

static char *reserve(char **space, size_t *end, size_t size, size_t unit, size_t limit, int access) {
    pthread_mutex_lock(&lock);
    if (!*space) *space = mmap(0, limit, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*space == MAP_FAILED) { perror("null GPU: no address space"); abort(); }
    char *begin = *space + *end;
    *end += (size + unit - 1) / unit * unit;
    pthread_mutex_unlock(&lock);
    return begin;
}

static char *reserve_on_device(size_t size) {
    return reserve(&device_space, &device_end, size, PAGE, SPACE, PROT_NONE);
}

static void sign_in(void) {
    static int signed_in;
    const char *folder = getenv("NULLGPU_PROCESSES");
    if (!folder || signed_in == getpid()) return;
    signed_in = getpid();
    find_devices();
    char path[512];
    snprintf(path, sizeof path, "%s/%d-%d", folder, visible[current], signed_in);
    FILE *file = fopen(path, "w");
    if (file) fclose(file);
}

/* Whether the device has so much left; if so it is taken. */
static int take(int device, size_t size) {
    sign_in();
    pthread_mutex_lock(&lock);
    int fits = taken[device] + size <= total_bytes();
    if (fits) taken[device] += size;
    pthread_mutex_unlock(&lock);
    return fits;
}
static void give_back(int device, size_t size) { __sync_fetch_and_sub(&taken[device], size); }

static int on_device(const void *address) {
    return device_space && (char *)address >= device_space && (char *)address < device_space + SPACE;
}
static int is_pinned(const void *address) {
    return pinned_space && (char *)address >= pinned_space && (char *)address < pinned_space + PINNED;
}
static size_t page_of(const void *address) { return ((char *)address - device_space) / PAGE; }

cudaError_t cudaMalloc(void **address, size_t size) {
    if (!take(current, size)) { *address = 0; return cudaErrorMemoryAllocation; }
    *address = reserve_on_device(size);
    size_at_page[page_of(*address)] = size;
    device_at_page[page_of(*address)] = current;
    return OK;
}
cudaError_t cudaFree(void *address) {
    if (!address) return OK;
    size_t page = page_of(address);
    give_back(device_at_page[page], size_at_page[page]);
    size_at_page[page] = 0;
    return OK;
}
cudaError_t cudaMallocAsync(void **address, size_t size, cudaStream_t stream) { return cudaMalloc(address, size); }
cudaError_t cudaFreeAsync(void *address, cudaStream_t stream) { return cudaFree(address); }
cudaError_t cudaMallocHost(void **address, size_t size) {
    *address = reserve(&pinned_space, &pinned_end, size, 4096, PINNED, PROT_READ | PROT_WRITE);
    return OK;
}
cudaError_t cudaHostAlloc(void **address, size_t size, unsigned flags) { return cudaMallocHost(address, size); }
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes) {
    *all_bytes = total_bytes();
    *free_bytes = *all_bytes - taken[current];
    return OK;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *address) {
    *found = (struct cudaPointerAttributes){.devicePointer = (void *)address, .type = cudaMemoryTypeUnregistered};
    if (on_device(address)) found->type = cudaMemoryTypeDevice;
    if (is_pinned(address)) found->type = cudaMemoryTypeHost;
    return OK;
}

/* Virtual memory, which the allocator uses with expandable_segments: addresses and memory apart. */
static int address_reserve(uintptr_t *address, size_t size, size_t alignment, uintptr_t wish, unsigned long long flags) {
    *address = (uintptr_t)reserve_on_device(size);
    return 0;
}
struct physical { size_t size; int device; };
static int memory_create(uintptr_t *handle, size_t size, void *properties, unsigned long long flags) {
    int device = current;
    if (!take(device, size)) return 2; /* CUDA_ERROR_OUT_OF_MEMORY */
    struct physical *made = malloc(sizeof *made);
    *made = (struct physical){size, device};
    *handle = (uintptr_t)made;
    return 0;
}
static int memory_release(uintptr_t handle) {
    struct physical *held = (struct physical *)handle;
    give_back(held->device, held->size);
    free(held);
    return 0;
}
static int granularity(size_t *found, void *properties, int option) { *found = PAGE; return 0; }
static int succeed(void) { return 0; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    *function = !strcmp(name, "cuMemAddressReserve") ? (void *)address_reserve
              : !strcmp(name, "cuMemCreate") ? (void *)memory_create
              : !strcmp(name, "cuMemRelease") ? (void *)memory_release
              : !strcmp(name, "cuMemGetAllocationGranularity") ? (void *)granularity : (void *)succeed;
    if (result) *result = cudaDriverEntryPointSuccess;
    return OK;
}

static void copy(void *to, const void *from, size_t size) {
    if (on_device(to)) {
        nullgpu_count(on_device(from) ? ON_DEVICE : TO_DEVICE);
    } else if (on_device(from)) {
        nullgpu_count(TO_HOST);
        memset(to, 0, size);
    } else {
        memmove(to, from, size);
    }
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    copy(to, from, size);
    nullgpu_count(WAITS);
    return OK;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    copy(to, from, size);
    return OK;
}
cudaError_t cudaMemcpyPeerAsync(void *to, int device, const void *from, int other, size_t size, cudaStream_t stream) {
    copy(to, from, size);
    return OK;
}
cudaError_t cudaGetSymbolAddress(void **address, const void *symbol) { *address = (void *)4096; return OK; }

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

void **__cudaRegisterFatBinary(void *binary) { static void *handle[4]; return handle; }
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) { *kernel = (cudaKernel_t)function; return OK; }

/* Between cudaStreamBeginCapture and cudaStreamEndCapture kernels become nodes of a graph: see below. */
struct CUgraph_st { size_t nodes; };
static struct CUgraph_st *captured;
static cudaStream_t capturing;

void nullgpu_launch(void) {
    if (captured) captured->nodes++;
    else nullgpu_count(LAUNCHES);
}
static cudaError_t launch(void) { nullgpu_launch(); return OK; }
cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream) { return launch(); }
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream) { return launch(); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **arguments) {
    return launch();
}
cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared,
                                        cudaStream_t stream) { return launch(); }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument) {
    function(argument);
    return OK;
}
cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void *argument, unsigned flags) {
    function(stream, OK, argument);
    return OK;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *function) {
    *found = (struct cudaFuncAttributes){.maxThreadsPerBlock = 1024, .numRegs = 32, .ptxVersion = 90,
                                         .binaryVersion = 90, .maxDynamicSharedSizeBytes = 232448};
    return OK;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads,
                                                          size_t shared) {
    *blocks = threads > 64 ? 2048 / threads : 32;
    return OK;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads,
                                                                   size_t shared, unsigned flags) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared);
}

/* ---- streams and events: all is done as soon as it is asked for ---------------------------------------------------- */

static cudaError_t wait_for_device(void) {
    if (captured) return cudaErrorStreamCaptureUnsupported;
    nullgpu_count(WAITS);
    return OK;
}
cudaError_t cudaDeviceSynchronize(void) { return wait_for_device(); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return wait_for_device(); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return wait_for_device(); }

cudaError_t cudaStreamCreate(cudaStream_t *stream) { *stream = malloc(8); return OK; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    return cudaStreamCreate(stream);
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; return OK; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = captured && stream == capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return OK;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **dependencies,
                                     const cudaGraphEdgeData **edges, size_t *count) {
    if (id) *id = captured != NULL;
    if (graph) *graph = captured;
    if (count) *count = 0;
    return cudaStreamIsCapturing(stream, status);
}

/* ---- graphs: a replay is one launch of the host, whatever its nodes ------------------------------------------------ */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    if (captured) return cudaErrorIllegalState;
    captured = calloc(1, sizeof *captured);
    capturing = stream;
    return OK;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = captured;
    captured = NULL;
    return OK;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    *count = graph->nodes;
    return OK;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long flags) {
    *made = malloc(8);
    return OK;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long flags) {
    return cudaGraphInstantiate(made, graph, flags);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) { nullgpu_count(REPLAYS); return OK; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { free(graph); return OK; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { free(graph); return OK; }

cudaError_t cudaEventCreate(cudaEvent_t *event) { *event = calloc(1, sizeof(struct timespec)); return OK; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { free(event); return OK; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    clock_gettime(CLOCK_MONOTONIC, (struct timespec *)event);
    return OK;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    return cudaEventRecord(event, stream);
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    struct timespec *from = (struct timespec *)begin, *to = (struct timespec *)end;
    *milliseconds = (to->tv_sec - from->tv_sec) * 1e3 + (to->tv_nsec - from->tv_nsec) / 1e6;
    return OK;
}
