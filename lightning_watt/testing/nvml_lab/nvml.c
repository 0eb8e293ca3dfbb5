/* A fake NVIDIA management library: NVML's own ABI over a scenario with a known power curve (scenario.h).
 *
 * Symbols, structs, enums and return codes follow NVIDIA's nvml.h as its Python binding, pynvml 13, declares them.
 * Each call holds the state's read lock, so that init and shutdown can come from any thread at any time. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "scenario.h"

#define EXPORT __attribute__((visibility("default")))

/* ---- nvml.h ---- */

typedef int nvmlReturn_t;
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13,
};
enum { VALUE_UNSIGNED_INT = 1, VALUE_UNSIGNED_LONG_LONG = 3 };
enum { FIELD_ENERGY_TOTAL = 83, FIELD_POWER_AVERAGE = 185, FIELD_POWER_INSTANT = 186, FIELD_ENERGY = 191 };
enum { SCOPE_GPU = 0, SCOPE_MODULE = 1 };
enum { TOTAL_POWER_SAMPLES = 0 };

typedef union {
    double dVal;
    unsigned uiVal;
    unsigned long ulVal;
    unsigned long long ullVal;
} nvmlValue_t;
typedef struct {
    uint32_t fieldId, scopeId;
    int64_t timestamp, latencyUsec;
    uint32_t valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;
typedef struct {
    unsigned long long timeStamp;
    nvmlValue_t sampleValue;
} nvmlSample_t;
typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;
typedef struct {
    unsigned pid;
    unsigned long long usedGpuMemory;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t; /* _v2 and _v3 share it */
typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;
typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;
typedef struct {
    unsigned gpu, memory;
} nvmlUtilization_t;
_Static_assert(sizeof(nvmlFieldValue_t) == 40 && sizeof(nvmlSample_t) == 16 && sizeof(nvmlPciInfo_t) == 68 &&
                   sizeof(nvmlProcessInfo_t) == 24 && sizeof(nvmlMemory_v2_t) == 40,
               "the ABI that pynvml expects");

/* A handle stays a valid address after shutdown, as real ones do. */
typedef struct {
    int board, mig; /* mig: -1 for the board itself */
} Handle;
typedef Handle *nvmlDevice_t;
static Handle handles[MAX_BOARDS][1 + MAX_MIG];

/* ---- state, and what every call does first ---- */

/* Every name that a scenario can give a fault to or call missing; tests/nvml_lab/lab.py reads this list. */
#define FUNCTIONS(X)                                                                                                   \
    X(nvmlInitWithFlags) X(nvmlInit) X(nvmlShutdown)                                                                   \
    X(nvmlSystemGetDriverVersion) X(nvmlSystemGetNVMLVersion) X(nvmlSystemGetCudaDriverVersion_v2)                     \
    X(nvmlSystemGetProcessName)                                                                                        \
    X(nvmlDeviceGetCount_v2) X(nvmlDeviceGetHandleByIndex_v2) X(nvmlDeviceGetHandleByUUID)                             \
    X(nvmlDeviceGetHandleByPciBusId_v2)                                                                                \
    X(nvmlDeviceGetName) X(nvmlDeviceGetUUID) X(nvmlDeviceGetIndex) X(nvmlDeviceGetMinorNumber)                        \
    X(nvmlDeviceGetPciInfo_v3) X(nvmlDeviceGetArchitecture) X(nvmlDeviceGetCudaComputeCapability)                      \
    X(nvmlDeviceGetPersistenceMode) X(nvmlDeviceGetVirtualizationMode) X(nvmlDeviceGetComputeMode)                     \
    X(nvmlDeviceGetTotalEnergyConsumption) X(nvmlDeviceGetPowerUsage) X(nvmlDeviceGetFieldValues)                      \
    X(nvmlDeviceGetSamples)                                                                                            \
    X(nvmlDeviceGetPowerManagementLimitConstraints) X(nvmlDeviceGetEnforcedPowerLimit)                                 \
    X(nvmlDeviceGetPowerManagementLimit) X(nvmlDeviceGetPowerManagementDefaultLimit)                                   \
    X(nvmlDeviceGetMemoryInfo) X(nvmlDeviceGetMemoryInfo_v2) X(nvmlDeviceGetUtilizationRates)                          \
    X(nvmlDeviceGetTemperature) X(nvmlDeviceGetClockInfo)                                                              \
    X(nvmlDeviceGetComputeRunningProcesses_v2) X(nvmlDeviceGetComputeRunningProcesses_v3)                              \
    X(nvmlDeviceGetGraphicsRunningProcesses_v3)                                                                        \
    X(nvmlDeviceGetMigMode) X(nvmlDeviceGetMaxMigDeviceCount) X(nvmlDeviceGetMigDeviceHandleByIndex)                   \
    X(nvmlDeviceGetDeviceHandleFromMigDeviceHandle) X(nvmlDeviceIsMigDeviceHandle) X(nvmlDeviceGetGpuInstanceId)       \
    X(nvmlDeviceGetComputeInstanceId)

#define AS_ENUM(name) FN_##name,
#define AS_TEXT(name) #name,
enum { FUNCTIONS(AS_ENUM) FUNCTION_COUNT };
static const char *const FUNCTION_NAMES[] = {FUNCTIONS(AS_TEXT)};

static pthread_rwlock_t state_lock = PTHREAD_RWLOCK_INITIALIZER;
static Scenario *scenario; /* set while `users` is above 0 */
static unsigned users;
static atomic_ulong generation; /* a call that slept through a shutdown must not use the old scenario */
static _Thread_local int slept_through; /* and what its thread shuts down later is not the scenario of others */

static atomic_ullong call_counts[FUNCTION_COUNT];
static pthread_mutex_t threads_lock = PTHREAD_MUTEX_INITIALIZER;
static long threads[256];
static size_t thread_count;
static atomic_ulong count_epoch = 1;
static _Thread_local unsigned long seen_epoch;

static int function_of(const char *name) {
    for (int i = 0; i < FUNCTION_COUNT; i++)
        if (!strcmp(name, FUNCTION_NAMES[i])) return i;
    return -1;
}

static void count_call(int function) {
    atomic_fetch_add_explicit(&call_counts[function], 1, memory_order_relaxed);
    if (seen_epoch == atomic_load_explicit(&count_epoch, memory_order_relaxed)) return;
    pthread_mutex_lock(&threads_lock);
    seen_epoch = count_epoch;
    if (thread_count < sizeof threads / sizeof *threads) threads[thread_count++] = syscall(SYS_gettid);
    pthread_mutex_unlock(&threads_lock);
}

/* The present on a clock of the test's own, which moves by what calls take; 0: the machine's clock. */
EXPORT _Atomic int64_t nvmlLabClockNs;

static int64_t machine_ns(void) {
    int64_t own_ns = nvmlLabClockNs;
    return own_ns ? own_ns : clock_ns(CLOCK_MONOTONIC);
}

static int64_t now_ns(void) {
    return scenario->t0_ns == NOT_YET ? scenario->age_ns : machine_ns() - scenario->t0_ns;
}

static void scan_faults(const Faults *faults, int function, int64_t t_ns, int64_t *sleep_ns, nvmlReturn_t *code) {
    for (size_t i = 0; i < faults->count; i++) {
        const Fault *f = &faults->items[i];
        if ((f->function != ANY_FUNCTION && f->function != function) || !fault_active(f, t_ns)) continue;
        if (f->kind == FAULT_SLEEP) *sleep_ns += (int64_t)f->value;
        if (f->kind == FAULT_ERROR && *code == SUCCESS) *code = (nvmlReturn_t)f->value;
    }
}

static void sleep_for(int64_t ns) {
    if (nvmlLabClockNs) {
        nvmlLabClockNs += ns;
        return;
    }
    struct timespec left = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (nanosleep(&left, &left)) {
    }
}

/* Sleeps and fails as the scenario says. Called with the lock held, and returns with it held. */
static nvmlReturn_t faults(int function, const Faults *of, int64_t sleep_ns) {
    if (!of->count && !sleep_ns) return SUCCESS;
    nvmlReturn_t code = SUCCESS;
    scan_faults(of, function, now_ns(), &sleep_ns, &code);
    if (sleep_ns > 0) {
        unsigned long before = generation;
        /* A hung call must not keep other threads from shutting down. */
        pthread_rwlock_unlock(&state_lock);
        sleep_for(sleep_ns);
        pthread_rwlock_rdlock(&state_lock);
        if (!users || before != generation) {
            slept_through = 1;
            return UNINITIALIZED;
        }
    }
    return code;
}

/* A call finds its answer in the middle of the time that it takes; the second half of it is left. */
static _Thread_local int64_t left_ns;

static nvmlReturn_t leave(nvmlReturn_t code) {
    int64_t ns = left_ns;
    left_ns = 0;
    pthread_rwlock_unlock(&state_lock);
    if (ns > 0) sleep_for(ns);
    return code;
}

/* Half of what this call takes: 0.7 to 1.3 times the board's mean. */
static int64_t half_call_ns(int function, const Board *b) {
    if (b->call_ns <= 0) return 0;
    return b->call_ns * (int64_t)(700 + mixed(call_counts[function]) % 601) / 2000;
}

static int reads(int function) {
    return function == FN_nvmlDeviceGetTotalEnergyConsumption || function == FN_nvmlDeviceGetPowerUsage ||
           function == FN_nvmlDeviceGetSamples || function == FN_nvmlDeviceGetFieldValues;
}

/* On success the lock is held and the caller ends with leave(). */
static nvmlReturn_t enter(int function) {
    count_call(function);
    pthread_rwlock_rdlock(&state_lock);
    if (!users) return leave(UNINITIALIZED);
    if (scenario->missing[function]) return leave(FUNCTION_NOT_FOUND);
    nvmlReturn_t code = faults(function, &scenario->faults, 0);
    return code == SUCCESS ? SUCCESS : leave(code);
}

static nvmlReturn_t enter_device(int function, nvmlDevice_t device, Handle *handle, Board **board) {
    nvmlReturn_t code = enter(function);
    if (code != SUCCESS) return code;
    size_t at = (size_t)((uintptr_t)device - (uintptr_t)handles);
    if (at >= sizeof handles || at % sizeof(Handle)) return leave(INVALID_ARGUMENT);
    size_t slot = at / sizeof(Handle);
    *handle = (Handle){.board = (int)(slot / (1 + MAX_MIG)), .mig = (int)(slot % (1 + MAX_MIG)) - 1};
    if (handle->board >= scenario->board_count) return leave(INVALID_ARGUMENT);
    *board = &scenario->boards[handle->board];
    if (handle->mig >= (*board)->mig_count) return leave(INVALID_ARGUMENT);
    if (scenario->t0_ns == NOT_YET && reads(function)) fix_t0(scenario, machine_ns());
    int64_t half_ns = half_call_ns(function, *board);
    code = faults(function, &(*board)->faults, half_ns);
    left_ns = half_ns;
    return code == SUCCESS ? SUCCESS : leave(code);
}

#define SYSTEM_CALL(function)                                                                                          \
    do {                                                                                                               \
        nvmlReturn_t entered = enter(FN_##function);                                                                   \
        if (entered != SUCCESS) return entered;                                                                        \
    } while (0)
#define DEVICE_CALL(function, device)                                                                                  \
    Handle h;                                                                                                          \
    Board *b;                                                                                                          \
    do {                                                                                                               \
        nvmlReturn_t entered = enter_device(FN_##function, device, &h, &b);                                            \
        if (entered != SUCCESS) return entered;                                                                        \
    } while (0)
#define REQUIRE(condition, code)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) return leave(code);                                                                          \
    } while (0)

static nvmlReturn_t leave_text(char *into, unsigned length, const char *text) {
    REQUIRE(into, INVALID_ARGUMENT);
    REQUIRE(strlen(text) < length, INSUFFICIENT_SIZE);
    strcpy(into, text);
    return leave(SUCCESS);
}

static nvmlReturn_t leave_number(unsigned *into, int64_t number) {
    REQUIRE(into, INVALID_ARGUMENT);
    *into = (unsigned)number;
    return leave(SUCCESS);
}

/* ---- init, shutdown, the system ---- */

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    count_call(FN_nvmlInitWithFlags);
    slept_through = 0;
    pthread_rwlock_wrlock(&state_lock);
    const char *path = getenv("NVML_LAB_SCENARIO");
    if (!users) {
        scenario_free(scenario);
        scenario = path && *path ? scenario_load(path, function_of, FUNCTION_COUNT) : NULL;
        generation++;
    }
    if (!scenario) {
        return leave(path && *path ? INVALID_ARGUMENT : DRIVER_NOT_LOADED);
    }
    int64_t sleep_ns = 0;
    nvmlReturn_t code = (nvmlReturn_t)scenario->init_error;
    if (scenario->missing[FN_nvmlInitWithFlags]) code = FUNCTION_NOT_FOUND;
    scan_faults(&scenario->faults, FN_nvmlInitWithFlags, now_ns(), &sleep_ns, &code);
    if (code == SUCCESS) users++;
    leave(SUCCESS);
    if (sleep_ns > 0) sleep_for(sleep_ns);
    return code;
}
EXPORT nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT nvmlReturn_t nvmlShutdown(void) {
    SYSTEM_CALL(nvmlShutdown);
    leave(SUCCESS);
    pthread_rwlock_wrlock(&state_lock);
    int is_over = slept_through;
    slept_through = 0;
    if (!users || is_over) return leave(UNINITIALIZED);
    if (--users == 0) {
        scenario_free(scenario);
        scenario = NULL;
        generation++;
    }
    return leave(SUCCESS);
}

/* torch alone asks for this old name: a scenario that calls it missing hides the boards from torch, and from nobody else. */
EXPORT nvmlReturn_t nvmlInit(void) {
    nvmlReturn_t code = nvmlInitWithFlags(0);
    if (code != SUCCESS || !scenario->missing[FN_nvmlInit]) return code;
    nvmlShutdown();
    return FUNCTION_NOT_FOUND;
}

EXPORT const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
    case 0: return "Success";
    case 1: return "Uninitialized";
    case 2: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case 7: return "Insufficient Size";
    case 9: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 12: return "NVML Shared Library Not Found";
    case 13: return "Function Not Found";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    case 20: return "Insufficient Memory";
    default: return "Unknown Error";
    }
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    SYSTEM_CALL(nvmlSystemGetDriverVersion);
    return leave_text(version, length, scenario->driver);
}
EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length) {
    SYSTEM_CALL(nvmlSystemGetNVMLVersion);
    char text[TEXT + 8];
    snprintf(text, sizeof text, "12.%s", scenario->driver);
    return leave_text(version, length, text);
}
EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    SYSTEM_CALL(nvmlSystemGetCudaDriverVersion_v2);
    return leave_number((unsigned *)version, scenario->cuda_version);
}
EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }
EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    SYSTEM_CALL(nvmlSystemGetProcessName);
    char text[32];
    snprintf(text, sizeof text, "process-%u", pid);
    return leave_text(name, length, text);
}

