//! HTTP/1.1 with kept-alive connections and nothing else: no redirects, no pool limits, no body parsing.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinHandle,
};

use crate::{Failure, report::Stages, run::Body};

/// A server, and the connections to it that are free. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: Arc<str>,
    path: Uri,
    authorization: Option<HeaderValue>,
    free: Arc<Mutex<Vec<Connection>>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) stages: Option<Stages>,
    /// When the request was handed to its connection.
    pub(crate) sent: Instant,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Replied(Reply),
    /// Its client left, as planned.
    Left,
    /// The connection broke.
    Broken,
}

/// An open connection; it is closed when this value is dropped.
#[derive(Debug)]
struct Connection {
    requests: SendRequest<Full<Body>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(crate) fn new(url: &Uri, path: &'static str, key: Option<&str>) -> Result<Self, Failure> {
        let address = url.authority().ok_or("--url needs a host and a port, such as http://127.0.0.1:8080")?;
        let address = address.as_str().into();
        let authorization = key.map(|key| HeaderValue::try_from(format!("Bearer {key}"))).transpose()?;
        Ok(Self { address, path: Uri::from_static(path), authorization, free: Arc::default() })
    }

    /// Where the server listens.
    pub(crate) async fn address(&self) -> Result<SocketAddr, Failure> {
        let found = lookup_host(&*self.address).await?.next();
        found.ok_or_else(|| format!("{} has no address", self.address).into())
    }

    /// The bytes of a request, for those who write to a socket themselves.
    pub(crate) fn raw(&self, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.path,
            self.address,
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    /// Sends a request and waits for the whole reply, or for `leaves_after`.
    pub(crate) async fn send(&self, body: Body, leaves_after: Option<Duration>) -> Ended {
        let Ok(mut connection) = self.connection().await else { return Ended::Broken };
        // Dropping the connection before the reply is how a client leaves.
        let replied = match leaves_after {
            None => self.exchange(&mut connection, body).await,
            Some(time) => match tokio::time::timeout(time, self.exchange(&mut connection, body)).await {
                Ok(replied) => replied,
                Err(_) => return Ended::Left,
            },
        };
        match replied {
            Ok(reply) => {
                self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                Ended::Replied(reply)
            }
            Err(_) => Ended::Broken,
        }
    }

    async fn exchange(&self, connection: &mut Connection, body: Body) -> Result<Reply, hyper::Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        // An authority is made of characters that a header may hold.
        if let Ok(host) = HeaderValue::from_str(&self.address) {
            request.headers_mut().insert(header::HOST, host);
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let sent = Instant::now();
        let reply = connection.requests.send_request(request).await?;
        let status = reply.status();
        let stages = reply.headers().get("server-timing").and_then(|value| Stages::parse(value.to_str().ok()?));
        let mut body = reply.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(Reply { status, stages, sent })
    }

    /// A free connection that still works, or a new one.
    async fn connection(&self) -> Result<Connection, Failure> {
        loop {
            let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = free else { break };
            if connection.requests.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(&*self.address).await?;
        stream.set_nodelay(true)?;
        let (requests, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // Whoever waits for a reply gets the error as well.
            let _ = driver.await;
        });
        Ok(Connection { requests, driver })
    }
}
