/* Parses the scenario file and integrates the power curves (see scenario.h for the units). */
#define _GNU_SOURCE
#include "scenario.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t clock_ns(int clock) {
    struct timespec now;
    clock_gettime((clockid_t)clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- the curve ---- */

static void *grown(void *array, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity) return array;
    *capacity = *capacity ? 2 * *capacity : 16;
    return realloc(array, *capacity * size);
}

static int segments_add(Segments *s, int64_t duration_ns, int64_t power_mw) {
    size_t capacity = s->capacity;
    int64_t *start = grown(s->start_ns, s->count, &capacity, sizeof *start);
    if (start) s->start_ns = start;
    capacity = s->capacity;
    int64_t *power = grown(s->power_mw, s->count, &capacity, sizeof *power);
    if (power) s->power_mw = power;
    capacity = s->capacity;
    picojoules_t *energy = grown(s->energy_pj, s->count, &capacity, sizeof *energy);
    if (energy) s->energy_pj = energy;
    if (!start || !power || !energy) return 0;
    s->capacity = capacity;
    start[s->count] = s->total_ns;
    power[s->count] = power_mw;
    energy[s->count] = s->total_pj;
    s->count++;
    s->total_ns += duration_ns;
    s->total_pj += (picojoules_t)duration_ns * power_mw;
    return 1;
}

static size_t segments_find(const Segments *s, int64_t t_ns) {
    size_t low = 0, high = s->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (s->start_ns[middle] <= t_ns) low = middle;
        else high = middle;
    }
    return low;
}

static picojoules_t segments_energy(const Segments *s, int64_t t_ns) {
    size_t i = segments_find(s, t_ns);
    return s->energy_pj[i] + (picojoules_t)(t_ns - s->start_ns[i]) * s->power_mw[i];
}

/* True energy from time zero to t. */
static picojoules_t board_energy_pj(const Board *b, int64_t t_ns) {
    if (t_ns <= 0) return 0;
    if (t_ns < b->head.total_ns) return segments_energy(&b->head, t_ns);
    int64_t looped = t_ns - b->head.total_ns;
    return b->head.total_pj + looped / b->loop.total_ns * b->loop.total_pj +
           segments_energy(&b->loop, looped % b->loop.total_ns);
}

int64_t board_power_mw(const Board *b, int64_t t_ns) {
    if (t_ns < 0) t_ns = 0;
    if (t_ns < b->head.total_ns) return b->head.power_mw[segments_find(&b->head, t_ns)];
    return b->loop.power_mw[segments_find(&b->loop, (t_ns - b->head.total_ns) % b->loop.total_ns)];
}

int64_t board_average_mw(const Board *b, int64_t t_ns, int64_t window_ns) {
    /* Nothing was before time zero: the window begins there at the earliest. */
    int64_t from_ns = t_ns > window_ns ? t_ns - window_ns : 0;
    if (window_ns <= 0 || t_ns <= from_ns) return board_power_mw(b, t_ns);
    return (int64_t)((board_energy_pj(b, t_ns) - board_energy_pj(b, from_ns)) / (t_ns - from_ns));
}

/* ---- what the board shows of it ---- */