/* ---- which board ---- */

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    SYSTEM_CALL(nvmlDeviceGetCount_v2);
    return leave_number(count, scenario->board_count);
}
EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

static nvmlReturn_t leave_handle(nvmlDevice_t *device, int function, int board, int mig) {
    REQUIRE(device, INVALID_ARGUMENT);
    nvmlReturn_t code = faults(function, &scenario->boards[board].faults, 0);
    if (code == SUCCESS) *device = &handles[board][1 + mig];
    return leave(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    SYSTEM_CALL(nvmlDeviceGetHandleByIndex_v2);
    REQUIRE(index < (unsigned)scenario->board_count, INVALID_ARGUMENT);
    return leave_handle(device, FN_nvmlDeviceGetHandleByIndex_v2, (int)index, -1);
}
EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    SYSTEM_CALL(nvmlDeviceGetHandleByUUID);
    REQUIRE(uuid, INVALID_ARGUMENT);
    for (int i = 0; i < scenario->board_count; i++) {
        const Board *b = &scenario->boards[i];
        if (!strcmp(uuid, b->uuid)) return leave_handle(device, FN_nvmlDeviceGetHandleByUUID, i, -1);
        for (int m = 0; m < b->mig_count; m++)
            if (!strcmp(uuid, b->mig_uuid[m])) return leave_handle(device, FN_nvmlDeviceGetHandleByUUID, i, m);
    }
    return leave(NOT_FOUND);
}

