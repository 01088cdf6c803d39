//! Exports by HTTP and gRPC, as Traefik sends them and as others might.

use std::io::Write;

use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse, logs_service_client::LogsServiceClient,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message;

use super::{Bench, OTLP};
use crate::{access_log::Sources, time::Millis};

/// What Traefik exports for one request, as its OTLP handler builds it.
fn record(ip: &str, at: Millis) -> LogRecord {
    let text = |text: &str| Value::StringValue(text.into());
    let attributes = [
        ("ClientAddr", text(&format!("{ip}:4711"))),
        ("ClientHost", text(ip)),
        ("DownstreamStatus", Value::IntValue(401)),
        ("OriginStatus", Value::IntValue(0)),
        ("Duration", Value::IntValue(1_000_000)),
        ("RequestMethod", text("GET")),
        ("RequestPath", text("/login")),
        ("RequestHost", text("app.example.com")),
        ("StartUTC", Value::IntValue(at as i64 * 1_000_000)),
        ("GzipRatio", Value::DoubleValue(0.0)),
    ];
    let attribute = |(key, value): (&str, Value)| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    LogRecord {
        time_unix_nano: at * 1_000_000,
        attributes: attributes.into_iter().map(attribute).collect(),
        ..LogRecord::default()
    }
}

fn export(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs {
        log_records,
        ..ScopeLogs::default()
    }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs,
            ..ResourceLogs::default()
        }],
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A running receiver and its URL.
fn receiver() -> (Bench, Sources, String) {
    let bench = Bench::new(OTLP);
    let mut sources = bench.sources();
    let url = format!("http://{}", sources.otlp_address().unwrap());
    sources.start();
    (bench, sources, url)
}

async fn post(url: &str, token: Option<&str>, body: Vec<u8>) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client
        .post(format!("{url}/v1/logs"))
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "gzip");
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    request.body(body).send().await.unwrap()
}

#[tokio::test]
async fn exports_over_http_ban() {
    let (bench, _sources, url) = receiver();
    let mut records = vec![record("203.0.113.9", bench.now()); 4];
    records.push(LogRecord::default());
    let body = gzip(&export(records).encode_to_vec());
    let response = post(&url, Some("Bearer hunter2"), body).await;
    assert_eq!(response.status(), 200);
    let answer = ExportLogsServiceResponse::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(answer.partial_success.unwrap().rejected_log_records, 1);
    assert!(bench.banned("203.0.113.9"));
    assert_eq!(bench.shared.metrics.log_lines.get(), 5);
}

#[tokio::test]
async fn exports_over_grpc_ban() {
    let (bench, _sources, url) = receiver();
    let channel = tonic::transport::Endpoint::from_shared(url)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client =
        LogsServiceClient::new(channel).send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let message = export(vec![record("203.0.113.9", bench.now()); 4]);
    let refused = client.export(message.clone()).await.unwrap_err();
    assert!(!bench.banned("203.0.113.9"), "{refused}");
    let mut request = tonic::Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", "Bearer hunter2".parse().unwrap());
    client.export(request).await.unwrap();
    assert!(bench.banned("203.0.113.9"));
}

#[tokio::test]
async fn exports_without_the_token_or_out_of_bounds_are_refused() {
    let (bench, _sources, url) = receiver();
    let body = gzip(&export(vec![record("203.0.113.9", bench.now()); 4]).encode_to_vec());
    for token in [
        None,
        Some("Bearer hunter3"),
        Some("Bearer hunter22"),
        Some("hunter2"),
        Some(""),
    ] {
        assert_eq!(
            post(&url, token, body.clone()).await.status(),
            401,
            "{token:?}"
        );
    }
    let token = Some("Bearer hunter2");
    assert_eq!(
        post(&url, token, gzip(&vec![0; 17 << 20])).await.status(),
        413,
        "a bomb"
    );
    assert_eq!(
        post(&url, token, vec![7; (4 << 20) + 1]).await.status(),
        413
    );
    assert_eq!(post(&url, token, b"not gzip".to_vec()).await.status(), 400);
    assert_eq!(
        post(&url, token, gzip(b"\xff\xff not protobuf"))
            .await
            .status(),
        400
    );
    assert!(!bench.banned("203.0.113.9"));
    assert_eq!(post(&url, token, body).await.status(), 200);
    assert!(bench.banned("203.0.113.9"));
}
