//! TLS towards servers: roots, names and the protocols offered. Connecting is `dial`'s.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::config::Transport;

/// What a TLS connection to one server is made with.
#[derive(Debug)]
pub(super) struct ClientTls {
    pub(super) name: ServerName<'static>,
    /// Offers HTTP/2 and HTTP/1.1.
    pub(super) any: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only: what can be upgraded.
    pub(super) h1: Arc<ClientConfig>,
}

impl ClientTls {
    /// For a server called `host`, unless the transport expects another name.
    pub(super) fn build(host: &str, transport: &Transport) -> Result<Self, String> {
        let name = transport.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())
            .map_err(|_| format!("`{name}` is not a server name"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = match transport.insecure_skip_verify {
            true => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
            false => builder.with_root_certificates(roots(transport)?),
        };
        let mut h1 = config.with_no_client_auth();
        h1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut any = h1.clone();
        any.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Self {
            name,
            any: Arc::new(any),
            h1: Arc::new(h1),
        })
    }
}

/// The system's roots, read once, and those of `rootCA`.
fn roots(transport: &Transport) -> Result<RootCertStore, String> {
    static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
    let system = SYSTEM.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        roots
    });
    let mut roots = system.clone();
    if let Some(path) = &transport.root_ca {
        let unreadable = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(|why| unreadable(&why))? {
            let certificate = certificate.map_err(|why| unreadable(&why))?;
            roots.add(certificate).map_err(|why| unreadable(&why))?;
        }
    }
    Ok(roots)
}

/// `insecureSkipVerify`: whoever answers is believed, but the handshake must still be sound.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