static int parse_pci(const char *text, unsigned at[3]) {
    unsigned function = 0;
    return sscanf(text, "%x:%x:%x.%x", &at[0], &at[1], &at[2], &function) >= 3;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *text, nvmlDevice_t *device) {
    SYSTEM_CALL(nvmlDeviceGetHandleByPciBusId_v2);
    unsigned wanted[3], own[3];
    REQUIRE(text && parse_pci(text, wanted), INVALID_ARGUMENT);
    for (int i = 0; i < scenario->board_count; i++)
        if (parse_pci(scenario->boards[i].pci, own) && !memcmp(wanted, own, sizeof own))
            return leave_handle(device, FN_nvmlDeviceGetHandleByPciBusId_v2, i, -1);
    return leave(NOT_FOUND);
}
EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *text, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByPciBusId_v2(text, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    DEVICE_CALL(nvmlDeviceGetName, device);
    char text[TEXT + 16];
    snprintf(text, sizeof text, h.mig < 0 ? "%s" : "%s MIG 1g.10gb", b->name);
    return leave_text(name, length, text);
}
EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) {
    DEVICE_CALL(nvmlDeviceGetUUID, device);
    return leave_text(uuid, length, h.mig < 0 ? b->uuid : b->mig_uuid[h.mig]);
}
EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index) {
    DEVICE_CALL(nvmlDeviceGetIndex, device);
    return leave_number(index, h.mig < 0 ? h.board : h.mig);
}
EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *minor) {
    DEVICE_CALL(nvmlDeviceGetMinorNumber, device);
    return leave_number(minor, h.board);
}
EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info) {
    DEVICE_CALL(nvmlDeviceGetPciInfo_v3, device);
    unsigned at[3];
    REQUIRE(info && parse_pci(b->pci, at), INVALID_ARGUMENT);
    *info = (nvmlPciInfo_t){.domain = at[0], .bus = at[1], .device = at[2], .pciDeviceId = 0x233010DE};
    snprintf(info->busId, sizeof info->busId, "%08X:%02X:%02X.0", at[0], at[1] & 0xFF, at[2] & 0xFF);
    snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:%02X.0", at[0] & 0xFFFF, at[1] & 0xFF,
             at[2] & 0xFF);
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned *architecture) {
    DEVICE_CALL(nvmlDeviceGetArchitecture, device);
    return leave_number(architecture, b->architecture);
}
EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    DEVICE_CALL(nvmlDeviceGetCudaComputeCapability, device);
    REQUIRE(major && minor, INVALID_ARGUMENT);
    *major = (int)b->cc_major;
    *minor = (int)b->cc_minor;
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *mode) {
    DEVICE_CALL(nvmlDeviceGetPersistenceMode, device);
    return leave_number(mode, b->persistence);
}
EXPORT nvmlReturn_t nvmlDeviceGetVirtualizationMode(nvmlDevice_t device, unsigned *mode) {
    DEVICE_CALL(nvmlDeviceGetVirtualizationMode, device);
    return leave_number(mode, b->virtualization);
}
EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, unsigned *mode) {
    DEVICE_CALL(nvmlDeviceGetComputeMode, device);
    return leave_number(mode, 0);
}

