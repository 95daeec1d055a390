/* The driver's library (libcuda) of a null GPU: torch looks its functions up by name, and each of them succeeds. */
#define SUCCEEDS(name) int name(void) { return 0; }
SUCCEEDS(cuInit) SUCCEEDS(cuGetErrorString) SUCCEEDS(cuGetErrorName)
SUCCEEDS(cuDeviceGet) SUCCEEDS(cuDeviceGetAttribute) SUCCEEDS(cuDeviceGetUuid_v2) SUCCEEDS(cuDeviceGetDevResource)
SUCCEEDS(cuDevSmResourceSplitByCount) SUCCEEDS(cuDevResourceGenerateDesc)
SUCCEEDS(cuDevicePrimaryCtxRetain) SUCCEEDS(cuDevicePrimaryCtxGetState)
SUCCEEDS(cuCtxGetCurrent) SUCCEEDS(cuCtxSetCurrent) SUCCEEDS(cuCtxPopCurrent) SUCCEEDS(cuCtxPushCurrent)
SUCCEEDS(cuCtxFromGreenCtx) SUCCEEDS(cuGreenCtxCreate) SUCCEEDS(cuGreenCtxDestroy)
SUCCEEDS(cuStreamGetCtx) SUCCEEDS(cuStreamGetGreenCtx) SUCCEEDS(cuStreamGetPriority) SUCCEEDS(cuStreamWriteValue32)
SUCCEEDS(cuMemAddressReserve) SUCCEEDS(cuMemAddressFree) SUCCEEDS(cuMemCreate) SUCCEEDS(cuMemRelease)
SUCCEEDS(cuMemMap) SUCCEEDS(cuMemUnmap) SUCCEEDS(cuMemSetAccess) SUCCEEDS(cuMemGetAllocationGranularity)
SUCCEEDS(cuMemExportToShareableHandle) SUCCEEDS(cuMemImportFromShareableHandle) SUCCEEDS(cuMemsetD32Async)
SUCCEEDS(cuMulticastCreate) SUCCEEDS(cuMulticastAddDevice) SUCCEEDS(cuMulticastBindMem) SUCCEEDS(cuMulticastUnbind)
SUCCEEDS(cuModuleLoadData) SUCCEEDS(cuModuleGetFunction) SUCCEEDS(cuLaunchKernel) SUCCEEDS(cuFuncSetAttribute)
SUCCEEDS(cuFuncGetAttribute) SUCCEEDS(cuOccupancyMaxActiveBlocksPerMultiprocessor) SUCCEEDS(cuTensorMapEncodeTiled)
SUCCEEDS(cuPointerGetAttribute)

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
    *function = (void *)cuInit;
    if (status) *status = 0;
    return 0;
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, function, version, flags, 0);
}
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
