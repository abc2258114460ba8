//! A client that can stop in the middle of a request, as no proper one would.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{PATIENCE, Reply};

/// One HTTP/1.1 connection, written by hand.
pub(crate) struct RawConnection {
    stream: TcpStream,
}

impl RawConnection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).unwrap() }
    }

    /// Sends the head of a `POST /v1/score` with one header besides the usual ones.
    pub(crate) fn head(&mut self, header: &str) {
        self.send(format!("POST /v1/score HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n").as_bytes());
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Waits until the server closes the connection.
    pub(crate) async fn closed(mut self) {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let read = move || self.stream.read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(read).await.unwrap().expect("the server closes the connection");
    }

    /// Waits for the answer.
    pub(crate) async fn reply(self) -> Reply {
        tokio::task::spawn_blocking(move || read(BufReader::new(self.stream))).await.unwrap()
    }
}

fn read(mut stream: impl BufRead) -> Reply {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let status = line().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    loop {
        let line = line();
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
    }
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Reply { status, headers, text, body }
}