/* ---- energy and power ---- */

/* A time stamp: microseconds since 1970, or of CLOCK_MONOTONIC. */
static int64_t stamp_us(const Board *b, int64_t t_ns, int since_boot) {
    int64_t ns = scenario->t0_ns + t_ns + (since_boot ? 0 : scenario->realtime_offset_ns);
    for (size_t i = 0; i < b->faults.count; i++)
        if (b->faults.items[i].kind == FAULT_CLOCK && b->faults.items[i].from_ns <= t_ns)
            ns += (int64_t)b->faults.items[i].value;
    return ns / 1000;
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy_mj) {
    DEVICE_CALL(nvmlDeviceGetTotalEnergyConsumption, device);
    REQUIRE(energy_mj, INVALID_ARGUMENT);
    REQUIRE(h.mig < 0 && b->counter_period_ns > 0, NOT_SUPPORTED);
    *energy_mj = board_counter_look_mj(b, now_ns());
    return leave(SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *power_mw) {
    DEVICE_CALL(nvmlDeviceGetPowerUsage, device);
    REQUIRE(h.mig < 0 && b->usage, NOT_SUPPORTED);
    return leave_number(power_mw, board_usage_mw(b, now_ns(), b->usage_window_ns));
}

static nvmlReturn_t field_value(Board *b, int64_t t_ns, nvmlFieldValue_t *field) {
    int energy = field->fieldId == FIELD_ENERGY_TOTAL || field->fieldId == FIELD_ENERGY;
    int average = field->fieldId == FIELD_POWER_AVERAGE;
    if (!energy && !average && field->fieldId != FIELD_POWER_INSTANT) return NOT_SUPPORTED;
    if (!(energy ? (field->fieldId == FIELD_ENERGY ? b->field_191 : b->field_83) : average ? b->field_185 : b->field_186))
        return NOT_SUPPORTED;
    if (energy) {
        if (field->scopeId != SCOPE_GPU || b->counter_period_ns <= 0) return NOT_SUPPORTED;
        field->valueType = VALUE_UNSIGNED_LONG_LONG;
        field->value.ullVal = board_counter_look_mj(b, t_ns);
        return SUCCESS;
    }
    int module = field->scopeId == SCOPE_MODULE && b->module_extra_mw >= 0;
    if (field->scopeId != SCOPE_GPU && !module) return NOT_SUPPORTED;
    field->valueType = VALUE_UNSIGNED_INT;
    int64_t power_mw = board_usage_mw(b, t_ns, average ? 1000000000 : b->samples_window_ns);
    field->value.uiVal = (unsigned)(power_mw + (module ? b->module_extra_mw : 0));
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *fields) {
    DEVICE_CALL(nvmlDeviceGetFieldValues, device);
    REQUIRE(fields && count > 0, INVALID_ARGUMENT);
    for (int i = 0; i < count; i++) {
        int64_t t_ns = now_ns();
        fields[i].timestamp = stamp_us(b, t_ns, 0);
        fields[i].latencyUsec = 1;
        fields[i].nvmlReturn = h.mig < 0 ? field_value(b, t_ns, &fields[i]) : NOT_SUPPORTED;
    }
    return leave(SUCCESS);
}

/* With `samples` NULL it says how many there can be; then it fills in what is newer than `last_seen_us`,
 * oldest first, so that a caller whose array is too short gets the rest on its next call. */
EXPORT nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, int type, unsigned long long last_seen_us,
                                         unsigned *value_type, unsigned *count, nvmlSample_t *samples) {
    DEVICE_CALL(nvmlDeviceGetSamples, device);
    REQUIRE(value_type && count, INVALID_ARGUMENT);
    REQUIRE(h.mig < 0 && type == TOTAL_POWER_SAMPLES && b->samples_period_ns > 0, NOT_SUPPORTED);
    *value_type = VALUE_UNSIGNED_INT;
    if (!samples) return leave_number(count, b->samples_buffer);
    int64_t t_ns = now_ns(), newest = (t_ns - b->samples_phase_ns) / b->samples_period_ns;
    while (newest >= 0 && board_sample_ns(b, newest) > t_ns) newest--;
    int64_t oldest = newest - b->samples_buffer + 1;
    unsigned taken = 0;
    for (int64_t k = oldest < 0 ? 0 : oldest; k <= newest && taken < *count; k++) {
        int64_t at_ns = board_sample_ns(b, k), stamp = stamp_us(b, at_ns, (int)b->stamps_since_boot);
        if (stamp <= (int64_t)last_seen_us) continue;
        for (size_t i = 0; i < b->faults.count; i++)
            if (b->faults.items[i].kind == FAULT_SAMPLE_TIME && fault_active(&b->faults.items[i], at_ns)) stamp = 0;
        samples[taken].timeStamp = (unsigned long long)stamp;
        samples[taken].sampleValue = (nvmlValue_t){.ullVal = 0};
        samples[taken++].sampleValue.uiVal = (unsigned)board_sample_mw(b, at_ns);
    }
    REQUIRE(taken, NOT_FOUND);
    return leave_number(count, taken);
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *low, unsigned *high) {
    DEVICE_CALL(nvmlDeviceGetPowerManagementLimitConstraints, device);
    REQUIRE(h.mig < 0 && b->limit_mw >= 0, NOT_SUPPORTED);
    REQUIRE(low && high, INVALID_ARGUMENT);
    *low = (unsigned)b->limit_min_mw;
    *high = (unsigned)b->limit_max_mw;
    return leave(SUCCESS);
}
#define LIMIT(function, value)                                                                                         \
    EXPORT nvmlReturn_t function(nvmlDevice_t device, unsigned *limit_mw) {                                            \
        DEVICE_CALL(function, device);                                                                                 \
        REQUIRE(h.mig < 0 && b->limit_mw >= 0, NOT_SUPPORTED);                                                         \
        return leave_number(limit_mw, b->value);                                                                       \
    }
