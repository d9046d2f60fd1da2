//! What a program tells of itself over OTLP: spans of its work and its own counters. Off unless an
//! endpoint is set.
//!
//! Spans and metrics are handed to threads of their own, which send over gRPC. The queue of spans is
//! bounded and what does not fit is dropped, so that a receiver which is away or slow holds up
//! nothing. Only this project's own spans are sent: those of the client that sends them would make
//! more of themselves without end.
//! Started within a runtime, on which the client's connections live; ended outside of one.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Key, Kind};

/// The key that turns it on.
pub const KEY: Key = Key {
    path: "telemetry.otlp_endpoint",
    kind: Kind::Text,
    default: None,
    doc: "OTLP receiver (gRPC) for this program's own traces and metrics, such as http://127.0.0.1:4317; off when unset",
};

/// Spans that wait to be sent; one more is dropped.
const SPANS_MAX: usize = 2_048;

/// Time between two sendings.
const SPANS_EVERY: Duration = Duration::from_secs(2);
const METRICS_EVERY: Duration = Duration::from_secs(10);

/// Longest one sending may take.
const SENDING_MAX: Duration = Duration::from_secs(5);

/// Longest the last of it may take at the end.
const LAST_MAX: Duration = Duration::from_secs(1);

/// Why it could not be started.
#[derive(Debug, Error)]
#[error(
    "telemetry.otlp_endpoint {endpoint:?}: {why}: use an address such as http://127.0.0.1:4317"
)]
pub struct TelemetryError {
    endpoint: String,
    why: String,
}

/// Whether something can be sent there.
///
/// # Errors
/// [`TelemetryError`].
pub fn check(endpoint: &str) -> Result<(), TelemetryError> {
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() => Ok(()),
        _ => Err(TelemetryError { endpoint: endpoint.into(), why: "no http or https".into() }),
    }
}

/// The program's own telemetry, at work.
#[derive(Debug)]
pub struct Telemetry {
    tracer: SdkTracerProvider,
    meter: SdkMeterProvider,
}

impl Telemetry {
    /// Begins to send to `endpoint` as the service of this name. Nothing is connected yet.
    ///
    /// # Errors
    /// [`TelemetryError`] when the endpoint is none.
    pub fn start(endpoint: &str, service: &'static str) -> Result<Self, TelemetryError> {
        let wrong = |why: String| TelemetryError { endpoint: endpoint.to_owned(), why };
        check(endpoint)?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(wrong("there is no runtime to connect on".into()));
        }
        let spans = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(SENDING_MAX)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let metrics = MetricExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(SENDING_MAX)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_MAX)
            .with_scheduled_delay(SPANS_EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(spans).with_batch_config(batches).build();
        let reader = PeriodicReader::builder(metrics).with_interval(METRICS_EVERY).build();
        let tracer = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_span_processor(processor)
            .build();
        let meter = SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build();
        opentelemetry::global::set_meter_provider(meter.clone());
        Ok(Self { tracer, meter })
    }

    /// What turns the program's spans into traces.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let own = filter_fn(|meta| meta.is_span() && meta.target().starts_with("lens"));
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_tracer(self.tracer.tracer("lens"))
            .with_filter(own)
    }

    /// What counts, for instruments.
    pub fn meter(&self) -> Meter {
        self.meter.meter("lens")
    }

    /// Sends what is left, for a second at most; not to be called on a runtime's thread. A receiver
    /// that is away by then has lost it.
    pub fn end(self) {
        let (done, ended) = std::sync::mpsc::channel();
        let ending = std::thread::Builder::new().name("telemetry-end".into()).spawn(move || {
            drop(self.tracer.shutdown_with_timeout(LAST_MAX));
            drop(self.meter.shutdown_with_timeout(LAST_MAX));
            done.send(()).ok();
        });
        if ending.is_ok() && ended.recv_timeout(LAST_MAX).is_err() {
            tracing::debug!("the last of the telemetry was not taken in time");
        }
    }
}

/// The meter of the program's own telemetry: one whose instruments do nothing while it is off.
pub fn meter() -> Meter {
    opentelemetry::global::meter("lens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::Tracer;

    #[test]
    fn an_endpoint_that_is_none_is_refused_saying_what_would_be_right() {
        for endpoint in ["collector:4317", "http://", "grpc://collector:4317", ""] {
            let said = check(endpoint).unwrap_err().to_string();
            assert!(said.contains("use an address such as http://"), "{said}");
        }
        check("https://collector:4317").unwrap();
    }

    #[test]
    fn without_a_runtime_it_is_refused_and_does_not_panic() {
        let said = Telemetry::start("http://127.0.0.1:1", "lens-test").unwrap_err().to_string();
        assert!(said.contains("no runtime"), "{said}");
    }

    #[test]
    fn it_ends_though_nobody_listens() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let telemetry = {
            let _on = runtime.enter();
            // Nobody listens on port 1.
            Telemetry::start("http://127.0.0.1:1", "lens-test").unwrap()
        };
        let tracer = telemetry.tracer.tracer("lens");
        (0..2 * SPANS_MAX).for_each(|_| drop(tracer.start("work")));
        telemetry.meter().u64_counter("lens.test").build().add(1, &[]);
        telemetry.end();
    }
}
