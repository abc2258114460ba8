//! The real program: its settings, its signals, and how it fails when it can't start.

use std::{
    collections::BTreeSet,
    env, fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use karat_runtime::{RuntimeError, ort::Library};
use serde_json::{Value, json};

use crate::support::{Child, RawConnection, Repository, karat, library, until};

fn score(inputs: usize) -> Value {
    json!({"model": "sum", "inputs": vec![json!({"text": "10 11"}); inputs]})
}

#[tokio::test]
async fn settings_come_from_flags_then_from_the_environment() {
    let repository = Repository::with_sum();
    let mut command = karat(&["serve", "--max-inputs", "3"]);
    command
        .env("KARAT_MODELS", repository.path())
        .env("KARAT_LISTEN", "127.0.0.1:0")
        .env("KARAT_MAX_INPUTS", "1")
        .env("KARAT_MAX_BODY_BYTES", "200");
    let child = Child::start(command).await;
    child.ready().await;
    assert_eq!(child.post(&score(3)).await.status, 200, "the flag goes before the variable");
    child.post(&score(4)).await.assert_problem(422, "too-many-inputs", "at most 3");
    child.post(&score(20)).await.assert_problem(413, "body-too-large", "200 bytes");
}

#[test]
fn every_flag_has_a_variable_and_the_server_listens_on_loopback() {
    let help = String::from_utf8(karat(&["serve", "--help"]).output().unwrap().stdout).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let flags: BTreeSet<&str> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.trim_end_matches(|c: char| !c.is_ascii_lowercase()))
        .collect();
    for flag in flags.into_iter().filter(|flag| *flag != "help") {
        let variable = format!("[env: KARAT_{}=", flag.replace('-', "_").to_uppercase());
        assert!(help.contains(&variable), "{variable} is not in {help}");
    }
    assert!(help.contains("[default: 127.0.0.1:8080]"), "{help}");
}