LIMIT(nvmlDeviceGetEnforcedPowerLimit, limit_mw)
LIMIT(nvmlDeviceGetPowerManagementLimit, limit_mw)
LIMIT(nvmlDeviceGetPowerManagementDefaultLimit, limit_max_mw)

/* ---- memory, load, processes ---- */

static void memory_of(const Board *b, Handle h, nvmlMemory_t *memory) {
    memory->total = (unsigned long long)b->memory_bytes / (h.mig < 0 ? 1 : (unsigned)b->mig_count);
    memory->used = memory->total / 4;
    memory->free = memory->total - memory->used;
}
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    DEVICE_CALL(nvmlDeviceGetMemoryInfo, device);
    REQUIRE(memory, INVALID_ARGUMENT);
    memory_of(b, h, memory);
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    DEVICE_CALL(nvmlDeviceGetMemoryInfo_v2, device);
    REQUIRE(memory, INVALID_ARGUMENT);
    nvmlMemory_t plain;
    memory_of(b, h, &plain);
    memory->total = plain.total;
    memory->reserved = 0;
    memory->free = plain.free;
    memory->used = plain.used;
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    DEVICE_CALL(nvmlDeviceGetUtilizationRates, device);
    REQUIRE(rates, INVALID_ARGUMENT);
    REQUIRE(b->mig_mode != 1, NOT_SUPPORTED);
    int64_t percent = b->limit_mw > 0 ? board_power_mw(b, now_ns()) * 100 / b->limit_mw : 0;
    rates->gpu = percent > 100 ? 100 : (unsigned)percent;
    rates->memory = rates->gpu / 2;
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius) {
    (void)sensor;
    DEVICE_CALL(nvmlDeviceGetTemperature, device);
    return leave_number(celsius, 55);
}
EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, int type, unsigned *mhz) {
    (void)type;
    DEVICE_CALL(nvmlDeviceGetClockInfo, device);
    return leave_number(mhz, 1410);
}

