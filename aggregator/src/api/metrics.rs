//! `/metrics`.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::IntoResponse;

use super::{Api, Problem};
use crate::export::negotiate::negotiate;
use crate::export::openmetrics;

/// Everything, for scrapers
///
/// What `Accept` asks for, by its `q` values: Prometheus protobuf with native histograms,
/// OpenMetrics 1.0 text, or Prometheus text 0.0.4, which is also what is served when none is asked
/// for. A quantile without enough samples is absent, not 0.
#[utoipa::path(get, path = "/metrics", tag = "export",
    responses(
        (status = 200, description = "The metrics", body = String,
            content_type = "application/openmetrics-text",
            example = json!("# TYPE lens_latency_seconds summary\nlens_latency_seconds{slice=\"backend/rust/large\",stage=\"stage_a\",arm=\"baseline\",quantile=\"0.99\"} 0.0087\n# EOF\n")),
        (status = 503, description = "It took too long", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn metrics(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = negotiate(accept);
    let subscribers = api.live.subscribers();
    let body = api
        .work(move |state, live| {
            format.render(&openmetrics::families(state, &live.snapshot(), subscribers))
        })
        .await?;
    let kind = HeaderValue::from_static(format.content_type());
    // A cache between must not give one scraper what another asked for.
    Ok(([(header::CONTENT_TYPE, kind), (header::VARY, HeaderValue::from_static("accept"))], body))
}
