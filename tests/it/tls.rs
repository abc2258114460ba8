//! HTTPS: over both versions of HTTP and gRPC, with certificates that change, for clients that must have one.

use std::{fs, net::TcpStream, path::PathBuf, sync::Arc};

use karat::server::{Drained, Tls, TlsError, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, ClientBuilder, Identity, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Repository, Server, Unserved};

/// An authority, and what it has signed, in a folder.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: TempDir::new().unwrap(), issuer };
        fs::write(authority.path("ca.pem"), authority.pem()).unwrap();
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate and its key, as PEM.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes a new certificate of the server's.
    fn renew(&self) -> TlsFiles {
        let (certificate, key) = self.sign();
        let files =
            TlsFiles { certificate: self.path("cert.pem"), key: self.path("key.pem"), client_authorities: None };
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        files
    }

    /// A client that trusts it alone.
    fn client(&self) -> ClientBuilder {
        let root = Certificate::from_pem(self.pem().as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false).add_root_certificate(root)
    }

    fn identity(&self) -> Identity {
        let (certificate, key) = self.sign();
        Identity::from_pem((certificate + &key).as_bytes()).unwrap()
    }
}

async fn serve(files: TlsFiles) -> (Server, Arc<Tls>) {
    let tls = Arc::new(Tls::load(files).unwrap());
    let unserved = Unserved { tls: Some(Arc::clone(&tls)), ..Unserved::new() };
    unserved.load(&Repository::with_sum()).await.unwrap();
    (unserved.serve().await, tls)
}

fn url(server: &Server, path: &str) -> String {
    format!("https://{}{path}", server.address)
}

fn score() -> Value {
    json!({"model": "sum", "inputs": [{"text": "10 11"}]})
}

#[tokio::test]
async fn both_versions_of_http_and_grpc_are_spoken() {
    let authority = Authority::new();
    let (server, _) = serve(authority.renew()).await;
    let scored = async |client: ClientBuilder| {
        let client = client.build().unwrap();
        let response = client.post(url(&server, "/v1/score")).json(&score()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.version()
    };
    assert_eq!(scored(authority.client()).await, Version::HTTP_2, "the newer one where both speak it");
    assert_eq!(scored(authority.client().http1_only()).await, Version::HTTP_11);

    let call = "/grpc.health.v1.Health/Check";
    let request = authority.client().build().unwrap().post(url(&server, call)).header("te", "trailers");
    let frame = [0_u8; 5].to_vec();
    let reply = request.header("content-type", "application/grpc").body(frame).send().await.unwrap();
    assert_eq!(&reply.bytes().await.unwrap()[..], [0, 0, 0, 0, 2, 8, 1], "serving");

    let stranger = Authority::new().client().build().unwrap();
    assert!(stranger.get(url(&server, "/health/live")).send().await.is_err(), "signed by another authority");
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(server.url("/health/live")).send().await.is_err(), "nothing is said in the clear");
}

#[tokio::test]
async fn clients_must_have_a_certificate_where_that_is_asked_for() {
    let (authority, team) = (Authority::new(), Authority::new());
    let files = TlsFiles { client_authorities: Some(team.path("ca.pem")), ..authority.renew() };
    let (server, _) = serve(files).await;
    let come = async |client: ClientBuilder| {
        client.build().unwrap().get(url(&server, "/health/live")).send().await.map(|reply| reply.status().as_u16())
    };
    assert!(come(authority.client()).await.is_err(), "without one");
    assert!(come(authority.client().identity(authority.identity())).await.is_err(), "of another authority");
    assert_eq!(come(authority.client().identity(team.identity())).await.unwrap(), 200);
}

#[tokio::test]
async fn certificates_are_read_anew_and_those_from_before_hold_where_that_fails() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = old.renew();
    let (server, tls) = serve(files.clone()).await;
    let trusted = async |authority: &Authority| {
        let client = authority.client().build().unwrap();
        client.get(url(&server, "/health/live")).send().await.is_ok()
    };
    assert!(trusted(&old).await && !trusted(&new).await);

    let (certificate, key) = new.sign();
    fs::write(&files.certificate, certificate).unwrap();
    // Between the two files the pair doesn't fit.
    assert!(matches!(tls.reload(), Err(TlsError::Pair(_))));
    assert!(trusted(&old).await);
    fs::write(&files.key, key).unwrap();
    tls.reload().unwrap();
    assert!(trusted(&new).await && !trusted(&old).await);

    fs::remove_file(&files.key).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::File { .. })));
    fs::write(&files.certificate, "").unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Empty { .. })));
    assert!(trusted(&new).await);
}

#[tokio::test]
async fn who_has_not_agreed_on_keys_yet_keeps_no_server_from_its_end() {
    let authority = Authority::new();
    let (server, _) = serve(authority.renew()).await;
    let _silent = TcpStream::connect(server.address).unwrap();
    // Connections are taken in their order.
    authority.client().build().unwrap().get(url(&server, "/health/live")).send().await.unwrap();
    assert_eq!(server.stop().await, Drained::Whole);
}

#[cfg(feature = "offline")]
#[tokio::test]
async fn the_command_line_trusts_the_authority_that_it_is_told_and_brings_its_key() {
    use crate::support::{Child, karat};

    let authority = Authority::new();
    authority.renew();
    let made = karat(&["keys", "new", "offline"]).output().unwrap();
    let keys = authority.path("keys.jsonl");
    fs::write(&keys, made.stdout).unwrap();
    let flags = ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--keys", "keys.jsonl"];
    let repository = Repository::with_sum();
    let paths = flags.map(|flag| if flag.starts_with("--") { flag.into() } else { authority.path(flag) });
    let paths: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    let child = Child::serve(&repository, &paths).await;

    let samples = authority.path("samples.jsonl");
    fs::write(&samples, "{\"prompt\": \"\", \"response\": \"10 11\"}\n").unwrap();
    let server = format!("https://localhost:{}", child.address.port());
    let score = |more: &[(&str, &str)]| {
        let mut command = karat(&["score", "--server", &server, "--model", "sum"]);
        command.arg(&samples).arg("--output").arg(authority.path("scores.jsonl"));
        command.envs(more.iter().copied());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let ca = authority.path("ca.pem");
    let ca = ("KARAT_TLS_CA", ca.to_str().unwrap());
    let key = String::from_utf8(made.stderr).unwrap();
    let key = ("KARAT_API_KEY", key.trim());
    let (scored, told) = score(&[key]);
    assert!(!scored && told.contains("certificate"), "{told}");
    let (scored, told) = score(&[ca]);
    assert!(!scored && told.contains("send a key"), "{told}");
    let (scored, told) = score(&[ca, key]);
    assert!(scored, "{told}");
}