/* Called with the lock held; leaves. */
static nvmlReturn_t leave_processes(const Board *b, unsigned *count, nvmlProcessInfo_t *processes, size_t available) {
    REQUIRE(count, INVALID_ARGUMENT);
    unsigned room = processes ? *count : 0;
    *count = (unsigned)available;
    REQUIRE(room >= available, INSUFFICIENT_SIZE);
    for (size_t i = 0; i < available; i++)
        processes[i] = (nvmlProcessInfo_t){b->pids[i], 1ull << 30, 0xFFFFFFFFu, 0xFFFFFFFFu};
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                            nvmlProcessInfo_t *processes) {
    DEVICE_CALL(nvmlDeviceGetComputeRunningProcesses_v3, device);
    return leave_processes(b, count, processes, b->pid_count);
}
EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count,
                                                            nvmlProcessInfo_t *processes) {
    DEVICE_CALL(nvmlDeviceGetComputeRunningProcesses_v2, device);
    return leave_processes(b, count, processes, b->pid_count);
}
EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                             nvmlProcessInfo_t *processes) {
    DEVICE_CALL(nvmlDeviceGetGraphicsRunningProcesses_v3, device);
    return leave_processes(b, count, processes, 0);
}

/* ---- MIG ---- */

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    DEVICE_CALL(nvmlDeviceGetMigMode, device);
    REQUIRE(current && pending, INVALID_ARGUMENT);
    REQUIRE(h.mig < 0 && b->mig_mode >= 0, NOT_SUPPORTED);
    *current = *pending = (unsigned)b->mig_mode;
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
    DEVICE_CALL(nvmlDeviceGetMaxMigDeviceCount, device);
    return leave_number(count, b->mig_mode < 0 ? 0 : b->mig_count > 7 ? b->mig_count : 7);
}
EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *mig) {
    DEVICE_CALL(nvmlDeviceGetMigDeviceHandleByIndex, device);
    REQUIRE(mig && h.mig < 0, INVALID_ARGUMENT);
    REQUIRE(index < (unsigned)b->mig_count, NOT_FOUND);
    *mig = &handles[h.board][1 + index];
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device) {
    DEVICE_CALL(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, mig);
    (void)b;
    REQUIRE(device && h.mig >= 0, INVALID_ARGUMENT);
    *device = &handles[h.board][0];
    return leave(SUCCESS);
}
EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *is_mig) {
    DEVICE_CALL(nvmlDeviceIsMigDeviceHandle, device);
    (void)b;
    return leave_number(is_mig, h.mig >= 0);
}
EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id) {
    DEVICE_CALL(nvmlDeviceGetGpuInstanceId, device);
    (void)b;
    REQUIRE(h.mig >= 0, NOT_SUPPORTED);
    return leave_number(id, h.mig + 7);
}
EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id) {
    DEVICE_CALL(nvmlDeviceGetComputeInstanceId, device);
    (void)b;
    REQUIRE(h.mig >= 0, NOT_SUPPORTED);
    return leave_number(id, 0);
}

/* ---- the lab's own: who called what, in this process ---- */

EXPORT void nvmlLabForgetCalls(void) {
    pthread_mutex_lock(&threads_lock);
    for (int i = 0; i < FUNCTION_COUNT; i++) call_counts[i] = 0;
    thread_count = 0;
    count_epoch++;
    pthread_mutex_unlock(&threads_lock);
}
EXPORT unsigned long long nvmlLabCalls(const char *name) {
    int function = function_of(name);
    return function < 0 ? ~0ull : call_counts[function];
}
/* Ids (as gettid) of the threads that called; returns how many it wrote. */
EXPORT size_t nvmlLabThreads(long *into, size_t room) {
    pthread_mutex_lock(&threads_lock);
    size_t count = thread_count < room ? thread_count : room;
    memcpy(into, threads, count * sizeof *into);
    pthread_mutex_unlock(&threads_lock);
    return count;
}
