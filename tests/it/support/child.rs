//! The real `karat` program as a child process.

use std::{
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{self, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Instant,
};

use serde_json::Value;

use super::{PATIENCE, Reply, Repository, client, root, until};

/// `karat` with `arguments`, in the project's folder, free of settings that this process was started with.
pub(crate) fn karat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_karat"));
    // What finds ONNX Runtime stays.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KARAT_")) {
        if name != "KARAT_ONNXRUNTIME" {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// A process that ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// A running server; it is killed when this value is dropped.
pub(crate) struct Child {
    process: process::Child,
    pub(crate) address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts `karat serve` on a free port, with more flags, and waits until it listens.
    pub(crate) async fn serve(repository: &Repository, flags: &[&str]) -> Self {
        let models = repository.path().to_str().unwrap();
        let mut command = karat(&["serve", "--models", models, "--listen", "127.0.0.1:0"]);
        command.args(flags);
        Self::start(command).await
    }

    /// Starts a command that serves, and waits until it listens.
    pub(crate) async fn start(mut command: Command) -> Self {
        command.env("KARAT_LOG_FORMAT", "json");
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let reader = thread::spawn({
            let lines = Arc::clone(&lines);
            move || stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line))
        });
        let mut child = Self { process, address: ([0, 0, 0, 0], 0).into(), lines, reader: Some(reader) };
        let mut address = None;
        until("the server says where it listens", || {
            address = child.lines.lock().unwrap().iter().find_map(|line| listening(line));
            assert!(address.is_some() || child.process.try_wait().unwrap().is_none(), "{}", child.log());
            address.is_some()
        })
        .await;
        child.address = address.unwrap();
        child
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Reply::of(client().get(self.url(path))).await
    }

    /// `POST /v1/score`.
    pub(crate) async fn post(&self, body: &Value) -> Reply {
        Reply::of(client().post(self.url("/v1/score")).json(body)).await
    }

    /// Waits until every model has been loaded.
    pub(crate) async fn ready(&self) {
        self.asked_until("/health/ready", |reply| reply.status == 200).await;
    }

    /// Waits until a request of somebody else's is being answered.
    pub(crate) async fn in_flight(&self) {
        // The one that asks is the second.
        self.asked_until("/metrics", |reply| reply.text.contains("karat_http_requests_in_flight 2")).await;
    }

    /// Waits until the log has a line with these words.
    pub(crate) async fn logged(&self, words: &str) {
        until(words, || self.log().contains(words)).await;
    }

    /// Asks until the answer is as it should be.
    pub(crate) async fn asked_until(&self, path: &str, condition: impl Fn(&Reply) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let reply = self.get(path).await;
            if condition(&reply) {
                return;
            }
            assert!(Instant::now() < give_up, "{path} never said so: {}\n{}", reply.text, self.log());
        }
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn end(mut self) -> Finished {
        let mut status = None;
        until("the server ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        self.reader.take().unwrap().join().unwrap();
        Finished { status: status.unwrap(), stderr: self.log() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already where the test waited for that.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["address"].as_str()?.parse().ok())?
}
