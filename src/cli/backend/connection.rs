//! How to reach a server: with which key, certificates and authorities.

use std::{fs, path::PathBuf};

use clap::Args;
use reqwest::{
    Certificate, Client, Identity,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};

use crate::cli::CommandError;

/// Flags that say how a server is reached.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ConnectionArguments {
    /// The key for a server that wants one; better in the environment, since everybody on the machine sees command lines.
    #[arg(long, env = "KARAT_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,

    /// Certificates of authorities as PEM, by one of which the server's must be signed; by default those that browsers
    /// know.
    #[arg(long, env = "KARAT_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// A certificate for a server that wants one of its clients, and its private key behind it, as PEM.
    #[arg(long, env = "KARAT_TLS_IDENTITY", value_name = "FILE")]
    tls_identity: Option<PathBuf>,
}

impl ConnectionArguments {
    /// A client of the server.
    pub(super) fn client(&self) -> Result<Client, CommandError> {
        // The server is named; whatever proxy the environment knows is for other places.
        let mut builder = Client::builder().no_proxy();
        if let Some(key) = &self.api_key {
            let value = HeaderValue::from_str(&format!("Bearer {key}"));
            let mut value = value.map_err(|_| "--api-key has characters in it that no key has")?;
            value.set_sensitive(true);
            builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
        }
        if let Some(file) = &self.tls_ca {
            let authorities = Certificate::from_pem_bundle(&read("--tls-ca", file)?);
            let authorities = authorities.map_err(|error| format!("--tls-ca {}: {error}", file.display()))?;
            if authorities.is_empty() {
                return Err(format!("--tls-ca {} holds no certificate", file.display()).into());
            }
            builder = builder.tls_built_in_root_certs(false);
            builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        if let Some(file) = &self.tls_identity {
            let identity = Identity::from_pem(&read("--tls-identity", file)?);
            let identity = identity.map_err(|error| format!("--tls-identity {}: {error}", file.display()))?;
            builder = builder.identity(identity);
        }
        Ok(builder.build()?)
    }
}

fn read(flag: &str, file: &PathBuf) -> Result<Vec<u8>, CommandError> {
    fs::read(file).map_err(|error| format!("{flag} {}: {error}", file.display()).into())
}
