//! The commands that work on files: `karat score` and `karat eval`.

mod evaluation;
mod images;
mod job;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use parquet::{
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{RAW, Reply, Repository, Server, is_close, karat, until};

/// A folder for the files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, lines: &[Value]) -> PathBuf {
        let path = self.path(name);
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        fs::write(&path, text.join("\n")).unwrap();
        path
    }
}

/// Row `index` of a file of samples, and the score that the model `sum` gives it.
fn sample(index: u32) -> (Value, f64) {
    let (first, second) = (10 + index % 200, 10 + index / 200);
    let row = json!({"id": format!("row {index}"), "prompt": "", "response": format!("{first} {second}")});
    (row, f64::from(first + second) / 1000.0)
}

fn samples(count: u32) -> Vec<Value> {
    (0..count).map(|index| sample(index).0).collect()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn score(input: &Path, output: &Path, backend: &[&str]) -> Command {
    let mut command = karat(&["score", input.to_str().unwrap(), "--output", output.to_str().unwrap()]);
    command.args(["--model", "sum"]).args(backend);
    command
}

/// Runs a command beside the server of the same test.
async fn finish(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_every_row_once(path: &Path, count: u32) {
    let scored = lines(path);
    assert_eq!(scored.len(), count as usize);
    for (index, line) in (0..).zip(&scored) {
        assert_eq!(line["row"], index);
        assert!(is_close(line["reward"].as_f64().unwrap(), sample(index).1), "{line}");
    }
}

#[tokio::test]
async fn a_server_and_this_process_give_the_same_scores() {
    let repository = Repository::with_sum();
    let (server, files) = (Server::of(&repository).await, Files::new());
    let input = files.write("samples.jsonl", &samples(300));
    let (remote, local) = (files.path("remote.jsonl"), files.path("local.jsonl"));
    // The test server takes at most 64 inputs at once: larger batches are split.
    let url = server.url("");
    let flags = ["--server", &url, "--batch", "100", "--keep", "id"];
    let done = finish(score(&input, &remote, &flags)).await;
    assert!(done.status.success(), "{}", stderr(&done));
    let models = repository.path().to_str().unwrap();
    let done = finish(score(&input, &local, &["--models", models, "--keep", "id"])).await;
    assert!(done.status.success(), "{}", stderr(&done));

    assert_every_row_once(&remote, 300);
    assert_eq!(lines(&remote), lines(&local));
    let line = &lines(&local)[7];
    assert_eq!(line["id"], "row 7");
    assert_eq!(line["tokens"], 2);
    assert_eq!(line["model_version"].as_str().unwrap().len(), 16);
}

#[tokio::test]
async fn scores_go_to_standard_output_and_under_no_other_formats_name() {
    let repository = Repository::with_sum();
    let (server, files) = (Server::of(&repository).await, Files::new());
    let input = files.write("samples.jsonl", &samples(30));
    let url = server.url("");
    let done = finish(score(&input, Path::new("-"), &["--server", &url])).await;
    assert!(done.status.success(), "{}", stderr(&done));
    let printed = files.path("printed.jsonl");
    fs::write(&printed, done.stdout).unwrap();
    assert_every_row_once(&printed, 30);

    let parquet = files.path("scores.parquet");
    let refused = finish(score(&input, &parquet, &["--server", &url])).await;
    assert!(!refused.status.success() && stderr(&refused).contains("scores.jsonl"), "{}", stderr(&refused));
    assert!(!parquet.exists());
}

#[tokio::test]
async fn a_killed_run_goes_on_where_it_stopped() {
    const ROWS: u32 = 4000;
    let repository = Repository::with_sum();
    let (server, files) = (Server::of(&repository).await, Files::new());
    let (input, output) = (files.write("samples.jsonl", &samples(ROWS)), files.path("scores.jsonl"));
    let url = server.url("");
    let flags = ["--server", &url, "--batch", "2", "--in-flight", "2"];
    for enough in [40, 200] {
        let mut run = score(&input, &output, &flags).stderr(Stdio::null()).spawn().unwrap();
        let written = || fs::read(&output).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
        until("some rows are scored", || written() >= enough).await;
        run.kill().unwrap();
        run.wait().unwrap();
        assert!(written() < ROWS as usize, "the run was over before it was killed");
        // What a write that was cut in two would leave.
        let mut torn = fs::read(&output).unwrap();
        torn.extend_from_slice(b"{\"row\":9");
        fs::write(&output, torn).unwrap();
    }
    let done = finish(score(&input, &output, &flags)).await;
    assert!(done.status.success(), "{}", stderr(&done));
    assert_every_row_once(&output, ROWS);
    // Only what was on its way when a run was killed is asked for again.
    let asked = |name: &str| server.metric(&format!("karat_cache_{name}_total{{model=\"sum\"}}"));
    let asked = asked("hits") + asked("misses");
    assert!((u64::from(ROWS)..=u64::from(ROWS) + 2 * 2 * 4).contains(&asked), "{asked}");

    // A run that is complete asks nothing more.
    let before = fs::read(&output).unwrap();
    assert!(finish(score(&input, &output, &flags)).await.status.success());
    assert_eq!(fs::read(&output).unwrap(), before);
}

#[test]
fn an_output_of_something_else_is_left_alone() {
    let (repository, files) = (Repository::with_sum(), Files::new());
    let models = repository.path().to_str().unwrap();
    let (input, output) = (files.write("samples.jsonl", &samples(5)), files.path("scores.jsonl"));
    let run = |input: &Path, flags: &[&str]| {
        let done = score(input, &output, &[&["--models", models], flags].concat()).output().unwrap();
        (done.status.success(), stderr(&done))
    };
    assert!(run(&input, &[]).0);
    let before = fs::read(&output).unwrap();
    let mut other = samples(5);
    other[3]["response"] = json!("99");
    for (input, flags, needle) in [
        (&files.write("other.jsonl", &other), vec![], "line 4"),
        (&files.write("shorter.jsonl", &other[..2]), vec![], "the input has no row 2"),
        (&input, vec!["--aggregate", "worst_case"], "line 1"),
    ] {
        let (success, told) = run(input, &flags);
        assert!(!success && told.contains(needle) && told.contains("choose another --output"), "{told}");
        assert_eq!(fs::read(&output).unwrap(), before);
    }
}

#[test]
fn bad_rows_are_told_by_line_and_skipped_only_when_asked() {
    let (repository, files) = (Repository::with_sum(), Files::new());
    let models = repository.path().to_str().unwrap();
    let mut rows: Vec<String> = samples(8).iter().map(ToString::to_string).collect();
    rows[2] = "{\"prompt\": \"\"".to_owned();
    rows[4] = json!({"prompt": "", "response": "11 ".repeat(65)}).to_string();
    rows[5] = json!({"prompt": "", "response": " "}).to_string();
    let (input, output) = (files.path("samples.jsonl"), files.path("scores.jsonl"));
    fs::write(&input, rows.join("\n")).unwrap();

    let stopped = score(&input, &output, &["--models", models]).output().unwrap();
    assert_eq!(stopped.status.code(), Some(1));
    let told = stderr(&stopped);
    assert!(told.contains("line 3: is no JSON object") && told.contains("--skip-bad-rows"), "{told}");
    assert_eq!(lines(&output).len(), 2, "what comes before the bad row is kept");

    let done = score(&input, &output, &["--models", models, "--skip-bad-rows"]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    for needle in ["line 3: ", "line 5: ", "at most 64", "line 6: ", "3 bad rows were skipped"] {
        assert!(stderr(&done).contains(needle), "{needle}: {}", stderr(&done));
    }
    let scored = lines(&output);
    assert_eq!(scored.len(), 8);
    for (index, line) in (0..).zip(&scored) {
        assert_eq!(line["row"], index);
        assert_eq!(line.get("error").is_some(), [2, 4, 5].contains(&index), "{line}");
        assert_eq!(line.get("reward").is_some(), ![2, 4, 5].contains(&index), "{line}");
    }
}

#[test]
fn a_wrong_rule_or_a_missing_server_is_no_bad_row() {
    let (repository, files) = (Repository::with_sum(), Files::new());
    let models = repository.path().to_str().unwrap();
    let (input, output) = (files.write("samples.jsonl", &samples(2)), files.path("scores.jsonl"));
    for (flags, needle) in [
        (vec!["--models", models, "--aggregate", "median_of_three"], "median_of_three"),
        (vec!["--models", models, "--truncation", "somewhere"], "prompt_start"),
        (vec!["--server", "http://127.0.0.1:9"], "check --server"),
        (vec!["--models", "/nowhere"], "/nowhere"),
    ] {
        let done = score(&input, &output, &[&["--skip-bad-rows"], &flags[..]].concat()).output().unwrap();
        assert!(!done.status.success() && stderr(&done).contains(needle), "{flags:?}: {}", stderr(&done));
        assert_eq!(lines(&output).len(), 0, "{flags:?}");
    }
}

#[test]
fn rows_come_from_parquet_too() {
    let (repository, files) = (Repository::with_sum(), Files::new());
    let (input, output) = (files.path("samples.parquet"), files.path("scores.jsonl"));
    let schema = "message samples { required binary question (STRING); required binary answer (STRING); }";
    let properties = Arc::new(WriterProperties::builder().build());
    let file = File::create(&input).unwrap();
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(parse_message_type(schema).unwrap()), properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in [[String::new(), String::new()], ["10 11".to_owned(), "12".to_owned()]] {
        let values: Vec<ByteArray> = column.iter().map(|text| text.as_str().into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();

    let models = repository.path().to_str().unwrap();
    let flags = ["--models", models, "--prompt", "question", "--response", "answer"];
    let done = score(&input, &output, &flags).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let rewards: Vec<f64> = lines(&output).iter().map(|line| line["reward"].as_f64().unwrap()).collect();
    assert!(is_close(rewards[0], 0.021) && is_close(rewards[1], 0.012), "{rewards:?}");
}