uint64_t mixed(uint64_t number) {
    uint64_t z = number * 0x9E3779B97F4A7C15u + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* The time of tick or sample number k, which comes up to `jitter_ns` late. */
static int64_t time_of(int64_t k, int64_t phase_ns, int64_t period_ns, int64_t jitter_ns) {
    return phase_ns + k * period_ns + (jitter_ns > 0 ? (int64_t)(mixed((uint64_t)k) % (uint64_t)jitter_ns) : 0);
}

static int64_t counter_tick_ns(const Board *b, int64_t k) {
    return time_of(k, b->counter_phase_ns, b->counter_period_ns, b->counter_jitter_ns);
}

/* The last tick at or before t; -1 before the first. */
static int64_t counter_tick(const Board *b, int64_t t_ns) {
    if (t_ns < b->counter_phase_ns) return -1;
    int64_t k = (t_ns - b->counter_phase_ns) / b->counter_period_ns;
    while (k >= 0 && counter_tick_ns(b, k) > t_ns) k--;
    return k;
}

/* What has been counted by tick k: the truth, or what a sensor saw that looks for a while before each tick. */
static picojoules_t counted_pj(Board *b, int64_t k) {
    if (k < 0) return 0;
    if (b->counter_window_ns <= 0) return board_energy_pj(b, counter_tick_ns(b, k));
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (k < b->summed_tick) b->summed_tick = 0, b->summed_pj = 0;
    while (b->summed_tick < k) {
        int64_t before_ns = counter_tick_ns(b, b->summed_tick), at_ns = counter_tick_ns(b, ++b->summed_tick);
        b->summed_pj += (picojoules_t)board_average_mw(b, at_ns, b->counter_window_ns) * (at_ns - before_ns);
    }
    picojoules_t pj = b->summed_pj;
    pthread_mutex_unlock(&lock);
    return pj;
}

int fault_active(const Fault *f, int64_t t_ns) {
    return t_ns >= f->from_ns && (f->to_ns == FOREVER || t_ns < f->to_ns);
}

uint64_t board_counter_mj(Board *b, int64_t t_ns) {
    int64_t reset_ns = -1;
    for (size_t i = 0; i < b->faults.count; i++) {
        const Fault *f = &b->faults.items[i];
        if (f->kind == FAULT_RAW && fault_active(f, t_ns)) return f->value;
    }
    for (size_t i = 0; i < b->faults.count; i++) {
        const Fault *f = &b->faults.items[i];
        if (f->kind == FAULT_STUCK && fault_active(f, t_ns)) t_ns = f->from_ns;
    }
    for (size_t i = 0; i < b->faults.count; i++) {
        const Fault *f = &b->faults.items[i];
        if (f->kind == FAULT_RESET && f->from_ns <= t_ns && f->from_ns > reset_ns) reset_ns = f->from_ns;
    }
    int64_t tick = counter_tick(b, t_ns - b->counter_lag_ns);
    picojoules_t pj = counted_pj(b, tick);
    int64_t mj = b->counter_start_mj;
    if (reset_ns >= 0) {
        /* Between the reset and the next tick the counter reads 0. */
        int exact = b->counter_window_ns <= 0, after = tick >= 0 && counter_tick_ns(b, tick) > reset_ns;
        picojoules_t before = exact ? board_energy_pj(b, reset_ns) : counted_pj(b, counter_tick(b, reset_ns));
        pj = after ? pj - before : 0;
        mj = 0;
    }
    mj += (int64_t)(pj * b->counter_gain_ppm / 1000000 / 1000000000);
    for (size_t i = 0; i < b->faults.count; i++) {
        const Fault *f = &b->faults.items[i];
        if (f->kind == FAULT_JUMP && f->from_ns <= t_ns && f->from_ns > reset_ns) mj += (int64_t)f->value;
    }
    return mj < 0 ? 0 : (uint64_t)mj;
}

uint64_t board_counter_look_mj(Board *b, int64_t t_ns) {
    int64_t mj = (int64_t)board_counter_mj(b, t_ns);
    if (b->counter_lost_ns <= 0) return (uint64_t)mj;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    int64_t tick = counter_tick(b, t_ns - b->counter_lag_ns);
    if (tick != b->looked_tick) b->lost_pj += b->losing_pj, b->losing_pj = 0, b->looked_tick = tick;
    picojoules_t power_mw = board_average_mw(b, t_ns, b->counter_period_ns);
    picojoules_t most_pj = power_mw * b->counter_period_ns * 9 / 10;
    b->losing_pj += power_mw * b->counter_lost_ns;
    if (b->losing_pj > most_pj) b->losing_pj = most_pj;
    mj -= (int64_t)(b->lost_pj / 1000000000);
    pthread_mutex_unlock(&lock);
    return mj < 0 ? 0 : (uint64_t)mj;
}

int64_t board_sample_ns(const Board *b, int64_t k) {
    return time_of(k, b->samples_phase_ns, b->samples_period_ns, b->samples_jitter_ns);
}

int64_t board_usage_mw(const Board *b, int64_t t_ns, int64_t window_ns) {
    int64_t since_ns = t_ns - b->usage_phase_ns;
    if (b->usage_period_ns > 0 && since_ns > 0) t_ns -= since_ns % b->usage_period_ns;
    return board_average_mw(b, t_ns, window_ns) * b->sensor_gain_ppm / 1000000;
}

int64_t board_sample_mw(const Board *b, int64_t t_ns) {
    for (size_t i = 0; i < b->faults.count; i++) {
        const Fault *f = &b->faults.items[i];
        if (f->kind == FAULT_SAMPLE_RAW && fault_active(f, t_ns)) return (int64_t)f->value;
    }
    return board_average_mw(b, t_ns - b->samples_lag_ns, b->samples_window_ns) * b->sensor_gain_ppm / 1000000;
}

/* ---- the file ---- */

#define KEY(name) {#name, offsetof(Board, name)}
static const struct {
    const char *key;
    size_t offset;
} BOARD_KEYS[] = {
    KEY(counter_period_ns), KEY(counter_phase_ns),  KEY(counter_lag_ns),    KEY(counter_gain_ppm),
    KEY(counter_start_mj),  KEY(samples_period_ns), KEY(samples_phase_ns),  KEY(samples_jitter_ns),
    KEY(samples_window_ns), KEY(samples_buffer),    KEY(usage),             KEY(usage_period_ns),
    KEY(usage_window_ns),   KEY(sensor_gain_ppm),   KEY(field_83),          KEY(field_185),
    KEY(field_186),         KEY(field_191),         KEY(module_extra_mw),   KEY(limit_mw),
    KEY(limit_min_mw),      KEY(limit_max_mw),      KEY(mig_mode),          KEY(architecture),
    KEY(cc_major),          KEY(cc_minor),          KEY(memory_bytes),      KEY(persistence),
    KEY(virtualization),    KEY(stamps_since_boot), KEY(counter_jitter_ns), KEY(counter_window_ns),
    KEY(samples_lag_ns),    KEY(usage_phase_ns),    KEY(call_ns),           KEY(counter_lost_ns),
};

static const char *const FAULT_WORDS[] = {
    [FAULT_ERROR] = "error",      [FAULT_SLEEP] = "sleep",           [FAULT_RESET] = "reset",
    [FAULT_JUMP] = "jump",        [FAULT_STUCK] = "stuck",           [FAULT_RAW] = "raw",
    [FAULT_CLOCK] = "clock",      [FAULT_SAMPLE_TIME] = "sample_time", [FAULT_SAMPLE_RAW] = "sample_raw",
};

typedef struct {
    const char *path;
    int line;
    Scenario *scenario;
    Board *board; /* NULL before the first `board` line */
    int (*function_of)(const char *);
} Parser;

__attribute__((format(printf, 2, 3))) static int wrong(const Parser *p, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "nvml_lab: %s:%d: ", p->path, p->line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return 0;
}

static int take_text(const Parser *p, char *into, const char *rest) {
    if (!*rest || strlen(rest) >= TEXT) return wrong(p, "text is empty or longer than %d bytes", TEXT - 1);
    strcpy(into, rest);
    return 1;
}

static int take_segment(const Parser *p, Segments *segments, const char *rest) {
    int64_t duration_ns, power_mw;
    if (sscanf(rest, "%" SCNd64 " %" SCNd64, &duration_ns, &power_mw) != 2 || duration_ns <= 0 || power_mw < 0)
        return wrong(p, "a segment is `DURATION_NS POWER_MW`, the first above 0, the second 0 or more");
    return segments_add(segments, duration_ns, power_mw) ? 1 : wrong(p, "out of memory");
}

static int take_fault(const Parser *p, Faults *faults, const char *rest) {
    char word[32], function[TEXT], value[32];
    Fault fault = {.function = ANY_FUNCTION};
    if (sscanf(rest, "%31s %" SCNd64 " %" SCNd64 " %95s %31s", word, &fault.from_ns, &fault.to_ns, function,
               value) != 5)
        return wrong(p, "a fault is `fault KIND FROM_NS TO_NS FUNCTION VALUE`");
    size_t kind = 0, kinds = sizeof FAULT_WORDS / sizeof *FAULT_WORDS;
    while (kind < kinds && strcmp(word, FAULT_WORDS[kind])) kind++;
    if (kind == kinds) return wrong(p, "unknown fault `%s`", word);
    fault.kind = (FaultKind)kind;
    if (strcmp(function, "*") && (fault.function = p->function_of(function)) < 0)
        return wrong(p, "the lab has no function `%s`", function);
    fault.value = value[0] == '-' ? (uint64_t)strtoll(value, NULL, 10) : strtoull(value, NULL, 10);
    Fault *items = grown(faults->items, faults->count, &faults->capacity, sizeof fault);
    if (!items) return wrong(p, "out of memory");
    faults->items = items;
    items[faults->count++] = fault;
    return 1;
}

static int take_board(Parser *p) {
    Scenario *s = p->scenario;
    if (s->board_count == MAX_BOARDS) return wrong(p, "more than %d boards", MAX_BOARDS);
    Board *b = p->board = &s->boards[s->board_count++];
    snprintf(b->name, TEXT, "a board without a name");
    snprintf(b->uuid, TEXT, "GPU-1ab00000-0000-4000-8000-%012x", s->board_count - 1);
    snprintf(b->pci, TEXT, "00000000:%02X:00.0", s->board_count);
    b->counter_gain_ppm = b->sensor_gain_ppm = 1000000;
    b->samples_buffer = 120;
    b->usage = b->field_83 = b->field_185 = b->field_186 = b->field_191 = b->persistence = 1;
    b->module_extra_mw = b->mig_mode = -1;
    b->limit_mw = b->limit_max_mw = 400000;
    b->limit_min_mw = 100000;
    b->architecture = b->cc_major = 9;
    b->memory_bytes = (int64_t)80 << 30;
    return 1;
}

static int take_board_line(Parser *p, const char *key, const char *rest) {
    Board *b = p->board;
    if (!strcmp(key, "name")) return take_text(p, b->name, rest);
    if (!strcmp(key, "uuid")) return take_text(p, b->uuid, rest);
    if (!strcmp(key, "pci")) return take_text(p, b->pci, rest);
    if (!strcmp(key, "head")) return take_segment(p, &b->head, rest);
    if (!strcmp(key, "loop")) return take_segment(p, &b->loop, rest);
    if (!strcmp(key, "fault")) return take_fault(p, &b->faults, rest);
    if (!strcmp(key, "mig")) {
        if (b->mig_count == MAX_MIG) return wrong(p, "more than %d MIG instances", MAX_MIG);
        b->mig_mode = 1;
        return take_text(p, b->mig_uuid[b->mig_count++], rest);
    }
    if (!strcmp(key, "pid")) {
        if (b->pid_count == MAX_PIDS) return wrong(p, "more than %d processes", MAX_PIDS);
        b->pids[b->pid_count++] = (unsigned)strtoul(rest, NULL, 10);
        return 1;
    }
    for (size_t i = 0; i < sizeof BOARD_KEYS / sizeof *BOARD_KEYS; i++) {
        if (strcmp(key, BOARD_KEYS[i].key)) continue;
        char *end;
        int64_t value = strtoll(rest, &end, 10);
        if (end == rest || *end) return wrong(p, "`%s` wants an integer", key);
        memcpy((char *)b + BOARD_KEYS[i].offset, &value, sizeof value);
        return 1;
    }
    return wrong(p, "unknown key `%s`", key);
}

static int take_line(Parser *p, char *line) {
    Scenario *s = p->scenario;
    line[strcspn(line, "\r\n")] = 0;
    char *rest = line + strcspn(line, " ");
    if (*rest) *rest++ = 0;
    if (!*line || *line == '#') return 1;
    if (!strcmp(line, "board")) return take_board(p);
    if (p->board) return take_board_line(p, line, rest);
    if (!strcmp(line, "t0")) s->t0_ns = strtoll(rest, NULL, 10);
    else if (!strcmp(line, "age_ns")) s->age_ns = strtoll(rest, NULL, 10);
    else if (!strcmp(line, "realtime_offset_ns")) s->realtime_offset_ns = strtoll(rest, NULL, 10);
    else if (!strcmp(line, "cuda_version")) s->cuda_version = strtoll(rest, NULL, 10);
    else if (!strcmp(line, "init_error")) s->init_error = strtoll(rest, NULL, 10);
    else if (!strcmp(line, "driver")) return take_text(p, s->driver, rest);
    else if (!strcmp(line, "fault")) return take_fault(p, &s->faults, rest);
    else if (!strcmp(line, "missing")) {
        int function = p->function_of(rest);
        if (function < 0) return wrong(p, "the lab has no function `%s`", rest);
        s->missing[function] = 1;
    } else return wrong(p, "unknown key `%s` before the first board", line);
    return 1;
}

static int64_t fixed_t0(const Scenario *s) {
    int64_t t0_ns = NOT_YET;
    FILE *file = fopen(s->t0_path, "r");
    if (file) {
        if (fscanf(file, "%" SCNd64, &t0_ns) != 1) t0_ns = NOT_YET;
        fclose(file);
    }
    return t0_ns;
}

void fix_t0(Scenario *s, int64_t now_ns) {
    char mine[sizeof s->t0_path + 64];
    snprintf(mine, sizeof mine, "%s.%ld.%ld", s->t0_path, (long)getpid(), (long)syscall(SYS_gettid));
    FILE *file = fopen(mine, "w");
    if (file) {
        fprintf(file, "%" PRId64 "\n", now_ns - s->age_ns);
        fclose(file);
        if (link(mine, s->t0_path) && errno != EEXIST)
            fprintf(stderr, "nvml_lab: %s: %s\n", s->t0_path, strerror(errno));
        unlink(mine);
    }
    s->t0_ns = fixed_t0(s);
}

static int check_board(const Parser *p, const Board *b) {
    if (b->loop.total_ns <= 0) return wrong(p, "board `%s` has no `loop` segment", b->uuid);
    if (b->counter_period_ns < 0 || b->samples_period_ns < 0 || b->usage_period_ns < 0 || b->samples_buffer < 1)
        return wrong(p, "board `%s`: a period below 0, or a sample buffer below 1", b->uuid);
    if ((b->samples_period_ns && b->samples_jitter_ns > b->samples_period_ns) ||
        (b->counter_period_ns && b->counter_jitter_ns > b->counter_period_ns))
        return wrong(p, "board `%s`: a jitter above its period", b->uuid);
    return 1;
}

Scenario *scenario_load(const char *path, int (*function_of)(const char *), size_t functions) {
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "nvml_lab: %s: %s\n", path, strerror(errno));
        return NULL;
    }
    Scenario *s = calloc(1, sizeof *s);
    Parser parser = {path, 0, s, NULL, function_of};
    int good = s && (s->boards = calloc(MAX_BOARDS, sizeof *s->boards)) && (s->missing = calloc(functions, 1));
    if (good) {
        snprintf(s->driver, TEXT, "570.86.10");
        s->cuda_version = 12080;
        s->t0_ns = NOT_YET;
        s->realtime_offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
    }
    char *line = NULL;
    size_t size = 0;
    while (good && getline(&line, &size, file) >= 0) {
        parser.line++;
        good = take_line(&parser, line);
    }
    free(line);
    fclose(file);
    for (int i = 0; good && i < s->board_count; i++) good = check_board(&parser, &s->boards[i]);
    if (good && s->t0_ns == NOT_YET) {
        good = snprintf(s->t0_path, sizeof s->t0_path, "%s.t0", path) < (int)sizeof s->t0_path;
        if (good) s->t0_ns = fixed_t0(s);
    }
    if (good) return s;
    scenario_free(s);
    return NULL;
}

static void segments_free(Segments *s) {
    free(s->start_ns);
    free(s->power_mw);
    free(s->energy_pj);
}

void scenario_free(Scenario *s) {
    if (!s) return;
    for (int i = 0; i < s->board_count; i++) {
        segments_free(&s->boards[i].head);
        segments_free(&s->boards[i].loop);
        free(s->boards[i].faults.items);
    }
    free(s->boards);
    free(s->missing);
    free(s->faults.items);
    free(s);
}
