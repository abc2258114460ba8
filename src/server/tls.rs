//! Certificates: where they lie, and what is made of them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
};

/// The files that a server's certificates lie in, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities whose certificates clients must have, where they must have one.
    pub client_authorities: Option<PathBuf>,
}

/// Why a server has no certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or is no PEM.
    #[error("{}: {source}; it must hold {wanted} as PEM", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// Why it isn't.
        source: pem::Error,
    },
    /// A file holds nothing of what should be in it.
    #[error("{} holds no certificate; it must hold at least one as PEM", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// Certificate and key can't be used.
    #[error(
        "--tls-cert and --tls-key can't be used together: {0}; the key must be that of the file's first certificate"
    )]
    Pair(rustls::Error),
    /// What is asked of clients can't be checked.
    #[error("--tls-client-ca can't be used: {0}; it must hold certificates of authorities")]
    Authority(#[from] VerifierBuilderError),
    /// An authority's certificate can't be used.
    #[error("--tls-client-ca holds a certificate that can't be used: {0}")]
    AuthorityCertificate(rustls::Error),
}

impl TlsFiles {
    /// All files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_authorities).cloned().collect()
    }

    fn read(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(unreadable(&self.key, "a private key"))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match &self.client_authorities {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(TlsError::AuthorityCertificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = unreadable(file, "certificates");
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Empty { file: file.to_owned() });
    }
    Ok(found)
}

fn unreadable(file: &Path, wanted: &'static str) -> impl FnOnce(pem::Error) -> TlsError {
    move |source| TlsError::File { file: file.to_owned(), wanted, source }
}

/// What a server proves itself with; connections that open later use what is there then.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one can't be read or used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(files.read()?));
        Ok(Self { files, current })
    }

    /// Reads the files anew; what was there before stays where they can't be used.
    ///
    /// # Errors
    /// When one can't be read or used.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = Arc::new(self.files.read()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// Where they lie.
    pub(crate) fn files(&self) -> &TlsFiles {
        &self.files
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}
