/* What else torch calls on a GPU: cuBLAS, cuDNN, NCCL, and the parts of the CUDA runtime that have nothing to do.
 *
 * A C function may be called with more arguments than it looks at, so most of these look at none.  Part of the same
 * preloaded library as runtime.c.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void nullgpu_launch(void);

#define SUCCEEDS(name) int name(void) { return 0; }
#define LAUNCHED(name) int name(void) { nullgpu_launch(); return 0; }
#define CREATES(name) int name(void **handle) { *handle = calloc(1, 512); return 0; }
#define RELEASES(name) int name(void *handle) { free(handle); return 0; }
#define ANSWERS(name, answer) int name(void *handle, int *value) { *value = answer; return 0; }

/* ---- CUDA runtime */
SUCCEEDS(__cudaRegisterFatBinaryEnd) SUCCEEDS(__cudaUnregisterFatBinary) SUCCEEDS(__cudaRegisterFunction)
SUCCEEDS(__cudaRegisterVar) SUCCEEDS(cudaGetLastError) SUCCEEDS(cudaPeekAtLastError) SUCCEEDS(cudaDeviceEnablePeerAccess)
SUCCEEDS(cudaFreeHost) SUCCEEDS(cudaHostRegister) SUCCEEDS(cudaHostUnregister) SUCCEEDS(cudaMemcpyToSymbol)
SUCCEEDS(cudaMemset) SUCCEEDS(cudaMemsetAsync) SUCCEEDS(cudaStreamDestroy) SUCCEEDS(cudaStreamQuery)
SUCCEEDS(cudaStreamWaitEvent) SUCCEEDS(cudaThreadExchangeStreamCaptureMode) SUCCEEDS(cudaEventQuery)
SUCCEEDS(cudaFuncSetAttribute) SUCCEEDS(cudaKernelSetAttributeForDevice) SUCCEEDS(cudaProfilerStart)
SUCCEEDS(cudaProfilerStop)

/* ---- cuBLAS */
CREATES(cublasCreate_v2) RELEASES(cublasDestroy_v2) SUCCEEDS(cublasSetStream_v2) SUCCEEDS(cublasSetWorkspace_v2)
SUCCEEDS(cublasSetMathMode) ANSWERS(cublasGetMathMode, 0) SUCCEEDS(cublasSetPointerMode_v2)
ANSWERS(cublasGetPointerMode_v2, 0) SUCCEEDS(cublasSetSmCountTarget)
LAUNCHED(cublasGemmEx) LAUNCHED(cublasGemmStridedBatchedEx) LAUNCHED(cublasSgemm_v2) LAUNCHED(cublasSgemmEx)
LAUNCHED(cublasDgemm_v2) LAUNCHED(cublasSgemmStridedBatched) LAUNCHED(cublasDgemmStridedBatched)
LAUNCHED(cublasSgemv_v2) LAUNCHED(cublasDgemv_v2) LAUNCHED(cublasSdot_v2) LAUNCHED(cublasDdot_v2) LAUNCHED(cublasDotEx)

CREATES(cublasLtMatmulDescCreate) RELEASES(cublasLtMatmulDescDestroy) SUCCEEDS(cublasLtMatmulDescSetAttribute)
CREATES(cublasLtMatmulPreferenceCreate) RELEASES(cublasLtMatmulPreferenceDestroy)
SUCCEEDS(cublasLtMatmulPreferenceSetAttribute) CREATES(cublasLtMatrixLayoutCreate)
RELEASES(cublasLtMatrixLayoutDestroy) SUCCEEDS(cublasLtMatrixLayoutSetAttribute) LAUNCHED(cublasLtMatmul)

struct heuristic { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, struct heuristic *found, int *count) {
    memset(found, 0, sizeof *found);
    *count = 1;
    return 0;
}

