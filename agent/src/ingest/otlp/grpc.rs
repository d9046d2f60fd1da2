//! OTLP over gRPC. Bounds: `MESSAGE_BYTES_MAX` a message, decompressed; `EXPORTS_MAX` at
//! once, more wait.

use lens_service::shutdown::Shutdown;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tower::limit::GlobalConcurrencyLimitLayer;
use tracing::error;

use super::{Answer, Door, EXPORTS_MAX, MESSAGE_BYTES_MAX, MESSAGE_TIME_MAX};
use crate::ingest::refusal::Refusal;
use crate::ingest::sink::Busy;

/// Requests one connection may have open.
const STREAMS_MAX: u32 = 64;

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, door: Door, stop: Shutdown) {
    macro_rules! bounded {
        ($server:ident) => {
            $server::new(door.clone())
                .accept_compressed(Gzip)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
        };
    }
    let served = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .timeout(MESSAGE_TIME_MAX)
        .layer(GlobalConcurrencyLimitLayer::new(EXPORTS_MAX))
        .add_service(bounded!(MetricsServiceServer))
        .add_service(bounded!(TraceServiceServer))
        .add_service(bounded!(LogsServiceServer))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async move {
            stop.wait().await;
        })
        .await;
    if let Err(error) = served {
        error!(%error, "OTLP over gRPC has ended");
    }
}

fn unavailable(busy: Busy) -> Status {
    Status::unavailable(busy.to_string())
}

fn rejected(answer: &Answer) -> i64 {
    i64::try_from(answer.refused).unwrap_or(i64::MAX)
}

/// The answer to metrics.
pub fn metrics_response(answer: Answer) -> ExportMetricsServiceResponse {
    let partial = (answer.refused > 0).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: rejected(&answer),
        error_message: answer.sentence,
    });
    ExportMetricsServiceResponse { partial_success: partial }
}

/// The answer to spans.
pub fn trace_response(answer: Answer) -> ExportTraceServiceResponse {
    let partial = (answer.refused > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: rejected(&answer),
        error_message: answer.sentence,
    });
    ExportTraceServiceResponse { partial_success: partial }
}

#[tonic::async_trait]
impl MetricsService for Door {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let answer = self.metrics(request.get_ref()).map_err(unavailable)?;
        Ok(Response::new(metrics_response(answer)))
    }
}

#[tonic::async_trait]
impl TraceService for Door {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let answer = self.spans(request.get_ref()).map_err(unavailable)?;
        Ok(Response::new(trace_response(answer)))
    }
}

#[tonic::async_trait]
impl LogsService for Door {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.refuse(Refusal::Logs);
        Err(Status::unimplemented(Refusal::Logs.remedy()))
    }
}
