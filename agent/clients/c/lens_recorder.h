/* The lens recorder for C. Generated from shared/segment/c/src/lib.rs; to renew it:
 * LENS_WRITE_HEADER=1 cargo test -p lens-recorder --test header */

#ifndef LENS_RECORDER_H
#define LENS_RECORDER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Which version answers.
typedef enum LensArm {
  // The version that was there before.
  LensArmBaseline = 0,
  // The version on trial.
  LensArmCanary = 1,
} LensArm;

// Which part of a query a latency belongs to.
typedef enum LensStage {
  // Lexical.
  LensStageA = 0,
  // Symbols.
  LensStageB = 1,
  // Semantic rerank.
  LensStageC = 2,
  // The whole query.
  LensStageE2e = 3,
} LensStage;

// A quality signal.
typedef struct LensGauge LensGauge;

// A segment that this process records into.
typedef struct LensRecorder LensRecorder;

// Counts answered and failed requests of a slice and an arm.
typedef struct LensRequests LensRequests;

// One histogram: a slice, a stage and an arm.
typedef struct LensSeries LensSeries;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Makes a segment. `directory` may be NULL: $LENS_SEGMENT_DIR, else /dev/shm/lens.
//
// `arm` is a `LensArm`. NULL when it could not be made; then `error` (if not NULL, of `error_bytes` bytes) says why. Names
// are 1 to 64 visible ASCII characters.
//
// # Safety
// Each string is NULL or ends in a zero; `error` is NULL or has room for `error_bytes` bytes.
struct LensRecorder *lens_recorder_create(const char *directory,
                                          const char *service,
                                          const char *version,
                                          const char *instance,
                                          uint32_t arm,
                                          char *error,
                                          size_t error_bytes);

// Lets a recorder go. The segment lives until the last series, counter and gauge of it is freed, too.
//
// # Safety
// `recorder` is NULL or came from [`lens_recorder_create`] and was not freed.
void lens_recorder_free(struct LensRecorder *recorder);

// The histogram of a slice, stage and arm, registered where it is new; NULL and the reason otherwise.
//
// `stage` is a `LensStage`, `arm` a `LensArm`; parts of a slice are 1 to 48 of `a-z 0-9 . _ + # -`.
//
// # Safety
// `recorder` is NULL or a live recorder; strings and `error` as for [`lens_recorder_create`].
struct LensSeries *lens_series_register(const struct LensRecorder *recorder,
                                        const char *repo_type,
                                        const char *language,
                                        const char *size,
                                        uint32_t stage,
                                        uint32_t arm,
                                        char *error,
                                        size_t error_bytes);

// Counts one latency, nanoseconds. From any thread; with NULL it does nothing.
//
// # Safety
// `series` is NULL or a live series.
void lens_record(const struct LensSeries *series, uint64_t nanos);

// Counts one latency, nanoseconds, of a request that can be looked up by its trace. The slowest of
// each second are kept for the agent.
//
// `trace_id` is 16 bytes, `span_id` 8, as W3C trace context has them; `span_id` may be NULL. Without
// a trace, NULL or all zeroes, it does what `lens_record` does.
//
// # Safety
// `series` is NULL or a live series; `trace_id` is NULL or 16 readable bytes, `span_id` NULL or 8.
void lens_record_traced(const struct LensSeries *series,
                        uint64_t nanos,
                        const uint8_t *trace_id,
                        const uint8_t *span_id);

// The monotonic clock, nanoseconds; for the beginning and the end of a stage.
uint64_t lens_monotonic_nanos(void);

// Counts the time since `begin` (of [`lens_monotonic_nanos`]) and gives the time now, which begins
// the next stage: one look at the clock a boundary.
//
// # Safety
// `series` is NULL or a live series.
uint64_t lens_lap(const struct LensSeries *series, uint64_t begin);

// Lets a series go.
//
// # Safety
// `series` is NULL or came from [`lens_series_register`] and was not freed.
void lens_series_free(struct LensSeries *series);

// The request counters of a slice and an arm, registered where they are new; NULL and the reason
// otherwise.
//
// # Safety
// As [`lens_series_register`].
struct LensRequests *lens_requests_register(const struct LensRecorder *recorder,
                                            const char *repo_type,
                                            const char *language,
                                            const char *size,
                                            uint32_t arm,
                                            char *error,
                                            size_t error_bytes);

// Counts one answered request.
//
// # Safety
// `requests` is NULL or a live counter.
void lens_requests_ok(const struct LensRequests *requests);

// Counts one failed request: one the service is to blame for.
//
// # Safety
// `requests` is NULL or a live counter.
void lens_requests_error(const struct LensRequests *requests);

// Lets request counters go.
//
// # Safety
// `requests` is NULL or came from [`lens_requests_register`] and was not freed.
void lens_requests_free(struct LensRequests *requests);

// The quality signal called `name` (`a-z 0-9 _`, a letter first), registered where it is new; NULL
// and the reason otherwise.
//
// # Safety
// As [`lens_series_register`].
struct LensGauge *lens_gauge_register(const struct LensRecorder *recorder,
                                      const char *name,
                                      char *error,
                                      size_t error_bytes);

// Sets a quality signal; what is no finite number is ignored.
//
// # Safety
// `gauge` is NULL or a live gauge.
void lens_gauge_set(const struct LensGauge *gauge, double value);

// Lets a gauge go.
//
// # Safety
// `gauge` is NULL or came from [`lens_gauge_register`] and was not freed.
void lens_gauge_free(struct LensGauge *gauge);

// Whether a flag, by its path such as `stageB.lruCaching`, is on. False for a path there is not, for
// NULL, and while the kill switch is engaged.
//
// # Safety
// `recorder` is NULL or live; `path` is NULL or ends in a zero.
bool lens_flag_enabled(const struct LensRecorder *recorder,
                       const char *path);

// Whether the kill switch is engaged; false for NULL.
//
// # Safety
// `recorder` is NULL or live.
bool lens_killed(const struct LensRecorder *recorder);

// The generation of the control plane's last word; 0 before the first, and for NULL.
//
// # Safety
// `recorder` is NULL or live.
uint64_t lens_flags_generation(const struct LensRecorder *recorder);

// The arm of the user or session whose id is `id_bytes` bytes at `id`; baseline for NULL.
//
// # Safety
// `recorder` is NULL or live; `id` is NULL or has `id_bytes` readable bytes.
enum LensArm lens_canary_arm(const struct LensRecorder *recorder,
                             const uint8_t *id,
                             size_t id_bytes);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LENS_RECORDER_H */