/* ---- cuDNN by its older interface (TORCH_CUDNN_V8_API_DISABLED=1); its algorithms need no workspace here */
CREATES(cudnnCreate) SUCCEEDS(cudnnDestroy) SUCCEEDS(cudnnSetStream)
int cudnnGetStream(void *handle, void **stream) { *stream = NULL; return 0; }
CREATES(cudnnCreateTensorDescriptor) RELEASES(cudnnDestroyTensorDescriptor) SUCCEEDS(cudnnSetTensorNdDescriptor)
CREATES(cudnnCreateFilterDescriptor) RELEASES(cudnnDestroyFilterDescriptor) SUCCEEDS(cudnnSetFilterNdDescriptor)
CREATES(cudnnCreateConvolutionDescriptor) RELEASES(cudnnDestroyConvolutionDescriptor)
SUCCEEDS(cudnnSetConvolutionNdDescriptor) SUCCEEDS(cudnnSetConvolutionGroupCount) SUCCEEDS(cudnnSetConvolutionMathType)
CREATES(cudnnCreateActivationDescriptor) RELEASES(cudnnDestroyActivationDescriptor)
SUCCEEDS(cudnnSetActivationDescriptor) CREATES(cudnnCreatePoolingDescriptor) RELEASES(cudnnDestroyPoolingDescriptor)
SUCCEEDS(cudnnSetPooling2dDescriptor)
LAUNCHED(cudnnConvolutionForward) LAUNCHED(cudnnConvolutionBackwardData) LAUNCHED(cudnnConvolutionBackwardFilter)
LAUNCHED(cudnnConvolutionBiasActivationForward) LAUNCHED(cudnnBatchNormalizationForwardInference)
LAUNCHED(cudnnPoolingForward)

struct algorithm { int number, status; float time; size_t workspace; int deterministic, math, reserved[3]; };
#define CHOOSES(name) \
    int name(void *handle, void *x, void *w, void *operation, void *y, int wanted, int *count, struct algorithm *found) { \
        *found = (struct algorithm){.number = 1, .deterministic = 1, .math = 3}; \
        *count = 1; \
        return 0; \
    }
CHOOSES(cudnnGetConvolutionForwardAlgorithm_v7) CHOOSES(cudnnGetConvolutionBackwardDataAlgorithm_v7)
CHOOSES(cudnnGetConvolutionBackwardFilterAlgorithm_v7)
#define NEEDS_NO_WORKSPACE(name) \
    int name(void *handle, void *x, void *w, void *operation, void *y, int algorithm, size_t *size) { \
        *size = 0; \
        return 0; \
    }
NEEDS_NO_WORKSPACE(cudnnGetConvolutionForwardWorkspaceSize)
NEEDS_NO_WORKSPACE(cudnnGetConvolutionBackwardDataWorkspaceSize)
NEEDS_NO_WORKSPACE(cudnnGetConvolutionBackwardFilterWorkspaceSize)

/* ---- NCCL, which moves nothing */
struct communicator { int count, rank; };
struct unique_id { char bytes[128]; };

int ncclGetVersion(int *version) { *version = 22802; return 0; }
int ncclGetUniqueId(struct unique_id *id) { memset(id, 1, sizeof *id); return 0; }
const char *ncclGetErrorString(int error) { return "null NCCL"; }
const char *ncclGetLastError(void *communicator) { return "null NCCL"; }

static int join(struct communicator **made, int count, int rank) {
    *made = malloc(sizeof **made);
    **made = (struct communicator){count, rank};
    return 0;
}
int ncclCommInitRank(struct communicator **made, int count, struct unique_id id, int rank) {
    return join(made, count, rank);
}
int ncclCommInitRankConfig(struct communicator **made, int count, struct unique_id id, int rank, void *config) {
    return join(made, count, rank);
}
int ncclCommInitRankScalable(struct communicator **made, int count, int rank, int ids, void *id, void *config) {
    return join(made, count, rank);
}
int ncclCommSplit(struct communicator *whole, int color, int key, struct communicator **made, void *config) {
    return join(made, whole->count, whole->rank);
}
int ncclCommCount(struct communicator *communicator, int *count) { *count = communicator->count; return 0; }
int ncclCommUserRank(struct communicator *communicator, int *rank) { *rank = communicator->rank; return 0; }
ANSWERS(ncclCommGetAsyncError, 0)
SUCCEEDS(ncclCommAbort) SUCCEEDS(ncclCommDestroy) SUCCEEDS(ncclCommFinalize) SUCCEEDS(ncclGroupStart)
SUCCEEDS(ncclGroupEnd) SUCCEEDS(ncclCommRegister) SUCCEEDS(ncclCommDeregister) SUCCEEDS(ncclCommRevoke)
SUCCEEDS(ncclCommShrink) SUCCEEDS(ncclCommSuspend) SUCCEEDS(ncclCommResume)
LAUNCHED(ncclAllReduce) LAUNCHED(ncclAllGather) LAUNCHED(ncclReduceScatter) LAUNCHED(ncclBroadcast)
LAUNCHED(ncclBcast) LAUNCHED(ncclReduce) LAUNCHED(ncclSend) LAUNCHED(ncclRecv) LAUNCHED(ncclAlltoAll)
LAUNCHED(ncclGather)
