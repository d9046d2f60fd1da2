/* A search node in C: one query through three stages.
 *
 *   cargo build --release -p lens-recorder
 *   cc -O2 -Iagent/clients/c agent/clients/c/example.c target/release/liblens_recorder.a \
 *      -lpthread -ldl -lm -o example
 *   ./example            (segments go to $LENS_SEGMENT_DIR, else /dev/shm/lens)
 */
#include "lens_recorder.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 3, QUERIES = 1000 };

static const uint8_t trace_id[16] = "example-trace-1";
static LensSeries *stage_a, *stage_b, *stage_c;
static LensRequests *requests;

static void *search(void *unused) {
    (void)unused;
    for (int query = 0; query < QUERIES; query++) {
        uint64_t at = lens_monotonic_nanos();
        /* lexical … */
        at = lens_lap(stage_a, at);
        /* symbols … */
        at = lens_lap(stage_b, at);
        /* A latency that is known already, of a request that can be looked up by its trace. */
        lens_record_traced(stage_c, 250000, trace_id, NULL);
        lens_requests_ok(requests);
    }
    return NULL;
}

static LensSeries *series(const LensRecorder *node, LensStage stage) {
    char why[200];
    LensSeries *made = lens_series_register(node, "backend", "c", "small", stage,
                                            LensArmBaseline, why, sizeof why);
    if (made == NULL) {
        fprintf(stderr, "not recorded: %s\n", why);
    }
    return made;
}

int main(void) {
    char why[200];
    LensRecorder *node = lens_recorder_create(NULL, "lens", "1.4.2", "c-node", LensArmBaseline, why,
                                              sizeof why);
    if (node == NULL) {
        fprintf(stderr, "no segment: %s\n", why); /* and on without one: NULL does nothing */
    }
    stage_a = series(node, LensStageA);
    stage_b = series(node, LensStageB);
    stage_c = series(node, LensStageC);
    requests = lens_requests_register(node, "backend", "c", "small", LensArmBaseline, why, sizeof why);
    LensGauge *coverage = lens_gauge_register(node, "span_coverage_percent", why, sizeof why);
    lens_gauge_set(coverage, 98.7);

    pthread_t threads[THREADS];
    for (int n = 0; n < THREADS; n++) {
        if (pthread_create(&threads[n], NULL, search, NULL) != 0) {
            return 1;
        }
    }
    for (int n = 0; n < THREADS; n++) {
        pthread_join(threads[n], NULL);
    }
    lens_requests_error(requests);

    printf("quality gating %s, user-42 is %s, generation %llu\n",
           lens_flag_enabled(node, "qualityGating") ? "on" : "off",
           lens_canary_arm(node, (const uint8_t *)"user-42", 7) == LensArmCanary ? "canary"
                                                                                 : "baseline",
           (unsigned long long)lens_flags_generation(node));

    lens_gauge_free(coverage);
    lens_requests_free(requests);
    lens_series_free(stage_a);
    lens_series_free(stage_b);
    lens_series_free(stage_c);
    lens_recorder_free(node);
    return node == NULL;
}
