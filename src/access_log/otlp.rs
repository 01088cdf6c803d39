//! Receives Traefik's access logs by OTLP: `POST /v1/logs` (protobuf, gzip) and gRPC
//! `LogsService/Export` on one port, told apart by path.
//!
//! Whoever may post here can get any address banned: the token is compared before a byte of the
//! body is read. What a record says is Traefik's business, in `format::traefik`.

use std::{
    convert::Infallible, io, io::Read, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use prost::Message;
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, codec::CompressionEncoding, codegen::Service};
use tracing::{debug, warn};

use super::{
    format::{
        Unparsed,
        traefik::{Attribute, Fields},
    },
    intake::Intake,
};
use crate::{
    config::{Address, Secret},
    tasks::Tasks,
    time::Clock,
};

/// What records are received with.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Where the events go.
    pub intake: Arc<Intake>,
    /// Bearer token; `None` takes anybody's word (loopback only, the configuration sees to it).
    pub token: Option<Secret>,
    /// The clock.
    pub clock: Clock,
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// Why the receiver cannot listen.
#[derive(Debug, Error)]
#[error("otlp cannot listen on {address:?}")]
pub struct Error {
    /// The address in the configuration.
    pub address: Address,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Bytes of one export as sent.
const MAX_SENT: usize = 4 << 20;
/// Bytes of one export unpacked; Traefik sends 512 records at most.
const MAX_UNPACKED: usize = 16 << 20;
/// Exports unpacked at once, over all connections.
const AT_ONCE: usize = 4;
/// Connections held at once.
const CONNECTIONS: usize = 64;
/// From the head of an export to its answer.
const TIMEOUT: Duration = Duration::from_secs(30);

const HTTP_PATH: &str = "/v1/logs";
const GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

impl Listener {
    /// Binds; needs a runtime.
    pub fn bind(address: &Address) -> Result<Self, Error> {
        let bound = match address {
            Address::Tcp(socket) => std::net::TcpListener::bind(socket).and_then(|listener| {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }),
            Address::Unix(path) => UnixListener::bind(path).map(Self::Unix),
        };
        bound.map_err(|source| Error {
            address: address.clone(),
            source,
        })
    }

