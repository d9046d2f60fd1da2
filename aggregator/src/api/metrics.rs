//! `/metrics`.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;

use super::{Api, Problem};
use crate::export::openmetrics::{self, Format};

/// Everything, for scrapers
///
/// OpenMetrics 1.0 text when `Accept` asks for it, Prometheus text 0.0.4 otherwise. A quantile
/// without enough samples is absent, not 0.
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
    let open = accept.flat_map(|value| value.split(',')).any(|kind| {
        kind.split(';').next().is_some_and(|name| name.trim() == "application/openmetrics-text")
    });
    let format = if open { Format::OpenMetrics } else { Format::Prometheus };
    let subscribers = api.live.subscribers();
    let text = api
        .work(move |state, live| openmetrics::render(state, &live.snapshot(), subscribers, format))
        .await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text))
}
