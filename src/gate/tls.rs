//! TLS towards clients: certificates from files or made at start, ALPN. Early data stays off, so
//! no request is judged that could be a replay.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A PEM file is unreadable or holds nothing of the kind.
    #[error("cannot read {path}")]
    Pem {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not belong together, or are of a kind that is not known.
    #[error("the certificate cannot be used")]
    Rustls(#[from] rustls::Error),
    /// The self-signed certificate could not be made.
    #[error("the self-signed certificate could not be made")]
    SelfSigned(#[from] rcgen::Error),
}

/// Accepts TLS with HTTP/2 and HTTP/1.1 by ALPN.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let (chain, key) = match tls {
        Tls::Files { cert, key } => (read_chain(cert)?, read_key(key)?),
        Tls::SelfSigned => self_signed()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = || {
        let chain: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
        match chain.is_empty() {
            true => Err(rustls::pki_types::pem::Error::NoItemsFound),
            false => Ok(chain),
        }
    };
    read().map_err(|source| pem(path, source))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| pem(path, source))
}

fn pem(path: &Path, source: rustls::pki_types::pem::Error) -> Error {
    Error::Pem {
        path: path.display().to_string(),
        source,
    }
}

fn self_signed() -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let names = [
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        "jailgate".to_owned(),
    ];
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}