    /// Where it listens, for TCP.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// Serves until told to stop; open exports are finished.
pub async fn serve(
    listener: Listener,
    receiver: Arc<ArcSwap<Receiver>>,
    tasks: Tasks,
    stop: CancellationToken,
) {
    let service = Arc::new(Exports {
        receiver,
        turns: Semaphore::new(AT_ONCE),
        tasks: tasks.clone(),
    });
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(room) = connections.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async {
                match &listener {
                    Listener::Tcp(tcp) => tcp.accept().await.map(|(io, _)| Socket::Tcp(io)),
                    Listener::Unix(unix) => unix.accept().await.map(|(io, _)| Socket::Unix(io)),
                }
            } => accepted,
        };
        let (service, stop) = (service.clone(), stop.clone());
        match accepted {
            Ok(Socket::Tcp(io)) => tasks.spawn(async move {
                connection(TokioIo::new(io), service, stop).await;
                drop(room);
            }),
            Ok(Socket::Unix(io)) => tasks.spawn(async move {
                connection(TokioIo::new(io), service, stop).await;
                drop(room);
            }),
            Err(error) => {
                // Out of descriptors, most likely: others must close first.
                warn!(%error, "otlp cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

enum Socket {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

struct Exports {
    receiver: Arc<ArcSwap<Receiver>>,
    turns: Semaphore,
    tasks: Tasks,
}

/// Runs the streams of an h2 connection as tasks of the process.
#[derive(Clone)]
struct Spawn(Tasks);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

async fn connection<I>(io: I, exports: Arc<Exports>, stop: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(Spawn(exports.tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(16)
        .keep_alive_interval(TIMEOUT);
    let service = hyper::service::service_fn(move |request| {
        let exports = exports.clone();
        async move { Ok::<_, Infallible>(exports.answer(request).await) }
    });
    let mut serving = pin!(builder.serve_connection(io, service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "otlp connection");
    }
}

impl Exports {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let receiver = self.receiver.load_full();
        if !receiver.allows(request.headers()) {
            let why = "otlp.tokenFile names another token";
            return match request.uri().path() {
                GRPC_PATH => Status::unauthenticated(why).into_http(),
                _ => plain(StatusCode::UNAUTHORIZED, why),
            };
        }
        let Ok(_turn) = self.turns.acquire().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "");
        };
        let answer = async {
            match (request.method(), request.uri().path()) {
                (&Method::POST, HTTP_PATH) => receiver.http(request).await,
                (&Method::POST, GRPC_PATH) => receiver.grpc(request).await,
                (_, HTTP_PATH) => plain(StatusCode::METHOD_NOT_ALLOWED, ""),
                _ => plain(StatusCode::NOT_FOUND, ""),
            }
        };
        let timed = tokio::time::timeout(TIMEOUT, answer).await;
        timed.unwrap_or_else(|_| plain(StatusCode::REQUEST_TIMEOUT, ""))
    }
}

impl Receiver {
    fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(only), None) = (sent.next(), sent.next()) else {
            return false;
        };
        let bearer = only.as_bytes().split_at_checked(7);
        bearer.is_some_and(|(scheme, sent)| {
            scheme.eq_ignore_ascii_case(b"bearer ")
                && bool::from(sent.ct_eq(token.expose().as_bytes()))
        })
    }

    async fn http(&self, request: Request<Incoming>) -> Response<Body> {
        let header = |name| request.headers().get(name).map(|value| value.as_bytes());
        if header(header::CONTENT_TYPE)
            .is_none_or(|kind| !kind.starts_with(b"application/x-protobuf"))
        {
            return plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "application/x-protobuf only\n",
            );
        }
        let packed = match header(header::CONTENT_ENCODING) {
            None | Some(b"identity") => false,
            Some(b"gzip") => true,
            Some(_) => return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "gzip only\n"),
        };
        let Ok(body) = Limited::new(request.into_body(), MAX_SENT).collect().await else {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "");
        };
        let body = match packed {
            true => unpack(&body.to_bytes()),
            false => Ok(body.to_bytes()),
        };
        let message = match body.map(ExportLogsServiceRequest::decode) {
            Ok(Ok(message)) => message,
            Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "not an OTLP export\n"),
            Err(status) => return plain(status, ""),
        };
        let bytes = Bytes::from(self.take(&message).encode_to_vec());
        let mut response = Response::new(Body::new(Full::new(bytes)));
        let kind = header::HeaderValue::from_static("application/x-protobuf");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    async fn grpc(&self, request: Request<Incoming>) -> Response<Body> {
        let mut service = LogsServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_UNPACKED);
        let Ok(response) = service.call(request).await;
        response
    }

    fn take(&self, message: &ExportLogsServiceRequest) -> ExportLogsServiceResponse {
        let scopes = message
            .resource_logs
            .iter()
            .flat_map(|resource| &resource.scope_logs);
        let mut rejected = 0;
        for record in scopes.flat_map(|scope| &scope.log_records) {
            let now = self.clock.now();
            match fields(record).and_then(Fields::event) {
                Ok(event) => {
                    self.intake.take(&event, now);
                }
                Err(why) => {
                    self.intake.unparsed(&record_text(record), why, now);
                    rejected += 1;
                }
            }
        }
        let partial = ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: "not Traefik access-log records".into(),
        };
        ExportLogsServiceResponse {
            partial_success: (rejected > 0).then_some(partial),
        }
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        Ok(tonic::Response::new(self.take(request.get_ref())))
    }
}

/// The attributes, and the record's time; the body is never looked at.
fn fields(record: &LogRecord) -> Result<Fields<'_>, Unparsed> {
    let mut fields = Fields {
        written: (record.time_unix_nano > 0).then_some(record.time_unix_nano / 1_000_000),
        ..Fields::default()
    };
    for KeyValue { key, value, .. } in &record.attributes {
        let value = match value.as_ref().and_then(|any| any.value.as_ref()) {
            Some(Value::StringValue(text)) => Attribute::Text(text.as_bytes()),
            Some(Value::IntValue(number)) => Attribute::Int(*number),
            _ => continue,
        };
        if key != "time" {
            fields.attribute(key, value)?;
        }
    }
    Ok(fields)
}

/// What stands for a line when a record is shown: its attribute names.
fn record_text(record: &LogRecord) -> Vec<u8> {
    let names: Vec<_> = record
        .attributes
        .iter()
        .map(|one| one.key.as_str())
        .collect();
    names.join(" ").into_bytes()
}

fn unpack(packed: &[u8]) -> Result<Bytes, StatusCode> {
    let mut unpacked = Vec::new();
    let mut reader = GzDecoder::new(packed).take(MAX_UNPACKED as u64 + 1);
    reader
        .read_to_end(&mut unpacked)
        .map_err(|_| StatusCode::BAD_REQUEST)?;
    if unpacked.len() > MAX_UNPACKED {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    Ok(unpacked.into())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response
}
