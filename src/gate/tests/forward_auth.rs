//! forwardAuth as Traefik, Caddy and nginx ask.

use std::sync::Arc;

use super::{
    protocols::{get, h2},
    support::{Running, status},
};

const YAML: &str = "forwardAuth: {address: '127.0.0.1:0', trustedIPs: [127.0.0.1]}\n\
     jails:\n  \
       web: {denylist: {ip: 192.0.2.1}, rules: {maxretry: 2, statuscode: '404'}, response: {status: 429}}\n  \
       default: {rules: {urlregexps: [{regexp: ^/no, mode: block}]}}\n";

fn ask(path: &str, client: &str, uri: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: jailgate\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: app\r\nX-Forwarded-Uri: {uri}\r\nX-Forwarded-For: {client}\r\n\r\n"
    )
}

#[tokio::test]
async fn answers_are_small_and_relay_well() {
    let gate = Running::start(YAML);
    let mut proxy = gate.client().await;
    let allowed = proxy.ask(ask("/forward-auth/web", "192.0.2.9", "/")).await;
    assert_eq!(status(&allowed), 200);
    assert!(allowed.contains("content-length: 0"), "{allowed}");
    let denied = proxy.ask(ask("/forward-auth/web", "192.0.2.1", "/")).await;
    assert_eq!(status(&denied), 429);
    for line in [
        "cache-control: no-store",
        "x-jailgate-reason: denylist",
        "content-length: 0",
    ] {
        assert!(denied.contains(line), "{denied}");
    }
    let to_nginx = proxy.ask(ask("/auth-request/web", "192.0.2.1", "/")).await;
    assert_eq!(status(&to_nginx), 403);
    let by_rule = proxy.ask(ask("/forward-auth", "192.0.2.9", "/no")).await;
    assert_eq!(status(&by_rule), 403);
    assert!(by_rule.contains("retry-after: "), "{by_rule}");
}

#[tokio::test]
async fn what_is_missing_or_unknown_is_refused_and_never_defaulted() {
    let gate = Running::start(YAML);
    let full = ask("/forward-auth/web", "192.0.2.9", "/");
    for line in full.lines().skip(2).filter(|line| !line.is_empty()) {
        let without = full.replace(&format!("{line}\r\n"), "");
        let response = gate.client().await.ask(&without).await;
        assert_eq!(status(&response), 400, "{line}: {response}");
        let name = line.split(':').next().unwrap();
        assert!(response.contains(name), "{response}");
        let nginx = gate
            .client()
            .await
            .ask(without.replace("/forward-auth/", "/auth-request/"))
            .await;
        assert_eq!(status(&nginx), 403, "{line}");
    }
    for (client, expected) in [
        ("nonsense", 400),
        ("192.0.2.9, nonsense", 400),
        ("nonsense, 192.0.2.9", 200),
    ] {
        let response = gate
            .client()
            .await
            .ask(ask("/forward-auth/web", client, "/"))
            .await;
        assert_eq!(status(&response), expected, "{client}");
        assert_eq!(refused(&response), expected != 200, "{response}");
    }
    for (path, expected) in [
        ("/forward-auth/none", 404),
        ("/auth-request/none", 403),
        ("/", 404),
    ] {
        let response = gate.client().await.ask(ask(path, "192.0.2.9", "/")).await;
        assert_eq!(status(&response), expected, "{path}");
        assert!(refused(&response), "{response}");
    }
}

/// Whether it says, for the log of who asks, that no client failed.
fn refused(response: &str) -> bool {
    response
        .to_lowercase()
        .contains("\r\nx-jailgate-reason: refused\r\n")
}

#[tokio::test]
async fn only_trusted_proxies_may_ask() {
    let gate = Running::start(&YAML.replace("[127.0.0.1]", "[192.0.2.99]"));
    for path in ["/forward-auth/web", "/auth-request/web"] {
        let response = gate.client().await.ask(ask(path, "192.0.2.9", "/")).await;
        assert_eq!(status(&response), 401);
        assert!(response.contains("forwardAuth.trustedIPs"), "{response}");
        assert!(refused(&response), "{response}");
    }
}

#[tokio::test]
async fn a_question_is_not_an_answer_to_count() {
    let gate = Running::start(&YAML.replace("'404'", "'200-599'"));
    let mut proxy = gate.client().await;
    for _ in 0..5 {
        let response = proxy.ask(ask("/forward-auth/web", "192.0.2.9", "/")).await;
        assert_eq!(status(&response), 200);
    }
}

/// Takes any certificate, as Traefik's `insecureSkipVerify` does.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn one_line_makes_it_https_with_http2() {
    let gate = Running::start(&YAML.replace("trustedIPs:", "tls: {selfSigned: true}, trustedIPs:"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tokio::net::TcpStream::connect(gate.address())
        .await
        .unwrap();
    let stream = connector
        .connect("jailgate".try_into().unwrap(), stream)
        .await
        .unwrap();
    let mut sender = h2(stream).await;
    let headers = [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app"),
        ("x-forwarded-uri", "/"),
    ];
    for (client, expected) in [("192.0.2.9", 200), ("192.0.2.1", 429)] {
        let mut headers = headers.to_vec();
        headers.push(("x-forwarded-for", client));
        let (code, body) = get(&mut sender, "https://jailgate/forward-auth/web", &headers).await;
        assert_eq!((code, body.as_str()), (expected, ""));
    }
}