#[tokio::test]
async fn a_signal_drains_what_is_in_flight() {
    let repository = Repository::with_sum();
    for signal in ["TERM", "INT"] {
        let child = Child::serve(&repository, &[]).await;
        child.ready().await;
        // A request that has begun and can't be answered before its second half comes.
        let body = score(2).to_string();
        let (start, rest) = body.split_at(body.len() / 2);
        let mut connection = RawConnection::open(child.address);
        connection.head(&format!("Content-Length: {}", body.len()));
        connection.send(start.as_bytes());
        child.in_flight().await;

        child.signal(signal);
        until("no new connection is taken", || TcpStream::connect(child.address).is_err()).await;
        connection.send(rest.as_bytes());
        let reply = connection.reply().await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.rewards(), [f64::from(0.021_f32); 2]);
        let finished = child.end().await;
        assert_eq!(finished.status.code(), Some(0), "{signal}: {}", finished.stderr);
        assert!(!finished.stderr.contains("given up"), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn an_idle_server_stops_at_once_and_a_stuck_request_is_given_up() {
    let repository = Repository::with_sum();
    let child = Child::serve(&repository, &[]).await;
    child.ready().await;
    child.signal("TERM");
    assert_eq!(child.end().await.status.code(), Some(0));

    let child = Child::serve(&repository, &["--drain-seconds", "0"]).await;
    child.ready().await;
    let mut connection = RawConnection::open(child.address);
    connection.head("Content-Length: 100");
    child.in_flight().await;
    child.signal("TERM");
    let finished = child.end().await;
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("requests in flight were given up"), "{}", finished.stderr);
    connection.reply().await.assert_problem(503, "model-unavailable", "shutting down");
}

#[test]
fn what_keeps_the_server_from_starting_is_told_plainly() {
    let repository = Repository::with_sum();
    let models = repository.path().to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let absent = "/nonexistent/libonnxruntime.so";
    let wrong = repository.path().join("sum/model.toml");
    let wrong = wrong.to_str().unwrap();
    let free = "127.0.0.1:0";
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--listen", &address], &["can't listen on", &address, "choose another --listen"]),
        (&["--listen", free, "--onnxruntime", absent], &["was not found", absent, "make setup"]),
        (&["--listen", free, "--onnxruntime", wrong], &["can't be used", wrong, "make setup"]),
        (&["--listen", "everywhere"], &["--listen", "everywhere"]),
        (&["--listen", free, "--log", "karat=loudly"], &["log filter", "write a level"]),
        (&["--listen", free, "--log-format", "xml"], &["xml", "write \"text\" or \"json\""]),
    ];
    for (flags, needles) in cases {
        let output = karat(&["serve", "--models", models]).args(flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{flags:?}: {:?} {stderr}", output.status);
        assert!(!stderr.contains("panicked"), "{stderr}");
        for needle in needles {
            assert!(stderr.contains(needle), "{needle:?} is not in {stderr}");
        }
    }
}

/// Set in the copy of this test program that reports on its own environment.
const COPY: &str = "KARAT_TEST_COPY";

#[test]
fn telemetry_is_off_before_the_library_loads() {
    let switch = "ORT_DISABLE_TELEMETRY";
    if env::var_os(COPY).is_none() {
        // A process of its own: in this one another test may have loaded the library, or make have set the variable.
        let name = "process::telemetry_is_off_before_the_library_loads";
        let mut copy = Command::new(env::current_exe().unwrap());
        copy.args([name, "--exact", "--test-threads=1"]).env(COPY, "1").env_remove(switch);
        let output = copy.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
        return;
    }
    assert_eq!(env::var_os(switch), None);
    // The loader refuses this file, so all that has happened by then came before any library.
    let no_library = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert!(matches!(Library::load(Some(&no_library)), Err(RuntimeError::LibraryUnusable { .. })));
    assert_eq!(env::var(switch).as_deref(), Ok("1"));
    library();
    assert_eq!(env::var(switch).as_deref(), Ok("1"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_opens_no_socket_but_its_own() {
    let repository = Repository::with_sum();
    let mut command = karat(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("KARAT_MODELS", repository.path()).env_remove("ORT_DISABLE_TELEMETRY");
    let child = Child::start(command).await;
    child.ready().await;
    assert_eq!(child.post(&score(1)).await.status, 200);

    let process = format!("/proc/{}", child.id());
    let own: BTreeSet<String> = fs::read_dir(format!("{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    // Each line: number, local address:port, remote address:port, state, ..., inode as the tenth column.
    let port = format!(":{:04X}", child.address.port());
    let mut listening = 0;
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let table = fs::read_to_string(format!("{process}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if own.contains(columns[9]) {
                assert!(columns[1].ends_with(&port), "a socket that no client opened: {line}");
                listening += usize::from(columns[3] == "0A");
            }
        }
    }
    assert_eq!(listening, 1);
}

#[test]
fn the_doctor_tells_which_providers_start_and_why_others_do_not() {
    let output = karat(&["doctor", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(diagnosis["onnxruntime"]["path"].as_str().unwrap().ends_with(".so"));
    let trial = |name: &str| {
        let trials = diagnosis["providers"].as_array().unwrap();
        trials.iter().find(|trial| trial["provider"] == name).unwrap().clone()
    };
    assert_eq!(trial("cpu")["starts"], true);
    // The library of `make setup` is the processor's, so CUDA can't start from it on any machine.
    assert_eq!(trial("cuda")["starts"], false);
    assert!(trial("cuda")["reason"].as_str().unwrap().contains(".so"), "{diagnosis}");
    assert!(trial("cuda")["advice"].as_str().unwrap().contains("onnxruntime-gpu"), "{diagnosis}");

    let text = String::from_utf8(karat(&["doctor"]).output().unwrap().stdout).unwrap();
    assert!(text.contains("cpu       starts") && text.contains("libnvinfer.so.10"), "{text}");

    let required = karat(&["doctor", "--require", "cuda"]).output().unwrap();
    assert_eq!(required.status.code(), Some(1));
    assert!(karat(&["doctor", "--require", "cpu"]).output().unwrap().status.success());
}

#[test]
fn the_doctor_finds_libraries_on_the_loaders_path_and_refuses_another_version() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("libnvinfer.so.11"), "").unwrap();
    let mut command = karat(&["doctor", "--json"]);
    let output = command.env("LD_LIBRARY_PATH", folder.path()).output().unwrap();
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap();
    let libraries = diagnosis["libraries"].as_array().unwrap();
    let tensorrt = libraries.iter().find(|library| library["name"] == "libnvinfer.so.10").unwrap();
    assert_eq!(tensorrt["unfit"][0]["version"], "11", "{tensorrt}");
    assert_eq!(tensorrt["unfit"][0]["place"], "environment", "{tensorrt}");
}
