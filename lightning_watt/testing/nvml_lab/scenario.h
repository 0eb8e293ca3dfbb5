/* The NVML lab's scenario: what each fake board does over time, and the true energy that follows from it.
 *
 * Units: time in nanoseconds after the scenario's time zero (CLOCK_MONOTONIC), power in integer milliwatts,
 * energy in picojoules (1 mW x 1 ns), so every integral is an exact integer. */
#ifndef NVML_LAB_SCENARIO_H
#define NVML_LAB_SCENARIO_H

#include <stddef.h>
#include <stdint.h>

/* 300 W overflow 63 bits of picojoules after 8.5 hours. */
__extension__ typedef __int128 picojoules_t;

enum { MAX_BOARDS = 64, MAX_MIG = 8, MAX_PIDS = 256, TEXT = 96, FOREVER = -1, ANY_FUNCTION = -1 };

/* Piecewise-constant power; `start_ns` and `energy_pj` hold running sums from the first segment on. */
typedef struct {
    int64_t *start_ns, *power_mw;
    picojoules_t *energy_pj;
    size_t count, capacity;
    int64_t total_ns;
    picojoules_t total_pj;
} Segments;

typedef enum {
    FAULT_ERROR,       /* value: the nvmlReturn_t that `function` gives */
    FAULT_SLEEP,       /* value: ns that `function` sleeps before it answers */
    FAULT_RESET,       /* the energy counter restarts from 0 at `from_ns` */
    FAULT_JUMP,        /* value: mJ added to the energy counter from `from_ns` on */
    FAULT_STUCK,       /* the energy counter stands still, then shows the truth again */
    FAULT_RAW,         /* value: what the energy counter reads, as it is */
    FAULT_CLOCK,       /* value: ns by which the wall clock (time stamps) steps at `from_ns` */
    FAULT_SAMPLE_TIME, /* power samples taken then carry time stamp 0 */
    FAULT_SAMPLE_RAW,  /* value: mW that power samples taken then carry */
} FaultKind;

typedef struct {
    FaultKind kind;
    int64_t from_ns, to_ns;
    int function;
    uint64_t value;
} Fault;

typedef struct {
    Fault *items;
    size_t count, capacity;
} Faults;

typedef struct {
    char name[TEXT], uuid[TEXT], pci[TEXT];
    char mig_uuid[MAX_MIG][TEXT];
    int mig_count;
    Segments head, loop;
    Faults faults;
    unsigned pids[MAX_PIDS];
    size_t pid_count;
    /* Each of these is one `key integer` line of the scenario; see README.md. */
    int64_t counter_period_ns, counter_phase_ns, counter_jitter_ns, counter_lag_ns, counter_gain_ppm, counter_start_mj;
    int64_t counter_window_ns; /* 0: it counts the truth; else each tick adds the mean over this window x the time since the last */
    int64_t counter_lost_ns; /* each look makes it lose so long of the time to its next tick, at most nine tenths of a tick */
    int64_t samples_period_ns, samples_phase_ns, samples_jitter_ns, samples_window_ns, samples_lag_ns, samples_buffer;
    int64_t stamps_since_boot; /* power samples carry CLOCK_MONOTONIC, as if the machine had never slept */
    int64_t usage, usage_period_ns, usage_phase_ns, usage_window_ns, sensor_gain_ppm;
    int64_t call_ns; /* how long a call takes */
    int64_t field_83, field_185, field_186, field_191, module_extra_mw;
    int64_t limit_mw, limit_min_mw, limit_max_mw; /* limit_mw -1: it knows of none */
    int64_t mig_mode; /* -1: the board knows no MIG; 0: off; 1: on */
    int64_t architecture, cc_major, cc_minor, memory_bytes, persistence, virtualization;
    /* Where the sum of a counter with a window stands. */
    int64_t summed_tick;
    picojoules_t summed_pj;
    /* What looks at the counter have made it lose by its last tick, and since, in this process. */
    int64_t looked_tick;
    picojoules_t lost_pj, losing_pj;
} Board;

#define NOT_YET INT64_MIN

typedef struct {
    _Atomic int64_t t0_ns; /* NOT_YET until it is fixed */
    char t0_path[4096];    /* where the processes share it */
    int64_t age_ns; /* where the timeline stands at the first reading */
    int64_t realtime_offset_ns;
    char driver[TEXT];
    int64_t cuda_version, init_error;
    uint8_t *missing; /* one flag a function */
    Faults faults;    /* of the whole system: every board, and calls that name no board */
    Board *boards;
    int board_count;
} Scenario;

/* Reads a scenario; reports the file, line and reason on stderr and returns NULL where it is wrong.
 * `function_of` turns a C symbol into its number, -1 if unknown. */
Scenario *scenario_load(const char *path, int (*function_of)(const char *), size_t functions);
void scenario_free(Scenario *scenario);

/* Without a `t0` line the first reading of any process fixes time zero: link() lets exactly one win. */
void fix_t0(Scenario *scenario, int64_t now_ns);

int64_t clock_ns(int clock);
int fault_active(const Fault *fault, int64_t t_ns);

int64_t board_power_mw(const Board *board, int64_t t_ns);                      /* at an instant */
int64_t board_average_mw(const Board *board, int64_t t_ns, int64_t window_ns); /* over a window that ends at t */
int64_t board_usage_mw(const Board *board, int64_t t_ns, int64_t window_ns);   /* the same, as its sensor shows it */
uint64_t mixed(uint64_t number);                                                /* splitmix64: the same in every process */
uint64_t board_counter_mj(Board *board, int64_t t_ns);                         /* what the counter reads */
uint64_t board_counter_look_mj(Board *board, int64_t t_ns);                    /* the same, and what a look at it does */
int64_t board_sample_ns(const Board *board, int64_t k);                        /* when sample k was taken */
int64_t board_sample_mw(const Board *board, int64_t t_ns);                     /* what a sample taken at t carries */

#endif
